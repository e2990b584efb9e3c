"""A first look at the header of a file, which says what its edits need to know before a byte of it is written.

Tags may be out of order, and a value may depend on what stands behind it: on the character set, on the block of a
private creator, on whether the attribute is there at all. So the header is looked at twice, first here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.editing.plan import Node
from tag_service.domain.parsing import tokens
from tag_service.domain.parsing.tokenizer import Tokenizer
from tag_service.domain.parsing.tokens import Event, Run, Token
from tag_service.domain.standard import charset, dictionary
from tag_service.domain.standard.charset import Charsets
from tag_service.domain.standard.dictionary import PIXEL_TAGS
from tag_service.domain.standard.limits import Limits
from tag_service.domain.standard.paths import Attribute, PrivateAttribute

SPECIFIC_CHARACTER_SET: Final = 0x00080005
SOP_CLASS_UID: Final = 0x00080016
SOP_INSTANCE_UID: Final = 0x00080018
PATIENT_ID: Final = 0x00100020
STUDY_INSTANCE_UID: Final = 0x0020000D
SERIES_INSTANCE_UID: Final = 0x0020000E
_PIXEL_REPRESENTATION: Final = 0x00280103
_DIRECTORY_RECORD_SEQUENCE: Final = 0x00041220
_IDENTIFIERS: Final = frozenset({SOP_CLASS_UID, SOP_INSTANCE_UID, PATIENT_ID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID})
# Of one attribute that is recorded: the runs and tokens.
_MAX_RECORDED: Final = 20_000
# Private blocks are reserved by elements (gggg,0010) to (gggg,00FF) (PS3.5 7.8.1).
BLOCKS: Final = range(0x10, 0x100)


@dataclass(slots=True)
class Facts:
    """What is known of the data set, or of an item that edits name.

    What matters are the tags in `wanted`, and all of the private `groups`; `tags` are those of them that are present.
    `creators` are the private creators, by the tag that reserves their block. `charsets` is the character set that is
    declared, None where none is. `has_signed_pixels` is (0028,0103), None where it is absent.
    """

    wanted: frozenset[int]
    groups: frozenset[int]
    tags: set[int] = field(default_factory=set)
    creators: dict[int, str] = field(default_factory=dict)
    charsets: Charsets | None = None
    has_signed_pixels: bool | None = None

    @classmethod
    def about(cls, node: Node, *, noted: frozenset[int] = frozenset()) -> Facts:
        """Nothing yet of what matters to these edits, and of what is noted besides."""
        wanted = {attribute for attribute in (*node.edits, *node.items) if isinstance(attribute, int)}
        wanted |= {SPECIFIC_CHARACTER_SET, _PIXEL_REPRESENTATION}
        return cls(frozenset(wanted | noted), node.private_groups)

    def matters(self, tag: int) -> bool:
        """Whether an element with this tag is to be noted."""
        return tag in self.wanted or tag >> 16 in self.groups

    def attribute_of(self, tag: int) -> Attribute:
        """The attribute that an element with this tag is; a private one without a creator is just its tag."""
        if tag & 0x10000 and tag & 0xFFFF > BLOCKS.stop:
            creator = self.creators.get(tag & 0xFFFF0000 | tag >> 8 & 0xFF)
            if creator:
                return PrivateAttribute(tag >> 16, creator, tag & 0xFF)
        return tag

    def tags_of(self, attribute: Attribute) -> list[int]:
        """The tags that an attribute has: of a private one one for each block of its creator."""
        if isinstance(attribute, int):
            return [attribute]
        group = attribute.group << 16
        return [
            group | (block & 0xFF) << 8 | attribute.element
            for block, creator in sorted(self.creators.items())
            if block & 0xFFFF0000 == group and creator == attribute.creator
        ]

    def holds(self, attribute: Attribute) -> bool:
        """Whether the attribute is present."""
        return not self.tags.isdisjoint(self.tags_of(attribute))

    def note(self, tag: int, value: bytes, charsets: Charsets) -> None:
        """Takes in an element."""
        self.tags.add(tag)
        if dictionary.is_private_creator(tag):
            # The first one counts, as everywhere.
            self.creators.setdefault(tag, charset.decode(value, charsets, "LO").text.strip(" \0"))
        elif tag == SPECIFIC_CHARACTER_SET and self.charsets is None:
            self.charsets = charset.charsets_of(value)
        elif tag == _PIXEL_REPRESENTATION and self.has_signed_pixels is None:
            self.has_signed_pixels = any(value)


@dataclass(slots=True)
class _Spot:
    """An open sequence, with the items that edits name, or an open scope: the data set or one of those items."""

    node: Node | None
    items: dict[int, Node] | None = None
    count: int = 0


class Survey:
    """Feed it the file until it is `done`, which it is at the first pixel data of the data set itself; close it where
    the file ends before that. `recorded` are the attributes of the data set whose values are to be kept as they were,
    `noted` those whose values are to be known besides the identifiers. Each event up to there goes by `see` first.
    """

    def __init__(
        self,
        root: Node,
        limits: Limits,
        *,
        recorded: frozenset[Attribute] = frozenset(),
        noted: frozenset[int] = frozenset(),
        see: Callable[[Event], Event],
    ) -> None:
        self.done = False
        self.has_closed = False
        # Whether the data set has begun, so that its encoding is known.
        self.has_begun = False
        self.has_pixel_data = False
        self.tokenizer = Tokenizer(limits)
        # File meta information, as it came: tag, VR, header and value.
        self.meta: list[tuple[int, str, bytes, bytes]] = []
        self._noted = _IDENTIFIERS | noted
        self.facts = {root: Facts.about(root, noted=self._noted)}
        # The values of the identifiers and of what is noted besides.
        self.values: dict[int, bytes] = {}
        # How often each sequence stands that edits lead into.
        self.sequences: Counter[tuple[Node, Attribute]] = Counter()
        self.recorded: list[tuple[int, list[Event]]] = []
        self.recorded_tags: set[int] = set()
        self._wanted = recorded
        self._see = see
        self._root = root
        self._stack = [_Spot(root)]
        self._recording: list[Event] | None = None
        self._recording_depth = 0
        # How many sequences are open that nobody looks into.
        self._passed_over = 0

    def feed(self, data: bytes) -> bool:
        """Takes in a piece; gives `done`: what the tokenizer has behind that is left to others, or it is to be stopped.
        Raises what the tokenizer does, EDIT_REFUSED for a DICOMDIR.
        """
        self._take(map(self._see, self.tokenizer.feed(data)))
        return self.done

    def close(self) -> None:
        """Takes in the end of the file. Raises as `feed`."""
        self._take(map(self._see, self.tokenizer.close()))
        self.done = self.has_closed = True

    def leave_off(self) -> None:
        """Ends the look before all of the header was seen. Raises EDIT_REFUSED amid a value that is to be recorded."""
        if self._recording is not None:
            raise self._too_much_to_record()

    def recorded_in_order(self) -> list[list[Event]]:
        """The recorded attributes in the order of their tags, private ones with their creators."""
        blocks = {tag & 0xFFFF0000 | tag >> 8 & 0xFF for tag, _ in self.recorded if tag & 0xFFFF >= BLOCKS.stop}
        kept = [one for one in self.recorded if not dictionary.is_private_creator(one[0]) or one[0] in blocks]
        return [events for _, events in sorted(kept, key=lambda one: one[0])]

    def facts_of(self, node: Node) -> Facts:
        """What is known of a scope by now."""
        return self.facts.setdefault(node, Facts.about(node))

    def _take(self, stream: Iterator[Event]) -> None:
        for token in stream:
            if self._recording is not None:
                self._record(token)
            if isinstance(token, Run):
                node = self._stack[-1].node
                if node is not None and not self._passed_over:
                    self._run(node, token)
            elif self._passed_over:
                # Most of what a hostile file may hold, so nothing is done for it that need not be.
                kind = token[0]
                if kind == tokens.SEQUENCE:
                    self._passed_over += 1
                elif kind == tokens.SEQUENCE_END:
                    self._passed_over -= 1
            elif token[0] <= tokens.DATA_SET:
                self._frame(token)
            else:
                self._structure(token)
                if self.done:
                    return

    def _frame(self, token: Token) -> None:
        if token[0] == tokens.META_ELEMENT:
            self.meta.append(token[1:5])
        elif token[0] == tokens.DATA_SET:
            self.has_begun = True

    def _structure(self, token: Token) -> None:
        kind, tag, _, _, _, _ = token
        stack = self._stack
        if kind in {tokens.BULK, tokens.FRAGMENTS}:
            if tag in PIXEL_TAGS and len(stack) == 1:
                self.done = self.has_pixel_data = True
                return
            self._begin(token)
        elif kind == tokens.SEQUENCE:
            self._begin(token)
            self._enter(stack[-1], tag)
        elif kind == tokens.ITEM_BEGIN:
            spot = stack[-1]
            node = spot.items.get(spot.count) if spot.items else None
            spot.count += 1
            if node is not None:
                self.facts_of(node)
            stack.append(_Spot(node))
        elif kind in {tokens.ITEM_END, tokens.SEQUENCE_END}:
            stack.pop()

    def _enter(self, spot: _Spot, tag: int) -> None:
        """Goes into a sequence, or passes it over when edits do not lead into it."""
        attribute = self._attribute(spot, tag)
        items = spot.node.items.get(attribute) if spot.node else None
        if items is None or spot.node is None:
            self._passed_over = 1
            return
        self.sequences[spot.node, attribute] += 1
        self._stack.append(_Spot(None, items))

    def _attribute(self, spot: _Spot, tag: int) -> Attribute:
        return self.facts[spot.node].attribute_of(tag) if spot.node else tag

    def _begin(self, token: Token) -> None:
        """Notes an element that is more than a plain value."""
        spot, tag = self._stack[-1], token[1]
        if spot.node is None:
            return
        if self.facts[spot.node].matters(tag):
            self.facts[spot.node].note(tag, b"", charset.DEFAULT)
        if spot.node is self._root:
            if tag == _DIRECTORY_RECORD_SEQUENCE:
                # PS3.3 F.3.2.2: its records point to each other by their offsets in the file.
                raise ServiceError(
                    Reason.EDIT_REFUSED, "A DICOMDIR cannot be edited: make a new one of the edited files."
                )
            if self._attribute(spot, tag) in self._wanted:
                self._recording = [token]
                self._recording_depth = 1
                self.recorded.append((tag, self._recording))
                self.recorded_tags.add(tag)

    def _record(self, token: Event) -> None:
        """Keeps what belongs to the attribute that is being recorded."""
        assert self._recording is not None  # noqa: S101 - asked for only then
        self._recording.append(token)
        if len(self._recording) > _MAX_RECORDED:
            raise self._too_much_to_record()
        if isinstance(token, Run):
            return
        self._recording_depth += token[0] in {tokens.SEQUENCE, tokens.BULK, tokens.FRAGMENTS}
        self._recording_depth -= token[0] in {tokens.SEQUENCE_END, tokens.BULK_END}
        if not self._recording_depth:
            self._recording = None

    def _too_much_to_record(self) -> ServiceError:
        where = dictionary.tag_text(self.recorded[-1][0])
        return ServiceError(
            Reason.EDIT_REFUSED,
            f"{where} holds too much to be recorded. Edit without record_original.",
            metadata={"tag": where},
        )

    def _run(self, node: Node, run: Run) -> None:
        """The plain elements of a scope that edits name."""
        facts = self.facts[node]
        wanted, groups = facts.wanted, facts.groups
        buffer = run.buffer
        is_root = node is self._root
        for element in run.elements:
            tag, _, _, at, stop = element
            if tag not in wanted and tag >> 16 not in groups:
                continue
            value = buffer[at:stop]
            facts.note(tag, value, facts.charsets or charset.DEFAULT)
            if is_root:
                if tag in self._noted:
                    self.values.setdefault(tag, value)
                if self._wanted and (dictionary.is_private_creator(tag) or facts.attribute_of(tag) in self._wanted):
                    self.recorded.append((tag, [Run(buffer, run.base, [element])]))
                    self.recorded_tags.add(tag)
