"""A second reader of DICOM files, to judge the first: it shares no code with tag_service.

It takes a whole file at once and only cuts it up: every element, item and delimiter as the bytes it came as. It is slow
and plain on purpose, and knows nothing of limits; like the engine it does not recurse. The dictionary is pydicom's.
"""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pydicom.datadict import dictionary_VR
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD
UNDEFINED: Final = 0xFFFFFFFF
# The engine looks for items in a UN of defined length only up to here; longer ones are bulk data (M10).
MAX_HIDDEN_SEQUENCE_BYTES: Final = 64 * 1024

_DELIMITERS: Final = 0xFFFE0000
_VRS: Final = frozenset(vr.value for vr in VR if len(vr.value) == 2)
_LONG_VRS: Final = frozenset(str(vr) for vr in EXPLICIT_VR_LENGTH_32)
_FRAGMENT_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})
PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_NO_VRS: Final = frozenset({"??", "  ", "--", "\0\0"})
_IMPLICIT: Final = "1.2.840.10008.1.2"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_DEFLATED: Final = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
_META_ELEMENT_BYTES: Final = 8
# Some writers leave it behind what they deflate (RFC 1952 2.3.1).
_GZIP_TRAILER_BYTES: Final = 8
# More than the engine takes, and less than what exhausts a process.
_MAX_INFLATION: Final = 250
_FREE_INFLATED_BYTES: Final = 16 * 1024 * 1024
_MAX_INFLATED_BYTES: Final = 2 << 30


class BrokenError(Exception):
    """A file that cannot be cut up: `what` is "truncated", "malformed", "no DICOM" or "bomb", for one that inflates to
    more than is good for anybody; `offset` is where.
    """

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"{what} at {offset}")
        self.what = what
        self.offset = offset


class Part(NamedTuple):
    """An element, an item or a delimiter. `depth` is the number of items around it, of an item those around its
    sequence. `header` is tag, VR and length as they stand; `value` what follows, b"" for sequences and items.
    Encapsulated values are one part, their fragments and delimiter verbatim its value.
    """

    depth: int
    tag: int
    header: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Walked:
    """A file cut up. `body` is the data set as it lies in the file, or what it inflates to, to its last element;
    `begin` where it begins in the file; `trailing` what follows it there; `deepest` the greatest number of sequences
    within each other.
    """

    preamble: bytes
    meta: list[Part]
    transfer_syntax_uid: str
    explicit: bool
    little_endian: bool
    is_deflated: bool
    deflated_bytes: int
    begin: int
    body: bytes
    parts: list[Part]
    trailing: bytes
    deepest: int


@dataclass(slots=True)
class _Open:
    """A sequence or an item that is open; `end` is None where a delimiter ends it."""

    is_sequence: bool
    end: int | None
    explicit: bool
    little: bool


@dataclass(slots=True)
class _Walk:
    data: bytes
    position: int = 0
    parts: list[Part] = field(default_factory=list)
    stack: list[_Open] = field(default_factory=list)
    sequences: int = 0
    deepest: int = 0
    looks_into_un: bool = True

    def push(self, frame: _Open) -> None:
        """Opens a sequence or item, or the data set."""
        self.stack.append(frame)
        self.sequences += frame.is_sequence
        self.deepest = max(self.deepest, self.sequences)

    def pop(self) -> None:
        """Closes what was opened last."""
        self.sequences -= self.stack.pop().is_sequence

    @property
    def depth(self) -> int:
        """The number of items that are open."""
        return len(self.stack) - self.sequences - 1

    def take(self, header_bytes: int, length: int) -> tuple[bytes, bytes]:
        """The header and the value that begin here."""
        start = self.position + header_bytes
        if start + length > len(self.data):
            raise BrokenError("truncated", self.position)
        header, value = self.data[self.position : start], self.data[start : start + length]
        self.position = start + length
        return header, value


def walk(data: bytes) -> Walked:
    """The file, cut up. Raises BrokenError."""
    has_prefix = data[128:132] == b"DICM"
    begin = 132 if has_prefix else 0
    meta, begin = _meta(data, begin)
    uid = next(
        (part.value.decode("latin-1").strip(" \0") for part in meta if part.tag == 0x00020010 and part.value), ""
    )
    rest, padding = data[begin:], b""
    if uid in _DEFLATED:
        rest, padding = _inflated(rest, begin)
    if not rest:
        raise BrokenError("truncated", len(data))
    explicit, little = _encoding(rest, uid)
    if not (has_prefix or meta) and not _could_begin(rest, explicit=explicit, little=little):
        raise BrokenError("no DICOM", 0)
    walked = _Walk(rest)
    walked.push(_Open(is_sequence=False, end=None, explicit=explicit, little=little))
    _go(walked)
    trailing = rest[walked.position :]
    if trailing.strip(b"\0") or padding[_GZIP_TRAILER_BYTES:].strip(b"\0"):
        raise BrokenError("malformed", begin + walked.position)
    return Walked(
        preamble=data[:128] if has_prefix else b"",
        meta=meta,
        transfer_syntax_uid=uid,
        explicit=explicit,
        little_endian=little,
        is_deflated=uid in _DEFLATED,
        deflated_bytes=len(data) - begin if uid in _DEFLATED else 0,
        begin=begin,
        body=rest[: walked.position],
        parts=walked.parts,
        trailing=trailing + padding,
        deepest=walked.deepest,
    )


def _meta(data: bytes, position: int) -> tuple[list[Part], int]:
    """The elements of group 0002 and where they end. Before a deflated data set (0002,0000) has to be believed."""
    parts: list[Part] = []
    stop, deflated = len(data), False
    while data[position : position + 2] == b"\x02\x00" and not (deflated and position >= stop):
        if len(data) - position < _META_ELEMENT_BYTES:
            raise BrokenError("truncated", position)
        tag, vr, header_bytes, length = _header(data, position, explicit=True, little=True)
        if vr not in _VRS:
            tag, vr, header_bytes, length = _header(data, position, explicit=False, little=True)
        walk_ = _Walk(data, position=position)
        header, value = walk_.take(header_bytes, length)
        parts.append(Part(0, tag, header, value))
        position = walk_.position
        if tag == 0x00020000 and len(value) == 4:
            stop = position + int.from_bytes(value, "little")
        elif tag == 0x00020010:
            deflated = value.decode("latin-1").strip(" \0") in _DEFLATED
    return parts, position


def _inflated(data: bytes, offset: int) -> tuple[bytes, bytes]:
    """A deflated data set (RFC 1951), inflated, and what follows it."""
    stream = zlib.decompressobj(-15)
    most = max(_FREE_INFLATED_BYTES, min(_MAX_INFLATION * len(data), _MAX_INFLATED_BYTES))
    try:
        body = stream.decompress(data, most)
    except zlib.error:
        raise BrokenError("malformed", offset) from None
    if len(body) == most:
        raise BrokenError("bomb", offset)
    if not stream.eof:
        raise BrokenError("truncated", offset + len(data))
    return body, stream.unused_data


def _encoding(body: bytes, uid: str) -> tuple[bool, bool]:
    """Whether VRs are explicit, and whether the byte order is little endian: as declared, unless it plainly is not."""
    explicit, little = uid != _IMPLICIT, uid != _BIG_ENDIAN
    looks_explicit = body[4:6].decode("latin-1") in _VRS
    # Groups of data sets begin low, so that the byte that holds them tells the byte order.
    if body[:1] != b"\0" and body[1:2] == b"\0":
        little = True
    elif body[:1] == b"\0" and body[1:2] != b"\0":
        little = False
    if looks_explicit:
        return True, little
    length = int.from_bytes(body[4:8], "little" if little else "big")
    is_implicit = not uid or not explicit or length <= 1024 or length == UNDEFINED
    return not is_implicit, little


def _could_begin(body: bytes, *, explicit: bool, little: bool) -> bool:
    """Whether the first element of a bare data set is one that a dictionary knows, and fits."""
    if len(body) < 8:
        return False
    tag, vr, header_bytes, length = _header(body, 0, explicit=explicit, little=little)
    if explicit and vr not in _VRS:
        return False
    known = not tag & 0xFFFF or _dictionary_vr(tag) != "UN"
    return known and 0x0008 <= tag >> 16 <= 0x0020 and (length == UNDEFINED or header_bytes + length <= len(body))


def _header(data: bytes, position: int, *, explicit: bool, little: bool) -> tuple[int, str, int, int]:
    """Tag, VR, bytes of the header and length (PS3.5 7.1.2, 7.1.3)."""
    order = "<" if little else ">"
    group, element, length = struct.unpack_from(f"{order}HHL", data, position)
    tag = group << 16 | element
    if not explicit or tag >= _DELIMITERS:
        return tag, _dictionary_vr(tag), 8, length
    vr = data[position + 4 : position + 6].decode("latin-1")
    is_known = vr in _VRS
    # An unknown VR has the long form (PS3.5 6.2), but for writers that gave it the short one.
    is_long = vr in _LONG_VRS or (not is_known and data[position + 6 : position + 8] == b"\0\0")
    if not is_long:
        (length,) = struct.unpack_from(f"{order}H", data, position + 6)
        return tag, vr, 8, length
    if len(data) - position < 12:
        raise BrokenError("truncated", position)
    (length,) = struct.unpack_from(f"{order}L", data, position + 8)
    return tag, vr, 12, length


def _dictionary_vr(tag: int) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _go(walk_: _Walk) -> None:
    """Cuts up everything to the end of what is at the bottom of the stack."""
    while True:
        top = walk_.stack[-1]
        if top.end is not None and walk_.position >= top.end:
            if walk_.position > top.end:
                raise BrokenError("malformed", walk_.position)
            walk_.pop()
            if not walk_.stack:
                return
            continue
        left = walk_.data[walk_.position : walk_.position + 8]
        is_outermost = len(walk_.stack) == 1 and not top.is_sequence
        if is_outermost and (not left or left == bytes(8)):
            return
        if len(left) < 8:
            raise BrokenError("truncated", walk_.position)
        if top.is_sequence:
            _in_sequence(walk_, top)
        else:
            _in_data_set(walk_, top)
        if not walk_.stack:
            return


def _in_sequence(walk_: _Walk, top: _Open) -> None:
    """An item, or the delimiter of the sequence."""
    offset = walk_.position
    tag, _, _, length = _header(walk_.data, offset, explicit=False, little=top.little)
    header, _ = walk_.take(8, 0)
    if tag == ITEM:
        # Of what hides in a UN alone there is no data set around the sequence.
        walk_.parts.append(Part(walk_.depth, tag, header, b""))
        end = None if length == UNDEFINED else walk_.position + length
        _check_end(walk_, end)
        walk_.push(_Open(is_sequence=False, end=end, explicit=top.explicit, little=top.little))
    elif tag == SEQUENCE_END and top.end is None:
        walk_.parts.append(Part(walk_.depth, tag, header, b""))
        walk_.pop()
    else:
        raise BrokenError("malformed", offset)


def _in_data_set(walk_: _Walk, top: _Open) -> None:
    """An element, or the delimiter of the item."""
    offset = walk_.position
    tag, vr, header_bytes, length = _header(walk_.data, offset, explicit=top.explicit, little=top.little)
    if tag >= _DELIMITERS and tag >> 16 == 0xFFFE:
        header, _ = walk_.take(8, 0)
        if tag != ITEM_END or len(walk_.stack) == 1 or top.end is not None:
            raise BrokenError("malformed", offset)
        walk_.pop()
        walk_.parts.append(Part(walk_.depth, tag, header, b""))
        return
    if not tag or not (vr in _VRS or vr in _NO_VRS or not top.explicit or (vr.isalpha() and vr.isupper())):
        raise BrokenError("malformed", offset)
    kind = _kind(walk_, tag=tag, vr=vr, header_bytes=header_bytes, length=length)
    if kind == "fragments":
        _fragments(walk_, top, tag, header_bytes)
    elif kind:
        header, _ = walk_.take(header_bytes, 0)
        walk_.parts.append(Part(walk_.depth, tag, header, b""))
        end = None if length == UNDEFINED else walk_.position + length
        _check_end(walk_, end)
        as_file = kind == "sequence"
        walk_.push(
            _Open(is_sequence=True, end=end, explicit=as_file and top.explicit, little=top.little or not as_file)
        )
    else:
        _check_end(walk_, offset + header_bytes + length)
        header, value = walk_.take(header_bytes, length)
        walk_.parts.append(Part(walk_.depth, tag, header, value))


def _kind(walk_: _Walk, *, tag: int, vr: str, header_bytes: int, length: int) -> str:
    """What begins here: "sequence", "implicit sequence" (CP-246: implicit VR little endian whatever the file is),
    "fragments", or "" for a plain value.
    """
    if vr == "SQ":
        return "sequence"
    if length == UNDEFINED:
        if tag in PIXEL_TAGS or vr[:2] in _FRAGMENT_VRS:
            return "fragments"
        if vr == "UN" or (tag >> 16) % 2:
            return "implicit sequence"
        raise BrokenError("malformed", walk_.position)
    if walk_.looks_into_un and (vr == "UN" or vr in _NO_VRS) and 8 <= length <= MAX_HIDDEN_SEQUENCE_BYTES:
        start = walk_.position + header_bytes
        if _is_sequence(walk_.data[start : start + length]):
            return "implicit sequence"
    return ""


def _is_sequence(value: bytes) -> bool:
    """Whether the bytes of a UN are items of implicit VR little endian, all of them."""
    if not value.startswith(b"\xfe\xff\x00\xe0"):
        return False
    # What is UN in it is looked into in its turn, or not at all: looking ahead at each level would take 2^depth steps.
    inner = _Walk(value, looks_into_un=False)
    inner.push(_Open(is_sequence=True, end=len(value), explicit=False, little=True))
    try:
        _go(inner)
    except BrokenError:
        return False
    return inner.position == len(value)


def _fragments(walk_: _Walk, top: _Open, tag: int, header_bytes: int) -> None:
    header, _ = walk_.take(header_bytes, 0)
    start = walk_.position
    while True:
        if len(walk_.data) - walk_.position < 8:
            raise BrokenError("truncated", walk_.position)
        item, _, _, length = _header(walk_.data, walk_.position, explicit=False, little=top.little)
        if item == SEQUENCE_END:
            walk_.take(8, 0)
            break
        if item != ITEM or length == UNDEFINED:
            raise BrokenError("malformed", walk_.position)
        walk_.take(8, length)
    walk_.parts.append(Part(walk_.depth, tag, header, walk_.data[start : walk_.position]))


def _check_end(walk_: _Walk, end: int | None) -> None:
    """Raises where something is longer than what it stands in."""
    around = walk_.stack[-1].end
    if end is not None and around is not None and end > around:
        raise BrokenError("malformed", walk_.position)
