"""The loops that nearly all of a header goes through: plain elements (PS3.5 7.1) that lie whole in a buffer.

They stop at whatever is no such element, or might be none: the tokenizer looks at that one closely.
"""

from collections.abc import Callable
from itertools import takewhile
from struct import Struct
from typing import Final, Literal

from tag_service.domain.parsing.headers import LONG_VR_OF, PLAIN_HEADER, SHORT_VR_OF
from tag_service.domain.parsing.tokens import PlainElement
from tag_service.domain.standard.dictionary import FLOAT_PIXEL_DATA, IMPLICIT_VRS, implicit_vr
from tag_service.domain.standard.transfer_syntax import Encoding
from tag_service.domain.standard.vr import DELIMITERS, LONG_TEXT_VRS

# (buffer, position, edge, most): the plain elements from the position on that end before the edge, at most as many.
Scanner = Callable[[bytes, int, int, int], list[PlainElement]]

# Larger values of binary bulk, and of anything else but long text, come in chunks.
WHOLE_BYTES: Final = 64 * 1024
WHOLE_TEXT_BYTES: Final = 1024 * 1024
# The item tag in little endian, which items in UN are encoded in.
_ITEM: Final = b"\xfe\xff\x00\xe0"
_PIXEL_GROUP: Final = FLOAT_PIXEL_DATA >> 16
_DELIMITER_GROUP: Final = DELIMITERS >> 16
_FIRST_META_TAG: Final = 0x00020000
_LAST_META_TAG: Final = 0x0002FFFF
# The header of (0002,0000): the length of what follows it.
_META_LENGTH: Final = b"\x02\x00\x00\x00UL\x04\x00"


def whole_bytes(vr: str) -> int:
    """How large a value may be that does not come in chunks."""
    return WHOLE_TEXT_BYTES if vr in LONG_TEXT_VRS else WHOLE_BYTES


def _explicit_scanner(order: Literal["little", "big"]) -> Scanner:
    """The scanner of explicit VR (PS3.5 7.1.2)."""
    mark = "<" if order == "little" else ">"
    header, long_length = Struct(f"{mark}4H").unpack_from, Struct(f"{mark}L").unpack_from
    # By their bytes as a number, "" for one to look at elsewhere: a long VR is no short one, a sequence and a delimiter
    # (which has no VR) are no plain elements.
    long = {int.from_bytes(code, order): vr for code, vr in LONG_VR_OF.items() if vr != "SQ"}
    long |= {int.from_bytes(b"SQ", order): "", 0: ""}
    short = {int.from_bytes(code, order): vr for code, vr in SHORT_VR_OF.items()} | dict.fromkeys(long, "")

    def scan(buffer: bytes, position: int, edge: int, most: int) -> list[PlainElement]:
        found: list[PlainElement] = []
        append = found.append
        # No element takes less than 8 bytes.
        last = edge - 8
        if last - position >= 8 * most:
            last = position + 8 * (most - 1)
        try:
            while position <= last:
                group, element, code, length = header(buffer, position)
                if vr := short[code]:
                    start = position + 8
                else:
                    vr = long[code]
                    if not vr or position + 12 > edge:
                        break
                    (length,) = long_length(buffer, position + 8)
                    start = position + 12
                    if length > WHOLE_BYTES or (vr == "UN" and buffer.startswith(_ITEM, start)):
                        break
                stop = start + length
                if stop > edge or (group >= _PIXEL_GROUP and (group == _PIXEL_GROUP or group >= _DELIMITER_GROUP)):
                    break
                append((group << 16 | element, vr, position, start, stop))
                position = stop
        except KeyError:
            # No VR that is known: asking before would cost every element.
            pass
        return found

    return scan


def _implicit_scanner(order: Literal["little", "big"]) -> Scanner:
    """The scanner of implicit VR (PS3.5 7.1.3)."""
    header, standard = PLAIN_HEADER[order == "little"], IMPLICIT_VRS.get

    def scan(buffer: bytes, position: int, edge: int, most: int) -> list[PlainElement]:
        found: list[PlainElement] = []
        append = found.append
        last = edge - 8
        if last - position >= 8 * most:
            last = position + 8 * (most - 1)
        while position <= last:
            group, element, length = header(buffer, position)
            start = position + 8
            stop = start + length
            if stop > edge or (group >= _PIXEL_GROUP and (group == _PIXEL_GROUP or group >= _DELIMITER_GROUP)):
                break
            tag = group << 16 | element
            vr = standard(tag)
            if not vr:
                vr = implicit_vr(tag)
                if vr == "UN" and buffer.startswith(_ITEM, start):
                    break
            if vr == "SQ" or length > WHOLE_BYTES or not tag:
                break
            append((tag, vr, position, start, stop))
            position = stop
        return found

    return scan


# By explicit and little_endian of the encoding.
_SCANNERS: Final = {
    (True, True): _explicit_scanner("little"),
    (True, False): _explicit_scanner("big"),
    (False, True): _implicit_scanner("little"),
    (False, False): _implicit_scanner("big"),
}
_scan_meta: Final = _SCANNERS[True, True]


def scanner_of(encoding: Encoding) -> Scanner:
    """The scanner of what is encoded so."""
    return _SCANNERS[encoding.explicit, encoding.little_endian]


def scan_meta(buffer: bytes, position: int, edge: int, most: int) -> list[PlainElement]:
    """The same of file meta information (PS3.10 7.1), as far as group 0002 goes."""
    if buffer.startswith(_META_LENGTH, position):
        # Believed only as far as it spares looking at elements of the data set.
        edge = min(edge, position + 12 + int.from_bytes(buffer[position + 8 : position + 12], "little"))
    found = _scan_meta(buffer, position, edge, most)
    if found and (min(found)[0] < _FIRST_META_TAG or max(found)[0] > _LAST_META_TAG):
        return list(takewhile(lambda element: _FIRST_META_TAG <= element[0] <= _LAST_META_TAG, found))
    return found
