"""Walking a tree: the data set and every item in it, each with the encoding and the character set in force there."""

from collections.abc import Iterator
from dataclasses import dataclass

from tag_service.domain import charset
from tag_service.domain.charset import Charsets
from tag_service.domain.dataset import DicomFile, Element, Items
from tag_service.domain.serialise import encoding_inside
from tag_service.domain.transfer_syntax import Encoding

SPECIFIC_CHARACTER_SET = 0x00080005


@dataclass(frozen=True, slots=True)
class Scope:
    """The elements of the data set or of one item; the list is the tree's own, so changes to it change the tree.

    `charsets` is the item's own character set, or its parent's where it declares none (PS3.3 C.12.1.1.2).
    """

    elements: list[Element]
    encoding: Encoding
    charsets: Charsets

    def inside(self, items: Items, number: int) -> "Scope":
        """The scope of one of the items of a sequence in this scope."""
        elements = items.items[number].elements
        return Scope(elements, encoding_inside(items, self.encoding), _declared(elements) or self.charsets)


def root(file: DicomFile) -> Scope:
    """The scope of the data set itself."""
    encoding = Encoding(explicit=file.explicit, little_endian=file.little_endian)
    return Scope(file.elements, encoding, _declared(file.elements) or charset.DEFAULT)


def scopes(file: DicomFile) -> Iterator[Scope]:
    """Every scope of the file, in its order. What is inside one is looked up only after the caller has seen it."""
    waiting = [root(file)]
    while waiting:
        scope = waiting.pop()
        yield scope
        waiting += [
            scope.inside(element.value, number)
            for element in reversed(scope.elements)
            if isinstance(element.value, Items)
            for number in reversed(range(len(element.value.items)))
        ]


def _declared(elements: list[Element]) -> Charsets | None:
    """The character set that these elements declare."""
    for element in elements:
        if element.tag == SPECIFIC_CHARACTER_SET and isinstance(element.value, bytes):
            return charset.charsets_of(element.value)
    return None


def insert(elements: list[Element], element: Element) -> None:
    """Puts an element where its tag belongs: before the first one with a greater tag."""
    position = next((index for index, other in enumerate(elements) if other.tag > element.tag), len(elements))
    elements.insert(position, element)
