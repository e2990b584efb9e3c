"""How a transfer syntax (PS3.5 annex A) encodes the data set."""

from dataclasses import dataclass
from typing import Final

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are encoded: VR said or implied, byte order, and whether they are deflated (RFC 1951) as a whole."""

    explicit: bool
    little_endian: bool
    deflated: bool = False


EXPLICIT_LE: Final = Encoding(explicit=True, little_endian=True)
IMPLICIT_LE: Final = Encoding(explicit=False, little_endian=True)
EXPLICIT_BE: Final = Encoding(explicit=True, little_endian=False)
IMPLICIT_BE: Final = Encoding(explicit=False, little_endian=False)

_ENCODINGS: Final = {
    IMPLICIT_LITTLE: IMPLICIT_LE,  # A.1
    EXPLICIT_BIG: EXPLICIT_BE,  # A.3, retired
    DEFLATED: Encoding(explicit=True, little_endian=True, deflated=True),  # A.5
    # A.7: JPIP Referenced Deflate, and its HTJ2K sister, deflate the data set too.
    "1.2.840.10008.1.2.4.95": Encoding(explicit=True, little_endian=True, deflated=True),
    "1.2.840.10008.1.2.4.205": Encoding(explicit=True, little_endian=True, deflated=True),
}
# Those whose pixel data is not encapsulated (A.1 to A.3, A.5, A.6, A.7); of the last two it is elsewhere.
NATIVE: Final = frozenset(
    {
        *_ENCODINGS,
        EXPLICIT_LITTLE,
        "1.2.840.10008.1.2.4.94",  # JPIP Referenced
        "1.2.840.10008.1.2.4.204",  # JPIP HTJ2K Referenced
    }
)
_UID_OF: Final = {EXPLICIT_LE: EXPLICIT_LITTLE, IMPLICIT_LE: IMPLICIT_LITTLE, EXPLICIT_BE: EXPLICIT_BIG}


def encoding_of(uid: str) -> Encoding:
    """The encoding of a transfer syntax. All others, private and future ones too, are explicit VR little endian (A.4);
    Deflated Image Frame Compression (1.2.840.10008.1.2.8.1) deflates frames, not the data set (A.4.13).
    """
    return _ENCODINGS.get(uid, EXPLICIT_LE)


def uid_of(encoding: Encoding) -> str:
    """The transfer syntax that is taken for what a file without one is encoded as."""
    return _UID_OF.get(encoding, EXPLICIT_LITTLE)
