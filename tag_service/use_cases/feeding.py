"""Feeding a file that arrives in chunks to one that reads it, without holding up the event loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Final, Protocol, TypeVar

ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)

# As much takes about a millisecond to read, less than handing it to another thread and back may wait for.
INLINE_BYTES: Final = 8 * 1024
# Parsing holds Python's global lock: more threads than one would only get in each other's way. The other is for what
# goes on without the lock, inflating. Calls take turns by parts of so many bytes, which keep a worker for about 10 ms.
WORKERS: Final = 2
PART_BYTES: Final = 256 * 1024


class Reader(Protocol[ResultT_co]):
    """What takes in a file piece by piece."""

    def passes_on(self, size: int) -> bool:
        """Whether a piece of this many bytes would lie in a bulk value, and so take next to no time."""

    def feed(self, data: bytes) -> ResultT_co:
        """Takes in a piece."""


class Chunks(Protocol[ResultT_co]):
    """What comes in chunks, from an iterator that can be closed."""

    def __aiter__(self) -> AsyncGenerator[ResultT_co, None]:  # noqa: PYI058 - no other can
        """The chunks."""


def opened(chunks: Chunks[ResultT]) -> aclosing[AsyncGenerator[ResultT, None]]:
    """An iterator over the chunks, closed in the end also when it was left early."""
    return aclosing(aiter(chunks))


def workers() -> ThreadPoolExecutor:
    """The threads that read, for all calls of the process: to be the executor of its event loop."""
    return ThreadPoolExecutor(WORKERS, thread_name_prefix="reading")


def parts_of(chunk: bytes, reader: Reader[object]) -> Iterator[bytes]:
    """The chunk in parts to feed the reader one by one, none of which keeps others waiting for long."""
    start = 0
    while len(chunk) - start > PART_BYTES and not reader.passes_on(len(chunk) - start):
        yield chunk[start : start + PART_BYTES]
        start += PART_BYTES
    yield chunk[start:] if start else chunk


async def feed(reader: Reader[ResultT], data: bytes) -> ResultT:
    """What `reader` gives for the data; a worker thread runs it when that may take long."""
    if len(data) <= INLINE_BYTES or reader.passes_on(len(data)):
        return reader.feed(data)
    return await in_worker(reader.feed, data)


async def in_worker(work: Callable[..., ResultT], *arguments: object) -> ResultT:
    """What `work` gives, run in a worker thread.

    A thread cannot be broken off, so a cancelled caller waits for it: what it works on must not count as let go before.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # looked at, so that it does not pass for a defect that nobody noticed
        raise
