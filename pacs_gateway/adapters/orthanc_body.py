"""A file on its way to Orthanc, as the body of a request that may have to be made again."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Final, Protocol, Self

from service_runtime.errors import Reason, ServiceError

# How much of a file is kept, to send it again when a connection breaks at its first bytes.
_KEPT_BYTES: Final = 1024 * 1024
# A file that comes more slowly than this keeps others from their turn.
_LEAST_BYTES_PER_SECOND: Final = 128 * 1024
# aiohttp makes one piece of the head of a request and the first piece of its body, by copying both.
_FIRST_BYTES: Final = 4 * 1024
_ZIP: Final = b"PK\x03\x04"
_DICOM: Final = {"content-type": "application/dicom"}

Piece = bytes | memoryview


class BrokenOffError(Exception):
    """Ends a body in a way that no HTTP client can take for its end. The cause is in `ReplayableBody.failure`."""


class Body(Protocol):
    """A file as the body of a request."""

    # All of it is with the HTTP client: whatever that tells, the server may have had all of it.
    handed_over: bool
    failure: BaseException | None
    headers: Mapping[str, str]

    def send(self) -> AsyncGenerator[Piece, None]:
        """The body from its start."""

    def rewind(self) -> bool:
        """Whether the body can be sent once more from its start."""


class WholeBody:
    """A file that is here as a whole. Raises STORE_REFUSED for a ZIP archive."""

    def __init__(self, data: bytes) -> None:
        if data.startswith(_ZIP):
            raise _archive()
        self.handed_over = False
        self.failure: BaseException | None = None
        self.headers: Mapping[str, str] = {**_DICOM, "content-length": str(len(data))}
        self._data = data

    async def send(self) -> AsyncGenerator[Piece, None]:
        """The body."""
        self.handed_over = True
        yield self._data[:_FIRST_BYTES]
        yield memoryview(self._data)[_FIRST_BYTES:]

    def rewind(self) -> bool:
        """Always."""
        return True


class ReplayableBody:
    """A body that can be sent again from its start as long as little of it was sent. An async context manager.

    A task of its own reads the source, one chunk ahead: an HTTP client cancels whatever writes a request that failed,
    and a source that was cancelled looks like one that has ended, so that the next request would store half a file.
    """

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self.failure: BaseException | None = None
        self.handed_over = False
        self.headers: Mapping[str, str] = _DICOM
        self._source = chunks
        self._reader: asyncio.Task[None] | None = None
        self._slot: bytes | None = None
        self._ended = False
        self._full = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()
        self._sending = 0
        self._kept: list[bytes] | None = []
        self._kept_bytes = 0

    async def __aenter__(self) -> Self:
        """Starts to read."""
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing reads the source any more, however this ended."""
        self._sending = -1
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])

    async def begun(self) -> None:
        """Waits for the first chunk. Raises what the source raised before it."""
        await self._full.wait()
        if self.failure is not None:
            raise self.failure

    async def send(self) -> AsyncGenerator[Piece, None]:
        """The body from its start. Raises BrokenOffError where the source failed."""
        self._sending += 1
        attempt = self._sending
        for chunk in self._kept or ():
            yield chunk
        while True:
            await self._full.wait()
            if self.failure is not None or attempt != self._sending:
                raise BrokenOffError
            if self._slot is None:
                self.handed_over = True
                return
            yield self._take()

    def rewind(self) -> bool:
        """Whether the body can be sent once more from its start."""
        return self._kept is not None and self.failure is None

    async def _read(self) -> None:
        try:
            async with aclosing(_no_archive(self._source)) as chunks:
                async for chunk in chunks:
                    # An empty chunk would end a chunked body (RFC 9112, 7.1).
                    if chunk:
                        await self._free.wait()
                        self._free.clear()
                        self._slot = chunk
                        self._full.set()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the one who stores raises it again
            self.failure = error
        finally:
            self._ended = True
            self._full.set()

    def _take(self) -> bytes:
        chunk, self._slot = self._slot or b"", None
        if not self._ended:
            self._full.clear()
        self._free.set()
        self._kept_bytes += len(chunk)
        if self._kept is not None and self._kept_bytes <= _KEPT_BYTES:
            self._kept.append(chunk)
        else:
            self._kept = None
        return chunk


async def putting_off(
    deadline: asyncio.Timeout, chunks: AsyncGenerator[Piece, None], *, seconds: float
) -> AsyncGenerator[Piece, None]:
    """The chunks, which put the deadline off while enough of them come, and by `seconds` at their end."""
    clock = asyncio.get_running_loop().time
    began, size = clock(), 0
    async with aclosing(chunks):
        async for chunk in chunks:
            size += len(chunk)
            if not deadline.expired():
                deadline.reschedule(began + seconds + size / _LEAST_BYTES_PER_SECOND)
            yield chunk
    if not deadline.expired():
        deadline.reschedule(clock() + seconds)


async def _no_archive(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """The chunks, unless they make a ZIP file: Orthanc unpacks one and stores all that is in it, unchecked."""
    head = b""
    async for chunk in chunks:
        if len(head) < len(_ZIP):
            head += chunk[: len(_ZIP) - len(head)]
            if head == _ZIP:
                raise _archive()
        yield chunk


def _archive() -> ServiceError:
    return ServiceError(Reason.STORE_REFUSED, "The file is a ZIP archive. Send the files in it one by one.")
