"""The body of a store: sent again from its start where that is possible, never cut short."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from pacs_gateway.adapters.orthanc_body import BrokenOffError, ReplayableBody
from service_runtime.errors import Reason, ServiceError


async def _source(*chunks: bytes, failure: BaseException | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk
    if failure is not None:
        raise failure


async def _all(body: ReplayableBody) -> bytes:
    return b"".join([chunk async for chunk in body.send()])


async def test_the_body_is_what_the_source_gives() -> None:
    """All chunks come in order; empty ones, which would end a chunked body, are left out."""
    async with ReplayableBody(_source(b"a", b"", b"bc", b"")) as body:
        assert [chunk async for chunk in body.send()] == [b"a", b"bc"]


async def test_an_empty_source_is_an_empty_body() -> None:
    """No chunk at all is a body that ends."""
    async with ReplayableBody(_source()) as body:
        assert await _all(body) == b""


async def test_a_body_cancelled_in_mid_chunk_is_whole_the_second_time() -> None:
    """The HTTP client cancels the sender while the source is waited for; the next one still sends every byte."""
    gate = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield b"first"
        await gate.wait()
        yield b"second"

    async with ReplayableBody(source()) as body:
        sender = asyncio.create_task(_all(body))
        await asyncio.sleep(0.01)
        sender.cancel()
        await asyncio.wait([sender])
        assert body.rewind()
        again = asyncio.create_task(_all(body))
        await asyncio.sleep(0)
        gate.set()
        assert await again == b"firstsecond"


async def test_a_sender_left_over_takes_nothing_from_the_next_one() -> None:
    """A first sender that was not cancelled yet breaks off when a second one has begun."""
    gate = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield b"first"
        await gate.wait()
        yield b"second"

    async with ReplayableBody(source()) as body:
        left_over = asyncio.create_task(_all(body))
        await asyncio.sleep(0.01)
        again = asyncio.create_task(_all(body))
        await asyncio.sleep(0.01)
        gate.set()
        assert await again == b"firstsecond"
        with pytest.raises(BrokenOffError):
            await left_over


async def test_a_body_can_be_sent_again_up_to_a_mebibyte() -> None:
    """At the limit it can be rewound, one byte over it cannot: no more than that is kept."""
    async with ReplayableBody(_source(b"x" * 1024 * 1024)) as body:
        await _all(body)
        assert body.rewind()
        assert len(await _all(body)) == 1024 * 1024
    async with ReplayableBody(_source(b"x" * 1024 * 1024, b"y")) as body:
        await _all(body)
        assert not body.rewind()


@pytest.mark.parametrize(
    "failure", [ServiceError(Reason.TRUNCATED_FILE, "x"), RuntimeError(), asyncio.CancelledError()]
)
async def test_a_source_that_fails_never_looks_like_one_that_ends(failure: BaseException) -> None:
    """The body breaks off, what broke it is known, and it cannot be sent again."""
    async with ReplayableBody(_source(b"a", failure=failure)) as body:
        with pytest.raises(BrokenOffError):
            await _all(body)
        assert body.failure is failure
        assert not body.rewind()


async def test_the_source_is_read_one_chunk_ahead_and_no_further() -> None:
    """A slow Orthanc slows the source down: nothing piles up."""
    asked = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield b"chunk"

    async with ReplayableBody(source()) as body:
        sender = body.send()
        await anext(sender)
        for _ in range(20):
            await asyncio.sleep(0)
        assert asked <= 3
        await sender.aclose()


async def test_leaving_stops_the_reading_of_the_source() -> None:
    """Once the store is over, however it ended, nothing reads the source any more."""
    stopped = False

    async def source() -> AsyncIterator[bytes]:
        nonlocal stopped
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            stopped = True

    async with ReplayableBody(source()):
        await asyncio.sleep(0.01)
    assert stopped


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_a_zip_archive_is_refused_in_any_chunking(size: int) -> None:
    """Orthanc would unpack it and store what nobody has checked."""
    data = b"PK\x03\x04" + b"\x00" * 200
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    async with ReplayableBody(_source(*pieces)) as body:
        with pytest.raises(BrokenOffError):
            await _all(body)
        assert isinstance(body.failure, ServiceError)
        assert body.failure.reason is Reason.STORE_REFUSED
