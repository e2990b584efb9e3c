"""The data dictionary (PS3.6): keywords, tags, VRs, VMs and names. pydicom's tables behind a few functions."""

from functools import lru_cache
from typing import Final

from pydicom._dicom_dict import DicomDictionary
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import get_entry, keyword_dict, tag_for_keyword

PIXEL_DATA: Final = 0x7FE00010
FLOAT_PIXEL_DATA: Final = 0x7FE00008
DOUBLE_FLOAT_PIXEL_DATA: Final = 0x7FE00009
PIXEL_TAGS: Final = frozenset({PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA})

# What an implicit VR is taken for where the dictionary leaves a choice that depends on other attributes (PS3.5 A.1).
_CHOICES: Final = {
    "US or SS": "US",
    "US or OW": "OW",
    "US or SS or OW": "OW",
    "OB or OW": "OW",
}
_PLAIN: Final[dict[int, str]] = {tag: _CHOICES.get(entry[0], entry[0]) for tag, entry in DicomDictionary.items()}


def is_private(tag: int) -> bool:
    """Whether the element is private: its group is odd (PS3.5 7.8)."""
    return bool(tag & 0x10000)


def is_private_creator(tag: int) -> bool:
    """Whether the element reserves a block of private elements (PS3.5 7.8.1)."""
    return bool(tag & 0x10000) and 0x10 <= tag & 0xFFFF <= 0xFF


def implicit_vr(tag: int) -> str:
    """The VR of an element whose encoding does not say it, UN where nobody knows; one of two letters always."""
    return _PLAIN.get(tag) or _unlisted_vr(tag)


@lru_cache(maxsize=4096)
def _unlisted_vr(tag: int) -> str:
    if not tag & 0xFFFF:
        return "UL"
    if is_private(tag):
        return "LO" if is_private_creator(tag) else "UN"
    # One of a repeating group (50xx, 60xx), or none at all.
    entry = entry_of(tag)
    return _CHOICES.get(entry[0], entry[0]) if entry else "UN"


@lru_cache(maxsize=4096)
def entry_of(tag: int) -> tuple[str, str, str, str] | None:
    """VR (with its choices, such as "US or SS"), VM, name and keyword of a standard element; None for any other."""
    try:
        vr, vm, name, _, keyword = get_entry(tag)
    except KeyError:
        return None
    return vr, vm, name, keyword


def tag_of(keyword: str) -> int | None:
    """The tag of a keyword; None for a word that is none, and for a repeating group (60xx), which has many."""
    return tag_for_keyword(keyword) if keyword in keyword_dict else None


def name_of_uid(uid: str) -> str:
    """The name of a registered UID (PS3.6 A), "" for any other."""
    entry = UID_dictionary.get(uid)
    return entry[0] if entry else ""


def tag_text(tag: int) -> str:
    """The tag as (gggg,eeee)."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
