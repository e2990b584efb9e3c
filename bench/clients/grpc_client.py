"""gRPC calls, the messages made before: the client only hands bytes to the library, and keeps what it gives back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import uvloop
from google.api import httpbody_pb2

from bench.files import File

PIECE_BYTES = 256 * 1024
_TIMEOUT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its files, and the message whose fields travel with the first piece of the first of them."""

    files: tuple[File, ...]
    first: Any

    def messages(self) -> list[bytes]:
        """The call's messages, as they go onto the wire. Where there is more than one file, each says where it ends."""
        kind, made = type(self.first), []
        message = self.first
        for file in self.files:
            pieces = list(file.pieces(PIECE_BYTES))
            for number, piece in enumerate(pieces):
                message = message or kind()
                message.file.CopyFrom(httpbody_pb2.HttpBody(data=piece))
                if len(self.files) > 1 and number == len(pieces) - 1:
                    message.end_of_file = True
                made.append(message.SerializeToString())
                message = None
        return made


@dataclass(frozen=True, slots=True)
class GrpcLoad:
    """Calls of one method, so many at a time, over so many connections."""

    target: str
    method: str
    calls: tuple[Call, ...]
    token: str
    at_once: int
    connections: int = 1
    answers_stream: bool = False

    def prepare(self) -> Callable[[], Sequence[Sequence[bytes]]]:
        """Makes the messages."""
        calls = [call.messages() for call in self.calls]
        return lambda: uvloop.run(self._send_all(calls))

    async def _send_all(self, calls: Sequence[Sequence[bytes]]) -> Sequence[Sequence[bytes]]:
        answers: list[Sequence[bytes]] = [()] * len(calls)
        waiting = iter(range(len(calls)))
        metadata = (("authorization", f"Bearer {self.token}"),)
        channels = [grpc.aio.insecure_channel(self.target, options=_OPTIONS) for _ in range(self.connections)]
        open_ = "stream_stream" if self.answers_stream else "stream_unary"
        methods = [getattr(channel, open_)(self.method) for channel in channels]

        async def work(method: Any) -> None:
            for number in waiting:
                call = method(_each(calls[number]), metadata=metadata, timeout=_TIMEOUT_SECONDS)
                answers[number] = [one async for one in call] if self.answers_stream else [await call]

        try:
            await asyncio.gather(*(work(methods[number % len(methods)]) for number in range(self.at_once)))
        finally:
            for channel in channels:
                await channel.close()
        return answers


_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))


async def _each(messages: Sequence[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message
