"""The way of a file's bytes through an upload: looked into at the front, read once to the end, measured on the way."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from pacs_gateway.domain.study import Fingerprint

T = TypeVar("T")


class Replayable:
    """Chunks whose beginning can be read twice: first by who wants to know what it is, then by who wants all of it.

    What the first reader took is kept until the second one gets it. tag_service answers once it has seen the header,
    and limits the size of headers, so that is little. The first reader may leave, or be cancelled, while it waits for a
    chunk: that chunk is the second one's then. To be closed, with `aclose`.
    """

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._source = aiter(chunks)
        self._kept: list[bytes] = []
        self._coming: asyncio.Task[bytes | None] | None = None

    async def beginning(self) -> AsyncGenerator[bytes, None]:
        """The chunks, as far as the reader goes."""
        while (chunk := await self._next()) is not None:
            self._kept.append(chunk)
            yield chunk

    async def whole(self) -> AsyncGenerator[bytes, None]:
        """The chunks from the first to the last."""
        self._kept.reverse()
        while self._kept:
            yield self._kept.pop()
        while (chunk := await self._next()) is not None:
            yield chunk

    async def aclose(self) -> None:
        """Asks the source for nothing any more. The source itself is not closed."""
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


class Measured:
    """Chunks whose size and MD5 are known once they have passed. MD5, for it is what Orthanc computes.

    `complete` says that the last one has passed.
    """

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self.complete = False
        self._chunks = chunks
        self._size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The chunks, once."""
        async for chunk in self._chunks:
            self._size += len(chunk)
            self._md5.update(chunk)
            yield chunk
        self.complete = True

    @property
    def fingerprint(self) -> Fingerprint:
        """Size and MD5 of what has passed."""
        return Fingerprint(self._size, self._md5.hexdigest())


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
