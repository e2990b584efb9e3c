"""What de-identification cannot reach: the pixels, of which the header says too little to be sure of what they show.

PS3.15 E.3.1 and E.3.2 would have burned-in text and recognisable faces cleaned. Here nothing looks at a pixel, so the
caller is told what speaks for looking.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_SOP_CLASS_UID: Final = 0x00080016
_MODALITY: Final = 0x00080060
_BODY_PART_EXAMINED: Final = 0x00180015
_BURNED_IN_ANNOTATION: Final = 0x00280301
_RECOGNIZABLE_VISUAL_FEATURES: Final = 0x00280302
# The attributes of the data set that say something about it, each with its VR.
TAGS: Final = {
    _SOP_CLASS_UID: "UI",
    _MODALITY: "CS",
    _BODY_PART_EXAMINED: "CS",
    _BURNED_IN_ANNOTATION: "CS",
    _RECOGNIZABLE_VISUAL_FEATURES: "CS",
}

# Machines that write the patient's name into the picture, and what people photograph, film or scan (PS3.3 C.7.3.1.1.1).
_BURNS_IN: Final = frozenset(
    {"DG", "DMS", "DOC", "ES", "GM", "IVUS", "OP", "OPT", "OT", "RF", "SC", "SM", "US", "XA", "XC"}
)
# Every SOP class of Secondary Capture (PS3.4 B.5), whatever the modality says.
_SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
# Machines of whose slices a face can be put together.
_SLICES: Final = frozenset({"CT", "MR", "NM", "PT"})
# Body parts without a face (PS3.16 annex L); any other, and none at all, may include one.
_FACELESS: Final = frozenset(
    """
    ABDOMEN ABDOMENPELVIS ANKLE AORTA ARM BLADDER BREAST BRONCHUS CALCANEUS CHEST CHESTABDOMEN CHESTABDPELVIS CLAVICLE
    COCCYX COLON ELBOW FEMUR FINGER FOOT FOREARM GALLBLADDER HAND HEART HIP HUMERUS KIDNEY KNEE LEG LIVER LSPINE LUNG
    PANCREAS PELVIS PROSTATE RIB SCAPULA SHOULDER SPLEEN SSPINE STERNUM THIGH THUMB TIBIA TOE TSPINE ULNA UTERUS WRIST
    """.split()  # noqa: SIM905 - a table reads better so
)

# PS3.5 6.2.
_MAX_CODE_CHARACTERS: Final = 16


class Doubt(StrEnum):
    """Why the pixels may show who the patient is."""

    BURNED_IN_ANNOTATION = "BURNED_IN_ANNOTATION"  # the file says that they do
    BURNED_IN_ANNOTATION_UNKNOWN = "BURNED_IN_ANNOTATION_UNKNOWN"  # the file does not say
    MODALITY = "MODALITY"  # pictures of this kind often do
    RECOGNIZABLE_FEATURES = "RECOGNIZABLE_FEATURES"  # the file says that a face can be recognised
    FACE = "FACE"  # slices that may include a head


@dataclass(frozen=True, slots=True)
class Reach:
    """What the file says of its pixels, "" where nothing, and the doubts that leaves; none where it has no pixels."""

    modality: str
    burned_in_annotation: str
    doubts: tuple[Doubt, ...]

    @property
    def may_show_patient(self) -> bool:
        """Whether there is a doubt."""
        return bool(self.doubts)


def reach_of(header: Mapping[int, str], *, has_pixels: bool) -> Reach:
    """The reach in a file that has these values of TAGS."""
    modality = _code(header, _MODALITY)
    burned_in = _code(header, _BURNED_IN_ANNOTATION)
    recognizable = _code(header, _RECOGNIZABLE_VISUAL_FEATURES)
    is_capture = header.get(_SOP_CLASS_UID, "").startswith(_SECONDARY_CAPTURE)
    may_have_face = modality in _SLICES and _code(header, _BODY_PART_EXAMINED) not in _FACELESS
    doubts = {
        Doubt.BURNED_IN_ANNOTATION: burned_in == "YES",
        Doubt.BURNED_IN_ANNOTATION_UNKNOWN: burned_in not in {"YES", "NO"},
        Doubt.MODALITY: modality in _BURNS_IN or is_capture,
        Doubt.RECOGNIZABLE_FEATURES: recognizable == "YES",
        Doubt.FACE: may_have_face and recognizable not in {"YES", "NO"},
    }
    return Reach(
        modality=modality,
        burned_in_annotation=burned_in,
        doubts=tuple(doubt for doubt, holds in doubts.items() if holds and has_pixels),
    )


def _code(header: Mapping[int, str], tag: int) -> str:
    """A value of VR CS, "" for one that is none: it is passed on beside the file, where nothing else may stand."""
    text = header.get(tag, "")
    return text if len(text) <= _MAX_CODE_CHARACTERS and text.isascii() and text.replace("_", "").isalnum() else ""
