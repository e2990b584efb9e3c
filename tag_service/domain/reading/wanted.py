"""What is wanted of a file, as a tree of attributes and items, and the place that reading has come to in it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tag_service.domain.standard.charset import DEFAULT, Charsets
from tag_service.domain.standard.paths import Attribute, Path, PrivateAttribute
from tag_service.domain.standard.transfer_syntax import Encoding


@dataclass(slots=True)
class Found:
    """An attribute as the file has it, and the scope that its value is to be read in.

    `where` is its path, `value` None where it is left out, `size_bytes` its length in the file. `item_count` is None
    save for a sequence.
    """

    tag: int
    vr: str
    where: str
    scope: "Scope"
    value: bytes | None
    size_bytes: int
    item_count: int | None


@dataclass(slots=True, eq=False)
class Target:
    """An attribute that is wanted, or leads to one: what was found of it, and what is wanted of its items by number."""

    found: Found | None = None
    items: dict[int, "Targets"] = field(default_factory=dict)


Targets = dict[Attribute, Target]


def plant(paths: Iterable[Path]) -> tuple[Targets, list[Target]]:
    """The tree of these paths, and where each of them ends in it."""
    root: Targets = {}
    leaves = []
    for path in paths:
        targets = root
        for step in path.steps:
            targets = targets.setdefault(step.sequence, Target()).items.setdefault(step.item, {})
        leaves.append(targets.setdefault(path.attribute, Target()))
    return root, leaves


class Scope:
    """A data set or item in which something is wanted, while it is read.

    `by_tag` is what is wanted of each tag; what is wanted of a private creator joins it once that reserves its block.
    `charsets` and `is_signed` are what the item declares itself, or else its parent's (PS3.3 C.12.1.1.2); what declares
    them need not come first, so ask in the end.
    """

    __slots__ = ("_reserved", "by_group", "by_tag", "declared_charsets", "declared_signed", "encoding", "parent")

    def __init__(self, wanted: Iterable[Targets], encoding: Encoding, parent: "Scope | None" = None) -> None:
        self.encoding = encoding
        self.declared_charsets: Charsets | None = None
        self.declared_signed: bool | None = None
        self.by_tag: dict[int, list[Target]] = {}
        self.by_group: dict[int, list[tuple[PrivateAttribute, Target]]] = {}
        self.parent = parent
        self._reserved: set[int] = set()
        for targets in wanted:
            for attribute, target in targets.items():
                if isinstance(attribute, PrivateAttribute):
                    self.by_group.setdefault(attribute.group, []).append((attribute, target))
                else:
                    self.by_tag.setdefault(attribute, []).append(target)

    def reserve(self, tag: int, creator: str) -> None:
        """The first element of a private creator: what is wanted of it has its tags in this block (PS3.5 7.8.1)."""
        if tag in self._reserved:
            return
        self._reserved.add(tag)
        for attribute, target in self.by_group.get(tag >> 16, ()):
            if attribute.creator == creator:
                in_block = attribute.group << 16 | (tag & 0xFF) << 8 | attribute.element
                self.by_tag.setdefault(in_block, []).append(target)

    def missing(self, tag: int) -> list[Target]:
        """What is wanted of this tag and not found yet: of an attribute that stands twice the first one counts."""
        return [target for target in self.by_tag.get(tag, ()) if target.found is None]

    @property
    def charsets(self) -> Charsets:
        """The character set in force."""
        return next((scope.declared_charsets for scope in self._around() if scope.declared_charsets), DEFAULT)

    @property
    def is_signed(self) -> bool:
        """Whether pixels are signed numbers, by (0028,0103)."""
        declared = (scope.declared_signed for scope in self._around())
        return next((is_signed for is_signed in declared if is_signed is not None), False)

    def _around(self) -> "Iterator[Scope]":
        """The scope itself, and those that it stands in."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent
