"""The way of a file's bytes through an upload: looked into at the front, read once to the end, measured on
the way, and its end held back until it may be stored.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from pacs_gateway.domain.ledger import Content
from service_runtime.errors import Reason, ServiceError

T = TypeVar("T")

# How much of a file on its way to the PACS is held back at a time.
_HELD_BACK_BYTES = 256 * 1024
# To hash less than this takes no longer than to have another thread do it.
_HASHED_AT_ONCE_BYTES = 32 * 1024
# How much of a file is hashed at a time, while as much more of it may come.
_HASHED_TOGETHER_BYTES = 512 * 1024

# How long the beginning of a file that broke off is looked at.
_PAUSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Whole:
    """A file that is in memory as a whole, as it goes to the PACS."""

    data: bytes
    content: Content

    @classmethod
    async def of(cls, data: bytes) -> "Whole":
        """The file with its digests."""
        digests = Digests(md5=True)
        digests.take(data)
        return cls(data, await digests.content())


class Digests:
    """Size and digests of a file whose chunks pass by: a worker hashes what came, while more comes.

    `await room()` before each chunk is asked for, then `take` it: no wait comes between a chunk and its being counted,
    so that whoever is cancelled lost none.
    """

    def __init__(self, *, md5: bool = False) -> None:
        """`md5`: that one, too, which is what Orthanc tells."""
        self._size = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._working: asyncio.Future[None] | None = None

    def take(self, chunk: bytes) -> None:
        """The next chunk."""
        self._size += len(chunk)
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk)
        if self._waiting_bytes >= _HASHED_TOGETHER_BYTES and self._working is None:
            self._work()

    async def room(self) -> None:
        """Waits until what came does not take up more than it may. May be cancelled, and called again."""
        while self._waiting_bytes >= _HASHED_TOGETHER_BYTES:
            await self._worked()
            self.end()

    def end(self) -> None:
        """Has what is left hashed, while nobody waits for it: no further chunk comes."""
        if self._working is None and self._waiting:
            self._work()

    async def content(self) -> Content:
        """What has come. MD5 is empty where it was not asked for."""
        while self._waiting or self._working is not None:
            self.end()
            await self._worked()
        return Content(self._size, self._sha256.hexdigest(), self._md5.hexdigest() if self._md5 is not None else "")

    def _work(self) -> None:
        chunks, size = self._waiting, self._waiting_bytes
        self._waiting, self._waiting_bytes = [], 0
        if size < _HASHED_AT_ONCE_BYTES:
            self._hash(chunks)
        else:
            self._working = asyncio.get_running_loop().run_in_executor(None, self._hash, chunks)

    async def _worked(self) -> None:
        if (working := self._working) is not None:
            # Its worker goes on where who waits is cancelled; and more than one may wait.
            await asyncio.wait([working])
            working.result()
            if self._working is working:
                self._working = None

    def _hash(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            self._sha256.update(chunk)
            if self._md5 is not None:
                self._md5.update(chunk)


class SenderLeftError(Exception):
    """Ends the chunks of a file whose sender went away."""


class Keeping:
    """How many bytes all beginnings together may take up while they are kept."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    def has_room(self, size_bytes: int) -> bool:
        """Whether so many bytes more may be taken up."""
        return self._held + size_bytes <= self._max_bytes

    def take(self, size_bytes: int) -> None:
        """Takes up so many bytes more. Raises OVERLOADED."""
        if not self.has_room(size_bytes):
            raise ServiceError(
                Reason.OVERLOADED,
                "The beginnings of all the files under way take up as much memory as they may. Retry.",
                metadata={"limit": "MAX_BEGINNINGS_IN_MEMORY_MB"},
                retry_after=5,
            )
        self._held += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Takes them up no more."""
        self._held -= size_bytes


class Replayable:
    """Chunks whose beginning can be read twice: first by who wants to know what it is, then by who wants all of it.

    What the first reader took is kept until the second one gets it. That is little, for tag_service answers once it
    has seen the identifiers; but a file may have any amount of bulk data before them, so `keeping` bounds it. The first
    reader may leave, or be cancelled, while it waits for a chunk: that chunk is the second one's then. To be closed,
    with `aclose`.
    """

    def __init__(self, chunks: AsyncIterable[bytes], keeping: Keeping) -> None:
        self._source = aiter(chunks)
        self._keeping = keeping
        self._kept: list[bytes] = []
        self._coming: asyncio.Task[bytes | None] | None = None

    async def hold(self, max_bytes: int) -> bytes | None:
        """All of it, where it is no longer than that and there is room to keep it; else None. What was taken in for it
        is there to be read. To be called first, and not again when it was cancelled.
        """
        size = 0
        while size <= max_bytes and self._keeping.has_room(max_bytes - size):
            chunk = await anext(self._source, None)
            if chunk is None:
                return self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)
            size += len(chunk)
            self._keeping.take(len(chunk))
            self._kept.append(chunk)
        return None

    async def breaking_off(self, error: Exception, *, after: asyncio.Event) -> AsyncGenerator[bytes, None]:
        """What was taken in, and a pause until it is known whose it is, or long enough; then the error."""
        for known in tuple(self._kept):
            yield known
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE_SECONDS):
                await after.wait()
        raise error

    async def beginning(self) -> AsyncGenerator[bytes, None]:
        """The chunks, as far as the reader goes. Raises OVERLOADED where there is no room to keep them."""
        for known in tuple(self._kept):
            yield known
        while (chunk := await self._next()) is not None:
            self._keeping.take(len(chunk))
            self._kept.append(chunk)
            yield chunk

    async def whole(self) -> AsyncGenerator[bytes, None]:
        """The chunks from the first to the last."""
        self._kept.reverse()
        while self._kept:
            chunk = self._kept.pop()
            self._keeping.give_back(len(chunk))
            yield chunk
        while (later := await self._next()) is not None:
            yield later

    async def aclose(self) -> None:
        """Asks the source for nothing any more, and keeps nothing. The source itself is not closed."""
        self._keeping.give_back(sum(map(len, self._kept)))
        self._kept.clear()
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.wait([self._coming])

    async def _next(self) -> bytes | None:
        """The next chunk, None at the end. A reader that is cancelled leaves the source's answer for the next one: a
        source that is cancelled itself would end there, and what came of it pass for the whole file.
        """
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._pull())
        chunk = await asyncio.shield(self._coming)
        self._coming = None
        return chunk

    async def _pull(self) -> bytes | None:
        return await anext(self._source, None)


class Incoming:
    """Chunks as the sender sends them, whose content (but for its MD5) is known once all have come.

    A plain object and no generator: a wait for the next chunk may be cancelled and made again.
    """

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = aiter(chunks)
        self._digests = Digests()

    def __aiter__(self) -> "Incoming":
        return self

    async def __anext__(self) -> bytes:
        await self._digests.room()
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._digests.end()
            raise
        self._digests.take(chunk)
        return chunk

    async def content(self) -> Content:
        """What has come."""
        return await self._digests.content()


class Outgoing:
    """Chunks on their way to the PACS, whose end is held back until it may go: without it, nothing can be stored.

    `first` is awaited before the first byte goes out of a file that is longer than what is held back, `last` before
    the end of any, with its content. What they raise breaks the file off. `complete` says that the end may go.
    """

    def __init__(
        self,
        chunks: AsyncIterable[bytes],
        *,
        first: Callable[[], Awaitable[None]],
        last: Callable[[Content], Awaitable[None]],
    ) -> None:
        self.complete = False
        self._chunks = chunks
        self._first = first
        self._last = last

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The chunks, once, joined to pieces of what is held back."""
        digests = Digests(md5=True)
        held: list[bytes] = []
        held_bytes, begun = 0, False
        async for chunk in self._chunks:
            await digests.room()
            digests.take(chunk)
            if held_bytes >= _HELD_BACK_BYTES:
                if not begun:
                    await self._first()
                    begun = True
                yield b"".join(held)
                held.clear()
                held_bytes = 0
            held.append(chunk)
            held_bytes += len(chunk)
        await self._last(await digests.content())
        self.complete = True
        if held_bytes:
            yield b"".join(held)


async def to_the_end(work: Coroutine[Any, Any, T], *, unless: Callable[[], bool] = lambda: False) -> T:
    """Runs `work`, which must bound its own time, to its end even when the caller is cancelled meanwhile, also twice.

    Where `unless` holds at the first cancellation, the work is cancelled, too, and waited for. The caller's own goes on
    afterwards.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    finally:
        if not task.done() and unless():
            task.cancel()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at, so that it is not reported as forgotten where the caller was cancelled
