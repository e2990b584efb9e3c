"""Text to UTF-8, for a file that gets a value its character set cannot hold (PS3.3 C.12.1.1.2)."""

from collections.abc import Mapping
from typing import Final

from pydicom.datadict import get_private_entry

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.standard import charset, dictionary, values
from tag_service.domain.standard.charset import TEXT_VRS, CharsetError, Charsets
from tag_service.domain.standard.elements import MAX_SHORT_FORM_BYTES, is_short_form
from tag_service.domain.standard.transfer_syntax import Encoding

UTF_8_VALUE: Final = values.pad("CS", charset.UTF_8[0].encode("ascii"))


def text_vr(tag: int, vr: str, creators: Mapping[int, str]) -> str:
    """The VR of an element as text; for one of VR UN what a dictionary knows, "" where it is no text."""
    if vr == "UN":
        vr = dictionary.implicit_vr(tag)
        creator = creators.get(tag & 0xFFFF0000 | tag >> 8 & 0xFF)
        if vr == "UN" and creator:
            try:
                vr = str(get_private_entry(tag, creator)[0])
            except KeyError:
                return ""
    return vr if vr in TEXT_VRS else ""


def transcoded(
    tag: int, vr: str, value: bytes, charsets: Charsets, *, file_vr: str, encoding: Encoding
) -> bytes | None:
    """The value in UTF-8, padded; None where it stays the same. `vr` is its VR as text, `file_vr` that in the file.

    Raises CHARSET_CONFLICT where bytes are no text in the character set, or the text is too long for its VR in UTF-8.
    """
    # Pure ASCII is the same in UTF-8, but for the escape sequences of ISO 2022.
    if charsets == charset.UTF_8 or (value.isascii() and b"\x1b" not in value):
        return None
    try:
        text = charset.decode_strict(value, charsets, vr)
    except CharsetError:
        raise conflict(tag, "holds bytes that are no text in the file's character set") from None
    encoded = text.encode("utf-8")
    if len(encoded) % 2:
        # The space that padded the value before is padding no more.
        encoded = encoded[:-1] if encoded.endswith(b" ") else values.pad(vr, encoded)
    if is_short_form(file_vr, encoding) and len(encoded) > MAX_SHORT_FORM_BYTES:
        raise conflict(tag, "is too long for its VR in UTF-8")
    return encoded


def conflict(tag: int, problem: str) -> ServiceError:
    """The error for text that cannot be carried over."""
    text = dictionary.tag_text(tag)
    return ServiceError(
        Reason.CHARSET_CONFLICT,
        f"A new value needs ISO_IR 192 (UTF-8), and the file's text cannot be carried over: {text} {problem}.",
        metadata={"tag": text},
    )
