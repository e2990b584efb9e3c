"""The head of a file: preamble, file meta information (PS3.10 7.1), and how the data set is encoded.

Both may be missing, and what they say may be wrong.
"""

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Final

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.parsing.detection import LOOKAHEAD_BYTES, corrected, guess
from tag_service.domain.parsing.headers import VR_CODES, parser_of
from tag_service.domain.parsing.nesting import OPEN, Nesting
from tag_service.domain.parsing.scanning import WHOLE_TEXT_BYTES, scan_meta
from tag_service.domain.parsing.source import Source
from tag_service.domain.parsing.tokens import META_ELEMENT, PREAMBLE, Token
from tag_service.domain.standard.limits import META_BYTES, META_ELEMENTS, Limits
from tag_service.domain.standard.problems import ProblemCode
from tag_service.domain.standard.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE, encoding_of, uid_of

Steps = Generator[Token | None, None, int]

_PREAMBLE_BYTES: Final = 128
_META_GROUP: Final = b"\x02\x00"
# Many more elements than it has, and few enough to have looked at in vain.
_MAX_META_RUN: Final = 64
_META_LENGTH: Final = 0x00020000
_TRANSFER_SYNTAX_UID: Final = 0x00020010
_TELLING: Final = frozenset({_META_LENGTH, _TRANSFER_SYNTAX_UID})


class Head:
    """Reads the head. `note` is the tokenizer's.

    What it finds: `transfer_syntax_uid`, and once all is read the `encoding` of the data set. `elements` and
    `header_bytes` count what there was.
    """

    def __init__(self, source: Source, nesting: Nesting, limits: Limits, note: Callable[..., None]) -> None:
        self.transfer_syntax_uid = ""
        self.encoding = EXPLICIT_LE
        self.elements = 0
        self.header_bytes = 0
        self._source = source
        self._nesting = nesting
        self._limits = limits
        self._note = note
        self._meta_end = OPEN
        self._is_meta_missing = False

    def read(self) -> Steps:
        """Preamble and file meta information; gives the position of the data set in the buffer."""
        buffer = yield from self._source.fill(0, _PREAMBLE_BYTES + 4 + LOOKAHEAD_BYTES)
        if not buffer:
            raise ServiceError(Reason.EMPTY_FILE, "The file is empty.")
        if buffer[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM":
            yield (PREAMBLE, 0, "", b"", buffer[:_PREAMBLE_BYTES], 0)
            position = yield from self._meta(_PREAMBLE_BYTES + 4)
            return (yield from self._settle(position))
        is_meta = buffer[:2] == _META_GROUP and buffer[4:6] in VR_CODES
        if not is_meta and guess(buffer[:LOOKAHEAD_BYTES]) is None:
            raise ServiceError(
                Reason.NOT_DICOM, "The file is not DICOM: it has no DICM mark and does not begin as a data set either."
            )
        self._note(ProblemCode.PREAMBLE_MISSING, "The file has no preamble and no DICM mark.")
        position = yield from self._meta(0)
        return (yield from self._settle(position))

    def _meta(self, position: int) -> Steps:  # noqa: C901 - calls cost each element
        """File meta information (PS3.10 7.1), explicit VR little endian save in odd files, as far as group 0002 goes.

        (0002,0000) is often wrong and only believed where what follows, being deflated, does not show where it begins.
        """
        first = position + self._source.base
        buffer = self._source.buffer
        while True:
            edge = min(len(buffer), self._meta_end - self._source.base)
            if run := scan_meta(buffer, position, edge, _MAX_META_RUN):
                begin, position = position, run[-1][4]
                self._count(len(run), position - begin)
                for tag, vr, start, value_start, stop in run:
                    header, value = buffer[start:value_start], buffer[value_start:stop]
                    if tag in _TELLING:
                        self._learn(tag, value, self._source.base + stop)
                    yield (META_ELEMENT, tag, vr, header, value, self._source.base + start)
            if len(buffer) - position < 12:
                buffer = yield from self._source.fill(position, 12)
                position = 0
            offset = self._source.base + position
            if not buffer.startswith(_META_GROUP, position) or (
                offset >= self._meta_end and encoding_of(self.transfer_syntax_uid).deflated
            ):
                if offset == first:
                    self._is_meta_missing = True
                    self._note(ProblemCode.META_MISSING, "The file has no file meta information.")
                return position
            if len(buffer) - position < 8:
                raise self._nesting.truncated(0, offset)
            is_explicit = buffer[position + 4 : position + 6] in VR_CODES
            tag, vr, size, length = parser_of(EXPLICIT_LE if is_explicit else IMPLICIT_LE)(buffer, position)
            if length > WHOLE_TEXT_BYTES:
                what = "its length is impossible in file meta information"
                raise self._nesting.malformed(tag, offset, what, rule="PS3.10 7.1")
            self._count(1, size + length)
            if len(buffer) - position < size + length:
                buffer = yield from self._source.fill(position, size + length)
                position = 0
                if len(buffer) < size + length:
                    raise self._nesting.truncated(tag, offset)
            start, position = position, position + size + length
            value = buffer[start + size : position]
            self._learn(tag, value, self._source.base + position)
            yield (META_ELEMENT, tag, vr, buffer[start : start + size], value, offset)

    def _learn(self, tag: int, value: bytes, stop: int) -> None:
        """Takes in what the file meta information says of the file; `stop` is the offset where the element ends."""
        if tag == _META_LENGTH and len(value) == 4:
            self._meta_end = stop + int.from_bytes(value, "little")
        elif tag == _TRANSFER_SYNTAX_UID and not self.transfer_syntax_uid:
            self.transfer_syntax_uid = value.decode("latin-1").strip(" \0")

    def _settle(self, position: int) -> Steps:
        """Finds out how the data set is encoded; gives its position."""
        declared = encoding_of(self.transfer_syntax_uid)
        buffer = self._source.buffer
        if declared.deflated:
            buffer = self._source.inflate(position, self._limits)
            position = 0
        if len(buffer) - position < LOOKAHEAD_BYTES:
            buffer = yield from self._source.fill(position, LOOKAHEAD_BYTES)
            position = 0
        start = buffer[position : position + LOOKAHEAD_BYTES]
        if not start:
            raise ServiceError(
                Reason.TRUNCATED_FILE,
                f"The file ends at offset {self._source.base}, before its data set.",
                metadata={"offset": str(self._source.base)},
            )
        if self.transfer_syntax_uid:
            found = corrected(start, declared)
            if (found.explicit, found.little_endian) != (declared.explicit, declared.little_endian):
                self._note(
                    Reason.MALFORMED_DICOM,
                    "The data set is not encoded as its transfer syntax says.",
                    _TRANSFER_SYNTAX_UID,
                    rule="PS3.10 7.1",
                )
        else:
            found = guess(start) or corrected(start, EXPLICIT_LE)
            self.transfer_syntax_uid = uid_of(found)
            if not self._is_meta_missing:
                self._note(ProblemCode.META_MISSING, "The file does not say its transfer syntax.", _TRANSFER_SYNTAX_UID)
        self.encoding = found if found is declared else replace(found, deflated=declared.deflated)
        return position

    def _count(self, elements: int, size: int) -> None:
        self.elements += elements
        self.header_bytes += size
        for what, count, limit, meta_limit in (
            ("elements", self.elements, self._limits.elements, META_ELEMENTS),
            ("header bytes", self.header_bytes, self._limits.header_bytes, META_BYTES),
        ):
            if count > limit:
                raise self._nesting.too_much(what, limit)
            if count > meta_limit:
                raise self._nesting.too_much(f"{what} of file meta information", meta_limit)
