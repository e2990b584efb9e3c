"""Files out of an upload stream, without ever holding one whole.

An upload is a stream of pieces, which are either the bytes of files themselves or a multipart/form-data body. An
`UploadReader` turns it into files, each an async iterator of chunks, and enforces the limits while reading: nothing is
believed that the client says about sizes. The files of a ZIP archive come in its place. Reading is strictly forward:
what a file's reader left unread is skipped, and still counted, when the next file is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from service_runtime.bodies import FormBody, Piece, RawBody, body_of, no_file
from service_runtime.errors import Reason, ServiceError
from service_runtime.unpacking import ArchiveBegin, FileBegin, FileEnd, FileEvent
from service_runtime.zip_format import Unpacking, too_large

MIB = 1024 * 1024
# So much is unpacked of an archive before others have their turn.
_UNPACKED_AT_ONCE = 512 * 1024


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What one request may bring; sizes in bytes, `idle_seconds` the longest wait for its next piece."""

    file_bytes: int
    request_bytes: int
    files: int
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What the ZIP archives of one request may hold, besides: how many entries, and how many times as long as packed
    one may be.
    """

    entries: int
    ratio: int


class UploadedFile:
    """One file of an upload: its name, as the client gave it, and its chunks, each to be read once.

    `archive` tells which of the upload's archives it comes out of, from 1 on, 0 for none. `path` is where it lies in
    that, "" for a place that cannot be, None without an archive.
    """

    def __init__(
        self, begin: FileBegin, events: _Events, *, max_bytes: int, archive: int = 0, only: bool = False
    ) -> None:
        self.name = begin.name
        self.path = begin.path
        self.archive = archive
        self._events = events
        self._max_bytes = max_bytes
        self._only = only
        self._size = 0
        self._ended = False

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """The chunks, none empty. An iteration that was left or cancelled can be taken up by another.

        Raises FILE_TOO_LARGE, what is wrong with an entry of an archive (ARCHIVE_INVALID, ARCHIVE_UNSUPPORTED,
        STRUCTURE_LIMIT), or what breaks the request: UPLOAD_TOO_LARGE, UPLOAD_STALLED, MULTIPART_INVALID, and
        TOO_MANY_FILES where another file follows the only one allowed. The last chunk may be followed by an error:
        a file is complete only when its iteration ends.
        """
        while not self._ended:
            event = await self._events.next()
            if isinstance(event, bytes):
                self._size += len(event)
                if self._size > self._max_bytes:
                    raise too_large(Reason.FILE_TOO_LARGE, "The file", "MAX_DICOM_FILE_SIZE_MB", self._max_bytes)
                yield event
            else:
                self._ended = True
                if isinstance(event, FileEnd) and event.error is not None:
                    raise event.error
        if self._only and await self._events.next() is not None:
            raise _too_many_files(1)

    async def skip(self) -> None:
        """Reads on to the end of the file, throwing the rest away. Raises what breaks the request."""
        while not self._ended:
            self._ended = not isinstance(await self._events.next(), bytes)


class UploadReader:
    """The files of one upload. Use `files` or `only_file`, once.

    With `archives`, a ZIP archive is unpacked. `declared_bytes` is the request's Content-Length where there is one: too
    large a request is then refused before any of it is read.
    """

    def __init__(
        self,
        pieces: AsyncIterator[Piece],
        limits: UploadLimits,
        *,
        archives: ArchiveLimits | None = None,
        declared_bytes: int | None = None,
    ) -> None:
        """Where `pieces` can be awaited again after a wait for it was cancelled, so can the files and their chunks."""
        self._limits = limits
        self._events = _Events(pieces, limits, archives, declared_bytes=declared_bytes)

    @property
    def observe(self) -> Callable[[FileEvent | None], None]:
        """Is called with each event as it is read, also of what is skipped, and with None at the end."""
        return self._events.observe

    @observe.setter
    def observe(self, observe: Callable[[FileEvent | None], None]) -> None:
        self._events.observe = observe

    async def begins_with_archive(self) -> bool:
        """Whether the first file is an archive; to be asked before any file. Raises what breaks the request."""
        return isinstance(await self._events.peek(), ArchiveBegin)

    async def files(self) -> AsyncGenerator[UploadedFile, None]:
        """Each file in turn. Raises FILE_FIELD_MISSING where there is none, TOO_MANY_FILES at the first one too many,
        and what breaks the request or ends an archive, also when it was raised to the reader of a file before.
        """
        sent = found = archives = 0
        while (event := await self._events.next()) is not None:
            # An archive is one file that is sent; its entries have their own limit.
            if isinstance(event, ArchiveBegin) or (isinstance(event, FileBegin) and event.path is None):
                sent += 1
                if sent > self._limits.files:
                    raise _too_many_files(self._limits.files)
            if isinstance(event, ArchiveBegin):
                archives += 1
                continue
            found += 1
            assert isinstance(event, FileBegin)  # noqa: S101 - the bodies alternate begin, chunks, end
            archive = 0 if event.path is None else archives
            file = UploadedFile(event, self._events, max_bytes=self._limits.file_bytes, archive=archive)
            yield file
            await file.skip()
        if not found:
            raise no_file()

    async def only_file(self) -> UploadedFile:
        """The file of a request that may bring just one. Raises FILE_FIELD_MISSING, UNSUPPORTED_MEDIA_TYPE for an
        archive, and what breaks the request.
        """
        event = await self._events.next()
        if isinstance(event, ArchiveBegin):
            raise ServiceError(
                Reason.UNSUPPORTED_MEDIA_TYPE,
                "An archive holds many files: send it to upload-multiple.",
            )
        assert isinstance(event, FileBegin)  # noqa: S101 - as above
        return UploadedFile(event, self._events, max_bytes=self._limits.file_bytes, only=True)


class _Events:
    """The events of an upload, in order, made one by one: a piece of an archive may be many of them, and large.

    A plain object and no generator, for the task that waits for a file's next chunk may be cancelled (the file was
    refused), and the files behind it must not be lost with it.
    """

    def __init__(
        self,
        pieces: AsyncIterator[Piece],
        limits: UploadLimits,
        archives: ArchiveLimits | None,
        *,
        declared_bytes: int | None,
    ) -> None:
        self.observe: Callable[[FileEvent | None], None] = lambda _event: None
        self._pieces = pieces
        self._limits = limits
        self._unpacking: Unpacking | None = None
        if archives is not None:
            self._unpacking = Unpacking(
                max_entries=archives.entries,
                max_bytes=limits.request_bytes,
                file_bytes=limits.file_bytes,
                ratio=archives.ratio,
            )
        self._size = 0
        self._body: RawBody | FormBody | None = None
        self._coming: Iterator[FileEvent] = iter(())
        self._peeked: FileEvent | None = None
        self._since_pause = 0
        self._ended = False
        self._error: ServiceError | None = None
        if declared_bytes is not None and declared_bytes > limits.request_bytes:
            self._error = self._request_too_large()

    async def peek(self) -> FileEvent | None:
        """The next event, which stays the next."""
        if self._peeked is None:
            self._peeked = await self.next()
        return self._peeked

    async def next(self) -> FileEvent | None:
        """The next event, None after the last. What breaks the request is raised now and ever after."""
        if self._peeked is not None:
            peeked, self._peeked = self._peeked, None
            return peeked
        while self._error is None:
            if self._since_pause > _UNPACKED_AT_ONCE:
                self._since_pause = 0
                await asyncio.sleep(0)
            try:
                event = next(self._coming, None)
                if event is not None:
                    self._since_pause += len(event) if isinstance(event, bytes) else 1
                    self.observe(event)
                    return event
                if self._ended:
                    self.observe(None)
                    return None
                await self._read()
            except ServiceError as error:
                self._error = error
        raise self._error

    async def _read(self) -> None:
        piece = await anext(self._pieces, None)
        if piece is None:
            if self._body is None:
                raise no_file()
            self._ended = True
            self._coming = self._body.close()
            return
        self._size += len(piece.data)
        if self._size > self._limits.request_bytes:
            raise self._request_too_large()
        if self._body is None:
            self._body = body_of(piece.content_type, self._unpacking)
        self._coming = self._body.feed(piece)

    def _request_too_large(self) -> ServiceError:
        return too_large(Reason.UPLOAD_TOO_LARGE, "The request", "MAX_UPLOAD_SIZE_MB", self._limits.request_bytes)


def _too_many_files(limit: int) -> ServiceError:
    what = "one file" if limit == 1 else f"MAX_DICOM_FILES_PER_UPLOAD, {limit} files"
    return ServiceError(
        Reason.TOO_MANY_FILES,
        f"The request holds more than {what}. Nothing from the first file too many on was stored.",
        metadata={"limit": "MAX_DICOM_FILES_PER_UPLOAD" if limit != 1 else "one file", "limit_files": str(limit)},
    )
