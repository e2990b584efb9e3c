"""Reading the 20 attributes of DicomTags out of the header, and no further."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tag_service.domain import tokens
from tag_service.domain.charset import DEFAULT, TEXT_VRS, Charsets, charsets_of
from tag_service.domain.dictionary import PIXEL_TAGS, implicit_vr
from tag_service.domain.limits import Limits
from tag_service.domain.order import MESSAGES
from tag_service.domain.problems import Problem, ProblemCode
from tag_service.domain.text import text_of
from tag_service.domain.tokenizer import Tokenizer
from tag_service.domain.tokens import Event, Run

SPECIFIC_CHARACTER_SET: Final = 0x00080005


@dataclass(frozen=True, slots=True)
class DicomTags:
    """The attributes that identify and describe an instance, as text; "" for one that is absent or empty."""

    patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    patient_age: str = ""
    study_instance_uid: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""
    accession_number: str = ""
    series_instance_uid: str = ""
    series_number: str = ""
    series_description: str = ""
    modality: str = ""
    sop_instance_uid: str = ""
    instance_number: str = ""
    institution_name: str = ""
    institution_address: str = ""
    referring_physician_name: str = ""
    performing_physician_name: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says, and what is odd about it."""

    tags: DicomTags
    problems: tuple[Problem, ...]


_FIELDS: Final = {
    0x00080018: "sop_instance_uid",
    0x00080020: "study_date",
    0x00080030: "study_time",
    0x00080050: "accession_number",
    0x00080060: "modality",
    0x00080080: "institution_name",
    0x00080081: "institution_address",
    0x00080090: "referring_physician_name",
    0x00081030: "study_description",
    0x0008103E: "series_description",
    0x00081050: "performing_physician_name",
    0x00100010: "patient_name",
    0x00100020: "patient_id",
    0x00100030: "patient_birth_date",
    0x00100040: "patient_sex",
    0x00101010: "patient_age",
    0x0020000D: "study_instance_uid",
    0x0020000E: "series_instance_uid",
    0x00200011: "series_number",
    0x00200013: "instance_number",
}
_WANTED: Final = frozenset({*_FIELDS, SPECIFIC_CHARACTER_SET})
_HIGHEST: Final = max(_WANTED)
_BEGINNINGS: Final = frozenset({tokens.BULK, tokens.FRAGMENTS, tokens.SEQUENCE})
_IDENTIFYING: Final = (0x00080018, 0x00100020, 0x0020000D, 0x0020000E)


class HeaderReader:
    """Feed it the file until it is `done`, close it when the file ends before that, then ask for the `header`.

    It is done at the first pixel data of the data set itself, or past the highest tag it wants. As real files have tags
    out of order, the latter counts only where all was in order and the identifying attributes have come.
    """

    def __init__(self, limits: Limits) -> None:
        self.done = False
        self._tokenizer = Tokenizer(limits)
        self._values: dict[int, bytes] = {}
        self._seen: set[int] = set()
        self._last = -1
        self._in_order = True
        self._depth = 0

    def feed(self, data: bytes) -> bool:
        """Takes in a piece; gives `done`. Raises what the tokenizer does."""
        self._take(self._tokenizer.feed(data))
        if self.done:
            self._tokenizer.stop()
        return self.done

    def close(self) -> None:
        """Takes in the end of the file. Raises what the tokenizer does."""
        self._take(self._tokenizer.close())
        self.done = True

    def header(self) -> Header:
        """What was read."""
        # Decoded at the end: the character set need not come first.
        charsets = charsets_of(self._values.get(SPECIFIC_CHARACTER_SET, b"")) or DEFAULT
        tags = DicomTags(**{name: self._text(tag, charsets) for tag, name in _FIELDS.items() if tag in self._values})
        return Header(tags, tuple(self._tokenizer.problems))

    def _text(self, tag: int, charsets: Charsets) -> str:
        vr = implicit_vr(tag)
        decoded = text_of(self._values[tag], vr, charsets)
        if not decoded.exact:
            self._tokenizer.note(ProblemCode.UNDECLARED_CHARSET, undecodable(vr), tag)
        return decoded.text

    def _take(self, stream: Iterator[Event]) -> None:
        for event in stream:
            if isinstance(event, Run):
                if not self._depth and self._take_run(event):
                    break
                continue
            kind, tag, _, _, _, _ = event
            if kind == tokens.SEQUENCE_END:
                self._depth -= 1
            elif kind in _BEGINNINGS:
                if not self._depth and self._take_tag(tag):
                    break
                self._depth += kind == tokens.SEQUENCE

    def _take_run(self, run: Run) -> bool:
        """Takes the values that are wanted; whether that is enough."""
        for tag, _, _, start, stop in run.elements:
            if self._take_tag(tag):
                return True
            if tag in _WANTED and tag not in self._values:
                self._values[tag] = run.buffer[start:stop]
        return False

    def _take_tag(self, tag: int) -> bool:
        """Takes notice of an element of the data set; whether that is enough."""
        if tag > self._last:
            self._last = tag
        else:
            self._note_disorder(tag)
        if tag > _HIGHEST and self._is_enough(tag):
            self.done = True
            return True
        self._seen.add(tag)
        return False

    def _is_enough(self, tag: int) -> bool:
        return tag in PIXEL_TAGS or (self._in_order and all(wanted in self._values for wanted in _IDENTIFYING))

    def _note_disorder(self, tag: int) -> None:
        self._in_order = False
        code = ProblemCode.DUPLICATE_TAG if tag in self._seen else ProblemCode.OUT_OF_ORDER
        self._tokenizer.note(code, MESSAGES[code], tag)


def undecodable(vr: str) -> str:
    """The message for text that is no text in its character set."""
    if vr in TEXT_VRS:
        return "The text holds bytes that the declared character set does not explain; it is a best guess."
    return "The value holds characters that its VR does not allow; it is a best guess."
