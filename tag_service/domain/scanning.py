"""The loops that nearly all of a header goes through: plain elements (PS3.5 7.1) that lie whole in a buffer.

They stop at whatever is no such element, or might be none: the tokenizer looks at that one closely.
"""

from itertools import repeat
from struct import Struct
from typing import Final

from tag_service.domain.dictionary import FLOAT_PIXEL_DATA, implicit_vr
from tag_service.domain.headers import LONG, PLAIN_HEADER, SHORT, SHORT_HEADER
from tag_service.domain.tokens import PlainElement
from tag_service.domain.transfer_syntax import Encoding
from tag_service.domain.vr import ITEM_GROUP, LONG_TEXT_VRS

# Larger values of binary bulk, and of anything else but long text, come in chunks.
WHOLE_BYTES: Final = 64 * 1024
WHOLE_TEXT_BYTES: Final = 1024 * 1024
_LENGTH: Final = {True: Struct("<L").unpack_from, False: Struct(">L").unpack_from}
# The item tag in little endian, which items in UN are encoded in.
_ITEM: Final = b"\xfe\xff\x00\xe0"
_PIXEL_GROUP: Final = FLOAT_PIXEL_DATA >> 16


def whole_bytes(vr: str) -> int:
    """How large a value may be that does not come in chunks."""
    return WHOLE_TEXT_BYTES if vr in LONG_TEXT_VRS else WHOLE_BYTES


def scan(buffer: bytes, position: int, edge: int, encoding: Encoding, most: int) -> list[PlainElement]:
    """The plain elements from `position` on that end before `edge`, at most `most`."""
    if encoding.explicit:
        return _scan_explicit(buffer, position, edge, most, little=encoding.little_endian)
    return _scan_implicit(buffer, position, edge, most, little=encoding.little_endian)


def _scan_explicit(buffer: bytes, position: int, edge: int, most: int, *, little: bool) -> list[PlainElement]:
    found: list[PlainElement] = []
    append = found.append
    header, long_length, short, long = SHORT_HEADER[little], _LENGTH[little], SHORT.get, LONG.get
    last = edge - 8
    for _ in repeat(None, most):
        if position > last:
            break
        group, element, code, length = header(buffer, position)
        if group >= _PIXEL_GROUP and (group == _PIXEL_GROUP or group >= ITEM_GROUP):
            break
        start = position + 8
        vr = short(code)
        if vr is None:
            vr = long(code)
            if vr is None or vr == "SQ" or position > last - 4:
                break
            (length,) = long_length(buffer, start)
            start = position + 12
            if length > WHOLE_BYTES or (vr == "UN" and buffer.startswith(_ITEM, start)):
                break
        stop = start + length
        if stop > edge:
            break
        append((group << 16 | element, vr, position, start, stop))
        position = stop
    return found


def _scan_implicit(buffer: bytes, position: int, edge: int, most: int, *, little: bool) -> list[PlainElement]:
    found: list[PlainElement] = []
    append = found.append
    header = PLAIN_HEADER[little]
    last = edge - 8
    for _ in repeat(None, most):
        if position > last:
            break
        group, element, length = header(buffer, position)
        start = position + 8
        stop = start + length
        tag = group << 16 | element
        if stop > edge or length > WHOLE_BYTES or not tag:
            break
        if group >= _PIXEL_GROUP and (group == _PIXEL_GROUP or group >= ITEM_GROUP):
            break
        vr = implicit_vr(tag)
        if vr == "SQ":
            break
        append((tag, vr, position, start, stop))
        position = stop
    return found
