"""The way of a file's bytes through an upload."""

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import AsyncGenerator, AsyncIterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pacs_gateway.domain.ledger import Content
from pacs_gateway.use_cases.streams import Digests, Incoming, Keeping, Outgoing, Replayable, to_the_end
from service_runtime.errors import Reason, ServiceError
from tests.unit.pacs_gateway.fakes import chunks_of

CONTENT = bytes(range(256)) * 4


def replayable(chunks: AsyncIterable[bytes], *, max_bytes: int = 1_000_000) -> Replayable:
    """The chunks, with room enough to keep them."""
    return Replayable(chunks, Keeping(max_bytes))


async def joined(chunks: AsyncIterable[bytes]) -> bytes:
    """All the chunks, in one."""
    return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("size", [1, 7, 256, 5000])
@pytest.mark.parametrize("taken", [0, 1, 3, 10_000])
async def test_the_whole_is_what_came_however_much_was_looked_at(size: int, taken: int) -> None:
    """The second reader gets every byte once and in order, from wherever the first one left."""
    source = replayable(chunks_of(CONTENT, size))
    looked_at = b""
    beginning = source.beginning()
    for _ in range(taken):
        chunk = await anext(beginning, None)
        if chunk is None:
            break
        looked_at += chunk
    await beginning.aclose()
    assert CONTENT.startswith(looked_at)
    assert await joined(source.whole()) == CONTENT


async def test_the_beginning_reads_no_further_than_its_reader() -> None:
    """Looking at the front of a file does not pull in the rest of it."""
    read = 0

    async def counted() -> AsyncGenerator[bytes, None]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield b"x"

    beginning = replayable(counted()).beginning()
    await anext(beginning)
    await anext(beginning)
    assert read == 2


async def test_what_was_looked_at_is_let_go_once_it_is_read() -> None:
    """The kept front of a file is not kept beyond its second reading."""
    source = replayable(chunks_of(CONTENT, 100))
    await joined(source.beginning())
    whole = source.whole()
    for _ in range(5):
        await anext(whole)
    assert sum(map(len, source._kept)) == len(CONTENT) - 500


@pytest.mark.parametrize("looking", [True, False])
async def test_a_source_that_breaks_off_breaks_its_readers(looking: bool) -> None:  # noqa: FBT001 - a parameter
    """An error of the source never passes for the end of the file."""

    async def breaking() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise ConnectionError

    source = replayable(breaking())
    with pytest.raises(ConnectionError):
        await joined(source.beginning() if looking else source.whole())


class Slow:
    """A source that gives its next chunk when it is let; a reader that cancels it ends it."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """The chunks that were put, until an empty one."""
        while True:
            self.asked.release()
            chunk = await self.chunks.get()
            if not chunk:
                return
            yield chunk


@pytest.mark.parametrize("moment", ["before", "at the same moment", "after"])
async def test_a_chunk_whose_first_reader_left_is_the_second_ones(moment: str) -> None:
    """A reader that is cancelled while it waits takes no byte with it, whenever the byte comes."""
    slow = Slow()
    source = replayable(slow)
    slow.chunks.put_nowait(b"a")
    beginning = source.beginning()
    assert await anext(beginning) == b"a"
    waiting = asyncio.ensure_future(anext(beginning))
    for _ in range(2):
        await slow.asked.acquire()
    if moment == "before":
        slow.chunks.put_nowait(b"b")
        await asyncio.sleep(0)
    waiting.cancel()
    if moment == "at the same moment":
        slow.chunks.put_nowait(b"b")
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    for chunk in (b"", b"") if moment != "after" else (b"b", b""):
        slow.chunks.put_nowait(chunk)
    assert await joined(source.whole()) == b"ab"
    await source.aclose()


async def test_what_broke_the_source_breaks_the_second_reader_too() -> None:
    """A source that broke off under the first reader is not taken for ended by the second."""

    async def breaking() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise ConnectionError

    source = replayable(breaking())
    with pytest.raises(ConnectionError):
        await joined(source.beginning())
    with pytest.raises(ConnectionError):
        await joined(source.whole())
    await source.aclose()


async def test_a_closed_way_asks_its_source_for_nothing_more() -> None:
    """Closing ends a wait for the source, and waits for that to be over; it may be closed when nothing waits."""
    slow = Slow()
    source = replayable(slow)
    beginning = source.beginning()
    waiting = asyncio.ensure_future(anext(beginning))
    await slow.asked.acquire()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await source.aclose()
    slow.chunks.put_nowait(b"late")
    await asyncio.sleep(0)
    assert slow.chunks.qsize() == 1
    await replayable(chunks_of(CONTENT)).aclose()


async def test_what_has_come_is_known_once_it_has() -> None:
    """Size and SHA-256 of what the sender sent are those of the bytes that were read, and the bytes are unchanged."""
    incoming = Incoming(chunks_of(CONTENT, 33))
    assert await incoming.content() == Content(0, hashlib.sha256(b"").hexdigest())
    assert await joined(incoming) == CONTENT
    assert await incoming.content() == Content(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


async def test_what_is_hashed_by_a_worker_is_every_chunk_once_also_when_waits_are_cancelled() -> None:
    """Size and digests are those of all that was taken, however it was cut and however often a wait was given up."""
    content = bytes(range(256)) * 16_000
    digests = Digests(md5=True)
    for start in range(0, len(content), 200_000):
        waiting = asyncio.create_task(digests.room())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await digests.room()
        digests.take(content[start : start + 200_000])
    expected = Content(
        len(content), hashlib.sha256(content).hexdigest(), hashlib.md5(content, usedforsecurity=False).hexdigest()
    )
    assert await digests.content() == expected
    assert await digests.content() == expected


async def test_several_may_wait_for_what_is_hashed() -> None:
    """Who waits for room and who asks for the content at the same moment both get what they want."""
    digests = Digests()
    for _ in range(4):
        digests.take(bytes(500_000))
    _, content, _ = await asyncio.gather(digests.room(), digests.content(), digests.room())
    assert content == Content(2_000_000, hashlib.sha256(bytes(2_000_000)).hexdigest())


async def test_little_waits_to_be_hashed() -> None:
    """While a worker is held up, no more is taken in than a batch that it has and one that waits."""
    held = threading.Event()
    loop = asyncio.get_running_loop()
    workers = ThreadPoolExecutor(1)
    loop.set_default_executor(workers)
    busy = loop.run_in_executor(None, held.wait)
    incoming = Incoming(chunks_of(bytes(4_000_000), 100_000))
    taken = 0
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                async for chunk in incoming:
                    taken += len(chunk)
    finally:
        held.set()
        await busy
    assert 500_000 <= taken <= 1_400_000
    rest = [len(chunk) async for chunk in incoming]
    assert taken + sum(rest) == 4_000_000
    assert await incoming.content() == Content(4_000_000, hashlib.sha256(bytes(4_000_000)).hexdigest())


class Gates:
    """What an outgoing file asks before its beginning and its end; `told` lists it, in order."""

    def __init__(self, refusing: Exception | None = None) -> None:
        self.told: list[object] = []
        self._refusing = refusing

    async def first(self) -> None:
        """Before the first byte."""
        self.told.append("first")

    async def last(self, content: Content) -> None:
        """Before the end."""
        self.told.append(content)
        if self._refusing is not None:
            raise self._refusing


@pytest.mark.parametrize("length", [0, 1, 256 * 1024, 256 * 1024 + 1, 1_000_000])
@pytest.mark.parametrize("size", [1000, 256 * 1024, 2_000_000])
async def test_the_end_of_an_outgoing_file_is_held_back_until_it_may_go(length: int, size: int) -> None:
    """Before anything goes out, and again before the end does, there is a say in it; the latter knows what was sent."""
    content = bytes(length)
    gates = Gates()
    outgoing = Outgoing(chunks_of(content, size), first=gates.first, last=gates.last)
    sent: list[bytes] = []
    async for piece in outgoing:
        assert gates.told, "nothing goes out unasked"
        if len(b"".join(sent)) + len(piece) == length:
            assert isinstance(gates.told[-1], Content), "the end goes out unasked"
        assert outgoing.complete == isinstance(gates.told[-1], Content)
        sent.append(piece)
    assert b"".join(sent) == content
    assert all(sent)
    assert outgoing.complete
    expected = Content(
        length, hashlib.sha256(content).hexdigest(), hashlib.md5(content, usedforsecurity=False).hexdigest()
    )
    assert gates.told == (["first", expected] if len(sent) > 1 else [expected])


async def test_an_outgoing_file_whose_end_may_not_go_never_ends() -> None:
    """What speaks against the end breaks the file off, short of its end."""
    gates = Gates(LookupError())
    outgoing = Outgoing(chunks_of(bytes(1_000_000), 100_000), first=gates.first, last=gates.last)
    sent: list[bytes] = []

    async def send() -> None:
        async for piece in outgoing:
            sent.append(piece)  # noqa: PERF401 - what was sent before the error counts

    with pytest.raises(LookupError):
        await send()
    assert 0 < len(b"".join(sent)) < 1_000_000
    assert not outgoing.complete


async def test_a_file_that_breaks_off_has_no_end() -> None:
    """An error of the source is raised, and nobody asked for the end."""

    async def breaking() -> AsyncGenerator[bytes, None]:
        yield bytes(300_000)
        yield bytes(300_000)
        raise ConnectionError

    gates = Gates()
    with pytest.raises(ConnectionError):
        await joined(Outgoing(breaking(), first=gates.first, last=gates.last))
    assert gates.told == ["first"]


class Work:
    """Something to be done to the end, with a result or an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.ended = False
        self._error = error

    async def __call__(self) -> str:
        """Waits to be let on."""
        self.begun.set()
        await self.go_on.wait()
        self.ended = True
        if self._error is not None:
            raise self._error
        return "done"


async def test_to_the_end_gives_the_result() -> None:
    """Without a cancellation it is just the work."""
    work = Work()
    work.go_on.set()
    assert await to_the_end(work()) == "done"


async def test_to_the_end_gives_the_error() -> None:
    """The work's own error reaches the caller."""
    work = Work(LookupError())
    work.go_on.set()
    with pytest.raises(LookupError):
        await to_the_end(work())


@pytest.mark.parametrize("error", [None, LookupError()])
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_to_the_end_waits_for_the_work_however_often_it_is_cancelled(times: int, error: Exception | None) -> None:
    """A cancelled caller goes on only once the work is over, and then as cancelled."""
    work = Work(error)
    calling = asyncio.create_task(to_the_end(work()))
    await work.begun.wait()
    for _ in range(times):
        calling.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
    assert not calling.done()
    work.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert work.ended


async def test_to_the_end_outlasts_a_deadline_of_the_caller() -> None:
    """A deadline that passes meanwhile is told after the work is over."""
    work = Work()
    asyncio.get_running_loop().call_later(0.05, work.go_on.set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await to_the_end(work())
    assert work.ended


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_to_the_end_gives_up_where_it_may(times: int) -> None:
    """Work that may be given up is cancelled with the caller, once, and is over when the caller goes on."""
    cleaned_up = False

    async def work() -> None:
        nonlocal cleaned_up
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            cleaned_up = True

    calling = asyncio.create_task(to_the_end(work(), unless=lambda: True))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for _ in range(times):
        calling.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert cleaned_up


async def test_beginnings_have_only_so_much_room_together() -> None:
    """What all readers look at is kept within one bound: past it, a file is to come again, and others still fit."""
    keeping = Keeping(1000)
    first, second = Replayable(chunks_of(b"a" * 600, 100), keeping), Replayable(chunks_of(b"b" * 600, 100), keeping)
    await joined(first.beginning())
    with pytest.raises(ServiceError) as refused:
        await joined(second.beginning())
    assert refused.value.reason is Reason.OVERLOADED
    assert refused.value.retry_after
    await second.aclose()
    assert await joined(first.whole()) == b"a" * 600
    third = Replayable(chunks_of(b"c" * 1000, 100), keeping)
    assert await joined(third.beginning()) == b"c" * 1000
    await third.aclose()
    assert await joined(Replayable(chunks_of(b"d" * 1000, 100), keeping).beginning()) == b"d" * 1000
