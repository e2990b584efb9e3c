"""The data dictionary (PS3.6): keywords, tags, VRs, VMs and names. pydicom's tables behind a few functions."""

from typing import Final

from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import keyword_dict, masks, tag_for_keyword

PIXEL_DATA: Final = 0x7FE00010
FLOAT_PIXEL_DATA: Final = 0x7FE00008
DOUBLE_FLOAT_PIXEL_DATA: Final = 0x7FE00009
PIXEL_TAGS: Final = frozenset({PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA})

# Registered later than pydicom's table was made.
_NEWER_UIDS: Final = {
    "1.2.840.10008.1.2.4.110": ("JPEG XL Lossless", "Transfer Syntax"),
    "1.2.840.10008.1.2.4.111": ("JPEG XL JPEG Recompression", "Transfer Syntax"),
    "1.2.840.10008.1.2.4.112": ("JPEG XL", "Transfer Syntax"),
    "1.2.840.10008.1.2.8.1": ("Deflated Image Frame Compression", "Transfer Syntax"),
    "1.2.840.10008.5.1.4.1.1.66.7": ("Label Map Segmentation Storage", "SOP Class"),
    "1.2.840.10008.5.1.4.1.1.66.8": ("Height Map Segmentation Storage", "SOP Class"),
}

# What an implicit VR is taken for where the dictionary leaves a choice that depends on other attributes (PS3.5 A.1).
_CHOICES: Final = {
    "US or SS": "US",
    "US or OW": "OW",
    "US or SS or OW": "OW",
    "OB or OW": "OW",
}
# The VR of each standard attribute, as `implicit_vr` gives it; not of those in repeating groups.
IMPLICIT_VRS: Final[dict[int, str]] = {tag: _CHOICES.get(entry[0], entry[0]) for tag, entry in DicomDictionary.items()}
# The repeating groups and elements (50xx, 60xx, 002031xx): by which bits of a tag count, and those.
_REPEATING: Final[dict[int, dict[int, tuple[str, str, str, str, str]]]] = {}
for _name, _entry in RepeatersDictionary.items():
    _bits, _mask = masks[_name]
    _REPEATING.setdefault(_mask, {})[_bits] = _entry


def is_private(tag: int) -> bool:
    """Whether the element is private: its group is odd (PS3.5 7.8)."""
    return bool(tag & 0x10000)


def is_private_creator(tag: int) -> bool:
    """Whether the element reserves a block of private elements (PS3.5 7.8.1)."""
    return bool(tag & 0x10000) and 0x10 <= tag & 0xFFFF <= 0xFF


def implicit_vr(tag: int) -> str:
    """The VR of an element whose encoding does not say it, UN where nobody knows; one of two letters always."""
    return IMPLICIT_VRS.get(tag) or _unlisted_vr(tag)


def _unlisted_vr(tag: int) -> str:
    if not tag & 0xFFFF:
        return "UL"
    if is_private(tag):
        return "LO" if is_private_creator(tag) else "UN"
    entry = _repeating(tag)
    return _CHOICES.get(entry[0], entry[0]) if entry else "UN"


def _repeating(tag: int) -> tuple[str, str, str, str, str] | None:
    """The entry of an element of a repeating group."""
    for mask, entries in _REPEATING.items():
        if (entry := entries.get(tag & mask)) is not None:
            return entry
    return None


def entry_of(tag: int) -> tuple[str, str, str, str] | None:
    """VR (with its choices, such as "US or SS"), VM, name and keyword of a standard element; None for any other."""
    entry = DicomDictionary.get(tag)
    if entry is None and not is_private(tag):
        entry = _repeating(tag)
    if entry is None:
        return None
    vr, vm, name, _, keyword = entry
    return vr, vm, name, keyword


def tag_of(keyword: str) -> int | None:
    """The tag of a keyword; None for a word that is none, and for a repeating group (60xx), which has many."""
    return tag_for_keyword(keyword) if keyword in keyword_dict else None


def name_of_uid(uid: str) -> str:
    """The name of a registered UID (PS3.6 A), "" for any other."""
    return _uid_entry(uid)[0]


def type_of_uid(uid: str) -> str:
    """What a registered UID is of, "SOP Class" or "Transfer Syntax" for example (PS3.6 A); "" for any other."""
    return _uid_entry(uid)[1]


def _uid_entry(uid: str) -> tuple[str, str]:
    """Name and type."""
    entry = UID_dictionary.get(uid)
    return entry[:2] if entry else _NEWER_UIDS.get(uid, ("", ""))


def tag_text(tag: int) -> str:
    """The tag as (gggg,eeee)."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
