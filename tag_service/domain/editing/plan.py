"""The edits of one file as a tree: which attributes change in the data set, and in which items of which sequences."""

from __future__ import annotations

from dataclasses import dataclass, field

from tag_service.domain.editing.edits import Edit
from tag_service.domain.standard.paths import Attribute, PrivateAttribute


@dataclass(frozen=True, slots=True)
class Addition:
    """An attribute that is set whatever the file holds: ASCII text, or for a sequence the additions of each item."""

    tag: int
    vr: str
    value: str | tuple[tuple[Addition, ...], ...]


@dataclass(eq=False, slots=True)
class Node:
    """The changes in the data set, or in one item: of its own attributes, and in the items of its sequences by their
    numbers. `sets_values`: one of them gives something a value, rather than take it away.
    """

    edits: dict[Attribute, Edit | Addition] = field(default_factory=dict)
    items: dict[Attribute, dict[int, Node]] = field(default_factory=dict)
    sets_values: bool = False

    @property
    def private_groups(self) -> frozenset[int]:
        """The groups of the private attributes that are named here."""
        return frozenset(
            attribute.group for attribute in (*self.edits, *self.items) if isinstance(attribute, PrivateAttribute)
        )

    def edits_below(self) -> list[Edit]:
        """Every edit here and in the items."""
        found: list[Edit] = []
        waiting = [self]
        while waiting:
            node = waiting.pop()
            found += [edit for edit in node.edits.values() if isinstance(edit, Edit)]
            waiting += [item for numbers in node.items.values() for item in numbers.values()]
        return found


def tree_of(planned: tuple[Edit, ...], additions: tuple[Addition, ...] = ()) -> Node:
    """The tree of these edits."""
    root = Node()
    for edit in planned:
        node = root
        node.sets_values |= edit.value is not None
        for step in edit.path.steps:
            node = node.items.setdefault(step.sequence, {}).setdefault(step.item, Node())
            node.sets_values |= edit.value is not None
        node.edits[edit.path.attribute] = edit
    for addition in additions:
        root.edits[addition.tag] = addition
        root.sets_values = True
    return root
