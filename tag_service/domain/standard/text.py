"""Values as text, without their padding."""

from typing import Final

from tag_service.domain.standard.charset import DEFAULT, TEXT_VRS, Charsets, Decoded, decode
from tag_service.domain.standard.vr import SINGLE_VALUED_VRS

_PADDING: Final = " \0"


def text_of(value: bytes, vr: str, charsets: Charsets) -> Decoded:
    """The text of a value of a text VR; several values are joined by a backslash (PS3.5 6.2)."""
    # The same in every character set, and most values are so.
    if value.isascii() and b"\x1b" not in value:
        text, exact = value.decode("ascii"), True
    else:
        text, exact = decode(value, charsets if vr in TEXT_VRS else DEFAULT, vr)
    if vr in SINGLE_VALUED_VRS:
        # Leading spaces count in these (PS3.5 6.2).
        return Decoded(text.rstrip(_PADDING), exact)
    if "\\" not in text:
        return Decoded(text.strip(_PADDING), exact)
    return Decoded("\\".join(part.strip(_PADDING) for part in text.split("\\")), exact)
