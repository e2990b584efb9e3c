"""The tokenizer: the bytes of a DICOM file in, in any pieces, tokens out. Incremental, iterative, bounded.

Nothing is allocated from a declared length, nothing recurses, and bulk data passes in pieces. The tokens of a file are
the same however it is cut. All encodings of PS3.5 are read: preamble or none (PS3.10 7.1), file meta information or
none, VRs explicit or implicit, both byte orders, deflated, sequences and items of defined and undefined length, UN that
hides a sequence (CP-246), encapsulated fragments (PS3.5 A.4).

Errors (ServiceError): EMPTY_FILE, NOT_DICOM, TRUNCATED_FILE, MALFORMED_DICOM, STRUCTURE_LIMIT. They say where, by tag
and offset, and never what.
"""

from collections.abc import Generator, Iterator
from typing import Final

from service_runtime.errors import Reason
from tag_service.domain.parsing.head import Head
from tag_service.domain.parsing.headers import EMPTY_ITEM, PLAIN_HEADER, VR_CODES, parser_of
from tag_service.domain.parsing.nested_un import holds_items
from tag_service.domain.parsing.nesting import Nesting
from tag_service.domain.parsing.scanning import WHOLE_BYTES, scanner_of, whole_bytes
from tag_service.domain.parsing.source import Source
from tag_service.domain.parsing.tokens import (
    BULK,
    BULK_END,
    CHUNK,
    DATA_SET,
    ITEM_BEGIN,
    ITEM_END,
    MAX_RUN,
    SEQUENCE,
    SEQUENCE_END,
    TRAILING,
    Event,
    Run,
)
from tag_service.domain.standard.dictionary import PIXEL_TAGS
from tag_service.domain.standard.limits import Limits
from tag_service.domain.standard.problems import MAX_PROBLEMS, RULES, Problem, ProblemCode
from tag_service.domain.standard.transfer_syntax import Encoding
from tag_service.domain.standard.vr import DELIMITERS, ITEM, SEQUENCE_DELIMITATION, UNDEFINED_LENGTH

_ZEROS: Final = bytes(8)
_GZIP_TRAILER_BYTES: Final = 8

_Steps = Generator[Event | None, None, None]


class Tokenizer:
    """One file. `feed` it piece by piece, then `close` it; exhaust what each gives, or `rest`, before the next call.

    After an error both give nothing more. Not to be used by two threads at once.
    """

    def __init__(self, limits: Limits, *, max_run: int = MAX_RUN) -> None:
        """No Run is of more than `max_run` elements."""
        self.problems: list[Problem] = []
        self.problems_left_out = 0
        # Of the value in CHUNKs that the file is in: how many bytes are still to be fed; 0 outside one, and where the
        # data set is deflated, for there nobody knows.
        self.bulk_left = 0
        self._limits = limits
        self._max_run = max_run
        self._source = Source()
        self._elements = 0
        self._nesting = Nesting(limits)
        self._head = Head(self._source, self._nesting, limits, self.note)
        self._steps = self._run()

    @property
    def transfer_syntax_uid(self) -> str:
        """The transfer syntax that the file names, or is taken to have; "" before that is known."""
        return self._head.transfer_syntax_uid

    @property
    def encoding(self) -> Encoding:
        """How the data set is in fact encoded, from its DATA_SET token on."""
        return self._head.encoding

    def feed(self, data: bytes) -> Iterator[Event]:
        """The tokens that are complete with this piece."""
        self._source.feed(data)
        return iter(self._steps.__next__, None)

    def rest(self) -> Iterator[Event]:
        """The tokens that are complete already, where what `feed` gave was not exhausted."""
        return iter(self._steps.__next__, None)

    def close(self) -> Iterator[Event]:
        """The last tokens. Raises TRUNCATED_FILE where the file may not end here."""
        self._source.close()
        return iter(self._steps.__next__, None)

    def skip(self, size: int) -> None:
        """Passes over so many of the bytes that are `bulk_left`; they are not fed."""
        self.bulk_left -= size
        self._source.skip(size)

    def stop(self) -> None:
        """Lets go of the file when nobody wants the rest of it."""
        self._steps.close()

    def note(self, code: ProblemCode | Reason, message: str, tag: int = 0, *, rule: str = "") -> None:
        """Remembers a problem of the element with this tag (0: of none), unless there are too many already; `rule` is
        what it breaks, where its code does not say that.
        """
        if len(self.problems) < MAX_PROBLEMS:
            where = self.path_of(tag) if tag else ""
            self.problems.append(Problem(code, message, where, rule=rule or RULES[code]))
        else:
            self.problems_left_out += 1

    def path_of(self, tag: int) -> str:
        """Where an element with this tag (0: none) stands at this moment: the sequences and items around it, and it."""
        return self._nesting.path_of(tag)

    def _run(self) -> _Steps:
        position = yield from self._head.read()
        yield (DATA_SET, 0, "", b"", b"", self._source.base + position)
        yield from self._data_set(position)
        yield from self._tail()

    def _data_set(self, pos: int) -> _Steps:  # noqa: C901, PLR0912, PLR0915 - calls would double the cost
        """The tokens from `pos` in the buffer up to the end of the data set."""
        nesting = self._nesting
        stack = nesting.stack
        nesting.begin(self.encoding)
        buf, base = self._source.buffer, self._source.base
        elements, header_bytes = self._head.elements, self._head.header_bytes
        max_run = self._max_run
        max_elements, max_header_bytes = self._limits.elements, self._limits.header_bytes
        frame = stack[-1]
        encoding = frame.encoding
        scan, parse = scanner_of(encoding), parser_of(encoding)
        while True:
            if frame is not stack[-1]:
                frame = stack[-1]
                if frame.encoding is not encoding:
                    encoding = frame.encoding
                    scan, parse = scanner_of(encoding), parser_of(encoding)
            end = frame.end
            if base + pos >= end:
                yield nesting.leave(base + pos)
                continue
            if not (frame.is_sequence or (encoding.explicit and buf.startswith(b"SQ", pos + 4))):
                # Most elements are plain and whole in the buffer. Any other is left to what follows.
                edge = len(buf)
                if base + edge > end:
                    edge = end - base
                if edge - pos > max_header_bytes - header_bytes:
                    edge = pos + max_header_bytes - header_bytes
                most = max_run if elements + max_run <= max_elements else max_elements - elements
                run = scan(buf, pos, edge, most)
                if run:
                    begin, pos = pos, run[-1][4]
                    elements += len(run)
                    header_bytes += pos - begin
                    yield Run(buf, base, run)
                    if base + pos >= end or pos - begin > 8 * (most - 1):
                        continue
            if len(buf) - pos < 12:
                buf = yield from self._source.fill(pos, 12)
                base, pos = self._source.base, 0
                if len(buf) < 8:
                    if not buf and len(stack) == 1:
                        break
                    raise nesting.truncated(0, base)
            elements += 1
            if elements > max_elements:
                raise nesting.too_much("elements", max_elements)
            if frame.is_sequence:
                header_bytes += 8
                header = buf[pos : pos + 8]
                if header == EMPTY_ITEM[encoding.little_endian] and base + pos + 8 <= end:
                    # There may be very many of them.
                    frame.count += 1
                    yield (ITEM_BEGIN, ITEM, "", header, b"", base + pos)
                    pos += 8
                    yield (ITEM_END, ITEM, "", b"", b"", base + pos)
                    continue
                yield nesting.enter_or_end(header, base + pos)
                pos += 8
                continue

            tag, vr, size, length = parse(buf, pos)
            if tag >= DELIMITERS:
                yield nesting.leave_by_delimiter(tag, buf[pos : pos + 8], base + pos)
                pos += 8
                continue
            if len(buf) - pos < size:
                raise nesting.truncated(tag, base + pos)
            if not tag and buf.startswith(_ZEROS, pos) and len(stack) == 1:
                # What pads a file looks like elements (0000,0000).
                break
            if not vr or not (tag or buf[pos + 4 : pos + 6] in VR_CODES):
                raise nesting.malformed(tag, base + pos, "its tag or VR is impossible", rule="PS3.5 7.1")
            kind: int | None = None
            if vr == "SQ":
                kind = SEQUENCE
            elif length == UNDEFINED_LENGTH:
                kind, vr = nesting.kind_of(tag, vr, base + pos)
            elif vr == "UN" and 8 <= length <= WHOLE_BYTES and len(stack) // 2 < self._limits.depth:
                if len(buf) - pos < size + length:
                    buf = yield from self._source.fill(pos, size + length)
                    base, pos = self._source.base, 0
                depth = self._limits.depth - len(stack) // 2
                is_sequence, looked_at = holds_items(buf[pos + size : pos + size + length], depth=depth)
                if is_sequence:
                    kind = SEQUENCE
                else:
                    # Looking in vain takes as long as reading.
                    elements += looked_at
                    if elements > max_elements:
                        raise nesting.too_much("elements", max_elements)
            if kind == SEQUENCE:
                header_bytes += size
                header = buf[pos : pos + size]
                if not length and len(stack) // 2 < self._limits.depth and base + pos + size <= end:
                    yield (SEQUENCE, tag, vr, header, b"", base + pos)
                    pos += size
                    yield (SEQUENCE_END, tag, "", b"", b"", base + pos)
                    continue
                yield nesting.enter_sequence(tag, vr, header, length, base + pos)
                pos += size
                continue
            if kind is None:
                if base + pos + size + length > end:
                    raise nesting.malformed(tag, base + pos, "it is longer than the item or sequence it stands in")
                if length > whole_bytes(vr) or tag in PIXEL_TAGS:
                    kind = BULK
            if kind is not None:
                header_bytes += size
                yield (kind, tag, vr, buf[pos : pos + size], b"", base + pos)
                if kind == BULK:
                    pos = yield from self._chunks(tag, pos + size, length)
                else:
                    self._elements = elements
                    pos = yield from self._fragments(tag, pos + size, little=encoding.little_endian)
                    elements = self._elements
                buf, base = self._source.buffer, self._source.base
                yield (BULK_END, tag, "", b"", b"", base + pos)
                continue

            size += length
            header_bytes += size
            if header_bytes > max_header_bytes:
                raise nesting.too_much("header bytes", max_header_bytes)
            if len(buf) - pos < size:
                buf = yield from self._source.fill(pos, size)
                base, pos = self._source.base, 0
                if len(buf) < size:
                    raise nesting.truncated(tag, base)
            yield Run(buf, base, [(tag, vr, pos, pos + size - length, pos + size)])
            pos += size
        self._source.base, self._source.buffer = base + pos, buf[pos:]

    def _chunks(self, tag: int, position: int, length: int) -> Generator[Event | None, None, int]:
        """A long value in chunks, as they come in."""
        buffer, left = self._source.buffer, length
        while left:
            if position >= len(buffer):
                can_skip = not self._source.is_inflating
                self.bulk_left = left if can_skip else 0
                buffer = yield from self._source.fill(position, 1)
                position = 0
                if can_skip:
                    left, self.bulk_left = self.bulk_left, 0
                    if not left:
                        break
                if not buffer:
                    raise self._nesting.truncated(tag, self._source.base)
            piece = buffer[position : position + left]
            yield (CHUNK, tag, "", b"", piece, self._source.base + position)
            position += len(piece)
            left -= len(piece)
        return position

    def _fragments(self, tag: int, position: int, *, little: bool) -> Generator[Event | None, None, int]:
        """The items of an encapsulated value, verbatim, to its sequence delimitation item (PS3.5 A.4)."""
        while True:
            buffer = self._source.buffer
            if len(buffer) - position < 8:
                buffer = yield from self._source.fill(position, 8)
                position = 0
            offset = self._source.base + position
            if len(buffer) - position < 8:
                raise self._nesting.truncated(tag, offset)
            group, element, length = PLAIN_HEADER[little](buffer, position)
            item = group << 16 | element
            if item not in {ITEM, SEQUENCE_DELIMITATION} or (item == ITEM and length == UNDEFINED_LENGTH):
                what = "what stands among its fragments is no fragment"
                raise self._nesting.malformed(tag, offset, what, rule="PS3.5 A.4")
            yield (CHUNK, tag, "", b"", buffer[position : position + 8], offset)
            position += 8
            if item == SEQUENCE_DELIMITATION:
                return position
            self._elements += 1
            if self._elements > self._limits.elements:
                raise self._nesting.too_much("elements", self._limits.elements)
            position = yield from self._chunks(tag, position, length)

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

    def _padding(self, allowed: int) -> Generator[Event | None, None, int]:
        """Reads on to the end; gives how many bytes that were. Those behind the first `allowed` have to be zero."""
        count = 0
        buffer = yield from self._source.fill(0, 1)
        while buffer:
            wrong = buffer[max(0, allowed - count) :].lstrip(b"\0")
            if wrong:
                what = "bytes that are no element follow the data set"
                offset = self._source.base + len(buffer) - len(wrong)
                raise self._nesting.malformed(0, offset, what, rule="PS3.10 7.2")
            count += len(buffer)
            yield (TRAILING, 0, "", b"", buffer, self._source.base)
            buffer = yield from self._source.fill(len(buffer), 1)
        return count
