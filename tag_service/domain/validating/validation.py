"""What a file is and what is wrong with it: reads all of it, keeps none of it.

That a file is no DICOM, or is broken, is an answer here and no error.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.parsing import tokens
from tag_service.domain.parsing.order import MESSAGES, TagOrder
from tag_service.domain.parsing.tokenizer import Tokenizer
from tag_service.domain.parsing.tokens import Event, Run, Token
from tag_service.domain.standard.charset import DEFAULT, SPECIFIC_CHARACTER_SET, Charsets, charsets_of
from tag_service.domain.standard.dictionary import PIXEL_DATA, PIXEL_TAGS, name_of_uid
from tag_service.domain.standard.limits import Limits
from tag_service.domain.standard.problems import MAX_PROBLEMS, Finding, Problem, ProblemCode, problem_of
from tag_service.domain.validating.element_rules import PrivateBlocks, check_element, check_length, check_vr
from tag_service.domain.validating.file_meta_rules import MEDIA_STORAGE_SOP_CLASS_UID, FileMetaRules
from tag_service.domain.validating.fragment_rules import FragmentRules
from tag_service.domain.validating.instance_rules import MODALITY, SEEN, SOP_CLASS_UID, SOP_INSTANCE_UID, InstanceRules
from tag_service.domain.validating.plain_forms import private_form, standard_form

_NO_DICOM: Final = frozenset({Reason.NOT_DICOM, Reason.EMPTY_FILE})
_BEGINNINGS: Final = frozenset({tokens.BULK, tokens.FRAGMENTS, tokens.SEQUENCE})
_KEPT: Final = SEEN | {SPECIFIC_CHARACTER_SET}
_PRIVATE: Final = 0x10000
# With so many problems untold nobody needs to know how many more there are.
_MAX_LEFT_OUT: Final = 10_000
_DELIMITER: Final = Finding(ProblemCode.INVALID_DELIMITER, "The delimiter of a sequence or item has a length.")
_LOST_PIXELS: Final = "The data set describes an image and has no pixel data; the file may have lost its end."


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


class _Scope:
    """The data set or an open item: its character set, and what it takes to judge the next element."""

    __slots__ = ("blocks", "charsets", "order")

    def __init__(self, charsets: Charsets) -> None:
        self.charsets = charsets
        self.order = TagOrder()
        self.blocks = PrivateBlocks()


class Validator:
    """Feed it the whole file, close it, then ask for the `verdict`."""

    def __init__(self, limits: Limits) -> None:
        self._tokenizer = Tokenizer(limits)
        self._size = 0
        self._error: Problem | None = None
        self._file_meta = FileMetaRules()
        self._instance = InstanceRules()
        self._root = _Scope(DEFAULT)
        self._scopes = [self._root]
        self._bulk_start = 0
        self._fragments: FragmentRules | None = None

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
        left_out = self._tokenizer.problems_left_out + len(problems) - len(told)
        transfer_syntax_uid = self._tokenizer.transfer_syntax_uid
        sop_class_uid = self._sop_class_uid()
        return Verdict(
            is_dicom=is_dicom,
            is_valid=error is None,
            transfer_syntax_uid=transfer_syntax_uid,
            transfer_syntax_name=name_of_uid(transfer_syntax_uid),
            sop_class_uid=sop_class_uid,
            sop_class_name=name_of_uid(sop_class_uid),
            modality=self._instance.text(MODALITY),
            size_bytes=self._size,
            has_pixel_data=self._instance.has_pixel_data,
            problems=(*told, error) if error else tuple(told),
            problems_left_out=min(left_out, _MAX_LEFT_OUT),
        )

    def _sop_class_uid(self) -> str:
        return self._instance.text(SOP_CLASS_UID) or self._file_meta.uid(MEDIA_STORAGE_SOP_CLASS_UID)

    def _take(self, stream: Iterator[Event]) -> None:
        for event in stream:
            if isinstance(event, Run):
                self._take_run(event, self._scopes[-1])
            elif event[0] != tokens.CHUNK:
                self._take_token(event, self._scopes[-1])
            elif self._fragments is not None:
                self._fragments.add(event[4])

    def _take_run(self, run: Run, scope: _Scope) -> None:
        if self._tokenizer.problems_left_out > _MAX_LEFT_OUT:
            if scope is self._root:
                self._see_all(run)
            return
        buffer, blocks = run.buffer, scope.blocks
        in_order = scope.order.take([element[0] for element in run.elements])
        for tag, vr, _, start, stop in run.elements:
            if not in_order:
                self._check_order(tag, scope)
            if not tag & _PRIVATE:
                is_right = standard_form(tag, vr)
            else:
                is_right = private_form(vr)
                if tag >> 8 != blocks.last:
                    self._note_all(tag, blocks.check(tag, vr))
            # Most values are right at first sight, and a file may have a million.
            if is_right is None or (stop - start) % 2 or not is_right(buffer, start, stop) or tag in _KEPT:
                self._look_at(tag, vr, buffer[start:stop], scope)

    def _see_all(self, run: Run) -> None:
        for tag, vr, _, start, stop in run.elements:
            if tag in SEEN:
                self._see(tag, vr, run.buffer[start:stop])

    def _look_at(self, tag: int, vr: str, value: bytes, scope: _Scope) -> None:
        """A value that may be wrong, or that others depend on."""
        if tag == SPECIFIC_CHARACTER_SET:
            scope.charsets = charsets_of(value)
        self._note_all(tag, check_element(tag, vr, value, scope.charsets))
        if scope is self._root and tag in SEEN:
            self._see(tag, vr, value)

    def _see(self, tag: int, vr: str, value: bytes) -> None:
        self._instance.see(tag, vr, value, little=self._tokenizer.encoding.little_endian)

    def _take_token(self, token: Token, scope: _Scope) -> None:
        kind, tag, vr, header, value, offset = token
        if kind in _BEGINNINGS:
            self._check_order(tag, scope)
            if tag & _PRIVATE:
                self._note_all(tag, scope.blocks.check(tag, vr))
            self._note_all(tag, check_vr(tag, vr))
            self._bulk_start = offset + len(header)
            self._fragments = FragmentRules() if kind == tokens.FRAGMENTS else None
        elif kind == tokens.BULK_END:
            self._end_bulk(tag, offset - self._bulk_start, scope)
        elif kind == tokens.ITEM_BEGIN:
            self._scopes.append(_Scope(scope.charsets))
        elif kind == tokens.ITEM_END:
            self._scopes.pop()
            self._check_delimiter(tag, header)
        elif kind == tokens.SEQUENCE_END:
            self._check_delimiter(tag, header)
        elif kind == tokens.META_ELEMENT:
            self._note_all(tag, self._file_meta.add(tag, vr, header, value, offset))
        elif kind == tokens.DATA_SET:
            self._note_each(self._file_meta.end(offset))

    def _check_order(self, tag: int, scope: _Scope) -> None:
        if code := scope.order.check(tag):
            self._note(tag, Finding(code, MESSAGES[code]))

    def _end_bulk(self, tag: int, length: int, scope: _Scope) -> None:
        self._note_all(tag, self._fragments.end() if self._fragments else check_length(length))
        if scope is self._root and tag in PIXEL_TAGS:
            self._instance.see_pixel_data(tag, length, self._fragments)
        elif scope is self._root and tag in SEEN:
            self._see(tag, "UN", b"?")
        self._fragments = None

    def _check_delimiter(self, tag: int, delimiter: bytes) -> None:
        if delimiter[4:8].strip(b"\0"):
            self._note(tag, _DELIMITER)

    def _check_whole(self) -> None:
        """What can only be said at the end."""
        instance = self._instance
        for tag in (SOP_CLASS_UID, SOP_INSTANCE_UID):
            self._note_each(self._file_meta.compare(tag, instance.text(tag)))
        self._note_each(instance.check(self._tokenizer.transfer_syntax_uid, self._sop_class_uid()))
        if instance.has_lost_pixels():
            self._tokenizer.note(Reason.TRUNCATED_FILE, _LOST_PIXELS, PIXEL_DATA, rule="PS3.3 C.7.6.3")

    def _note_each(self, found: Iterable[tuple[int, Finding]]) -> None:
        for tag, finding in found:
            self._note(tag, finding)

    def _note_all(self, tag: int, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._note(tag, finding)

    def _note(self, tag: int, finding: Finding) -> None:
        self._tokenizer.note(finding.code, finding.message, tag, rule=finding.rule)
