"""Copies of files on this machine's disk that nobody else sees, and that are gone with the process."""

import asyncio
import contextlib
import hashlib
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable
from typing import IO, Final

from pacs_gateway.domain.study import Fingerprint
from service_runtime.errors import Reason, ServiceError

_PIECE_BYTES: Final = 256 * 1024
_RETRY_SECONDS: Final = 30


class TemporarySpool:
    """The port `Spool`, in the folder that TMPDIR names. The files have no names there."""

    async def set_aside(self, chunks: AsyncIterable[bytes]) -> "TemporaryCopy | None":
        """Copies the chunks; None of none. Raises OVERLOADED where the disk is full."""
        file: IO[bytes] | None = None
        size, md5 = 0, hashlib.md5(usedforsecurity=False)
        try:
            async for chunk in chunks:
                if file is None:
                    file = await asyncio.to_thread(tempfile.TemporaryFile)
                await asyncio.to_thread(file.write, chunk)
                size += len(chunk)
                md5.update(chunk)
            if file is None:
                return None
            await asyncio.to_thread(file.flush)
        except BaseException as error:
            if file is not None:
                with contextlib.suppress(OSError):  # it may try again to write what it could not
                    await asyncio.to_thread(file.close)
            if isinstance(error, OSError):
                raise _full() from error
            raise
        return TemporaryCopy(file, Fingerprint(size, md5.hexdigest()))


class TemporaryCopy:
    """The port `SetAside`."""

    def __init__(self, file: IO[bytes], fingerprint: Fingerprint) -> None:
        self.fingerprint = fingerprint
        self._file = file

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The file, from its start."""
        await asyncio.to_thread(self._file.seek, 0)
        while piece := await asyncio.to_thread(self._file.read, _PIECE_BYTES):
            yield piece

    async def aclose(self) -> None:
        """Frees the room."""
        await asyncio.to_thread(self._file.close)


def _full() -> ServiceError:
    return ServiceError(
        Reason.OVERLOADED,
        "The gateway has no room on its disk for what is to be replaced, which it keeps meanwhile. Retry.",
        metadata={"limit": "TMPDIR"},
        retry_after=_RETRY_SECONDS,
    )
