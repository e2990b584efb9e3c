"""Files out of an upload stream, without ever holding one whole.

An upload is a stream of pieces, which are either the bytes of files themselves or a multipart/form-data body. An
`UploadReader` turns it into files, each an async iterator of chunks, and enforces the limits while reading: nothing is
believed that the client says about sizes. Reading is strictly forward: what a file's reader left unread is skipped,
and still counted, when the next file is asked for.
"""

import asyncio
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TypeVar

from service_runtime.errors import InvalidFieldError, Reason, ServiceError, Violation
from service_runtime.multipart import FormEvent, MultipartBody, PartBegin, PartEnd, boundary_of

RAW_TYPES = ("", "application/dicom", "application/octet-stream")
FORM_TYPE = "multipart/form-data"
FILE_FIELDS = ("file", "files")
MIB = 1024 * 1024

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
    """One file of an upload: its name, as the client gave it, and its chunks, to be read once."""

    def __init__(self, name: str, events: AsyncGenerator[_Event, None], *, max_bytes: int, only: bool) -> None:
        self.name = name
        self._events = events
        self._max_bytes = max_bytes
        self._only = only
        self._ended = False

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """The chunks, none empty.

        Raises FILE_TOO_LARGE, or what breaks the request: UPLOAD_TOO_LARGE, UPLOAD_STALLED, MULTIPART_INVALID, and
        TOO_MANY_FILES where another file follows the only one allowed. The last chunk may be followed by an error:
        a file is complete only when its iteration ends.
        """
        size = 0
        async for event in self._events:
            match event:
                case bytes() as chunk:
                    size += len(chunk)
                    if size > self._max_bytes:
                        raise _too_large(Reason.FILE_TOO_LARGE, "The file", "MAX_DICOM_FILE_SIZE_MB", self._max_bytes)
                    yield chunk
                case _FileEnd():
                    self._ended = True
                    if self._only:
                        await self._expect_no_more()
                    return

    async def skip(self) -> None:
        """Reads on to the end of the file, throwing the rest away."""
        while not self._ended:
            event = await anext(self._events, None)
            self._ended = event is None or isinstance(event, _FileEnd)

    async def _expect_no_more(self) -> None:
        if await anext(self._events, None) is not None:
            raise _too_many_files(1)


class UploadReader:
    """The files of one upload. Use `files` or `only_file`, once.

    `declared_bytes` is the request's Content-Length where there is one: too large a request is then refused before any
    of it is read.
    """

    def __init__(
        self, pieces: AsyncIterator[Piece], limits: UploadLimits, *, declared_bytes: int | None = None
    ) -> None:
        self._limits = limits
        self._declared_bytes = declared_bytes
        self._events = self._form_or_raw(self._counted(pieces))

    async def files(self) -> AsyncGenerator[UploadedFile, None]:
        """Each file in turn. Raises FILE_FIELD_MISSING where there is none, TOO_MANY_FILES at the first one too many,
        and what breaks the request between files.
        """
        count = 0
        async for event in self._events:
            count += 1
            if count > self._limits.files:
                raise _too_many_files(self._limits.files)
            file = self._file(event, only=False)
            yield file
            await file.skip()

    async def only_file(self) -> UploadedFile:
        """The file of a request that may bring just one."""
        return self._file(await anext(self._events), only=True)

    def _file(self, event: _Event, *, only: bool) -> UploadedFile:
        assert isinstance(event, _FileBegin)  # noqa: S101 - the sources below alternate begin, chunks, end
        return UploadedFile(event.name, self._events, max_bytes=self._limits.file_bytes, only=only)

    async def _counted(self, pieces: AsyncIterator[Piece]) -> AsyncGenerator[Piece, None]:
        """The pieces, each awaited with a deadline, as long as their sum stays within the limit."""
        limit = self._limits.request_bytes
        too_large = _too_large(Reason.UPLOAD_TOO_LARGE, "The request", "MAX_UPLOAD_SIZE_MB", limit)
        if self._declared_bytes is not None and self._declared_bytes > limit:
            raise too_large
        size = 0
        while True:
            piece = await next_in_time(pieces, self._limits)
            if piece is None:
                return
            size += len(piece.data)
            if size > limit:
                raise too_large
            yield piece

    async def _form_or_raw(self, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[_Event, None]:
        first = await anext(pieces, None)
        if first is None:
            raise no_file()
        media_type = first.content_type.partition(";")[0].strip().lower()
        if media_type == FORM_TYPE:
            source = _form_events(MultipartBody(boundary_of(first.content_type)), first, pieces)
        elif media_type in RAW_TYPES:
            source = _raw_events(first, pieces)
        else:
            raise ServiceError(
                Reason.UNSUPPORTED_MEDIA_TYPE,
                "The body is neither multipart/form-data nor application/dicom. Send one of the two.",
            )
        async for event in source:
            yield event


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


async def _raw_events(first: Piece, rest: AsyncGenerator[Piece, None]) -> AsyncGenerator[_Event, None]:
    piece: Piece | None = first
    while piece is not None:
        yield _FileBegin(_clean_name(piece.filename))
        while piece is not None:
            if piece.data:
                yield piece.data
            if piece.end_of_file:
                break
            piece = await anext(rest, None)
        yield _FileEnd()
        piece = await anext(rest, None)


async def _form_events(
    form: MultipartBody, first: Piece, rest: AsyncGenerator[Piece, None]
) -> AsyncGenerator[_Event, None]:
    """The events of the form's file fields."""
    fields = _Fields()
    piece: Piece | None = first
    while piece is not None:
        for part in form.feed(piece.data):
            event = fields.event_of(part)
            if event is not None:
                yield event
        piece = await anext(rest, None)
    form.close()
    if not fields.has_file:
        raise no_file()


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
    """The name without directories, control and format characters, at most 255 characters long."""
    base = name.replace("\\", "/").rpartition("/")[2]
    return "".join(char for char in base if unicodedata.category(char)[0] != "C")[:255]


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
