"""New elements, items and sequences as bytes (PS3.5 7.1, 7.5)."""

from struct import pack
from typing import Final

from tag_service.domain.standard.transfer_syntax import Encoding
from tag_service.domain.standard.vr import ITEM, LONG_VRS

# The longest value of even length in 16 bits.
MAX_SHORT_FORM_BYTES: Final = 65_534


def is_short_form(vr: str, encoding: Encoding) -> bool:
    """Whether a value of this VR has at most MAX_SHORT_FORM_BYTES."""
    return encoding.explicit and vr not in LONG_VRS


def header(tag: int, vr: str, length: int, encoding: Encoding) -> bytes:
    """Tag, VR and length."""
    order = "<" if encoding.little_endian else ">"
    start = pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if not encoding.explicit:
        return start + pack(f"{order}L", length)
    if is_short_form(vr, encoding):
        return start + vr.encode("ascii") + pack(f"{order}H", length)
    return start + vr.encode("ascii") + pack(f"{order}HL", 0, length)


def element(tag: int, vr: str, value: bytes, encoding: Encoding) -> bytes:
    """An element with this value, which is padded and not too long for its VR."""
    return header(tag, vr, len(value), encoding) + value


def item_header(encoding: Encoding, length: int = 0) -> bytes:
    """The header of an item."""
    return pack("<HHL" if encoding.little_endian else ">HHL", ITEM >> 16, ITEM & 0xFFFF, length)


def sequence(tag: int, items: list[bytes], encoding: Encoding) -> bytes:
    """A sequence of these items, all of defined length."""
    return element(tag, "SQ", b"".join(item_header(encoding, len(item)) + item for item in items), encoding)
