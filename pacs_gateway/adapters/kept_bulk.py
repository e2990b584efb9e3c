"""The long bulk values of a file that tag_service edits: they stay here, instead of going there and back."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from typing import Final

# 256 KiB messages were measured to be the fastest.
_PIECE_BYTES: Final = 256 * 1024
# How many chunks may wait here for who takes the edited file.
_MAX_WAITING: Final = 2
# tag_service, which waits for a file only so long, hears as often that it still comes.
_SAID_BYTES: Final = 16 * 1024 * 1024
_SAID_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the file to send, or so many bytes to say of that they are skipped."""

    data: bytes = b""
    skipped: int = 0


class KeptBulk:
    """The bulk of one file. Its sender sends the `parts`. Its receiver says what bulk tag_service `told` of, and how
    much of the edited file `came` from there; when what is kept `is_due`, it stands next in the edited file.

    What of the bulk had been sent before it was told of comes back from tag_service. What is kept stands behind that.
    """

    def __init__(self) -> None:
        # How much of the file has been sent or kept, and where the bulk ends that is being kept.
        self._position = 0
        self._end = 0
        self._has_ended = False
        # How much of the bulk has still to come back before what is kept of it.
        self._coming_back = 0
        self._is_open = False
        self._waiting: deque[bytes] = deque()
        self._changed = asyncio.Event()

    async def parts(self, chunks: AsyncIterable[bytes]) -> AsyncGenerator[Part, None]:
        """The file as it is to be sent. To be closed."""
        skipped, said = 0, time.monotonic()
        try:
            async for chunk in chunks:
                start = 0
                while start < len(chunk):
                    size = min(self._end - self._position, len(chunk) - start)
                    if size <= 0:
                        data = chunk[start : start + _PIECE_BYTES]
                        start += len(data)
                        self._position += len(data)
                        yield Part(data)
                        continue
                    await self._keep(chunk[start : start + size])
                    start += size
                    skipped += size
                    is_late = skipped >= _SAID_BYTES or time.monotonic() - said > _SAID_SECONDS
                    if self._position == self._end or is_late:
                        yield Part(skipped=skipped)
                        skipped, said = 0, time.monotonic()
            if skipped:
                yield Part(skipped=skipped)
        finally:
            self._has_ended = True
            self._changed.set()

    def told(self, offset: int, size_bytes: int) -> None:
        """So many bytes from this offset of the file on go out as they are, and need not be sent."""
        end = offset + size_bytes
        if self._position < end:
            self._end, self._coming_back, self._is_open = end, self._position - offset, True

    def came(self, size_bytes: int) -> None:
        """So many bytes of the edited file came from tag_service."""
        if self._is_open:
            self._coming_back -= size_bytes

    @property
    def is_due(self) -> bool:
        """Whether what is kept comes next."""
        return self._is_open and not self._coming_back

    async def kept(self) -> AsyncGenerator[bytes, None]:
        """What is kept, as far as the bulk goes, or the file."""
        while self._waiting or (self._position < self._end and not self._has_ended):
            if self._waiting:
                yield self._waiting.popleft()
                self._changed.set()
            else:
                await self._change()
        self._is_open = False

    async def _keep(self, piece: bytes) -> None:
        while len(self._waiting) >= _MAX_WAITING:
            await self._change()
        self._waiting.append(piece)
        self._position += len(piece)
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
