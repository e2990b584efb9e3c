"""Editing a file. It is held in memory whole, so only so much is at a time."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from tag_service.domain.edits import Edits, plan
from tag_service.domain.limits import Limits
from tag_service.domain.rewrite import rewrite
from tag_service.use_cases.feeding import in_worker, opened
from tag_service.use_cases.room import Room, Share, overloaded

# Messages of this size pass gRPC fastest.
_PIECE_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class EditedFile:
    """An edited file, its size in bytes and its SHA-256 in hex."""

    parts: tuple[bytes, ...]
    size_bytes: int
    sha256: str

    def pieces(self) -> Iterator[bytes]:
        """The file in pieces that are good to send."""
        for part in self.parts:
            for start in range(0, len(part), _PIECE_BYTES):
                yield part[start : start + _PIECE_BYTES]


class Modifying:
    """Edits files, at most `max_files` at a time, that take up at most `max_bytes` before and after; another waits at
    most `wait_seconds` for its turn.
    """

    def __init__(self, limits: Limits, *, max_files: int, max_bytes: int, wait_seconds: float) -> None:
        self._limits = limits
        self._room = Room(max_bytes, wait_seconds=wait_seconds)
        self._places = asyncio.Semaphore(max_files)
        self._wait_seconds = wait_seconds

    @asynccontextmanager
    async def edited(self, chunks: AsyncIterable[bytes], edits: Edits) -> AsyncGenerator[EditedFile, None]:
        """The edited file, which takes up its room until the context is left.

        Raises OVERLOADED, INVALID_FIELD, EDIT_REFUSED, CHARSET_CONFLICT, what reading the file raises, and what
        `chunks` raises.
        """
        # Wrong edits are told before the file is waited for.
        plan(edits)
        with self._room.share() as share:
            data = await _collect(chunks, share)
            async with self._place():
                # Results may be larger than what they were made of, and take up room as long as they are not taken.
                await share.grow(0)
                file = await in_worker(_edit, data, edits, self._limits)
            share.become(file.size_bytes)
            del data
            yield file

    @asynccontextmanager
    async def _place(self) -> AsyncGenerator[None, None]:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._places.acquire()
        except TimeoutError as error:
            raise overloaded() from error
        try:
            yield
        finally:
            self._places.release()


async def _collect(chunks: AsyncIterable[bytes], share: Share) -> bytes:
    collected = bytearray()
    async with opened(chunks) as iterator:
        async for chunk in iterator:
            await share.grow(len(chunk))
            collected += chunk
    return bytes(collected)


def _edit(data: bytes, edits: Edits, limits: Limits) -> EditedFile:
    edited = rewrite(data, edits, limits)
    digest = hashlib.sha256()
    for part in edited.parts:
        digest.update(part)
    return EditedFile(edited.parts, edited.size_bytes, digest.hexdigest())
