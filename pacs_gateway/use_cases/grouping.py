"""Doing at once what many callers ask for at the same moment, while each waits for its own result.

While one group is under way, the next one gathers: a caller alone waits for nobody, and many at once share one
transaction. So no time is spent on waiting for company.
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


class Grouping(Generic[ItemT, ResultT]):
    """Hands groups of items to `do_all`, one after the other, which does all of a group or raises, in the order they
    came.
    """

    def __init__(
        self,
        do_all: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT]]],
        *,
        group: int = _GROUP,
        waiting: int = _WAITING,
    ) -> None:
        """At most `group` items make a group, and at most `waiting` items wait for theirs."""
        self._do_all = do_all
        self._group = group
        self._max_waiting = waiting
        self._waiting: deque[tuple[ItemT, asyncio.Future[ResultT]]] = deque()
        self._doing: asyncio.Task[None] | None = None

    async def do(self, item: ItemT) -> ResultT:
        """Has the item done; what `do_all` returns for it. Raises what that raises, and OVERLOADED.

        A caller that is cancelled takes an item back that is not on its way yet; whether one that is gets done is
        unknown.
        """
        if len(self._waiting) >= self._max_waiting:
            raise ServiceError(
                Reason.OVERLOADED, "More is waiting for the database than may. Retry.", retry_after=_RETRY_SECONDS
            )
        future: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._doing is None:
            self._doing = asyncio.create_task(self._do_groups())
        return await future

    async def close(self) -> None:
        """Waits until nothing is waiting."""
        while self._doing is not None:
            await asyncio.wait([self._doing])

    async def _do_groups(self) -> None:
        try:
            while self._waiting:
                await self._do_group(self._next_group())
        finally:
            self._doing = None

    def _next_group(self) -> list[tuple[ItemT, asyncio.Future[ResultT]]]:
        group: list[tuple[ItemT, asyncio.Future[ResultT]]] = []
        while self._waiting and len(group) < self._group:
            item, future = self._waiting.popleft()
            if not future.done():
                group.append((item, future))
        return group

    async def _do_group(self, group: list[tuple[ItemT, asyncio.Future[ResultT]]]) -> None:
        """Does a group. One that fails for a defect is done item by item, so that a bad one fails alone."""
        if not group:
            return
        try:
            results = await self._do_all([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - the callers raise it again
            if len(group) > 1 and not isinstance(error, ServiceError):
                for one in group:
                    await self._do_group([one])
                return
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(group, results, strict=True):
            if not future.done():
                future.set_result(result)
