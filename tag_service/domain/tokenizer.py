"""The tokenizer: the bytes of a DICOM file in, in any pieces, tokens out. Incremental, iterative, bounded.

Nothing is allocated from a declared length, nothing recurses, and bulk data passes in pieces. The tokens of a file are
the same however it is cut. All encodings of PS3.5 are read: preamble or none (PS3.10 7.1), file meta information or
none, VRs explicit or implicit, both byte orders, deflated, sequences and items of defined and undefined length, UN that
hides a sequence (CP-246), encapsulated fragments (PS3.5 A.4).

Errors (ServiceError): EMPTY_FILE, NOT_DICOM, TRUNCATED_FILE, MALFORMED_DICOM, STRUCTURE_LIMIT. They say where, by tag
and offset, and never what.
"""

from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Final

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.detection import LOOKAHEAD_BYTES, corrected, guess
from tag_service.domain.dictionary import FLOAT_PIXEL_DATA, PIXEL_TAGS, implicit_vr
from tag_service.domain.headers import PLAIN_HEADER, SHORT, SHORT_HEADER, VR_CODES, header_at
from tag_service.domain.limits import Limits
from tag_service.domain.nested_un import holds_items
from tag_service.domain.nesting import OPEN, Frame, Nesting
from tag_service.domain.problems import MAX_PROBLEMS, Problem, ProblemCode
from tag_service.domain.source import Source
from tag_service.domain.tokens import (
    BULK,
    BULK_END,
    CHUNK,
    DATA_SET,
    ELEMENT,
    FRAGMENTS,
    META_ELEMENT,
    PREAMBLE,
    SEQUENCE,
    TRAILING,
    Token,
)
from tag_service.domain.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE, encoding_of, uid_of
from tag_service.domain.vr import (
    ITEM,
    LONG_TEXT_VRS,
    SEQUENCE_DELIMITATION,
    UNDEFINED_LENGTH,
)

# Larger values of binary bulk, and of anything else but long text, come in chunks.
WHOLE_BYTES: Final = 64 * 1024
WHOLE_TEXT_BYTES: Final = 1024 * 1024
_CHUNK_BYTES: Final = 1024 * 1024
_PREAMBLE_BYTES: Final = 128
_ZEROS: Final = bytes(8)
_META_GROUP: Final = b"\x02\x00"
_TRANSFER_SYNTAX_UID: Final = 0x00020010
# Tags from here on are items and delimiters.
_DELIMITERS: Final = 0xFFFE0000
_GZIP_TRAILER_BYTES: Final = 8

_Steps = Generator[Token | None, None, None]


class Tokenizer:
    """One file. `feed` it piece by piece, then `close` it; exhaust what each gives before the next call.

    After an error both give nothing more. Not to be used by two threads at once.
    """

    def __init__(self, limits: Limits) -> None:
        self.transfer_syntax_uid = ""
        self.encoding = EXPLICIT_LE
        self.problems: list[Problem] = []
        self._limits = limits
        self._source = Source()
        self._header_bytes = 0
        self._elements = 0
        self._nesting = Nesting(limits)
        self._steps = self._run()

    def feed(self, data: bytes) -> Iterator[Token]:
        """The tokens that are complete with this piece."""
        self._source.feed(data)
        return iter(self._steps.__next__, None)

    def close(self) -> Iterator[Token]:
        """The last tokens. Raises TRUNCATED_FILE where the file may not end here."""
        self._source.close()
        return iter(self._steps.__next__, None)

    def stop(self) -> None:
        """Lets go of the file when nobody wants the rest of it."""
        self._steps.close()

    def note(self, code: ProblemCode | Reason, message: str, tag: int = 0) -> None:
        """Remembers a problem of the element with this tag (0: of none), unless there are too many already."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(code, message, self.path_of(tag) if tag else ""))

    def path_of(self, tag: int) -> str:
        """Where an element with this tag (0: none) stands at this moment: the sequences and items around it, and it."""
        return self._nesting.path_of(tag)

    def _run(self) -> _Steps:
        position = yield from self._head()
        yield (DATA_SET, 0, "", b"", b"", self._source.base + position)
        yield from self._data_set(position)
        yield from self._tail()

    # The head: preamble, file meta information, and how the data set is encoded.

    def _head(self) -> Generator[Token | None, None, int]:
        """Gives the position of the data set in the buffer."""
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
        self.note(ProblemCode.PREAMBLE_MISSING, "The file has no preamble and no DICM mark.")
        position = yield from self._meta(0)
        return (yield from self._settle(position))

    def _meta(self, position: int) -> Generator[Token | None, None, int]:
        """File meta information (PS3.10 7.1), explicit VR little endian save in odd files, as far as group 0002 goes.

        (0002,0000) is often wrong and only believed where what follows, being deflated, does not show where it begins.
        """
        first, end, deflated = position + self._source.base, OPEN, False
        buffer = self._source.buffer
        while True:
            if len(buffer) - position < 12:
                buffer = yield from self._source.fill(position, 12)
                position = 0
            offset = self._source.base + position
            if buffer[position : position + 2] != _META_GROUP or (deflated and offset >= end):
                if offset == first:
                    self.note(ProblemCode.META_MISSING, "The file has no file meta information.")
                return position
            tag = 0x00020000 | int.from_bytes(buffer[position + 2 : position + 4], "little")
            encoding = EXPLICIT_LE if buffer[position + 4 : position + 6] in VR_CODES else IMPLICIT_LE
            vr, header, length = header_at(buffer, position, tag, encoding)
            if length > WHOLE_TEXT_BYTES:
                raise self._nesting.malformed(tag, offset, "its length is impossible in file meta information")
            self._count(header + length)
            if len(buffer) - position < header + length:
                buffer = yield from self._source.fill(position, header + length)
                position = 0
                if len(buffer) < header + length:
                    raise self._nesting.truncated(tag, offset)
            start, position = position, position + header + length
            value = buffer[start + header : position]
            if tag == 0x00020000 and len(value) == 4:
                end = self._source.base + position + int.from_bytes(value, "little")
            elif tag == _TRANSFER_SYNTAX_UID and not self.transfer_syntax_uid:
                self.transfer_syntax_uid = value.decode("latin-1").strip(" \0")
                deflated = encoding_of(self.transfer_syntax_uid).deflated
            yield (META_ELEMENT, tag, vr, buffer[start : start + header], value, offset)

    def _settle(self, position: int) -> Generator[Token | None, None, int]:
        """Finds out how the data set is encoded."""
        declared = encoding_of(self.transfer_syntax_uid)
        if declared.deflated:
            self._source.inflate(position, self._limits)
            position = 0
        start = yield from self._source.fill(position, LOOKAHEAD_BYTES)
        if not start:
            raise ServiceError(
                Reason.TRUNCATED_FILE,
                f"The file ends at offset {self._source.base}, before its data set.",
                metadata={"offset": str(self._source.base)},
            )
        if self.transfer_syntax_uid:
            found = corrected(start, declared)
            if (found.explicit, found.little_endian) != (declared.explicit, declared.little_endian):
                self.note(
                    Reason.MALFORMED_DICOM,
                    "The data set is not encoded as its transfer syntax says.",
                    _TRANSFER_SYNTAX_UID,
                )
        else:
            found = guess(start[:LOOKAHEAD_BYTES]) or corrected(start, EXPLICIT_LE)
            self.transfer_syntax_uid = uid_of(found)
            if all(problem.code is not ProblemCode.META_MISSING for problem in self.problems):
                self.note(ProblemCode.META_MISSING, "The file does not say its transfer syntax.", _TRANSFER_SYNTAX_UID)
        self.encoding = replace(found, deflated=declared.deflated)
        return 0

    # The data set.

    def _data_set(self, pos: int) -> _Steps:  # noqa: C901, PLR0912, PLR0915 - calls would double the cost
        """The tokens from `pos` in the buffer up to the end of the data set."""
        nesting = self._nesting
        stack = nesting.stack
        nesting.begin(self.encoding)
        buf, base = self._source.buffer, self._source.base
        elements, header_bytes = self._elements, self._header_bytes
        max_elements, max_header_bytes = self._limits.elements, self._limits.header_bytes
        short_vr = SHORT.get
        frame: Frame | None = None
        while True:
            if frame is not stack[-1]:
                frame = stack[-1]
                end, explicit, little = frame.end, frame.encoding.explicit, frame.encoding.little_endian
                short_header, plain_header = SHORT_HEADER[little], PLAIN_HEADER[little]
            if explicit and not frame.is_sequence:
                # Most elements are short, plain, and whole in the buffer. Any other is left to what follows.
                begin, edge = pos, min(len(buf), end - base, pos + max_header_bytes - header_bytes)
                for elements in range(elements, max_elements):  # noqa: B007, B020 - the count goes on
                    if edge - pos < 8:
                        break
                    group, element, code, length = short_header(buf, pos)
                    vr, tag, stop = short_vr(code), group << 16 | element, pos + 8 + length
                    if vr is None or stop > edge or tag >= FLOAT_PIXEL_DATA:
                        break
                    yield (ELEMENT, tag, vr, buf[pos : pos + 8], buf[pos + 8 : stop], base + pos)
                    pos = stop
                else:
                    elements = max_elements
                header_bytes += pos - begin
            if base + pos >= end:
                yield self._nesting.leave(base + pos)
                continue
            if len(buf) - pos < 12:
                buf = yield from self._source.fill(pos, 12)
                base, pos = self._source.base, 0
                if len(buf) < 8:
                    if not buf and len(stack) == 1:
                        break
                    raise self._nesting.truncated(0, base)
            elements += 1
            if elements > max_elements:
                raise self._nesting.too_much("elements", max_elements)
            if frame.is_sequence:
                yield self._nesting.enter_or_end(buf[pos : pos + 8], base + pos)
                header_bytes += 8
                pos += 8
                continue

            whole = WHOLE_BYTES
            special = False
            size = 8
            if explicit:
                group, element, code, length = short_header(buf, pos)
                tag = group << 16 | element
                vr = SHORT.get(code)
                if vr is None:
                    if tag >= _DELIMITERS or not tag:
                        vr, special = "", True
                    else:
                        vr, size, length = header_at(buf, pos, tag, frame.encoding)
                        if len(buf) - pos < size:
                            raise self._nesting.truncated(tag, base + pos)
                        special = not vr or vr == "SQ" or vr == "UN" or length == UNDEFINED_LENGTH  # noqa: PLR1714 - is faster
                        whole = WHOLE_TEXT_BYTES if vr in LONG_TEXT_VRS else WHOLE_BYTES
            else:
                group, element, length = plain_header(buf, pos)
                tag = group << 16 | element
                vr = implicit_vr(tag)
                special = vr == "SQ" or length == UNDEFINED_LENGTH or tag >= _DELIMITERS or not tag
                whole = WHOLE_TEXT_BYTES if vr in LONG_TEXT_VRS else WHOLE_BYTES

            if special:
                if tag >= _DELIMITERS:
                    yield self._nesting.leave_by_delimiter(tag, buf[pos : pos + 8], base + pos)
                    pos += 8
                    continue
                if not tag and buf[pos : pos + 8] == _ZEROS and len(stack) == 1:
                    # What pads a file looks like elements (0000,0000).
                    break
                if not (tag and vr):
                    raise self._nesting.malformed(tag, base + pos, "its tag or VR is impossible")
                kind, vr = self._nesting.kind_of(tag, vr, length, base + pos)
                if kind == ELEMENT and vr == "UN" and 8 <= length <= WHOLE_BYTES:
                    buf = yield from self._source.fill(pos, size + length)
                    base, pos = self._source.base, 0
                    if holds_items(buf[size : size + length], depth=self._limits.depth):
                        kind = SEQUENCE
                if kind == SEQUENCE:
                    header_bytes += size
                    yield self._nesting.enter_sequence(tag, vr, buf[pos : pos + size], length, base + pos)
                    pos += size
                    continue
                if kind == FRAGMENTS:
                    header_bytes += size
                    yield (FRAGMENTS, tag, vr, buf[pos : pos + size], b"", base + pos)
                    self._elements = elements
                    pos = yield from self._fragments(tag, pos + size, little=little)
                    buf, base, elements = self._source.buffer, self._source.base, self._elements
                    yield (BULK_END, tag, "", b"", b"", base + pos)
                    continue

            stop = pos + size + length
            if base + stop > end:
                raise self._nesting.malformed(tag, base + pos, "it is longer than the item or sequence it stands in")
            if length > whole or tag >= FLOAT_PIXEL_DATA:
                if tag >= _DELIMITERS:
                    raise self._nesting.malformed(tag, base + pos, "a delimiter has a length")
                if length > whole or tag in PIXEL_TAGS:
                    header_bytes += size
                    yield (BULK, tag, vr, buf[pos : pos + size], b"", base + pos)
                    pos = yield from self._chunks(tag, pos + size, length)
                    buf, base = self._source.buffer, self._source.base
                    yield (BULK_END, tag, "", b"", b"", base + pos)
                    continue
            header_bytes += size + length
            if header_bytes > max_header_bytes:
                raise self._nesting.too_much("header bytes", max_header_bytes)
            if stop > len(buf):
                buf = yield from self._source.fill(pos, size + length)
                base, pos, stop = self._source.base, 0, size + length
                if stop > len(buf):
                    raise self._nesting.truncated(tag, base)
            yield (ELEMENT, tag, vr, buf[pos : pos + size], buf[pos + size : stop], base + pos)
            pos = stop
        self._source.base, self._source.buffer = base + pos, buf[pos:]

    def _chunks(self, tag: int, position: int, length: int) -> Generator[Token | None, None, int]:
        """A long value in chunks."""
        buffer = self._source.buffer
        left = length
        while left:
            if position >= len(buffer):
                buffer = yield from self._source.fill(position, 1)
                position = 0
                if not buffer:
                    raise self._nesting.truncated(tag, self._source.base)
            piece = buffer[position : position + min(left, _CHUNK_BYTES)]
            yield (CHUNK, tag, "", b"", piece, self._source.base + position)
            position += len(piece)
            left -= len(piece)
        return position

    def _fragments(self, tag: int, position: int, *, little: bool) -> Generator[Token | None, None, int]:
        """The items of an encapsulated value, verbatim, to its sequence delimitation item (PS3.5 A.4)."""
        while True:
            buffer = yield from self._source.fill(position, 8)
            position, offset = 0, self._source.base
            if len(buffer) < 8:
                raise self._nesting.truncated(tag, offset)
            group, element, length = PLAIN_HEADER[little](buffer)
            item = group << 16 | element
            if item not in {ITEM, SEQUENCE_DELIMITATION} or (item == ITEM and length == UNDEFINED_LENGTH):
                raise self._nesting.malformed(tag, offset, "what stands among its fragments is no fragment")
            yield (CHUNK, tag, "", b"", buffer[:8], offset)
            if item == SEQUENCE_DELIMITATION:
                return 8
            self._elements += 1
            if self._elements > self._limits.elements:
                raise self._nesting.too_much("elements", self._limits.elements)
            position = yield from self._chunks(tag, 8, length)

    def _tail(self) -> _Steps:
        """What follows the data set: a little that pads it, else the file is broken."""
        offset = self._source.base
        extra = yield from self._padding(0)
        if self._source.is_inflating:
            if not self._source.stop_inflating():
                raise self._nesting.truncated(0, offset)
            # Its own end mark ends a deflated data set. One NUL may pad it (PS3.5 A.5), some writers leave the
            # trailer of gzip (RFC 1952 2.3.1) there.
            extra += max(0, (yield from self._padding(_GZIP_TRAILER_BYTES)) - 1)
        if extra:
            self.note(ProblemCode.TRAILING_BYTES, f"Bytes that are no element follow the data set at offset {offset}.")

    def _padding(self, allowed: int) -> Generator[Token | None, None, int]:
        """Reads on to the end; gives how many bytes that were. More than `allowed` of them have to be zero."""
        count = 0
        buffer = yield from self._source.fill(0, 1)
        while buffer:
            count += len(buffer)
            if buffer.strip(b"\0") and count > allowed:
                raise self._nesting.malformed(0, self._source.base, "bytes that are no element follow the data set")
            yield (TRAILING, 0, "", b"", buffer, self._source.base)
            buffer = yield from self._source.fill(len(buffer), 1)
        return count

    # Errors.

    def _count(self, size: int) -> None:
        self._elements += 1
        self._header_bytes += size
        if self._header_bytes > self._limits.header_bytes:
            raise self._nesting.too_much("header bytes", self._limits.header_bytes)
