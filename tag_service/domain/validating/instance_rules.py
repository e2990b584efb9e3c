"""What can be wrong with an instance as a whole: attributes it must have, and the size of its pixel data (PS3.3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tag_service.domain.standard.charset import DEFAULT
from tag_service.domain.standard.dictionary import PIXEL_DATA, PIXEL_TAGS, type_of_uid
from tag_service.domain.standard.numbers import numbers
from tag_service.domain.standard.problems import Finding, ProblemCode
from tag_service.domain.standard.text import text_of
from tag_service.domain.standard.transfer_syntax import NATIVE
from tag_service.domain.validating.fragment_rules import FragmentRules

SOP_CLASS_UID: Final = 0x00080016
SOP_INSTANCE_UID: Final = 0x00080018
MODALITY: Final = 0x00080060
_SAMPLES: Final = 0x00280002
_PHOTOMETRIC: Final = 0x00280004
_FRAMES: Final = 0x00280008
_ROWS: Final = 0x00280010
_COLUMNS: Final = 0x00280011
_BITS: Final = 0x00280100
_PIXEL_DATA_PROVIDER_URL: Final = 0x00287FE0
# Instances that are of no patient (PS3.3 A.1.4), by SOP class.
_OF_NO_PATIENT: Final = frozenset(
    {
        "1.2.840.10008.1.3.10",  # Media Storage Directory
        "1.2.840.10008.5.1.4.1.1.200.1",  # CT Defined Procedure Protocol
        "1.2.840.10008.5.1.4.1.1.200.3",  # Protocol Approval
        "1.2.840.10008.5.1.4.1.1.200.7",  # XA Defined Procedure Protocol
        "1.2.840.10008.5.1.4.1.1.201.1",  # Inventory
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol
        "1.2.840.10008.5.1.4.39.1",  # Color Palette
        "1.2.840.10008.5.1.4.43.1",  # Generic Implant Template
        "1.2.840.10008.5.1.4.44.1",  # Implant Assembly Template
        "1.2.840.10008.5.1.4.45.1",  # Implant Template Group
    }
)
DICOMDIR: Final = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, slots=True)
class _Module:
    """The attributes of a module that have a value always (type 1), or may be empty but not absent (type 2)."""

    paragraph: str
    type_1: tuple[int, ...]
    type_2: tuple[int, ...] = ()


_SOP_COMMON: Final = _Module("PS3.3 C.12.1", (SOP_CLASS_UID, SOP_INSTANCE_UID))
_OF_A_PATIENT: Final = (
    _Module("PS3.3 C.7.1.1", (), (0x00100010, 0x00100020, 0x00100030, 0x00100040)),
    _Module("PS3.3 C.7.2.1", (0x0020000D,), (0x00080020, 0x00080030, 0x00080050, 0x00080090, 0x00200010)),
    _Module("PS3.3 C.7.3.1", (MODALITY, 0x0020000E), (0x00200011,)),
)
_IMAGE_PIXEL: Final = _Module(
    "PS3.3 C.7.6.3", (_SAMPLES, _PHOTOMETRIC, _ROWS, _COLUMNS, _BITS, 0x00280101, 0x00280102, 0x00280103)
)
_FLOAT_IMAGE_PIXEL: Final = _Module("PS3.3 C.7.6.24", (_SAMPLES, _PHOTOMETRIC, _ROWS, _COLUMNS, _BITS))
_KEPT_TEXTS: Final = frozenset({SOP_CLASS_UID, SOP_INSTANCE_UID, MODALITY, _PHOTOMETRIC, _FRAMES})
_KEPT_NUMBERS: Final = frozenset({_SAMPLES, _ROWS, _COLUMNS, _BITS})
_LISTED: Final = frozenset(
    tag for module in (_SOP_COMMON, *_OF_A_PATIENT, _IMAGE_PIXEL) for tag in (*module.type_1, *module.type_2)
)
# The attributes of the data set that are to be seen.
SEEN: Final = _LISTED | _KEPT_TEXTS | _KEPT_NUMBERS | PIXEL_TAGS | {_PIXEL_DATA_PROVIDER_URL}
# How many samples a pixel has in native pixel data with fewer colour samples, in sixths (PS3.3 C.7.6.3.1.2).
_SUBSAMPLED: Final = {"YBR_FULL_422": 12, "YBR_PARTIAL_422": 12, "YBR_PARTIAL_420": 9}

# Of an integer string (PS3.5 6.2).
_MAX_DIGITS: Final = 12

_NO_VALUE: Final = "The attribute is absent or empty; it must have a value."
_ABSENT: Final = "The attribute is absent; it may be empty, but must be there."
_UNKNOWN_SOP_CLASS: Final = Finding(
    ProblemCode.UNKNOWN_UID, "The standard has no such SOP class; it is private, or newer than what is known here."
)
_ENCAPSULATED: Final = Finding(
    ProblemCode.PIXEL_DATA_MISMATCH, "The pixel data is encapsulated, but the transfer syntax is not.", "PS3.5 A.4"
)
_NOT_ENCAPSULATED: Final = Finding(
    ProblemCode.PIXEL_DATA_MISMATCH, "The transfer syntax encapsulates pixel data, but this is native.", "PS3.5 A.4"
)
_FEW_FRAGMENTS: Final = Finding(
    ProblemCode.PIXEL_DATA_MISMATCH, "The pixel data has fewer fragments than the image has frames.", "PS3.5 A.4"
)
_OFFSET_TABLE: Final = Finding(
    ProblemCode.PIXEL_DATA_MISMATCH, "The basic offset table has not one offset for each frame.", "PS3.5 A.4"
)
# MPEG and its successors, which put all frames into one stream of bits (PS3.5 A.4.5 to A.4.9).
_VIDEO: Final = "1.2.840.10008.1.2.4.10"
_SHORT: Final = Finding(ProblemCode.PIXEL_DATA_MISMATCH, "The pixel data is shorter than the image it is described as.")
_LONG: Final = Finding(ProblemCode.PIXEL_DATA_MISMATCH, "The pixel data is longer than the image it is described as.")


class InstanceRules:
    """Looks at attributes of the data set itself as they come, the first of each tag."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._numbers: dict[int, int] = {}
        self._seen: set[int] = set()
        self._filled: set[int] = set()
        self._pixel_tag = 0
        self._pixel_bytes = 0
        self._fragments: FragmentRules | None = None

    def text(self, tag: int) -> str:
        """The text of one of the attributes that are kept, "" where it is absent."""
        return self._texts.get(tag, "")

    @property
    def has_pixel_data(self) -> bool:
        """Whether the data set has pixel data."""
        return bool(self._pixel_tag)

    def see(self, tag: int, vr: str, value: bytes, *, little: bool) -> None:
        """An attribute of SEEN with its value."""
        if tag in self._seen:
            return
        self._seen.add(tag)
        if value.strip(b" \0") or (value and vr in {"US", "SS"}):
            self._filled.add(tag)
        if tag in _KEPT_TEXTS:
            self._texts[tag] = text_of(value, vr, DEFAULT).text
        elif tag in _KEPT_NUMBERS and len(value) == 2:
            (self._numbers[tag],) = (int(number) for number in numbers("US", value, little=little))

    def see_pixel_data(self, tag: int, length: int, fragments: FragmentRules | None) -> None:
        """Pixel data of this length, native or of fragments."""
        if not self._pixel_tag:
            self._pixel_tag, self._pixel_bytes, self._fragments = tag, length, fragments

    def check(self, transfer_syntax_uid: str, sop_class_uid: str) -> Iterator[tuple[int, Finding]]:
        """What is wrong with the instance, by the tag where it shows."""
        if sop_class_uid and type_of_uid(sop_class_uid) != "SOP Class":
            yield SOP_CLASS_UID, _UNKNOWN_SOP_CLASS
        if sop_class_uid != DICOMDIR:
            yield from self._check_module(_SOP_COMMON)
        if sop_class_uid not in _OF_NO_PATIENT:
            for module in _OF_A_PATIENT:
                yield from self._check_module(module)
        if self._pixel_tag:
            yield from self._check_module(_IMAGE_PIXEL if self._pixel_tag == PIXEL_DATA else _FLOAT_IMAGE_PIXEL)
            for finding in self._check_pixel_data(transfer_syntax_uid):
                yield self._pixel_tag, finding

    def has_lost_pixels(self) -> bool:
        """Whether the data set describes an image that is not there: a file cut between two elements looks whole."""
        return _ROWS in self._seen and not self._pixel_tag and _PIXEL_DATA_PROVIDER_URL not in self._seen

    def _check_module(self, module: _Module) -> Iterator[tuple[int, Finding]]:
        for tag in module.type_1:
            if tag not in self._filled:
                yield tag, Finding(ProblemCode.ATTRIBUTE_MISSING, _NO_VALUE, module.paragraph)
        for tag in module.type_2:
            if tag not in self._seen:
                yield tag, Finding(ProblemCode.ATTRIBUTE_MISSING, _ABSENT, module.paragraph)

    def _check_pixel_data(self, transfer_syntax_uid: str) -> Iterator[Finding]:
        if type_of_uid(transfer_syntax_uid) == "Transfer Syntax":
            is_native = transfer_syntax_uid in NATIVE
            if is_native and self._fragments is not None:
                yield _ENCAPSULATED
            elif not is_native and self._fragments is None:
                yield _NOT_ENCAPSULATED
        frames = self._frames()
        if frames is None:
            return
        if self._fragments is None:
            yield from self._check_native(frames)
        elif not transfer_syntax_uid.startswith(_VIDEO):
            if self._fragments.fragments < frames:
                yield _FEW_FRAGMENTS
            if self._fragments.table_bytes not in {0, 4 * frames}:
                yield _OFFSET_TABLE

    def _check_native(self, frames: int) -> Iterator[Finding]:
        if self._numbers.keys() != _KEPT_NUMBERS:
            return
        pixels = self._numbers[_ROWS] * self._numbers[_COLUMNS] * frames
        # In sixths, for colour may be sampled less often than pixels.
        sixths = 6 * self._numbers[_SAMPLES]
        if sixths == 18:
            sixths = _SUBSAMPLED.get(self.text(_PHOTOMETRIC), sixths)
        # Bits are packed over the whole of the pixel data (PS3.5 8.1.1).
        described = -(-pixels * sixths * self._numbers[_BITS] // 48)
        if self._pixel_bytes < described:
            yield _SHORT
        elif self._pixel_bytes > described + described % 2:
            yield _LONG

    def _frames(self) -> int | None:
        """How many frames there are, None where the file says nonsense."""
        text = self.text(_FRAMES) or "1"
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else None
