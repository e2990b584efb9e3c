"""What is held of the DICOMDIRs of an archive, and of those that wait for their turn."""

import asyncio
from collections.abc import AsyncGenerator

from pacs_gateway.domain.media import DirectoryReport
from pacs_gateway.use_cases.media import DirectoryReader, Medium
from pacs_gateway.use_cases.streams import Keeping
from service_runtime.errors import Reason, ServiceError
from tests.unit.pacs_gateway.fakes import FakeTagService, chunks_of, refused

MIB = 1024 * 1024


def reason(report: DirectoryReport | ServiceError) -> str:
    """What is wrong with reading the DICOMDIR."""
    return report.reason if isinstance(report, ServiceError) else ""


async def test_the_dicomdirs_of_an_archive_are_bounded_together() -> None:
    """Bytes and records count over all DICOMDIRs of an archive, and a further archive begins anew."""
    reader = DirectoryReader(FakeTagService(), Keeping(16 * MIB))
    medium = Medium(reader)
    line = b"A/B/C 1.2.3\n"
    for size in (10_000, 9_000, 2_000):
        await medium.read_directory("DICOMDIR", chunks_of(line * size, MIB))
    await medium.read_directory("DICOMDIR", chunks_of(b"\n" * (4 * MIB), MIB))
    reasons = [reason(one) for one in medium.directories()]
    assert reasons == ["", "", Reason.STRUCTURE_LIMIT, Reason.STRUCTURE_LIMIT]
    other = Medium(reader)
    await other.read_directory("DICOMDIR", chunks_of(b"\n" * (4 * MIB), MIB))
    assert [reason(one) for one in other.directories()] == [""]


async def test_what_waits_is_kept_within_the_budget() -> None:
    """A DICOMDIR that there is no room for is told to come again; what was kept of any is given back."""
    keeping = Keeping(1000)
    reader = DirectoryReader(FakeTagService(), keeping)
    with refused(Reason.OVERLOADED):
        await reader.read(chunks_of(b"\n" * 2000), max_bytes=5000)
    assert await reader.read(chunks_of(b"A 1\n" * 200), max_bytes=5000) == (
        800,
        (await FakeTagService().read_directory(chunks_of(b"A 1\n" * 200))),
    )
    keeping.take(1000)


async def test_a_slow_sender_keeps_nobody_waiting() -> None:
    """While one DICOMDIR still comes in, another is read."""
    reader = DirectoryReader(FakeTagService(), Keeping(1000))
    held = asyncio.Event()

    async def slowly() -> AsyncGenerator[bytes, None]:
        yield b"A 1\n"
        await held.wait()

    slow = asyncio.ensure_future(reader.read(slowly(), max_bytes=100))
    await asyncio.sleep(0)
    size, _ = await asyncio.wait_for(reader.read(chunks_of(b"B 2\n"), max_bytes=100), 5)
    assert size == 4
    assert not slow.done()
    held.set()
    assert (await slow)[0] == 4


async def test_one_is_read_at_a_time() -> None:
    """What DICOMDIRs are made into while they are read exists once in the process."""
    running = most = 0

    async def count() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    tag_service = FakeTagService()
    tag_service.hooks.at("read", count)
    reader = DirectoryReader(tag_service, Keeping(1000))
    await asyncio.gather(*(reader.read(chunks_of(b"A 1\n"), max_bytes=100) for _ in range(5)))
    assert most == 1
