"""Editing a file while it streams, or holding what comes of it for a caller who cannot take it before all is sent."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tag_service.domain.edits import Edits
from tag_service.domain.limits import Limits
from tag_service.domain.rewrite import Rewriter, rewriter_of
from tag_service.use_cases.feeding import feed, in_worker, opened
from tag_service.use_cases.room import Room

# What stands in a file as the system that edited it.
_SYSTEM: Final = "RIS_DICOM_GW"
# Messages of this size pass gRPC fastest. Smaller pieces are joined; those of up to a MiB stay the objects they are.
_PIECE_BYTES: Final = 256 * 1024
_MAX_PIECE_BYTES: Final = 4 * _PIECE_BYTES


@dataclass(frozen=True, slots=True)
class EditedFile:
    """An edited file, its size in bytes and its SHA-256 in hex."""

    parts: tuple[bytes, ...]
    size_bytes: int
    sha256: str


class Modifying:
    """Edits files. What is held of them all, their headers and what is kept for a caller, takes up at most `max_bytes`;
    a file that finds no room waits at most `wait_seconds`.
    """

    def __init__(
        self, limits: Limits, *, max_bytes: int, wait_seconds: float, clock: Callable[[], datetime] | None = None
    ) -> None:
        self._limits = limits
        self._room = Room(max_bytes, wait_seconds=wait_seconds)
        self._clock = clock or _now

    async def streamed(self, chunks: AsyncIterable[bytes], edits: Edits) -> AsyncGenerator[bytes, None]:
        """The edited file in pieces that are good to send, while the file still comes in.

        Raises OVERLOADED, INVALID_FIELD, EDIT_REFUSED, CHARSET_CONFLICT, what reading the file raises, and what
        `chunks` raises: before the first piece for all that the header shows, and instead of the rest of the file else.
        """
        # Wrong edits are told before the file is waited for.
        rewriter = self._rewriter(edits)
        with self._room.share() as share:
            async with opened(chunks) as iterator:
                async for chunk in iterator:
                    for piece in _to_send(await feed(rewriter, chunk)):
                        yield piece
                    if share.size_bytes != rewriter.held_bytes:
                        await share.resize(rewriter.held_bytes)
            for piece in _to_send(await in_worker(rewriter.close)):
                yield piece

    @asynccontextmanager
    async def edited(self, chunks: AsyncIterable[bytes], edits: Edits) -> AsyncGenerator[EditedFile, None]:
        """The edited file, held as a whole until the context is left. Raises as `streamed`."""
        rewriter = self._rewriter(edits)
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
                    await keep(await feed(rewriter, chunk))
            await keep(await in_worker(rewriter.close))
            share.settle()
            yield EditedFile(tuple(parts), size, digest.hexdigest())

    def _rewriter(self, edits: Edits) -> Rewriter:
        return rewriter_of(edits, self._limits, at=self._clock(), system=_SYSTEM)


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


def _now() -> datetime:
    return datetime.now(UTC)
