"""Tokens of a data set in, the edited data set out: elements are kept, replaced, removed, and put before others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.editing.edits import Edit
from tag_service.domain.editing.making import Maker
from tag_service.domain.editing.new_values import treated
from tag_service.domain.editing.plan import Addition, Node
from tag_service.domain.editing.provenance import ORIGINAL_ATTRIBUTES_SEQUENCE, Provenance
from tag_service.domain.editing.scope import END, OpenSequence, Scope, addition_bytes
from tag_service.domain.editing.survey import SPECIFIC_CHARACTER_SET, Survey
from tag_service.domain.editing.transcode import UTF_8_VALUE, conflict, text_vr, transcoded
from tag_service.domain.editing.treatment import Fate, Treatment
from tag_service.domain.editing.window import HELD_BYTES
from tag_service.domain.parsing import tokens
from tag_service.domain.parsing.tokens import Event, Run, Token
from tag_service.domain.standard import charset, dictionary
from tag_service.domain.standard.dictionary import PIXEL_TAGS
from tag_service.domain.standard.elements import element
from tag_service.domain.standard.paths import Attribute
from tag_service.domain.standard.transfer_syntax import IMPLICIT_LE, Encoding

_NO_TAGS: Final[frozenset[int]] = frozenset()
_NO_GROUPS: Final[frozenset[int]] = frozenset()
_FILE_META_GROUP: Final = 0x0002
# Behind the file meta information.
_FIRST_TAG: Final = 0x00030000
_NO_LENGTH: Final = bytes(4)
_REPEATED: Final = "leads into a sequence that the file holds more than once"
_OPENING: Final = frozenset({tokens.SEQUENCE, tokens.BULK, tokens.FRAGMENTS})
_CLOSING: Final = frozenset({tokens.SEQUENCE_END, tokens.BULK_END})


class DataSetWriter:
    """Takes the tokens of one data set; `window` has what comes of them, `findings` what is wrong with the edits.
    `to_utf_8`: all text becomes UTF-8.
    """

    def __init__(
        self,
        root: Node,
        survey: Survey,
        encoding: Encoding,
        *,
        to_utf_8: bool,
        treatment: Treatment | None,
        record: Provenance | None,
    ) -> None:
        self._survey = survey
        self.to_utf_8 = to_utf_8
        self._record = record
        self._maker = Maker(
            root, survey, encoding, to_utf_8=to_utf_8, treatment=treatment, record=record, replay=self._replay
        )
        self.window = self._maker.window
        self.findings = self._maker.findings
        self._root = self._maker.root
        self._is_behind_pixels = False
        self._identifiers = treatment.depends_on if treatment else _NO_TAGS
        self._open: list[Scope | OpenSequence] = [self._root]
        # How many of the sequences and bulk values are open that are left out.
        self._left_out = 0
        # By sequence that stands more than once: the items that edits lead into.
        self._repeated: dict[tuple[Node, Attribute], dict[int, Node]] = {}
        # The token that follows is the end of something empty, which was written with its beginning.
        self._end_is_written = False
        # Text that is too long to come at once, which is to be transcoded: its token, and its value so far.
        self._long_text: tuple[Token, bytearray] | None = None

    def take(self, stream: Iterable[Event]) -> None:
        """Writes what these tokens become.

        Raises INVALID_FIELD, CHARSET_CONFLICT, EDIT_REFUSED, MALFORMED_DICOM.
        """
        for token in stream:
            if self._end_is_written:
                self._end_is_written = False
            elif isinstance(token, Run):
                if not self._left_out:
                    self._run(token)
            elif self._left_out:
                self._left_out += token[0] in _OPENING
                self._left_out -= token[0] in _CLOSING
            elif token[0] == tokens.CHUNK:
                self._chunk(token)
            elif token[3][-4:] == _NO_LENGTH and self._passes_empty(token):
                self.window.write(token[3])
                self.window.settle(token[5] + len(token[3]))
                self._end_is_written = True
            else:
                self._structure(token)

    @property
    def passes_chunks(self) -> bool:
        """Whether the chunks of the bulk value that is open go out at once, as they are."""
        return not (self._left_out or self._long_text is not None or self.window.is_held)

    def end(self) -> None:
        """Writes what is due at the end. Raises EDIT_REFUSED where there is no element at all."""
        self._maker.add_due(self._root, END)
        if not self.window.written:
            raise ServiceError(Reason.EDIT_REFUSED, "The edits leave no element in the data set.")

    def _replay(self, scope: Scope) -> None:
        """Writes the recorded values as they came."""
        self._open.append(scope)
        for recorded in self._survey.recorded_in_order():
            self.take(recorded)
        self._open.pop()

    # Scopes.

    def _changes_everywhere(self, scope: Scope) -> bool:
        """Whether every element of a scope may change, not only those that edits name."""
        return scope.treatment is not None or self.to_utf_8

    def _current(self) -> Scope:
        scope = self._open[-1]
        assert isinstance(scope, Scope)  # noqa: S101 - elements stand in scopes
        return scope

    # What comes.

    def _run(self, run: Run) -> None:
        scope, window, buffer = self._current(), self.window, run.buffer
        is_plain = scope.node is None and not self._changes_everywhere(scope)
        wanted, groups = self._looked_for(scope)
        next_due = scope.due[0][0] if scope.due else END
        # From here on, nothing that is kept has been written yet.
        kept = run.elements[0][2]
        for tag, vr, start, at, stop in run.elements:
            # Most elements are none that anything is to be done about.
            if (
                wanted is not None
                and tag not in wanted
                and tag & 0xFFFF
                and _FIRST_TAG <= tag <= next_due
                and tag >> 16 not in groups
            ):
                continue
            window.write(buffer[kept:start])
            kept = start
            if is_plain:
                new = None if tag & 0xFFFF or window.is_fixed else b""
            else:
                if next_due < tag:
                    self._maker.add_due(scope, tag)
                    next_due = scope.due[0][0] if scope.due else END
                new = self._instead(scope, tag, vr, buffer[at:stop])
            if new is not None:
                window.write(new)
                kept = stop
        window.write(buffer[kept : run.elements[-1][4]])
        window.settle(run.base + run.elements[-1][4])

    def _looked_for(self, scope: Scope) -> tuple[frozenset[int] | None, frozenset[int]]:
        """The tags, and the groups, that something may have to be done about besides group lengths; None: any tag."""
        if self._changes_everywhere(scope):
            return None, _NO_GROUPS
        if scope.facts is None:
            return _NO_TAGS, _NO_GROUPS
        if scope is self._root:
            return scope.facts.wanted | {ORIGINAL_ATTRIBUTES_SEQUENCE}, scope.facts.groups
        return scope.facts.wanted, scope.facts.groups

    def _chunk(self, token: Token) -> None:
        _, tag, _, _, value, offset = token
        if self._long_text is None:
            self.window.pass_on(value, offset + len(value))
            return
        text = self._long_text[1]
        text += value
        if len(text) > HELD_BYTES:
            raise conflict(tag, "is too long to be carried over")

    def _structure(self, token: Token) -> None:
        kind, _, _, head, value, offset = token
        if kind == tokens.SEQUENCE:
            self._begin_sequence(token)
        elif kind == tokens.ITEM_BEGIN:
            self._begin_item(token)
        elif kind == tokens.ITEM_END:
            self._maker.add_due(self._current(), END)
            self.window.end(head)
            self._open.pop()
        elif kind == tokens.SEQUENCE_END:
            self._end_sequence(head)
        elif kind in {tokens.BULK, tokens.FRAGMENTS}:
            self._begin_bulk(token)
        elif kind == tokens.BULK_END:
            self._end_bulk()
        self.window.settle(offset + len(head) + len(value))

    def _passes_empty(self, token: Token) -> bool:
        """Whether a sequence or item without content, of which a hostile file may hold a million, simply stays."""
        kind, tag, _, _, _, _ = token
        around = self._open[-1]
        if kind == tokens.ITEM_BEGIN and isinstance(around, OpenSequence):
            if around.count in around.items:
                return False
            around.count += 1
            return True
        return (
            kind == tokens.SEQUENCE
            and isinstance(around, Scope)
            and around.treatment is None
            and (not around.due or around.due[0][0] >= tag)
            and (around.facts is None or not around.facts.matters(tag))
            and tag != ORIGINAL_ATTRIBUTES_SEQUENCE
        )

    def _begin_sequence(self, token: Token) -> None:
        _, tag, vr, head, _, offset = token
        scope = self._current()
        self._maker.add_due(scope, tag)
        items: dict[int, Node] = {}
        is_record = False
        if scope.node is not None and scope.facts is not None:
            if scope.facts.matters(tag):
                scope.facts.note(tag, b"", scope.charsets)
            attribute = scope.facts.attribute_of(tag)
            edit = scope.node.edits.get(attribute)
            if edit is not None:
                self._leave_out(self._edited(scope, attribute, edit, tag, vr))
                return
            items = scope.node.items.get(attribute, items)
            if items and (attribute in scope.entered or self._survey.sequences[scope.node, attribute] > 1):
                items = self._in_repeated(scope.node, attribute, items)
            if items and (attribute in scope.added or self._is_too_late(scope, tag)):
                raise _too_late(tag)
            scope.entered.add(attribute)
            is_record = scope is self._root and tag == ORIGINAL_ATTRIBUTES_SEQUENCE and self._maker.records_in(vr)
        fate = scope.treatment.fate(tag, vr, scope.creator_of(tag)) if scope.treatment else Fate.KEEP
        if fate in {Fate.REMOVE, Fate.EMPTY}:
            self._leave_out(element(tag, vr, b"", scope.encoding) if fate is Fate.EMPTY else b"")
            return
        encoding = IMPLICIT_LE if vr == "UN" else scope.encoding
        self.window.begin(
            head,
            little=scope.encoding.little_endian,
            little_inside=encoding.little_endian,
            is_item=False,
            source=offset + len(head),
            changes=is_record or bool(items) or scope.treatment is not None or self.to_utf_8,
        )
        self._open.append(OpenSequence(encoding, scope.charsets, scope.treatment, items, is_record=is_record))

    def _in_repeated(self, node: Node, attribute: Attribute, items: dict[int, Node]) -> dict[int, Node]:
        """The items that edits lead into of a sequence that stands more than once, which may be very often."""
        left = self._repeated.get((node, attribute))
        if left is None:
            self.findings.violate_all(items, _REPEATED)
            # Where a value is to be set that is an error, and nothing need be done in any of them.
            left = {} if any(item.sets_values for item in items.values()) else items
            self._repeated[node, attribute] = left
        return left

    def _begin_item(self, token: Token) -> None:
        sequence = self._open[-1]
        assert isinstance(sequence, OpenSequence)  # noqa: S101 - items stand in sequences
        node = sequence.items.get(sequence.count)
        sequence.count += 1
        self.window.begin(
            token[3],
            little=sequence.encoding.little_endian,
            is_item=True,
            source=token[5] + len(token[3]),
            changes=node is not None or sequence.treatment is not None or self.to_utf_8,
        )
        self._open.append(self._maker.scope(node, sequence.encoding, sequence.charsets, sequence.treatment))

    def _end_sequence(self, delimiter: bytes) -> None:
        sequence = self._open[-1]
        assert isinstance(sequence, OpenSequence)  # noqa: S101 - only a sequence ends so
        for number, node in sequence.items.items():
            if number >= sequence.count and node.sets_values:
                if number == 0:
                    self._maker.make_item(node, sequence)
                else:
                    self.findings.violate_all({number: node}, "leads into an item that the file does not hold")
        if sequence.is_record:
            self._maker.make_record(sequence.encoding)
        self.window.end(delimiter)
        self._open.pop()

    def _begin_bulk(self, token: Token) -> None:
        kind, tag, vr, head, _, _ = token
        scope = self._current()
        self._maker.add_due(scope, tag)
        self._is_behind_pixels |= scope is self._root and tag in PIXEL_TAGS
        new = self._instead(scope, tag, vr, None)
        if new is not None:
            self._leave_out(new)
        elif self.to_utf_8 and kind == tokens.BULK and text_vr(tag, vr, scope.creators):
            self._long_text = (token, bytearray())
        else:
            if self.to_utf_8 and vr == "UN" and dictionary.implicit_vr(tag) == "SQ":
                self.findings.conflict(conflict(tag, "came as UN, and is too long to look for text in it"))
            self.window.write(head)

    def _end_bulk(self) -> None:
        if self._long_text is None:
            return
        (_, tag, vr, head, _, _), text = self._long_text
        self._long_text = None
        value = bytes(text)
        new = self._transcoded(self._current(), tag, vr, value)
        self.window.write(head + value if new is None else new)

    def _leave_out(self, instead: bytes) -> None:
        """Writes this in place of the sequence or bulk value that begins here."""
        self.window.write(instead)
        self._left_out = 1

    # What becomes of an element.

    def _instead(self, scope: Scope, tag: int, vr: str, value: bytes | None) -> bytes | None:
        """What is written in place of an element, None for itself; its value is None for one of bulk data."""
        if not tag & 0xFFFF:
            return None if self.window.is_fixed else b""
        if tag >> 16 == _FILE_META_GROUP and not self.window.written:
            # Behind the new file meta information it would be read as a part of it.
            raise ServiceError(Reason.MALFORMED_DICOM, "The data set holds file meta information among its elements.")
        if tag == SPECIFIC_CHARACTER_SET:
            return self._declared(scope, value or b"")
        if scope.node is not None and (new := self._named(scope, scope.node, tag, vr, value)) is not None:
            return new
        if dictionary.is_private_creator(tag) and value is not None:
            scope.note_creator(tag, value)
        if tag in self._identifiers and scope is self._root and value is not None:
            self._recognise(tag, value)
        if scope.treatment is not None and (new := treated(scope, scope.treatment, tag, vr, value)) is not None:
            return new
        return self._transcoded(scope, tag, vr, value) if self.to_utf_8 and value is not None else None

    def _named(self, scope: Scope, node: Node, tag: int, vr: str, value: bytes | None) -> bytes | None:
        """What is written in place of an element that edits may name, None where none does."""
        assert scope.facts is not None  # noqa: S101 - it comes with the node
        if scope.facts.matters(tag):
            scope.facts.note(tag, value or b"", scope.charsets)
        attribute = scope.facts.attribute_of(tag)
        edit = node.edits.get(attribute)
        if edit is not None:
            return self._edited(scope, attribute, edit, tag, vr)
        if attribute in node.items:
            return self._into_element(scope, attribute, tag, node.items[attribute], value)
        if scope is self._root and tag == ORIGINAL_ATTRIBUTES_SEQUENCE and self._record is not None:
            return self._maker.record_instead(value)
        return None

    def _recognise(self, tag: int, value: bytes) -> None:
        """Raises EDIT_REFUSED for an identifier that is not the one that the treatment began with."""
        known = self._survey.values.get(tag)
        if known is None or known.strip(b" \0") != value.strip(b" \0"):
            where = dictionary.tag_text(tag)
            raise ServiceError(
                Reason.EDIT_REFUSED,
                f"{where} stands behind the header of the file, or twice with different values, and what is made of "
                "the file depends on it.",
                metadata={"tag": where},
            )

    def _declared(self, scope: Scope, value: bytes) -> bytes | None:
        """What becomes of a character set, which is in force in its scope from here on."""
        if SPECIFIC_CHARACTER_SET in scope.added:
            # It was taken for absent, and what stands in its place is in force.
            return b""
        charsets = charset.charsets_of(value)
        if scope.has_transcoded and charsets != scope.charsets:
            raise conflict(SPECIFIC_CHARACTER_SET, "stands behind text that is in it")
        scope.charsets = charsets
        return element(SPECIFIC_CHARACTER_SET, "CS", UTF_8_VALUE, scope.encoding) if self.to_utf_8 else None

    def _transcoded(self, scope: Scope, tag: int, vr: str, value: bytes) -> bytes | None:
        known = text_vr(tag, vr, scope.creators)
        if not known:
            return None
        try:
            new = transcoded(tag, known, value, scope.charsets, file_vr=vr, encoding=scope.encoding)
        except ServiceError as error:
            self.findings.conflict(error)
            return None
        if new is None:
            return None
        scope.has_transcoded = True
        return element(tag, vr, new, scope.encoding)

    # Edits.

    def _edited(self, scope: Scope, attribute: Attribute, edit: Edit | Addition, tag: int, vr: str) -> bytes:
        """What is written in place of an element that is edited."""
        if self._is_too_late(scope, tag):
            raise _too_late(tag)
        if attribute in scope.added:
            # It was taken for absent, and stands in its place already.
            return b""
        if isinstance(edit, Addition):
            return addition_bytes(edit, scope.encoding)
        # An attribute that the file holds twice is changed twice, for readers differ in which one they take.
        return b"" if edit.value is None else self._maker.new(scope, edit, edit.value, tag, vr)

    def _into_element(
        self, scope: Scope, attribute: Attribute, tag: int, items: dict[int, Node], value: bytes | None
    ) -> bytes | None:
        """What is written in place of an element that edits lead into as if it were a sequence."""
        if not any(node.sets_values for node in items.values()):
            return None
        if value != b"":
            self.findings.violate_all(items, "leads into an attribute that is no sequence in the file")
            return None
        if attribute in scope.entered:
            self.findings.violate_all(items, _REPEATED)
            return None
        scope.entered.add(attribute)
        self._maker.make_sequence(scope, tag, items)
        return b""

    def _is_too_late(self, scope: Scope, tag: int) -> bool:
        """Whether a value that is met now was to be recorded, and was not seen, or not known for it, by the survey."""
        if scope is not self._root or self._record is None:
            return False
        return self._is_behind_pixels or not self.findings.is_header or tag not in self._survey.recorded_tags


def _too_late(tag: int) -> ServiceError:
    where = dictionary.tag_text(tag)
    return ServiceError(
        Reason.EDIT_REFUSED,
        f"{where} stands behind the header of the file, too late for what the edits need of it.",
        metadata={"tag": where},
    )
