"""Files out of an upload stream, without ever holding one whole.

An upload is a stream of pieces, which are either the bytes of files themselves or a multipart/form-data body. An
`UploadReader` turns it into files, each an async iterator of chunks, and enforces the limits while reading: nothing is
believed that the client says about sizes. Reading is strictly forward: what a file's reader left unread is skipped,
and still counted, when the next file is asked for.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TypeVar

from service_runtime.errors import InvalidFieldError, Reason, ServiceError, Violation
from service_runtime.multipart import FormEvent, MultipartBody, PartBegin, PartEnd, boundary_of

RAW_TYPES = ("", "application/dicom", "application/octet-stream")
FORM_TYPE = "multipart/form-data"
FILE_FIELDS = ("file", "files")
MIB = 1024 * 1024
_MAX_RAW_NAME = 1024
_MAX_CONTENT_TYPE = 1024
_FORM_SLICE_BYTES = 256 * 1024
# General categories of Unicode (UAX 44, table 12).
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What one request may bring; sizes in bytes, `idle_seconds` the longest wait for its next piece."""

    file_bytes: int
    request_bytes: int
    files: int
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Piece:
    """One message of an upload. The content type counts on the first one, the name on the first of its file."""

    data: bytes
    content_type: str = ""
    filename: str = ""
    end_of_file: bool = False


@dataclass(frozen=True, slots=True)
class _FileBegin:
    name: str


@dataclass(frozen=True, slots=True)
class _FileEnd:
    pass


_Event = _FileBegin | bytes | _FileEnd


class UploadedFile:
    """One file of an upload: its name, as the client gave it, and its chunks, each to be read once."""

    def __init__(self, name: str, events: _Events, *, max_bytes: int, only: bool) -> None:
        self.name = name
        self._events = events
        self._max_bytes = max_bytes
        self._only = only
        self._size = 0
        self._ended = False

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """The chunks, none empty. An iteration that was left or cancelled can be taken up by another.

        Raises FILE_TOO_LARGE, or what breaks the request: UPLOAD_TOO_LARGE, UPLOAD_STALLED, MULTIPART_INVALID, and
        TOO_MANY_FILES where another file follows the only one allowed. The last chunk may be followed by an error:
        a file is complete only when its iteration ends.
        """
        while not self._ended:
            event = await self._events.next()
            if isinstance(event, bytes):
                self._size += len(event)
                if self._size > self._max_bytes:
                    raise _too_large(Reason.FILE_TOO_LARGE, "The file", "MAX_DICOM_FILE_SIZE_MB", self._max_bytes)
                yield event
            else:
                self._ended = True
        if self._only and await self._events.next() is not None:
            raise _too_many_files(1)

    async def skip(self) -> None:
        """Reads on to the end of the file, throwing the rest away. Raises what breaks the request."""
        while not self._ended:
            self._ended = not isinstance(await self._events.next(), bytes)


class UploadReader:
    """The files of one upload. Use `files` or `only_file`, once.

    `declared_bytes` is the request's Content-Length where there is one: too large a request is then refused before any
    of it is read.
    """

    def __init__(
        self, pieces: AsyncIterator[Piece], limits: UploadLimits, *, declared_bytes: int | None = None
    ) -> None:
        """Where `pieces` can be awaited again after a wait for it was cancelled, so can the files and their chunks."""
        self._limits = limits
        self._events = _Events(pieces, limits, declared_bytes=declared_bytes)

    async def files(self) -> AsyncGenerator[UploadedFile, None]:
        """Each file in turn. Raises FILE_FIELD_MISSING where there is none, TOO_MANY_FILES at the first one too many,
        and what breaks the request, also when it was raised to the reader of a file before.
        """
        count = 0
        while (event := await self._events.next()) is not None:
            count += 1
            if count > self._limits.files:
                raise _too_many_files(self._limits.files)
            file = self._file(event, only=False)
            yield file
            await file.skip()

    async def only_file(self) -> UploadedFile:
        """The file of a request that may bring just one. Raises FILE_FIELD_MISSING, and what breaks the request."""
        return self._file(await self._events.next(), only=True)

    def _file(self, event: _Event | None, *, only: bool) -> UploadedFile:
        assert isinstance(event, _FileBegin)  # noqa: S101 - the formats below alternate begin, chunks, end
        return UploadedFile(event.name, self._events, max_bytes=self._limits.file_bytes, only=only)


class _Events:
    """The events of an upload, in order.

    A plain object and no generator, for the task that waits for a file's next chunk may be cancelled (the file was
    refused), and the files behind it must not be lost with it.
    """

    def __init__(self, pieces: AsyncIterator[Piece], limits: UploadLimits, *, declared_bytes: int | None) -> None:
        self._pieces = pieces
        self._limits = limits
        self._size = 0
        self._format: _Raw | _Form | None = None
        self._waiting: deque[_Event] = deque()
        self._ended = False
        self._error: ServiceError | None = None
        if declared_bytes is not None and declared_bytes > limits.request_bytes:
            self._error = self._request_too_large()

    async def next(self) -> _Event | None:
        """The next event, None after the last. What breaks the request is raised now and ever after."""
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            try:
                await self._read()
            except ServiceError as error:
                self._error = error
        return self._waiting.popleft()

    async def _read(self) -> None:
        piece = await next_in_time(self._pieces, self._limits)
        if piece is None:
            if self._format is None:
                raise no_file()
            self._ended = True
            self._waiting.extend(self._format.close())
            return
        self._size += len(piece.data)
        if self._size > self._limits.request_bytes:
            raise self._request_too_large()
        if self._format is None:
            self._format = _format_of(piece.content_type)
        for event in self._format.feed(piece):
            self._waiting.append(event)

    def _request_too_large(self) -> ServiceError:
        return _too_large(Reason.UPLOAD_TOO_LARGE, "The request", "MAX_UPLOAD_SIZE_MB", self._limits.request_bytes)


def is_form(content_type: str) -> bool:
    """Whether a body of this content type is multipart/form-data."""
    return _media_type(content_type) == FORM_TYPE


def _media_type(content_type: str) -> str:
    return content_type[:_MAX_CONTENT_TYPE].partition(";")[0].strip().lower()


def _format_of(content_type: str) -> _Raw | _Form:
    if is_form(content_type):
        return _Form(boundary_of(content_type))
    if _media_type(content_type) in RAW_TYPES:
        return _Raw()
    raise ServiceError(
        Reason.UNSUPPORTED_MEDIA_TYPE,
        "The body is neither multipart/form-data nor application/dicom. Send one of the two.",
    )


async def next_in_time(messages: AsyncIterator[T], limits: UploadLimits) -> T | None:
    """The next message of a request stream, None at its end. Raises UPLOAD_STALLED when it takes too long."""
    try:
        async with asyncio.timeout(limits.idle_seconds):
            return await anext(messages, None)
    except TimeoutError as error:
        raise ServiceError(
            Reason.UPLOAD_STALLED,
            f"No byte of the request came for {limits.idle_seconds:g} seconds. Send it again.",
            metadata={"limit": "UPLOAD_IDLE_SECONDS", "limit_seconds": f"{limits.idle_seconds:g}"},
        ) from error


def no_file() -> ServiceError:
    """The error for a request without a file."""
    return ServiceError(
        Reason.FILE_FIELD_MISSING,
        "The request holds no file. Send it as multipart/form-data in a field named `file`, or raw as "
        "application/dicom.",
    )


class _Raw:
    """Files as they are, one after the other."""

    def __init__(self) -> None:
        self._in_file = False

    def feed(self, piece: Piece) -> Iterator[_Event]:
        """The events that a piece brings."""
        if not self._in_file:
            self._in_file = True
            yield _FileBegin(_clean_name(piece.filename))
        if piece.data:
            yield piece.data
        if piece.end_of_file:
            self._in_file = False
            yield _FileEnd()

    def close(self) -> Iterator[_Event]:
        """The events that the end of the request brings."""
        if self._in_file:
            self._in_file = False
            yield _FileEnd()


class _Form:
    """Files as fields of a form."""

    def __init__(self, boundary: bytes) -> None:
        self._body = MultipartBody(boundary)
        self._fields = _Fields()
        self._is_empty = True

    def feed(self, piece: Piece) -> Iterator[_Event]:
        """The events that a piece brings. Raises MULTIPART_INVALID, FILE_FIELD_MISSING, INVALID_FIELD."""
        self._is_empty = self._is_empty and not piece.data
        # By slices: a body of nothing but tiny parts is refused for them before long is spent on it.
        for start in range(0, len(piece.data), _FORM_SLICE_BYTES):
            for part in self._body.feed(piece.data[start : start + _FORM_SLICE_BYTES]):
                event = self._fields.event_of(part)
                if event is not None:
                    yield event

    def close(self) -> Iterator[_Event]:
        """No event. Raises MULTIPART_INVALID where the body is cut short, FILE_FIELD_MISSING where no file came."""
        if not self._is_empty:
            self._body.close()
        if not self._fields.has_file:
            raise no_file()
        return iter(())


class _Fields:
    """Which fields of a form have come. A field that is no file is an error, never silently dropped: it may be an
    option, such as the patient, that the client believes in force.
    """

    def __init__(self) -> None:
        self.has_file = False
        self._in_file = False
        self._text_field: str | None = None

    def event_of(self, part: FormEvent) -> _Event | None:
        match part:
            case PartBegin():
                return self._begin(part)
            case PartEnd():
                ended, self._in_file = self._in_file, False
                return _FileEnd() if ended else None
            case bytes():
                return part if self._in_file and part else None

    def _begin(self, part: PartBegin) -> _Event | None:
        self._in_file = part.field in FILE_FIELDS
        self.has_file |= self._in_file
        if not self._in_file:
            if part.filename is not None:
                raise no_file()
            self._text_field = part.field
        if self.has_file and self._text_field is not None:
            raise InvalidFieldError(
                Violation(_clean_name(self._text_field), "not a form field; send options as query parameters")
            )
        return _FileBegin(_clean_name(part.filename or "")) if self._in_file else None


def _clean_name(name: str) -> str:
    """The name without directories, control and format characters and line ends, at most 255 characters long."""
    base = name.replace("\\", "/").rpartition("/")[2][:_MAX_RAW_NAME]
    return "".join(char for char in base if unicodedata.category(char) not in _UNPRINTABLE)[:255]


def _too_large(reason: Reason, what: str, setting: str, limit: int) -> ServiceError:
    return ServiceError(
        reason,
        f"{what} is larger than {setting}, {limit // MIB} MiB.",
        metadata={"limit": setting, "limit_bytes": str(limit)},
    )


def _too_many_files(limit: int) -> ServiceError:
    what = "one file" if limit == 1 else f"MAX_DICOM_FILES_PER_UPLOAD, {limit} files"
    return ServiceError(
        Reason.TOO_MANY_FILES,
        f"The request holds more than {what}. Nothing from the first file too many on was stored.",
        metadata={"limit": "MAX_DICOM_FILES_PER_UPLOAD" if limit != 1 else "one file", "limit_files": str(limit)},
    )
