"""The request stream of a call, read by a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import DecodeError

from service_runtime.errors import Reason, ServiceError

_BEGINNING_BYTES = 1024 * 1024


class Requests:
    """The messages of a request stream, for one reader at a time. A wait for one may be cancelled with none lost, save
    for the first one, without which there is no call; and the rest can be read out when nobody wants it any more.

    The next message is read while the last is worked on; but not so the first ones, for a call that needs no more of a
    file than its beginning is to take in no more.
    """

    def __init__(self, messages: AsyncIterator[bytes], parse: Callable[[bytes], Any], *, idle_seconds: float) -> None:
        """`parse` makes a message of its bytes; it raises DecodeError. `idle_seconds` is the longest wait for one."""
        self._messages = messages
        self._parse = parse
        self._idle_seconds = idle_seconds
        # Whether nothing came for so long.
        self.has_stalled = False
        self._given_up = False
        self._read: deque[bytes] = deque()
        self._taken = 0
        self._taken_bytes = 0
        # How many messages may be read, all in all.
        self._wanted = 0
        self._reading: asyncio.Task[None] | None = None
        self._more_wanted = asyncio.Event()
        self._news = asyncio.Event()

    def __aiter__(self) -> Requests:
        return self

    async def __anext__(self) -> Any:
        """The next message. Raises INVALID_FIELD for bytes that are none, UPLOAD_STALLED when it takes too long."""
        try:
            data = await self._next(self._idle_seconds)
        except TimeoutError as error:
            self.has_stalled = True
            raise ServiceError(
                Reason.UPLOAD_STALLED,
                f"No byte of the request came for {self._idle_seconds:g} seconds. Send it again.",
                metadata={"limit": "UPLOAD_IDLE_SECONDS", "limit_seconds": f"{self._idle_seconds:g}"},
            ) from error
        return parsed(data, self._parse)

    async def drain(self, *, max_bytes: int, idle_seconds: float) -> None:
        """Reads and forgets the rest: at most so many bytes, and until none comes for so long."""
        size = 0
        with contextlib.suppress(StopAsyncIteration, TimeoutError):
            while size <= max_bytes:
                size += len(await self._next(idle_seconds, may_lose=True))

    def close(self) -> None:
        """Reads no more."""
        if self._reading is not None and not self._reading.cancel() and not self._reading.cancelled():
            self._reading.exception()  # looked at, so that it does not count as unnoticed

    async def _next(self, idle_seconds: float, *, may_lose: bool = False) -> bytes:
        """The next message; `may_lose` where one that comes after the wait was given up is not missed."""
        if self._reading is None and (may_lose or not self._taken):
            # Which spares the task, and its time.
            return self._took(await self._read_alone(idle_seconds))
        self._wanted = self._taken + (2 if self._taken_bytes > _BEGINNING_BYTES else 1)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_ahead())
        self._more_wanted.set()
        if not self._read:
            async with asyncio.timeout(idle_seconds):
                await self._read_or_over(self._reading)
        return self._took(self._read.popleft())

    async def _read_alone(self, idle_seconds: float) -> bytes:
        if self._given_up:
            # grpc's stream is over once a wait for it was cancelled: it must not pass for one that ended as it should.
            raise RuntimeError("the stream was given up")
        try:
            async with asyncio.timeout(idle_seconds):
                return await anext(self._messages)
        except (TimeoutError, asyncio.CancelledError):
            self._given_up = True
            raise

    def _took(self, message: bytes) -> bytes:
        self._taken += 1
        self._taken_bytes += len(message)
        return message

    async def _read_or_over(self, reading: asyncio.Task[None]) -> None:
        """Waits for a message to have been read. Raises StopAsyncIteration at the end, and what ended the stream."""
        while not self._read:
            if reading.done():
                reading.result()
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()

    async def _read_ahead(self) -> None:
        count = self._taken
        try:
            async for message in self._messages:
                self._read.append(message)
                self._news.set()
                count += 1
                while count >= self._wanted:
                    self._more_wanted.clear()
                    await self._more_wanted.wait()
        finally:
            # Once this task is done, which is when it says how it ended.
            asyncio.get_running_loop().call_soon(self._news.set)


def parsed(data: bytes, parse: Callable[[bytes], Any]) -> Any:
    """The message. Raises INVALID_FIELD for bytes that are none."""
    try:
        return parse(data)
    except DecodeError as error:
        raise ServiceError(
            Reason.INVALID_FIELD, "The bytes are no message of this method. Send what the protos describe."
        ) from error
