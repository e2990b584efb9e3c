"""Room in memory for what is held of the files that are edited: so many bytes for all, given to each as it comes in."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from service_runtime.errors import Reason, ServiceError


class Room:
    """Holds `max_bytes`. A file that finds no room waits at most `wait_seconds`, and is then told to come again.

    Room is given by the byte and not by the file, so that senders who are slow, or stand still, keep others out only by
    what they have sent. Of the files that are coming in, the first one does not wait for the others: so there is one
    that comes to its end, however many there are. What is held may therefore be up to twice `max_bytes`.
    """

    def __init__(self, max_bytes: int, *, wait_seconds: float) -> None:
        self._max_bytes = max_bytes
        self._wait_seconds = wait_seconds
        # In the order in which they came.
        self._coming: dict[Share, None] = {}
        self._edited: set[Share] = set()
        self._changed = asyncio.Event()

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """What one file takes up, until the context is left."""
        share = Share(self)
        self._coming[share] = None
        try:
            yield share
        finally:
            self._coming.pop(share, None)
            self._edited.discard(share)
            self._changed.set()

    async def wait(self, share: "Share", size_bytes: int) -> None:
        """Waits until the file, which is coming in, finds room for so many bytes more. Raises OVERLOADED."""
        if self._has_room(share, size_bytes):
            return
        try:
            async with asyncio.timeout(self._wait_seconds):
                while not self._has_room(share, size_bytes):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as error:
            raise overloaded() from error

    def settle(self, share: "Share") -> None:
        """The file is edited, and its result stays until it is taken."""
        self._coming.pop(share, None)
        self._edited.add(share)
        self._changed.set()

    def _has_room(self, share: "Share", size_bytes: int) -> bool:
        others = [share] if next(iter(self._coming)) is share else self._coming
        held = sum(one.size_bytes for one in others) + sum(one.size_bytes for one in self._edited)
        return held + size_bytes <= self._max_bytes


class Share:
    """What one file takes up of the room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.size_bytes = 0

    async def resize(self, size_bytes: int) -> None:
        """Takes so many bytes instead. Raises OVERLOADED."""
        if size_bytes > self.size_bytes:
            await self._room.wait(self, size_bytes - self.size_bytes)
        self.size_bytes = size_bytes

    def settle(self) -> None:
        """The file is edited, and its result stays until it is taken."""
        self._room.settle(self)


def overloaded() -> ServiceError:
    """The error for a file that there is no room for."""
    return ServiceError(
        Reason.OVERLOADED,
        "As many files are being edited as the service holds in memory. Retry.",
        metadata={"limit": "MAX_FILES_IN_MEMORY"},
        retry_after=5,
    )
