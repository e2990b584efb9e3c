"""How many calls Orthanc is asked to answer at once, and how many may wait for that: no more than can end in time."""

import asyncio
from types import TracebackType
from typing import Final

from service_runtime.errors import Reason, ServiceError

_RETRY_SECONDS: Final = 5


class Places:
    """So many places, and so many that wait for one, first come, first served.

    An async context manager, which any number enter: each has a place as long as its context lasts.
    """

    def __init__(self, places: int, *, waiting: int, seconds: float | None = None) -> None:
        """At most `waiting` wait, each for `seconds` at most; None leaves that to the caller's own deadline."""
        self._free = asyncio.Semaphore(places)
        self._max_waiting = waiting
        self._seconds = seconds
        self._waiting = 0

    def expect_room(self) -> None:
        """Raises OVERLOADED where there is not even room to wait."""
        if self._free.locked() and self._waiting >= self._max_waiting:
            raise _overloaded()

    async def __aenter__(self) -> None:
        """Takes a place. Raises OVERLOADED where there is none in time."""
        if not self._free.locked():
            # Without the deadline of those that wait: this one does not.
            await self._free.acquire()
            return
        self.expect_room()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise _overloaded() from error
        finally:
            self._waiting -= 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the place back."""
        self._free.release()


def _overloaded() -> ServiceError:
    return ServiceError(
        Reason.OVERLOADED,
        "Orthanc has as much to do as the gateway asks of it at once. Retry.",
        metadata={"limit": "MAX_ORTHANC_CONNECTIONS"},
        retry_after=_RETRY_SECONDS,
    )
