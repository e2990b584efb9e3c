"""The way of a file's bytes through an upload: looked into at the front, read once to the end, measured on the way."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine
from typing import Any, TypeVar

from pacs_gateway.domain.study import Fingerprint

T = TypeVar("T")


class Replayable:
    """Chunks whose beginning can be read twice: first by who wants to know what it is, then by who wants all of it.

    What the first reader took is kept until the second one gets it. tag_service answers once it has seen the header,
    and limits the size of headers, so that is little.
    """

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._source = aiter(chunks)
        self._kept: list[bytes] = []

    async def beginning(self) -> AsyncGenerator[bytes, None]:
        """The chunks, as far as the reader goes."""
        async for chunk in self._source:
            self._kept.append(chunk)
            yield chunk

    async def whole(self) -> AsyncGenerator[bytes, None]:
        """The chunks from the first to the last."""
        self._kept.reverse()
        while self._kept:
            yield self._kept.pop()
        async for chunk in self._source:
            yield chunk


class Measured:
    """Chunks whose size and MD5 are known once they have passed. MD5, for it is what Orthanc computes."""

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = chunks
        self._size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The chunks, once."""
        async for chunk in self._chunks:
            self._size += len(chunk)
            self._md5.update(chunk)
            yield chunk

    @property
    def fingerprint(self) -> Fingerprint:
        """Size and MD5 of what has passed."""
        return Fingerprint(self._size, self._md5.hexdigest())


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work`, which must bound its own time, to its end even when the caller is cancelled meanwhile, also twice.

    The caller's cancellation goes on afterwards.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    finally:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at, so that it is not reported as forgotten where the caller was cancelled
