"""What a caller may retain or have cleaned, and how the file says so."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Dates(StrEnum):
    """What becomes of dates and times (PS3.15 E.3.6)."""

    REMOVE = "REMOVE"  # the basic profile
    KEEP = "KEEP"  # retain longitudinal temporal information, full dates
    SHIFT = "SHIFT"  # retain longitudinal temporal information, modified dates


@dataclass(frozen=True, slots=True)
class Options:
    """The options of PS3.15 E.3 on top of the basic profile; those about pixels are none, for no pixel is looked at."""

    dates: Dates = Dates.REMOVE
    retain_uids: bool = False  # E.3.9
    retain_device_identity: bool = False  # E.3.8
    retain_institution_identity: bool = False  # E.3.11
    retain_patient_characteristics: bool = False  # E.3.7
    retain_safe_private: bool = False  # E.3.10
    clean_descriptors: bool = False  # E.3.5
    clean_structured_content: bool = False  # E.3.4
    clean_graphics: bool = False  # E.3.3


@dataclass(frozen=True, slots=True)
class Method:
    """A code of the DICOM Controlled Terminology (PS3.16 annex D)."""

    value: str
    meaning: str


_BASIC: Final = Method("113100", "Basic Application Confidentiality Profile")
_OF_OPTION: Final = {
    "clean_graphics": Method("113103", "Clean Graphics Option"),
    "clean_structured_content": Method("113104", "Clean Structured Content Option"),
    "clean_descriptors": Method("113105", "Clean Descriptors Option"),
    "retain_patient_characteristics": Method("113108", "Retain Patient Characteristics Option"),
    "retain_device_identity": Method("113109", "Retain Device Identity Option"),
    "retain_uids": Method("113110", "Retain UIDs Option"),
    "retain_safe_private": Method("113111", "Retain Safe Private Option"),
    "retain_institution_identity": Method("113112", "Retain Institution Identity Option"),
}
_OF_DATES: Final = {
    Dates.KEEP: Method("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    Dates.SHIFT: Method("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
}


def methods(options: Options) -> Iterator[Method]:
    """The codes of the profile and of each option (PS3.16 CID 7050), in the order of their values."""
    found = [_BASIC, *(method for name, method in _OF_OPTION.items() if getattr(options, name))]
    if options.dates in _OF_DATES:
        found.append(_OF_DATES[options.dates])
    yield from sorted(found, key=lambda method: method.value)
