"""The file meta information (PS3.10 7.1) of an edited file."""

from struct import pack

from service_runtime.errors import Reason, ServiceError
from tag_service.domain import values
from tag_service.domain.dataset import DicomFile, Element
from tag_service.domain.dictionary import tag_text
from tag_service.domain.scopes import insert
from tag_service.domain.serialise import MAX_SHORT_FORM_BYTES, is_short_form, serialise
from tag_service.domain.transfer_syntax import EXPLICIT_LE

# Who wrote the file last (PS3.10 7.1). The UID is derived from a UUID (PS3.5 B.2).
IMPLEMENTATION_CLASS_UID = "2.25.107839154632200490904259391003313605975"
IMPLEMENTATION_VERSION_NAME = "RIS_DICOM_GW"

SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
_MAX_UID_BYTES = 64
_GROUP_LENGTH = 0x00020000
_VERSION = 0x00020001
_MEDIA_STORAGE_SOP_CLASS_UID = 0x00020002
_MEDIA_STORAGE_SOP_INSTANCE_UID = 0x00020003
_TRANSFER_SYNTAX_UID = 0x00020010
_IMPLEMENTATION_CLASS_UID = 0x00020012
_IMPLEMENTATION_VERSION_NAME = 0x00020013
_MIRRORED = {
    SOP_CLASS_UID: _MEDIA_STORAGE_SOP_CLASS_UID,
    SOP_INSTANCE_UID: _MEDIA_STORAGE_SOP_INSTANCE_UID,
}


def uid_in(elements: list[Element], tag: int) -> str:
    """The UID of this tag, "" where it is absent or cannot be one."""
    for element in elements:
        if element.tag == tag and isinstance(element.value, bytes) and len(element.value) <= _MAX_UID_BYTES:
            return element.value.decode("ascii", "ignore").strip("\0 ")
    return ""


def identity(elements: list[Element]) -> dict[int, str]:
    """The UIDs of a data set that the file meta information repeats, by tag."""
    return {tag: uid_in(elements, tag) for tag in _MIRRORED}


def write(file: DicomFile, before: dict[int, str]) -> bytes:
    """Preamble, prefix and file meta information for the data set as it is; `before` is its `identity` as it came.

    The preamble is zeros, for it can hold a program (CVE-2019-11687). What the file lacks is added, and what does not
    follow from the data set stays as it is.
    """
    replaced = {
        _IMPLEMENTATION_CLASS_UID: ("UI", IMPLEMENTATION_CLASS_UID.encode("ascii")),
        _IMPLEMENTATION_VERSION_NAME: ("SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
    }
    for tag, uid in identity(file.elements).items():
        if uid and (uid != before[tag] or not uid_in(file.meta, _MIRRORED[tag])):
            replaced[_MIRRORED[tag]] = ("UI", uid.encode("ascii"))
    # What the file says of its encoding stays, be it ever so odd, for it was read by that.
    if not any(element.tag == _TRANSFER_SYNTAX_UID and _is_filled(element) for element in file.meta):
        replaced[_TRANSFER_SYNTAX_UID] = ("UI", file.transfer_syntax_uid.encode("ascii"))
    if all(element.tag != _VERSION for element in file.meta):
        replaced[_VERSION] = ("OB", b"\0\1")
    elements = [_explicit(element) for element in file.meta if element.tag not in {*replaced, _GROUP_LENGTH}]
    for tag, (vr, value) in replaced.items():
        insert(elements, Element(tag, vr, b"", values.pad(vr, value)))
    rest = b"".join(serialise(elements, EXPLICIT_LE))
    length = Element(_GROUP_LENGTH, "UL", b"", pack("<I", len(rest)))
    return b"\0" * 128 + b"DICM" + b"".join(serialise([length], EXPLICIT_LE)) + rest


def _is_filled(element: Element) -> bool:
    return isinstance(element.value, bytes) and bool(element.value.strip(b" \0"))


def _explicit(element: Element) -> Element:
    """The element in explicit VR, which odd files do not use. Raises MALFORMED_DICOM where that cannot hold it."""
    assert isinstance(element.value, bytes)  # noqa: S101 - group 0002 has no sequences
    if element.header[4:6] == element.vr.encode("ascii"):
        return element
    if is_short_form(element.vr, EXPLICIT_LE) and len(element.value) > MAX_SHORT_FORM_BYTES:
        tag = tag_text(element.tag)
        raise ServiceError(
            Reason.MALFORMED_DICOM, f"{tag} of the file meta information is too long for its VR.", metadata={"tag": tag}
        )
    return Element(element.tag, element.vr, b"", element.value)
