"""The parts of a data set as a tree, to compare with readers that make one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from conformance.walker import ITEM, ITEM_END, SEQUENCE_END, Part

_STRUCTURE: Final = frozenset({ITEM, ITEM_END, SEQUENCE_END})


@dataclass(slots=True)
class Node:
    """An element; `items` is None where it is no sequence. `inner` are the bytes of a sequence without its header.
    `offset` is where the value begins, counted from the beginning of the data set.
    """

    tag: int
    header: bytes
    value: bytes
    offset: int = 0
    items: list[list[Node]] | None = None
    inner: bytearray = field(default_factory=bytearray)


def tree_of(parts: list[Part]) -> list[Node]:
    """The tree. A sequence without items, and without a delimiter, is a plain element without a value in it."""
    root: list[Node] = []
    lists = [root]
    open_nodes: list[Node] = []
    position = 0
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        is_structure = part.tag in _STRUCTURE
        offset = position + len(part.header)
        position = offset + len(part.value)
        # Back to the list, and to the sequence, that this part stands in.
        del lists[part.depth + 1 :]
        del open_nodes[part.depth + is_structure :]
        for node in open_nodes:
            node.inner += part.header + part.value
        if part.tag == ITEM:
            items = open_nodes[-1].items
            assert items is not None
            items.append([])
            lists.append(items[-1])
        elif not is_structure:
            node = Node(part.tag, part.header, part.value, offset)
            lists[-1].append(node)
            if following is not None and following.depth == part.depth and following.tag in {ITEM, SEQUENCE_END}:
                node.items = []
                open_nodes.append(node)
    return root
