"""The headers of elements (PS3.5 7.1): tag, VR and length in every encoding."""

from collections.abc import Callable
from struct import Struct
from typing import Final

from tag_service.domain.standard.dictionary import implicit_vr
from tag_service.domain.standard.transfer_syntax import Encoding
from tag_service.domain.standard.vr import LONG_VRS, SHORT_VRS

# (buffer, position): the tag, the VR ("" for what is no VR at all), the size of the header and the length of the value.
# At least 8 bytes have to be there; of a header that needs more than there are, the length is not to be relied on.
HeaderParser = Callable[[bytes, int], tuple[int, str, int, int]]

# The VRs by their bytes.
SHORT_VR_OF: Final = {vr.encode(): vr for vr in SHORT_VRS}
LONG_VR_OF: Final = {vr.encode(): vr for vr in LONG_VRS}
VR_CODES: Final = frozenset({*SHORT_VR_OF, *LONG_VR_OF})
# What writers put where they know no VR.
_NO_VRS: Final = frozenset({b"??", b"  ", b"--", b"\0\0"})
_HEADER_BYTES: Final = 12

# By byte order (True: little endian). Group, element and a length of four bytes.
PLAIN_HEADER: Final = {True: Struct("<HHL").unpack_from, False: Struct(">HHL").unpack_from}
# An item of defined length that holds nothing.
EMPTY_ITEM: Final = {True: b"\xfe\xff\x00\xe0" + bytes(4), False: b"\xff\xfe\xe0\x00" + bytes(4)}


def _explicit_parser(mark: str) -> HeaderParser:
    """The parser of explicit VR (PS3.5 7.1.2)."""
    unpack = Struct(f"{mark}HH2sHL").unpack_from

    def parse(buffer: bytes, position: int) -> tuple[int, str, int, int]:
        if len(buffer) - position < _HEADER_BYTES:
            buffer, position = buffer[position:].ljust(_HEADER_BYTES, b"\0"), 0
        group, element, code, short_length, length = unpack(buffer, position)
        tag = group << 16 | element
        if vr := SHORT_VR_OF.get(code):
            return tag, vr, 8, short_length
        if vr := LONG_VR_OF.get(code):
            return tag, vr, 12, length
        if code in _NO_VRS:
            vr = "UN"
        elif code.isalpha() and code.isupper():
            vr = code.decode("ascii")
        else:
            return tag, "", 12, 0
        # A VR that this table does not know has a length of four bytes (PS3.5 6.2), but some writers give it two.
        return (tag, vr, 8, short_length) if short_length else (tag, vr, 12, length)

    return parse


def _implicit_parser(mark: str) -> HeaderParser:
    """The parser of implicit VR (PS3.5 7.1.3)."""
    unpack = PLAIN_HEADER[mark == "<"]

    def parse(buffer: bytes, position: int) -> tuple[int, str, int, int]:
        group, element, length = unpack(buffer, position)
        tag = group << 16 | element
        return tag, implicit_vr(tag), 8, length

    return parse


# By explicit and little_endian of the encoding.
_PARSERS: Final = {
    (True, True): _explicit_parser("<"),
    (True, False): _explicit_parser(">"),
    (False, True): _implicit_parser("<"),
    (False, False): _implicit_parser(">"),
}


def parser_of(encoding: Encoding) -> HeaderParser:
    """The parser of what is encoded so."""
    return _PARSERS[encoding.explicit, encoding.little_endian]


def length_in(header: bytes, encoding: Encoding) -> int:
    """The length that a header of this encoding says; UNDEFINED_LENGTH where it leaves that open."""
    size = 2 if encoding.explicit and len(header) == 8 else 4
    return int.from_bytes(header[-size:], "little" if encoding.little_endian else "big")
