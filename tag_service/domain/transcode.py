"""All text of a file to UTF-8, for a new value that its character set cannot hold (PS3.3 C.12.1.1.2)."""

from pydicom.datadict import get_private_entry

from service_runtime.errors import Reason, ServiceError
from tag_service.domain import charset, dictionary, values
from tag_service.domain.charset import TEXT_VRS, CharsetError
from tag_service.domain.dataset import DicomFile, Element
from tag_service.domain.scopes import SPECIFIC_CHARACTER_SET, Scope, insert, scopes
from tag_service.domain.serialise import MAX_SHORT_FORM_BYTES, is_short_form

_UTF_8_VALUE = values.pad("CS", charset.UTF_8[0].encode("ascii"))


def transcode(file: DicomFile) -> None:
    """Makes ISO_IR 192 the character set of the data set and of every item, and all text UTF-8.

    Values of VR UN are text where a dictionary says so; what nobody knows stays as it is. Raises CHARSET_CONFLICT where
    bytes are no text in the character set that is in force for them, or where the text is too long for its VR in UTF-8.
    """
    # All scopes are known before the first declaration changes, for items inherit it.
    for scope in list(scopes(file)):
        for element in scope.elements:
            if element.tag == SPECIFIC_CHARACTER_SET:
                element.header, element.value = b"", _UTF_8_VALUE
            elif isinstance(element.value, bytes) and scope.charsets != charset.UTF_8:
                _transcode_value(element, element.value, scope)
    if all(element.tag != SPECIFIC_CHARACTER_SET for element in file.elements):
        insert(file.elements, Element(SPECIFIC_CHARACTER_SET, "CS", b"", _UTF_8_VALUE))


def _transcode_value(element: Element, value: bytes, scope: Scope) -> None:
    vr = element.vr if element.vr in TEXT_VRS else _vr_of_unknown(element, scope)
    # Pure ASCII is the same in UTF-8; escape sequences are ASCII too.
    if vr not in TEXT_VRS or (value.isascii() and b"\x1b" not in value):
        return
    try:
        text = charset.decode_strict(value, scope.charsets, vr)
    except CharsetError:
        raise _conflict(element, "holds bytes that are no text in the file's character set") from None
    encoded = text.encode("utf-8")
    if len(encoded) % 2:
        # The space that padded the value before is padding no more.
        encoded = encoded[:-1] if encoded.endswith(b" ") else values.pad(vr, encoded)
    if is_short_form(element.vr, scope.encoding) and len(encoded) > MAX_SHORT_FORM_BYTES:
        raise _conflict(element, "is too long for its VR in UTF-8")
    element.header, element.value = b"", encoded


def _vr_of_unknown(element: Element, scope: Scope) -> str:
    """The VR of an element of VR UN, which stays UN; "" where no dictionary knows it."""
    if element.vr != "UN":
        return ""
    if not dictionary.is_private(element.tag):
        return dictionary.implicit_vr(element.tag)
    if dictionary.is_private_creator(element.tag):
        return "LO"
    creator_tag = element.tag & 0xFFFF0000 | element.tag >> 8 & 0xFF
    for other in scope.elements:
        if other.tag == creator_tag and isinstance(other.value, bytes):
            try:
                return str(get_private_entry(element.tag, other.value.decode("ascii", "replace").strip(" \0"))[0])
            except KeyError:
                break
    return ""


def _conflict(element: Element, problem: str) -> ServiceError:
    tag = dictionary.tag_text(element.tag)
    return ServiceError(
        Reason.CHARSET_CONFLICT,
        f"A new value needs ISO_IR 192 (UTF-8), and the file's text cannot be carried over: {tag} {problem}.",
        metadata={"tag": tag},
    )
