"""The headers of elements (PS3.5 7.1): tag, VR and length in every encoding."""

from struct import Struct
from typing import Final, Literal

from tag_service.domain.dictionary import implicit_vr
from tag_service.domain.transfer_syntax import Encoding
from tag_service.domain.vr import LONG_VRS, SHORT_VRS

# The VRs by their bytes.
SHORT: Final = {vr.encode(): vr for vr in SHORT_VRS}
LONG: Final = {vr.encode(): vr for vr in LONG_VRS}
VR_CODES: Final = frozenset({*SHORT, *LONG})
# What writers put where they know no VR.
_NO_VRS: Final = frozenset({b"??", b"  ", b"--", b"\0\0"})

# By byte order (True: little endian). Group, element, VR and length; group, element and a length of four bytes.
SHORT_HEADER: Final = {True: Struct("<HH2sH").unpack_from, False: Struct(">HH2sH").unpack_from}
PLAIN_HEADER: Final = {True: Struct("<HHL").unpack_from, False: Struct(">HHL").unpack_from}


def header_at(buffer: bytes, position: int, tag: int, encoding: Encoding) -> tuple[str, int, int]:
    """VR, size of the header and length of the value (PS3.5 7.1.2, 7.1.3); VR "" for what is no VR at all.

    A VR that this table does not know has a length of four bytes (PS3.5 6.2), but some writers give it two.
    """
    order: Literal["little", "big"] = "little" if encoding.little_endian else "big"
    code, reserved = buffer[position + 4 : position + 6], buffer[position + 6 : position + 8]
    if not encoding.explicit:
        return implicit_vr(tag), 8, int.from_bytes(code + reserved, order)
    vr = SHORT.get(code)
    if vr:
        return vr, 8, int.from_bytes(reserved, order)
    length = int.from_bytes(buffer[position + 8 : position + 12], order)
    vr = LONG.get(code)
    if vr:
        return vr, 12, length
    if code not in _NO_VRS and not (code.isalpha() and code.isupper()):
        return "", 12, 0
    vr = "UN" if code in _NO_VRS else code.decode("ascii")
    return (vr, 12, length) if reserved == b"\0\0" else (vr, 8, int.from_bytes(reserved, order))


def length_in(header: bytes, encoding: Encoding) -> int:
    """The length that a header of this encoding says; UNDEFINED_LENGTH where it leaves that open."""
    size = 2 if encoding.explicit and len(header) == 8 else 4
    return int.from_bytes(header[-size:], "little" if encoding.little_endian else "big")
