"""What a file is and what is wrong with it: reads all of it, keeps none of it.

That a file is no DICOM, or is broken, is an answer here and no error.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from service_runtime.errors import Reason, ServiceError
from tag_service.domain import tokens, values
from tag_service.domain.charset import DEFAULT, SPECIFIC_CHARACTER_SET, Charsets, charsets_of, is_known
from tag_service.domain.dicom_tags import undecodable
from tag_service.domain.dictionary import PIXEL_DATA, PIXEL_TAGS, name_of_uid
from tag_service.domain.limits import Limits
from tag_service.domain.order import MESSAGES, TagOrder
from tag_service.domain.problems import MAX_PROBLEMS, Problem, ProblemCode, problem_of
from tag_service.domain.text import text_of
from tag_service.domain.tokenizer import Tokenizer
from tag_service.domain.tokens import Event, Run

_SOP_CLASS_UID: Final = 0x00080016
_SOP_INSTANCE_UID: Final = 0x00080018
_MODALITY: Final = 0x00080060
_ROWS: Final = 0x00280010
_PIXEL_DATA_PROVIDER_URL: Final = 0x00287FE0
_MEDIA_STORAGE_SOP_CLASS_UID: Final = 0x00020002
_DICOMDIR: Final = "1.2.840.10008.1.3.10"
_KEPT_TEXTS: Final = frozenset({_SOP_CLASS_UID, _SOP_INSTANCE_UID, _MODALITY})
_NUMBER_BYTES: Final = {"AT": 4, "FD": 8, "FL": 4, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8}
_NO_DICOM: Final = frozenset({Reason.NOT_DICOM, Reason.EMPTY_FILE})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What ValidateFile answers; ris.tags.v1.ValidateFileResponse explains the fields."""

    is_dicom: bool
    is_valid: bool
    transfer_syntax_uid: str
    transfer_syntax_name: str
    sop_class_uid: str
    sop_class_name: str
    modality: str
    size_bytes: int
    has_pixel_data: bool
    problems: tuple[Problem, ...]
    problems_left_out: int


class Validator:
    """Feed it the whole file, close it, then ask for the `verdict`."""

    def __init__(self, limits: Limits) -> None:
        self._tokenizer = Tokenizer(limits)
        self._size = 0
        self._error: Problem | None = None
        self._texts: dict[int, str] = {}
        self._seen: set[int] = set()
        # Of the data set and each open item: the order of its elements, and its character set.
        self._orders = [TagOrder()]
        self._charsets: list[Charsets] = [DEFAULT]

    def passes_on(self, size: int) -> bool:
        """Whether a piece of this many bytes would lie in a bulk value, and so take next to no time."""
        return self._tokenizer.bulk_left >= size

    def feed(self, data: bytes) -> None:
        """Takes in a piece. What follows an error is counted and not read."""
        self._size += len(data)
        try:
            self._take(self._tokenizer.feed(data))
        except ServiceError as error:
            self._error = problem_of(error)

    def close(self) -> None:
        """Takes in the end of the file."""
        try:
            self._take(self._tokenizer.close())
        except ServiceError as error:
            self._error = problem_of(error)
        if self._error is None:
            self._check_whole()

    def verdict(self) -> Verdict:
        """What the file is."""
        error = self._error
        is_dicom = error is None or error.code not in _NO_DICOM
        problems = self._tokenizer.problems if is_dicom else []
        told = problems[: MAX_PROBLEMS - 1] if error else problems
        transfer_syntax_uid = self._tokenizer.transfer_syntax_uid
        sop_class_uid = self._texts.get(_SOP_CLASS_UID) or self._texts.get(_MEDIA_STORAGE_SOP_CLASS_UID, "")
        return Verdict(
            is_dicom=is_dicom,
            is_valid=error is None,
            transfer_syntax_uid=transfer_syntax_uid,
            transfer_syntax_name=name_of_uid(transfer_syntax_uid),
            sop_class_uid=sop_class_uid,
            sop_class_name=name_of_uid(sop_class_uid),
            modality=self._texts.get(_MODALITY, ""),
            size_bytes=self._size,
            has_pixel_data=not self._seen.isdisjoint(PIXEL_TAGS),
            problems=(*told, error) if error else tuple(told),
            problems_left_out=self._tokenizer.problems_left_out + len(problems) - len(told),
        )

    def _take(self, stream: Iterator[Event]) -> None:
        for event in stream:
            if isinstance(event, Run):
                for tag, vr, _, start, stop in event.elements:
                    self._check_order(tag)
                    self._check_value(tag, vr, event.buffer[start:stop])
                continue
            kind, tag, _, _, value, _ = event
            if kind in {tokens.BULK, tokens.FRAGMENTS, tokens.SEQUENCE}:
                self._check_order(tag)
            elif kind == tokens.ITEM_BEGIN:
                self._orders.append(TagOrder())
                self._charsets.append(self._charsets[-1])
            elif kind == tokens.ITEM_END:
                self._orders.pop()
                self._charsets.pop()
            elif kind == tokens.META_ELEMENT and tag == _MEDIA_STORAGE_SOP_CLASS_UID:
                self._texts[tag] = text_of(value, "UI", DEFAULT).text

    def _check_order(self, tag: int) -> None:
        if len(self._orders) == 1 and (tag in PIXEL_TAGS or tag in {_ROWS, _PIXEL_DATA_PROVIDER_URL}):
            self._seen.add(tag)
        code = self._orders[-1].check(tag)
        if code is not None:
            self._note(code, MESSAGES[code], tag)

    def _check_value(self, tag: int, vr: str, value: bytes) -> None:
        if tag == SPECIFIC_CHARACTER_SET:
            charsets = self._charsets[-1] = charsets_of(value)
            if not is_known(charsets):
                self._note(
                    ProblemCode.INVALID_VALUE, "A character set is declared that the standard does not know.", tag
                )
        if len(value) % 2:
            self._note(ProblemCode.INVALID_VALUE, "The value has an odd length.", tag)
        if vr in values.TEXTUAL_VRS:
            self._check_text(tag, vr, value)
        elif len(value) % _NUMBER_BYTES.get(vr, 1):
            self._note(ProblemCode.INVALID_VALUE, f"The length of the value is impossible for VR {vr}.", tag)

    def _check_text(self, tag: int, vr: str, value: bytes) -> None:
        decoded = text_of(value, vr, self._charsets[-1])
        if not decoded.exact:
            self._note(ProblemCode.UNDECLARED_CHARSET, undecodable(vr), tag)
        elif problem := values.check(vr, decoded.text):
            self._note(ProblemCode.INVALID_VALUE, f"The value {problem}.", tag)
        if tag in _KEPT_TEXTS and len(self._orders) == 1:
            self._texts.setdefault(tag, decoded.text)

    def _check_whole(self) -> None:
        """What can only be said at the end."""
        if self._texts.get(_MEDIA_STORAGE_SOP_CLASS_UID) != _DICOMDIR:
            for tag in (_SOP_CLASS_UID, _SOP_INSTANCE_UID):
                if not self._texts.get(tag):
                    self._note(
                        ProblemCode.INVALID_VALUE, "The attribute is absent or empty; it must have a value.", tag
                    )
        if _ROWS in self._seen and self._seen.isdisjoint({*PIXEL_TAGS, _PIXEL_DATA_PROVIDER_URL}):
            # A file that was cut just between two elements looks whole.
            self._note(
                Reason.TRUNCATED_FILE,
                "The data set describes an image and has no pixel data; the file may have lost its end.",
                PIXEL_DATA,
            )

    def _note(self, code: ProblemCode | Reason, message: str, tag: int) -> None:
        self._tokenizer.note(code, message, tag)
