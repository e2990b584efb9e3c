"""Writing what many callers have to write in one transaction, while each waits for its own to last.

While one group is on its way to the disk, the next one gathers: a caller alone waits for nobody, and many at once share
one transaction. So no time is spent on waiting for company.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from service_runtime.errors import Reason, ServiceError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_GROUP: Final = 200
_WAITING: Final = 2000
_RETRY_SECONDS: Final = 5


class GroupWriter(Generic[ItemT, ResultT]):
    """Hands groups of items to `write_all`, which makes all of a group last or raises, in the order they came."""

    def __init__(
        self,
        write_all: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT]]],
        *,
        group: int = _GROUP,
        waiting: int = _WAITING,
    ) -> None:
        """At most `group` items make a group, and at most `waiting` items wait for theirs."""
        self._write_all = write_all
        self._group = group
        self._max_waiting = waiting
        self._waiting: deque[tuple[ItemT, asyncio.Future[ResultT]]] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def write(self, item: ItemT) -> ResultT:
        """Makes the item last; what `write_all` returns for it. Raises what that raises, and OVERLOADED.

        A caller that is cancelled takes an item back that is not on its way yet; whether one that is lasts is unknown.
        """
        if len(self._waiting) >= self._max_waiting:
            raise ServiceError(
                Reason.OVERLOADED, "More is waiting to be written than may. Retry.", retry_after=_RETRY_SECONDS
            )
        future: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_groups())
        return await future

    async def close(self) -> None:
        """Waits until nothing is waiting."""
        while self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write_groups(self) -> None:
        try:
            while self._waiting:
                await self._write_group(self._next_group())
        finally:
            self._writing = None

    def _next_group(self) -> list[tuple[ItemT, asyncio.Future[ResultT]]]:
        group: list[tuple[ItemT, asyncio.Future[ResultT]]] = []
        while self._waiting and len(group) < self._group:
            item, future = self._waiting.popleft()
            if not future.done():
                group.append((item, future))
        return group

    async def _write_group(self, group: list[tuple[ItemT, asyncio.Future[ResultT]]]) -> None:
        """Writes a group. One that fails for a defect is written item by item, so that a bad one fails alone."""
        if not group:
            return
        try:
            results = await self._write_all([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - the callers raise it again
            if len(group) > 1 and not isinstance(error, ServiceError):
                for one in group:
                    await self._write_group([one])
                return
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(group, results, strict=True):
            if not future.done():
                future.set_result(result)
