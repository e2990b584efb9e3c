"""Where the rewriter is: the sequences and scopes (the data set, or an item) that are open, and what is due in them."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import Final

from tag_service.domain.editing.plan import Addition, Node
from tag_service.domain.editing.survey import BLOCKS, Facts
from tag_service.domain.editing.treatment import Treatment
from tag_service.domain.standard import charset, dictionary, values
from tag_service.domain.standard.charset import Charsets
from tag_service.domain.standard.elements import element, sequence
from tag_service.domain.standard.paths import Attribute, PrivateAttribute
from tag_service.domain.standard.transfer_syntax import Encoding

# Behind every tag.
END: Final = 1 << 32


@dataclass(slots=True)
class OpenSequence:
    """A sequence: how its items are encoded, what its scopes inherit, and the items that edits name, by number."""

    encoding: Encoding
    charsets: Charsets
    treatment: Treatment | None
    items: dict[int, Node]
    count: int = 0
    is_record: bool = False


@dataclass(slots=True)
class Scope:
    """The data set or an item.

    `charsets` is the character set in force, `creators` are the private creators of the last group that has any, by the
    tag that reserves their block.
    `due` are the attributes that edits add, each at the tag that it comes before the first one behind of; `added` are
    those that were. `facts` are known of the data set and of items that edits name.
    """

    encoding: Encoding
    charsets: Charsets
    treatment: Treatment | None = None
    node: Node | None = None
    facts: Facts | None = None
    creators: dict[int, str] = field(default_factory=dict)
    due: list[tuple[int, int, Attribute]] = field(default_factory=list)
    added: set[Attribute] = field(default_factory=set)
    entered: set[Attribute] = field(default_factory=set)
    has_transcoded: bool = False

    def note_creator(self, tag: int, value: bytes) -> None:
        """Takes in a private creator."""
        if self.creators and next(iter(self.creators)) >> 16 != tag >> 16:
            # Groups come one after the other, and a file may have very many.
            self.creators.clear()
        # The first one counts, as everywhere.
        self.creators.setdefault(tag, charset.decode(value, self.charsets, "LO").text.strip(" \0"))

    def creator_of(self, tag: int) -> str:
        """The creator of a private element, "" where none was found; a creator is its own."""
        if not dictionary.is_private(tag):
            return ""
        block = tag if dictionary.is_private_creator(tag) else tag & 0xFFFF0000 | tag >> 8 & 0xFF
        return self.creators.get(block, "")

    def expect(self, attribute: Attribute) -> None:
        """Makes an attribute due, unless the scope turns out to hold it."""
        # Which block a private attribute has is known behind the creators.
        tag = attribute if isinstance(attribute, int) else attribute.group << 16 | BLOCKS.stop - 1
        self.expect_at(tag, attribute)

    def expect_at(self, tag: int, attribute: Attribute) -> None:
        """Makes an attribute due at this tag."""
        insort(self.due, (tag, len(self.due), attribute), key=lambda one: one[:2])

    def reserve(self, attribute: PrivateAttribute) -> tuple[int | None, bytes]:
        """The tag for a private attribute that is absent, None where no block is left, and the creator's element where
        it has no block yet.
        """
        assert self.facts is not None  # noqa: S101 - attributes are added where edits name them
        group = attribute.group << 16
        if tags := self.facts.tags_of(attribute):
            return tags[0], b""
        # A block is also taken where elements lie in it without a creator.
        elements = [tag & 0xFFFF for tag in self.facts.tags if tag >> 16 == attribute.group]
        taken = {number if number < BLOCKS.stop else number >> 8 for number in elements}
        block = next((block for block in BLOCKS if block not in taken), None)
        if block is None:
            return None, b""
        self.facts.tags.add(group | block)
        self.facts.creators[group | block] = attribute.creator
        # A creator that comes this far is one of the private dictionary, all of which are ASCII.
        creator = values.pad("LO", charset.encode(attribute.creator, charset.DEFAULT, "LO"))
        return group | block << 8 | attribute.element, element(group | block, "LO", creator, self.encoding)


def addition_bytes(addition: Addition, encoding: Encoding) -> bytes:
    """An addition, written."""
    # As deep as our own tables make it.
    if isinstance(addition.value, str):
        value = values.pad(addition.vr, addition.value.encode("ascii"))
        return element(addition.tag, addition.vr, value, encoding)
    items = [b"".join(addition_bytes(inner, encoding) for inner in item) for item in addition.value]
    return sequence(addition.tag, items, encoding)
