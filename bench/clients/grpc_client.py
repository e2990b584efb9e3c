"""gRPC calls, the messages made before: the client only hands bytes to the library, and keeps what it gives back."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import uvloop

from bench.files import File

PIECE_BYTES = 256 * 1024
_TIMEOUT_SECONDS = 300
_READY_BYTES = 1024**3


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its files, in messages with pieces of so many bytes, and the message whose fields travel with the first
    piece of the first of them, or alone.
    """

    files: tuple[File, ...]
    first: Any
    piece_bytes: int = PIECE_BYTES

    def __len__(self) -> int:
        return sum(map(len, self.files))

    def messages(self) -> Iterator[bytes]:
        """The call's messages, as they go onto the wire. Where there is more than one file, each says where it ends."""
        message = type(self.first)()
        message.CopyFrom(self.first)
        if not self.files:
            yield message.SerializeToString()
        for file in self.files:
            left = len(file)
            for piece in file.pieces(self.piece_bytes):
                left -= len(piece)
                message.file.data = piece
                if len(self.files) > 1 and not left:
                    message.end_of_file = True
                yield message.SerializeToString()
                message = type(self.first)()


@dataclass(frozen=True, slots=True)
class Reply:
    """The messages that came back, and how many seconds after the call began the last one was there."""

    messages: Sequence[bytes]
    seconds: float


@dataclass(frozen=True, slots=True)
class GrpcLoad:
    """Calls of one method with one message for an answer, so many at a time, over one connection."""

    target: str
    method: str
    calls: tuple[Call, ...]
    token: str
    at_once: int

    def prepare(self) -> Callable[[], Sequence[Reply]]:
        """Makes the messages, unless they would fill the memory."""
        ready = sum(map(len, self.calls)) <= _READY_BYTES
        calls = [list(call.messages()) if ready else _Later(call) for call in self.calls]
        return lambda: uvloop.run(self._send_all(calls))

    async def _send_all(self, calls: Sequence[Iterable[bytes]]) -> Sequence[Reply]:
        replies = [Reply((), 0)] * len(calls)
        waiting = iter(range(len(calls)))
        metadata = (("authorization", f"Bearer {self.token}"),)

        async def work(method: Any) -> None:
            for number in waiting:
                began = time.perf_counter()
                answer = await method(_each(calls[number]), metadata=metadata, timeout=_TIMEOUT_SECONDS)
                replies[number] = Reply((answer,), time.perf_counter() - began)

        async with grpc.aio.insecure_channel(self.target, options=_OPTIONS) as channel:
            await asyncio.gather(*(work(channel.stream_unary(self.method)) for _ in range(self.at_once)))
        return replies


_OPTIONS = (("grpc.max_receive_message_length", -1),)


@dataclass(frozen=True, slots=True)
class _Later:
    call: Call

    def __iter__(self) -> Iterator[bytes]:
        return self.call.messages()


async def _each(messages: Iterable[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message
