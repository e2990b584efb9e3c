"""Many callers who write at the same moment, in few groups."""

import asyncio
from collections.abc import Sequence

import pytest

from pacs_gateway.use_cases.grouping import Grouping
from service_runtime.errors import Reason, ServiceError


class Disk:
    """Keeps the groups that it is given; `go_on` lets them through."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.go_on = asyncio.Event()
        self.errors: dict[int, Exception] = {}

    async def write_all(self, items: Sequence[int]) -> Sequence[int]:
        """Keeps all of a group, or raises the error of one of them."""
        await self.go_on.wait()
        for item in items:
            if item in self.errors:
                raise self.errors[item]
        self.groups.append(list(items))
        return [10 * item for item in items]


@pytest.fixture
def disk() -> Disk:
    """A disk that waits."""
    return Disk()


async def test_what_comes_while_a_group_is_written_makes_the_next_one(disk: Disk) -> None:
    """The first goes alone, the others together, in their order, and each is told its own result."""
    writer = Grouping(disk.write_all)
    tasks = [asyncio.create_task(writer.do(item)) for item in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(writer.do(5)))
    await asyncio.sleep(0)
    disk.go_on.set()
    assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40, 50]
    assert [item for group in disk.groups for item in group] == [0, 1, 2, 3, 4, 5]
    assert len(disk.groups) == 2


async def test_a_group_is_only_so_large(disk: Disk) -> None:
    """More than a group may hold is written in several."""
    writer = Grouping(disk.write_all, group=3)
    disk.go_on.set()
    await asyncio.gather(*(writer.do(item) for item in range(10)))
    assert max(map(len, disk.groups)) == 3


async def test_no_more_wait_than_may(disk: Disk) -> None:
    """Past the bound a caller is told to come again, and the others are written."""
    writer = Grouping(disk.write_all, group=1, waiting=2)
    tasks = [asyncio.create_task(writer.do(0))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(writer.do(item)) for item in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(ServiceError) as refused:
        await writer.do(3)
    assert refused.value.reason is Reason.OVERLOADED
    disk.go_on.set()
    assert await asyncio.gather(*tasks) == [0, 10, 20]


async def test_an_error_of_the_database_is_every_callers(disk: Disk) -> None:
    """A group that could not be written is told to all who are in it, and the next one is written."""
    writer = Grouping(disk.write_all)
    disk.errors[1] = ServiceError(Reason.DATABASE_UNAVAILABLE, "away")
    disk.go_on.set()
    outcomes = await asyncio.gather(*(writer.do(item) for item in range(3)), return_exceptions=True)
    assert outcomes == [disk.errors[1]] * 3
    assert await writer.do(7) == 70


async def test_a_defect_is_its_own_callers_alone(disk: Disk) -> None:
    """Where one item cannot be written, the others of its group are."""
    writer = Grouping(disk.write_all)
    disk.errors[1] = LookupError()
    disk.go_on.set()
    outcomes = await asyncio.gather(*(writer.do(item) for item in range(3)), return_exceptions=True)
    assert outcomes == [0, disk.errors[1], 20]


async def test_a_caller_who_leaves_takes_what_waits_along(disk: Disk) -> None:
    """What is not on its way yet is not written when its caller is cancelled; what is, is, and nobody is held up."""
    writer = Grouping(disk.write_all, group=1)
    tasks = [asyncio.create_task(writer.do(item)) for item in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[1].cancel()
    await asyncio.sleep(0)
    disk.go_on.set()
    assert await tasks[2] == 20
    assert disk.groups == [[0], [2]]


async def test_closing_waits_for_what_is_waiting(disk: Disk) -> None:
    """Nothing that was to be written is left when the writer is closed."""
    writer = Grouping(disk.write_all)
    task = asyncio.create_task(writer.do(1))
    await asyncio.sleep(0)
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0)
    assert not closing.done()
    disk.go_on.set()
    await closing
    assert await task == 10
