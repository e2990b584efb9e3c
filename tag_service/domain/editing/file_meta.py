"""The file meta information (PS3.10 7.1) of an edited file."""

from collections.abc import Mapping, Sequence
from struct import pack
from typing import Final

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.editing.treatment import Fate, Treatment
from tag_service.domain.standard import charset, values
from tag_service.domain.standard.dictionary import tag_text
from tag_service.domain.standard.elements import MAX_SHORT_FORM_BYTES, element, is_short_form
from tag_service.domain.standard.text import text_of
from tag_service.domain.standard.transfer_syntax import EXPLICIT_LE

# Who wrote the file last (PS3.10 7.1). The UID is derived from a UUID (PS3.5 B.2).
IMPLEMENTATION_CLASS_UID: Final = "2.25.107839154632200490904259391003313605975"
IMPLEMENTATION_VERSION_NAME: Final = "RIS_DICOM_GW"

_SOP_CLASS_UID: Final = 0x00080016
_SOP_INSTANCE_UID: Final = 0x00080018
_MAX_UID_BYTES: Final = 64
_GROUP_LENGTH: Final = 0x00020000
_VERSION: Final = 0x00020001
_MEDIA_STORAGE_SOP_CLASS_UID: Final = 0x00020002
_MEDIA_STORAGE_SOP_INSTANCE_UID: Final = 0x00020003
_TRANSFER_SYNTAX_UID: Final = 0x00020010
_IMPLEMENTATION_CLASS_UID: Final = 0x00020012
_IMPLEMENTATION_VERSION_NAME: Final = 0x00020013
# The UIDs of a data set that the file meta information repeats.
MIRRORED: Final = {
    _SOP_CLASS_UID: _MEDIA_STORAGE_SOP_CLASS_UID,
    _SOP_INSTANCE_UID: _MEDIA_STORAGE_SOP_INSTANCE_UID,
}

# Tag, VR, header and value, as they came; the header is empty where the value is new.
MetaElement = tuple[int, str, bytes, bytes]


def uid_of(value: bytes) -> str:
    """The UID that a value is, "" where it cannot be one."""
    return value.decode("ascii", "ignore").strip("\0 ") if len(value) <= _MAX_UID_BYTES else ""


def treated(meta: Sequence[MetaElement], treatment: Treatment) -> list[MetaElement]:
    """The file meta information as a treatment leaves it."""
    left: list[MetaElement] = []
    for one in meta:
        tag, vr, _, value = one
        fate = treatment.fate(tag, vr, "")
        text = text_of(value, vr, charset.DEFAULT).text
        new = treatment.replacement(tag, vr, text) if fate is Fate.REPLACE else ""
        if fate is Fate.KEEP or (fate is Fate.REPLACE and new == text):
            left.append(one)
        elif fate is not Fate.REMOVE:
            left.append((tag, vr, b"", values.pad(vr, new.encode("ascii"))))
    return left


def write(
    meta: Sequence[MetaElement], transfer_syntax_uid: str, *, before: Mapping[int, str], after: Mapping[int, str]
) -> bytes:
    """Preamble, prefix and file meta information for a data set.

    `transfer_syntax_uid` is what the file was read by. `before` and `after` are the UIDs of MIRRORED in the data set as
    it came and as it is written, "" where it has none.

    The preamble is zeros, for it can hold a program (CVE-2019-11687). What the file lacks is added, and what does not
    follow from the data set stays as it is. Raises MALFORMED_DICOM.
    """
    replaced = {
        _IMPLEMENTATION_CLASS_UID: ("UI", IMPLEMENTATION_CLASS_UID.encode("ascii")),
        _IMPLEMENTATION_VERSION_NAME: ("SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
    }
    present = {tag: value for tag, _, _, value in reversed(meta)}
    for tag, uid in after.items():
        if uid and (uid != before[tag] or not uid_of(present.get(MIRRORED[tag], b""))):
            replaced[MIRRORED[tag]] = ("UI", uid.encode("ascii"))
    # What the file says of its encoding stays, be it ever so odd, for it was read by that.
    if not any(tag == _TRANSFER_SYNTAX_UID and value.strip(b" \0") for tag, _, _, value in meta):
        replaced[_TRANSFER_SYNTAX_UID] = ("UI", transfer_syntax_uid.encode("ascii"))
    if _VERSION not in present:
        replaced[_VERSION] = ("OB", b"\0\1")
    # In the order of their tags, without moving what came out of order.
    rows = [(one[0], _explicit(one)) for one in meta if one[0] not in {*replaced, _GROUP_LENGTH}]
    for tag, (vr, value) in replaced.items():
        position = next((index for index, (other, _) in enumerate(rows) if other > tag), len(rows))
        rows.insert(position, (tag, element(tag, vr, values.pad(vr, value), EXPLICIT_LE)))
    rest = b"".join(data for _, data in rows)
    return b"\0" * 128 + b"DICM" + element(_GROUP_LENGTH, "UL", pack("<I", len(rest)), EXPLICIT_LE) + rest


def _explicit(one: MetaElement) -> bytes:
    """The element in explicit VR, which odd files do not use. Raises MALFORMED_DICOM where that cannot hold it."""
    tag, vr, header, value = one
    if header[4:6] == vr.encode("ascii"):
        return header + value
    if is_short_form(vr, EXPLICIT_LE) and len(value) > MAX_SHORT_FORM_BYTES:
        where = tag_text(tag)
        raise ServiceError(
            Reason.MALFORMED_DICOM,
            f"{where} of the file meta information is too long for its VR.",
            metadata={"tag": where},
        )
    return element(tag, vr, value, EXPLICIT_LE)
