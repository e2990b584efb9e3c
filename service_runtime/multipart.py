"""multipart/form-data (RFC 7578), piece by piece: bytes in, events out. Nothing of a part's data is kept."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service_runtime.errors import Reason, ServiceError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MAX_CONTENT_TYPE = 1024


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part begins: the name of its field, its file name, which is None where the field is plain text, and what it
    says it is.
    """

    field: str
    filename: str | None
    content_type: str


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is complete."""


FormEvent = PartBegin | bytes | PartEnd


def boundary_of(content_type: str) -> bytes:
    """The boundary that a multipart/form-data content type names. Raises MULTIPART_INVALID where it names none."""
    # A gRPC client may send there what no header can hold (RFC 9110 5.5) and no boundary is made of.
    _, options = parse_options_header(content_type[:_MAX_CONTENT_TYPE].encode("latin-1", "replace"))
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046 5.1.1
        raise _invalid("its Content-Type names no boundary of 1 to 70 characters")
    return boundary


class MultipartBody:
    """An incremental parser of one body."""

    def __init__(self, boundary: bytes) -> None:
        self._events: list[FormEvent] = []
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._content_type = b""
        self._ended = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part_begin,
            "on_part_data": lambda data, start, end: self._events.append(bytes(data[start:end])),
            "on_part_end": lambda: self._events.append(PartEnd()),
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_end": self._on_end,
        }
        # The parser's own limits hold header memory down: 8 headers of 4 KiB a part.
        self._parser = MultipartParser(boundary, callbacks)

    def feed(self, data: bytes) -> list[FormEvent]:
        """What the next bytes of the body bring. Raises MULTIPART_INVALID."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _invalid("it does not follow RFC 7578") from error
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Says that the body is over. Raises MULTIPART_INVALID when its closing boundary has not come."""
        if not self._ended:
            raise _invalid("it ends before its closing boundary")

    def _on_part_begin(self) -> None:
        self._disposition = self._content_type = b""

    def _on_header_end(self) -> None:
        name = self._header.lower()
        if name == b"content-disposition":
            self._disposition = bytes(self._value)
        elif name == b"content-type":
            self._content_type = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        filename = options.get(b"filename")
        self._events.append(
            PartBegin(
                field=options.get(b"name", b"").decode("utf-8", "replace"),
                filename=None if filename is None else filename.decode("utf-8", "replace"),
                content_type=self._content_type.decode("latin-1"),
            )
        )

    def _on_end(self) -> None:
        self._ended = True


def _invalid(what: str) -> ServiceError:
    return ServiceError(
        Reason.MULTIPART_INVALID,
        f"The multipart body is broken: {what}. Send it as `curl -F file=@x.dcm` does.",
    )
