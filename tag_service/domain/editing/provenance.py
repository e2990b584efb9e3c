"""The Original Attributes Sequence (PS3.3 C.12.1.1.9): what a file held before it was edited, when, by whom and why."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from tag_service.domain.standard import values
from tag_service.domain.standard.elements import element
from tag_service.domain.standard.transfer_syntax import Encoding

ORIGINAL_ATTRIBUTES_SEQUENCE: Final = 0x04000561
MODIFIED_ATTRIBUTES_SEQUENCE: Final = 0x04000550
_ATTRIBUTE_MODIFICATION_DATETIME: Final = 0x04000562
_MODIFYING_SYSTEM: Final = 0x04000563
_SOURCE_OF_PREVIOUS_VALUES: Final = 0x04000564
_REASON: Final = 0x04000565


class ModificationReason(StrEnum):
    """Why: to fit the values of the institution, or because they were wrong."""

    COERCE = "COERCE"
    CORRECT = "CORRECT"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is recorded of an edit. `at` has a time zone; `system` is of VR LO."""

    reason: ModificationReason
    at: datetime
    system: str


def facts_of(provenance: Provenance, encoding: Encoding) -> bytes:
    """The elements that follow the prior values in an item of the sequence."""
    at = provenance.at.strftime("%Y%m%d%H%M%S.%f%z")
    texts = (
        (_ATTRIBUTE_MODIFICATION_DATETIME, "DT", at),
        (_MODIFYING_SYSTEM, "LO", provenance.system),
        # Type 2: where the values came from is not known here.
        (_SOURCE_OF_PREVIOUS_VALUES, "LO", ""),
        (_REASON, "CS", provenance.reason),
    )
    return b"".join(element(tag, vr, values.pad(vr, text.encode("ascii")), encoding) for tag, vr, text in texts)
