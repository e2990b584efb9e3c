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
    """The messages of a request stream, for one reader at a time. A wait for one may be cancelled with none lost, and
    the rest can be read out when nobody wants it any more.

    The next message is read while the last is worked on; but not so the first ones, for a call that needs no more of a
    file than its beginning is to take in no more.
    """

    def __init__(self, messages: AsyncIterator[bytes], parse: Callable[[bytes], Any]) -> None:
        """`parse` makes a message of its bytes; it raises DecodeError."""
        self._messages = messages
        self._parse = parse
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
        """The next message. Raises INVALID_FIELD for bytes that are none."""
        return parsed(await self._next(), self._parse)

    async def drain(self, *, max_bytes: int, idle_seconds: float) -> None:
        """Reads and forgets the rest: at most so many bytes, and until none comes for so long."""
        size = 0
        with contextlib.suppress(StopAsyncIteration, TimeoutError):
            while size <= max_bytes:
                async with asyncio.timeout(idle_seconds):
                    size += len(await self._next())

    def close(self) -> None:
        """Reads no more."""
        if self._reading is not None and not self._reading.cancel() and not self._reading.cancelled():
            self._reading.exception()  # looked at, so that it does not count as unnoticed

    async def _next(self) -> bytes:
        self._wanted = self._taken + (2 if self._taken_bytes > _BEGINNING_BYTES else 1)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_ahead())
        self._more_wanted.set()
        while not self._read:
            if self._reading.done():
                self._reading.result()
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        message = self._read.popleft()
        self._taken += 1
        self._taken_bytes += len(message)
        return message

    async def _read_ahead(self) -> None:
        count = 0
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
