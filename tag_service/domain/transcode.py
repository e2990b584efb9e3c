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
    # A scope knows the character set that was in force in it, so declarations may change under way.
    for scope in scopes(file):
        creators = _creators(scope.elements)
        for element in scope.elements:
            if element.tag == SPECIFIC_CHARACTER_SET:
                element.header, element.value = b"", _UTF_8_VALUE
            elif isinstance(element.value, bytes) and scope.charsets != charset.UTF_8:
                _transcode_value(element, element.value, scope, creators)
    if all(element.tag != SPECIFIC_CHARACTER_SET for element in file.elements):
        insert(file.elements, Element(SPECIFIC_CHARACTER_SET, "CS", b"", _UTF_8_VALUE))


def _creators(elements: list[Element]) -> dict[int, str]:
    """The private creators of one data set or item, by the tag that reserves their block (PS3.5 7.8.1)."""
    return {
        element.tag: element.value.decode("ascii", "replace").strip(" \0")
        for element in elements
        if dictionary.is_private_creator(element.tag) and isinstance(element.value, bytes)
    }


def _transcode_value(element: Element, value: bytes, scope: Scope, creators: dict[int, str]) -> None:
    vr = _vr_of_unknown(element.tag, creators) if element.vr == "UN" else element.vr
    # Pure ASCII is the same in UTF-8, but for the escape sequences of ISO 2022.
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


def _vr_of_unknown(tag: int, creators: dict[int, str]) -> str:
    """The VR that a dictionary knows for an element of VR UN; UN where none does."""
    vr = dictionary.implicit_vr(tag)
    creator = creators.get(tag & 0xFFFF0000 | tag >> 8 & 0xFF)
    if vr != "UN" or creator is None:
        return vr
    try:
        return str(get_private_entry(tag, creator)[0])
    except KeyError:
        return vr


def _conflict(element: Element, problem: str) -> ServiceError:
    tag = dictionary.tag_text(element.tag)
    return ServiceError(
        Reason.CHARSET_CONFLICT,
        f"A new value needs ISO_IR 192 (UTF-8), and the file's text cannot be carried over: {tag} {problem}.",
        metadata={"tag": tag},
    )
