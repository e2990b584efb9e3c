"""The request stream of a call."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from google.protobuf.message import DecodeError

from service_runtime.errors import Reason, ServiceError
from service_runtime.requests import Requests


class Stream:
    """Messages that come when the test says so; counts how many were taken."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
        self.taken = 0

    def bring(self, *messages: bytes | BaseException | None) -> None:
        """Brings messages, an error, or the end (None)."""
        for message in messages:
            self.coming.put_nowait(message)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        message = await self.coming.get()
        if isinstance(message, BaseException):
            raise message
        if message is None:
            raise StopAsyncIteration
        self.taken += 1
        return message


@pytest.fixture
def stream() -> Stream:
    """A stream that nothing has come of."""
    return Stream()


@pytest.fixture
async def requests(stream: Stream) -> AsyncIterator[Requests]:
    """The messages of it, as text."""
    one = Requests(stream, lambda data: data.decode(), idle_seconds=60)
    yield one
    one.close()


async def settled() -> None:
    """Lets all that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_messages_come_in_order_and_end_once_and_for_all(stream: Stream, requests: Requests) -> None:
    """All messages come, as they were sent, and the end comes as often as it is asked for."""
    stream.bring(b"a", b"b", b"c", None)
    assert [message async for message in requests] == ["a", "b", "c"]
    assert [message async for message in requests] == []


async def test_cancelled_wait_loses_no_message(stream: Stream, requests: Requests) -> None:
    """A message that comes while nobody waits any more is given to the next who asks, from the second one on."""
    stream.bring(b"a")
    await anext(requests)
    for message in (b"b", b"c"):
        waiting = asyncio.ensure_future(anext(requests))
        await settled()
        waiting.cancel()
        stream.bring(message)
        await settled()
        assert waiting.cancelled()
        assert await anext(requests) == message.decode()


async def test_stream_whose_first_message_nobody_waited_for_does_not_pass_for_one_that_ended(
    stream: Stream, requests: Requests
) -> None:
    """Where the wait for the first message was given up, to go on is a defect, and said to be one."""
    waiting = asyncio.ensure_future(anext(requests))
    await settled()
    waiting.cancel()
    await settled()
    stream.bring(b"a", None)
    with pytest.raises(RuntimeError):
        await anext(requests)


async def test_nothing_is_read_ahead_before_a_file_has_begun(
    stream: Stream, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R2: of the beginning only those messages are read that are asked for; from then on, one is read ahead."""
    monkeypatch.setattr("service_runtime.requests._BEGINNING_BYTES", 2)
    stream.bring(*[b"x"] * 10)
    for expected in (1, 2, 3, 5, 6):
        await anext(requests)
        await settled()
        assert stream.taken == expected


async def test_error_of_the_stream_comes_behind_its_messages() -> None:
    """What came before the stream broke is given first; then its error comes, and a cancellation as one."""
    for error in (RuntimeError(), asyncio.CancelledError()):
        broken = Stream()
        broken.bring(b"a", error)
        one = Requests(broken, bytes.decode, idle_seconds=60)
        assert await anext(one) == "a"
        with pytest.raises(type(error)):
            await anext(one)
        one.close()


async def test_bytes_that_are_no_message_are_a_wrong_field(stream: Stream) -> None:
    """What cannot be parsed is the caller's fault and told as such."""

    def parse(_data: bytes) -> None:
        raise DecodeError

    stream.bring(b"a")
    one = Requests(stream, parse, idle_seconds=60)
    with pytest.raises(ServiceError) as caught:
        await anext(one)
    assert caught.value.reason is Reason.INVALID_FIELD
    one.close()


@pytest.mark.parametrize("came", [1, 2])
@pytest.mark.parametrize("ends", [True, False])
async def test_draining_ends_at_the_end_the_limit_or_silence(
    stream: Stream, requests: Requests, came: int, *, ends: bool
) -> None:
    """The rest, be it read by a task already or not, is read to its end, at most so far, and only while it comes."""
    stream.bring(*[b"12345"] * (came + 4))
    for _ in range(came):
        await anext(requests)
    await requests.drain(max_bytes=9, idle_seconds=60)
    assert stream.taken <= came + 3
    if ends:
        stream.bring(None)
    await requests.drain(max_bytes=1000, idle_seconds=60 if ends else 0.05)
    assert stream.taken == came + 4


@pytest.mark.parametrize("came", [0, 1, 2])
async def test_stream_that_stalls_is_given_up(stream: Stream, came: int) -> None:
    """A stream of which nothing comes for the idle time, at its beginning or later, ends in an error that names it."""
    one = Requests(stream, bytes.decode, idle_seconds=0.02)
    stream.bring(*[b"a"] * came)
    for _ in range(came):
        await anext(one)
    with pytest.raises(ServiceError, match=r"0\.02 seconds") as caught:
        await anext(one)
    assert caught.value.reason is Reason.UPLOAD_STALLED
    assert caught.value.metadata["limit"] == "UPLOAD_IDLE_SECONDS"
    assert one.has_stalled
    one.close()


async def test_closing_gives_up_the_wait(stream: Stream) -> None:
    """Once closed, nothing more is read."""
    one = Requests(stream, bytes.decode, idle_seconds=60)
    stream.bring(b"a")
    await anext(one)
    waiting = asyncio.ensure_future(anext(one))
    await settled()
    one.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    stream.bring(b"b")
    await settled()
    assert stream.taken == 1
