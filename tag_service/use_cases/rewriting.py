"""Rewriting a file while it streams, or holding what comes of it for a caller who cannot take it before all is sent."""

import hashlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from service_runtime.errors import InvalidFieldError, Violation
from tag_service.domain.editing.rewrite import Rewriter
from tag_service.use_cases.feeding import INLINE_BYTES, PART_BYTES, Chunks, in_worker, opened, parts_of
from tag_service.use_cases.room import Room

# Messages of this size pass gRPC fastest. Smaller pieces are joined; those of up to a MiB stay the objects they are.
_PIECE_BYTES: Final = 256 * 1024
_MAX_PIECE_BYTES: Final = 4 * _PIECE_BYTES
# Less is sent sooner than it is talked about.
_MIN_BULK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Gap:
    """So many bytes of a file that its sender keeps."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class Bulk:
    """So many bytes of a file, from an offset on, that go out as they are, and that its sender may keep."""

    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A rewritten file, its size in bytes and its SHA-256 in hex."""

    parts: tuple[bytes, ...]
    size_bytes: int
    sha256: str


class Rewriting:
    """Rewrites files. What is held of them all, their headers and what is kept for a caller, takes up at most
    `max_bytes`; a file that finds no room waits at most `wait_seconds`.
    """

    def __init__(self, *, max_bytes: int, wait_seconds: float) -> None:
        self._room = Room(max_bytes, wait_seconds=wait_seconds)

    async def streamed(self, chunks: Chunks[bytes], rewriter: Rewriter) -> AsyncGenerator[bytes, None]:
        """The rewritten file in pieces that are good to send, while the file still comes in.

        Raises OVERLOADED, what the rewriter raises, and what `chunks` raises: before the first piece for all that the
        header shows, and instead of the rest of the file else.
        """
        with self._room.share() as share:
            async with opened(chunks) as iterator:
                async for chunk in iterator:
                    for part in parts_of(chunk, rewriter):
                        for piece in _to_send(await fed(rewriter, part)):
                            yield piece
                        if share.size_bytes != rewriter.held_bytes:
                            await share.resize(rewriter.held_bytes)
            for piece in _to_send(await closed(rewriter)):
                yield piece

    async def referring(self, chunks: Chunks[bytes | Gap], rewriter: Rewriter) -> AsyncGenerator[bytes | Bulk, None]:
        """The same for a sender who can keep bulk, once he is told where it is; gaps are the bytes of it that he kept,
        and have no piece. Raises as `streamed`, INVALID_FIELD for a gap anywhere else.
        """
        taken = told = 0
        with self._room.share() as share:
            async with opened(chunks) as iterator:
                async for chunk in iterator:
                    if isinstance(chunk, Gap):
                        _skip(rewriter, chunk)
                        taken += chunk.size_bytes
                        continue
                    for part in parts_of(chunk, rewriter):
                        for piece in _to_send(await fed(rewriter, part)):
                            yield piece
                        if share.size_bytes != rewriter.held_bytes:
                            await share.resize(rewriter.held_bytes)
                        taken += len(part)
                        passing = rewriter.passing_bytes
                        if passing >= _MIN_BULK_BYTES and taken >= told:
                            told = taken + passing
                            yield Bulk(taken, passing)
            for piece in _to_send(await closed(rewriter)):
                yield piece

    @asynccontextmanager
    async def written(self, chunks: Chunks[bytes], rewriter: Rewriter) -> AsyncGenerator[WrittenFile, None]:
        """The rewritten file, held as a whole until the context is left. Raises as `streamed`."""
        parts: list[bytes] = []
        size = 0
        digest = hashlib.sha256()
        with self._room.share() as share:

            async def keep(pieces: list[bytes]) -> None:
                nonlocal size
                for piece in _to_send(pieces):
                    parts.append(piece)
                    size += len(piece)
                    digest.update(piece)
                await share.resize(size + rewriter.held_bytes)

            async with opened(chunks) as iterator:
                async for chunk in iterator:
                    for part in parts_of(chunk, rewriter):
                        await keep(await fed(rewriter, part))
            await keep(await closed(rewriter))
            share.settle()
            yield WrittenFile(tuple(parts), size, digest.hexdigest())


def _skip(rewriter: Rewriter, gap: Gap) -> None:
    if not 0 < gap.size_bytes <= rewriter.passing_bytes:
        raise InvalidFieldError(Violation("skipped", "is more than the rest of the bulk that may be kept"))
    rewriter.skip(gap.size_bytes)


async def fed(rewriter: Rewriter, part: bytes) -> list[bytes]:
    """What the rewriter gives for a part; a worker does what may take long, and lets others in between."""
    if rewriter.passes_on(len(part)) or rewriter.held_bytes + len(part) <= INLINE_BYTES:
        return rewriter.feed(part)
    pieces = await in_worker(rewriter.feed, part)
    return pieces + await _caught_up(rewriter)


async def closed(rewriter: Rewriter) -> list[bytes]:
    """What the rewriter gives for the end of the file."""
    if rewriter.held_bytes <= INLINE_BYTES:
        return rewriter.close()
    if rewriter.held_bytes <= PART_BYTES:
        return await in_worker(rewriter.close)
    await in_worker(rewriter.end_header)
    pieces = await _caught_up(rewriter)
    return pieces + await in_worker(rewriter.close)


async def _caught_up(rewriter: Rewriter) -> list[bytes]:
    pieces: list[bytes] = []
    while rewriter.is_behind:
        pieces += await in_worker(rewriter.catch_up)
    return pieces


def _to_send(pieces: list[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of a good size."""
    if len(pieces) == 1 and len(pieces[0]) <= _MAX_PIECE_BYTES:
        # Nearly always: a piece of bulk data, which need not be copied.
        yield pieces[0]
        return
    joined = bytearray()
    for piece in pieces:
        for start in range(0, len(piece), _PIECE_BYTES):
            joined += piece[start : start + _PIECE_BYTES]
            if len(joined) >= _PIECE_BYTES:
                yield bytes(joined)
                joined.clear()
    if joined:
        yield bytes(joined)
