"""The bodies that an upload can be: files as they are, or a multipart/form-data form. Pieces in, events out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from service_runtime.errors import InvalidFieldError, Reason, ServiceError, Violation
from service_runtime.multipart import FormEvent, MultipartBody, PartBegin, PartEnd, boundary_of
from service_runtime.unpacking import FileEvent, IncomingFile, clean_name
from service_runtime.zip_format import Unpacking

RAW_TYPES = ("", "application/dicom", "application/octet-stream")
# The second is what Windows calls it.
ZIP_TYPES = ("application/zip", "application/x-zip-compressed")
FORM_TYPE = "multipart/form-data"
FILE_FIELDS = ("file", "files")
_MAX_CONTENT_TYPE = 1024
_FORM_SLICE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """One message of an upload. The content type and the name count on the first one of a file."""

    data: bytes
    content_type: str = ""
    filename: str = ""
    end_of_file: bool = False


def is_form(content_type: str) -> bool:
    """Whether a body of this content type is multipart/form-data."""
    return _media_type(content_type) == FORM_TYPE


def body_of(content_type: str, unpacking: Unpacking | None) -> RawBody | FormBody:
    """What reads a body of this content type, with archives unpacked where `unpacking` is given.

    Raises UNSUPPORTED_MEDIA_TYPE, MULTIPART_INVALID.
    """
    if is_form(content_type):
        return FormBody(boundary_of(content_type), unpacking)
    if _media_type(content_type) in (*RAW_TYPES, *(ZIP_TYPES if unpacking is not None else ())):
        return RawBody(unpacking)
    wanted = (
        "multipart/form-data, application/dicom or application/zip"
        if unpacking is not None
        else ("multipart/form-data or application/dicom")
    )
    raise ServiceError(
        Reason.UNSUPPORTED_MEDIA_TYPE, f"The body is of another type than {wanted}. Send it as one of these."
    )


def no_file() -> ServiceError:
    """The error for a request without a file."""
    return ServiceError(
        Reason.FILE_FIELD_MISSING,
        "The request holds no file. Send it as multipart/form-data in a field named `file`, or raw as "
        "application/dicom.",
    )


class RawBody:
    """Files as they are, one after the other."""

    def __init__(self, unpacking: Unpacking | None) -> None:
        self._unpacking = unpacking
        self._file: IncomingFile | None = None

    def feed(self, piece: Piece) -> Iterator[FileEvent]:
        """The events that a piece brings. Raises what ends an archive."""
        if self._file is None:
            is_archive = _media_type(piece.content_type) in ZIP_TYPES
            # What is declared to be a file is one.
            self._file = IncomingFile(piece.filename, self._unpacking if is_archive else None, is_archive=is_archive)
        yield from self._file.feed(piece.data)
        if piece.end_of_file:
            yield from self.close()

    def close(self) -> Iterator[FileEvent]:
        """The events that the end of the request brings. Raises ARCHIVE_INVALID for an archive that is cut short."""
        if self._file is not None:
            ended, self._file = self._file, None
            yield from ended.close()


class FormBody:
    """Files as fields of a form."""

    def __init__(self, boundary: bytes, unpacking: Unpacking | None) -> None:
        self._body = MultipartBody(boundary)
        self._fields = _Fields(unpacking)
        self._is_empty = True

    def feed(self, piece: Piece) -> Iterator[FileEvent]:
        """The events that a piece brings. Raises MULTIPART_INVALID, FILE_FIELD_MISSING, INVALID_FIELD, and what ends an
        archive.
        """
        self._is_empty = self._is_empty and not piece.data
        # By slices: a body of nothing but tiny parts is refused for them before long is spent on it.
        for start in range(0, len(piece.data), _FORM_SLICE_BYTES):
            for part in self._body.feed(piece.data[start : start + _FORM_SLICE_BYTES]):
                yield from self._fields.events_of(part)

    def close(self) -> Iterator[FileEvent]:
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

    def __init__(self, unpacking: Unpacking | None) -> None:
        self.has_file = False
        self._unpacking = unpacking
        self._file: IncomingFile | None = None
        self._text_field: str | None = None

    def events_of(self, part: FormEvent) -> Iterator[FileEvent]:
        match part:
            case PartBegin():
                self._begin(part)
            case PartEnd() if self._file is not None:
                ended, self._file = self._file, None
                yield from ended.close()
            case bytes() if self._file is not None and part:
                yield from self._file.feed(part)

    def _begin(self, part: PartBegin) -> None:
        is_file = part.field in FILE_FIELDS
        self.has_file |= is_file
        if not is_file:
            if part.filename is not None:
                raise no_file()
            self._text_field = part.field
        if self.has_file and self._text_field is not None:
            raise InvalidFieldError(
                Violation(clean_name(self._text_field), "not a form field; send options as query parameters")
            )
        if is_file:
            is_archive = _media_type(part.content_type) in ZIP_TYPES
            self._file = IncomingFile(part.filename or "", self._unpacking, is_archive=is_archive)


def _media_type(content_type: str) -> str:
    return content_type[:_MAX_CONTENT_TYPE].partition(";")[0].strip().lower()
