"""Reading chosen attributes besides the 20 of DicomTags, and no further into the file than that takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tag_service.domain.parsing import tokens
from tag_service.domain.parsing.headers import length_in
from tag_service.domain.parsing.order import MESSAGES, TagOrder
from tag_service.domain.parsing.tokenizer import Tokenizer
from tag_service.domain.parsing.tokens import Event, Run, Token
from tag_service.domain.reading.chosen import Choice, ChosenAttribute, shown
from tag_service.domain.reading.dicom_tags import FIELDS, IDENTIFYING, Header, decode_tags, undecodable
from tag_service.domain.reading.wanted import Found, Scope, Target, plant
from tag_service.domain.standard.charset import SPECIFIC_CHARACTER_SET, charsets_of
from tag_service.domain.standard.dictionary import PIXEL_TAGS, is_private_creator
from tag_service.domain.standard.limits import Limits
from tag_service.domain.standard.paths import Attribute, PrivateAttribute
from tag_service.domain.standard.problems import MAX_PROBLEMS, RULES, Problem, ProblemCode
from tag_service.domain.standard.text import text_of
from tag_service.domain.standard.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE

# Longer values are left out: what is asked for by the dozen is no document.
VALUE_BYTES: Final = 64 * 1024
_PIXEL_REPRESENTATION: Final = 0x00280103
_BEGINNINGS: Final = frozenset({tokens.BULK, tokens.FRAGMENTS, tokens.SEQUENCE})


@dataclass(slots=True)
class _OpenSequence:
    """A sequence that is being read: what is wanted of it (nothing, mostly), and how many items it has so far."""

    targets: list[Target]
    found: Found | None
    is_implicit: bool
    count: int = 0


class ChosenReader:
    """Feed it the file until it is `done`, close it when the file ends before that, then ask for what was found.

    It is done as `HeaderReader` is: past the highest tag that is wanted, or at the pixel data of the data set itself;
    but where a tag behind that is wanted, the pixel data is read past.
    """

    def __init__(self, choice: Choice, limits: Limits) -> None:
        self.done = False
        self._tokenizer = Tokenizer(limits)
        self._choice = choice
        wanted, self._leaves = plant(choice.paths)
        self._fields = {tag: wanted.setdefault(tag, Target()) for tag in FIELDS}
        self._highest = max(map(_highest_tag, wanted))
        self._order = TagOrder()
        self._in_order = True
        self._past_pixels = False
        # Whatever the data set is encoded as, the file meta information is not.
        self._meta = Scope([wanted], EXPLICIT_LE)
        self._root = Scope([wanted], EXPLICIT_LE)
        # The data set and the open items, None for those in which nothing is wanted.
        self._scopes: list[Scope | None] = [self._root]
        self._sequences: list[_OpenSequence] = []
        self._bulk: Found | None = None
        self._bulk_start = 0

    def passes_on(self, size: int) -> bool:
        """Whether a piece of this many bytes would lie in a bulk value, and so take next to no time."""
        return self._tokenizer.bulk_left >= size

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

    def answer(self) -> tuple[Header, tuple[ChosenAttribute, ...]]:
        """The 20 attributes with what is odd about the header, and what was asked for in the order in which it was."""
        values = {tag: target.found.value or b"" for tag, target in self._fields.items() if target.found is not None}
        tags = decode_tags(values, self._root.charsets, self._tokenizer)
        problems = list(self._tokenizer.problems)
        attributes = []
        for text, path, target in zip(self._choice.texts, self._choice.paths, self._leaves, strict=True):
            attribute, exact = shown(text, path.attribute, target.found)
            attributes.append(attribute)
            if target.found is not None and not exact and target not in self._fields.values():
                problems.append(_guessed(attribute, target.found))
        return Header(tags, tuple(problems[:MAX_PROBLEMS])), tuple(attributes)

    def _take(self, stream: Iterator[Event]) -> None:
        for event in stream:
            scope = self._scopes[-1]
            if isinstance(event, Run):
                enough = scope is not None and self._take_run(scope, event)
            elif event[0] in _BEGINNINGS:
                enough = self._begin(scope, event)
            else:
                enough = self._go_on(scope, event)
            if enough:
                self.done = True
                break

    def _take_run(self, scope: Scope, run: Run) -> bool:
        """Takes the values that are wanted; whether that is enough."""
        by_tag, by_group, is_root = scope.by_tag, scope.by_group, scope is self._root
        for tag, vr, _, start, stop in run.elements:
            if is_root and self._is_enough(tag):
                return True
            if tag in by_tag:
                self._find(scope, tag, vr, run.buffer[start:stop])
            if tag == SPECIFIC_CHARACTER_SET and scope.declared_charsets is None:
                scope.declared_charsets = charsets_of(run.buffer[start:stop])
            elif tag == _PIXEL_REPRESENTATION:
                scope.declared_signed = any(run.buffer[start : min(stop, start + 2)])
            elif by_group and tag >> 16 in by_group and is_private_creator(tag):
                scope.reserve(tag, text_of(run.buffer[start:stop], "LO", scope.charsets).text)
        return False

    def _begin(self, scope: Scope | None, token: Token) -> bool:
        """The beginning of an element that is no plain one; whether that is enough."""
        kind, tag, vr, header, _, offset = token
        if scope is self._root and self._is_enough(tag):
            return True
        targets = scope.missing(tag) if scope is not None else []
        if kind == tokens.SEQUENCE:
            found = self._find(scope, tag, "SQ", item_count=0)
            self._sequences.append(_OpenSequence(targets, found, is_implicit=vr == "UN"))
            return False
        self._bulk, self._bulk_start = self._find(scope, tag, vr), offset + len(header)
        if self._bulk is None or kind == tokens.FRAGMENTS:
            return False
        # The header says it, so that the value need not be waited for.
        self._bulk.size_bytes = length_in(header, self._bulk.scope.encoding)
        return self._ends_with(scope, tag)

    def _go_on(self, scope: Scope | None, token: Token) -> bool:
        """Whatever begins no element of the data set; whether that is enough."""
        kind, tag, vr, _, value, offset = token
        if kind == tokens.ITEM_BEGIN:
            self._scopes.append(_enter_item(self._sequences[-1], scope))
        elif kind == tokens.ITEM_END:
            self._scopes.pop()
        elif kind == tokens.SEQUENCE_END:
            sequence = self._sequences.pop()
            if sequence.found is not None:
                sequence.found.item_count = sequence.count
        elif kind == tokens.BULK_END:
            if self._bulk is not None:
                self._bulk.size_bytes = offset - self._bulk_start
            return self._ends_with(scope, tag)
        elif kind == tokens.META_ELEMENT:
            self._find(self._meta, tag, vr, value)
        elif kind == tokens.DATA_SET:
            self._root.encoding = self._tokenizer.encoding
        return False

    def _find(
        self, scope: Scope | None, tag: int, vr: str, value: bytes | None = None, *, item_count: int | None = None
    ) -> Found | None:
        """Notes down an attribute, where it is wanted and not found yet."""
        targets = scope.missing(tag) if scope is not None else None
        if not targets or scope is None:
            return None
        size_bytes = len(value or b"")
        kept = value if size_bytes <= VALUE_BYTES else None
        found = Found(tag, vr, self._tokenizer.path_of(tag), scope, kept, size_bytes, item_count)
        for target in targets:
            target.found = found
        return found

    def _is_enough(self, tag: int) -> bool:
        """Takes notice of an element of the data set; whether all that is wanted stands before it."""
        if code := self._order.check(tag):
            self._in_order = False
            self._tokenizer.note(code, MESSAGES[code], tag)
        if tag <= self._highest:
            self._past_pixels |= tag in PIXEL_TAGS
            return False
        if tag in PIXEL_TAGS:
            return True
        return self._in_order and (self._past_pixels or all(self._fields[wanted].found for wanted in IDENTIFYING))

    def _ends_with(self, scope: Scope | None, tag: int) -> bool:
        """Whether pixel data is the last that is wanted."""
        return scope is self._root and tag in PIXEL_TAGS and tag == self._highest


def _highest_tag(attribute: Attribute) -> int:
    """The highest tag that an attribute can have."""
    return attribute.group << 16 | 0xFFFF if isinstance(attribute, PrivateAttribute) else attribute


def _enter_item(sequence: _OpenSequence, parent: Scope | None) -> Scope | None:
    """The scope of the next item of a sequence."""
    number = sequence.count
    sequence.count += 1
    wanted = [target.items[number] for target in sequence.targets if number in target.items]
    if parent is None or not wanted:
        return None
    return Scope(wanted, IMPLICIT_LE if sequence.is_implicit else parent.encoding, parent)


def _guessed(attribute: ChosenAttribute, found: Found) -> Problem:
    code = ProblemCode.UNDECLARED_CHARSET
    return Problem(code, undecodable(attribute.vr), found.where, rule=RULES[code])
