"""Guessing how elements are encoded from the first of them, where a file does not say it or says it wrongly."""

from typing import Final

from tag_service.domain.parsing.headers import VR_CODES
from tag_service.domain.standard import dictionary
from tag_service.domain.standard.transfer_syntax import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_BE, IMPLICIT_LE, Encoding
from tag_service.domain.standard.vr import LONG_VRS, UNDEFINED_LENGTH, VRS

# As many bytes from the first element on are enough to guess by.
LOOKAHEAD_BYTES: Final = 1024
_MAX_FIRST_GROUP: Final = 0x0020
_MAX_FIRST_LENGTH: Final = 1024 * 1024
_CANDIDATES: Final = (EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE)
_ELEMENTS_TO_CHECK: Final = 3


def guess(start: bytes) -> Encoding | None:
    """The encoding in which the first elements of a bare data set make sense; None where there is none."""
    return next((encoding for encoding in _CANDIDATES if _makes_sense(start, encoding)), None)


def corrected(start: bytes, declared: Encoding) -> Encoding:
    """The declared encoding, unless the first element is plainly in another one. Real files do lie about it."""
    if len(start) < 8 or (declared is EXPLICIT_LE and start[1] == 0 and start[4:6] in VR_CODES):
        return declared
    group = _number(start[:2], little=declared.little_endian)
    # Groups of data sets begin low: one such as 0x0800 is 0x0008 with its bytes swapped.
    little = declared.little_endian if group <= 0xFF or group & 0xFF else not declared.little_endian
    explicit = _vr_at(start, 0) in VRS
    if not declared.explicit and explicit:
        # The same bytes as an implicit length would mean a first element of more than a gigabyte.
        return EXPLICIT_LE if little else EXPLICIT_BE
    length = _number(start[4:8], little=little)
    if declared.explicit and not explicit and (length <= LOOKAHEAD_BYTES or length == UNDEFINED_LENGTH):
        return IMPLICIT_LE if little else IMPLICIT_BE
    if little is not declared.little_endian:
        return Encoding(explicit=declared.explicit, little_endian=little)
    return declared


def _makes_sense(start: bytes, encoding: Encoding) -> bool:
    """Whether the first elements are known ones, in order, with their own VRs and lengths that fit."""
    position, last, checked = 0, -1, 0
    little = encoding.little_endian
    while checked < _ELEMENTS_TO_CHECK and len(start) - position >= 8:
        group = _number(start[position : position + 2], little=little)
        tag = group << 16 | _number(start[position + 2 : position + 4], little=little)
        if tag <= last or (last < 0 and not 0x00080000 <= tag < (_MAX_FIRST_GROUP + 1) << 16):
            return False
        size = _size_of(start, position, tag, encoding)
        if size is None:
            return False
        checked += 1
        last, position = tag, position + size
    # A long or open element may hide what follows it; one alone says nothing.
    return checked > 1 or (checked == 1 and position >= len(start) and len(start) >= LOOKAHEAD_BYTES)


def _size_of(data: bytes, position: int, tag: int, encoding: Encoding) -> int | None:
    """The size of an element that makes sense, header and value; one that is too large or open counts as all the rest.

    None where it makes no sense.
    """
    entry = dictionary.entry_of(tag)
    vrs = entry[0] if entry else "UL" if not tag & 0xFFFF else ""
    if not vrs:
        return None
    vr = ""
    if encoding.explicit:
        vr = _vr_at(data, position)
        if vr not in vrs.split(" or "):
            return None
    header = 12 if vr in LONG_VRS else 8
    at, size = (position + 6, 2) if vr and header == 8 else (position + header - 4, 4)
    length = _number(data[at : at + size], little=encoding.little_endian)
    if length == UNDEFINED_LENGTH:
        return len(data) if vrs == "SQ" else None
    return None if length % 2 or length > _MAX_FIRST_LENGTH else header + length


def _vr_at(data: bytes, position: int) -> str:
    return data[position + 4 : position + 6].decode("latin-1")


def _number(data: bytes, *, little: bool) -> int:
    return int.from_bytes(data, "little" if little else "big")
