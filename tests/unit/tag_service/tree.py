"""A whole file as a tree of what the tokenizer makes of it: every element keeps the bytes it came as.

The tree is built, and must be walked, iteratively: its depth is the file's, and the file may be hostile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tag_service.domain.parsing import tokens
from tag_service.domain.parsing.order import MESSAGES, TagOrder
from tag_service.domain.parsing.tokenizer import Tokenizer
from tag_service.domain.parsing.tokens import Event, Run
from tag_service.domain.standard.limits import MIB, Limits
from tag_service.domain.standard.problems import Problem


@dataclass(slots=True)
class Element:
    """One data element (PS3.5 7.1).

    `tag` is (group << 16) | element. `vr` is the file's, or the dictionary's where the VR is implicit, "UN" where
    that knows none. `header` is tag, VR and length exactly as in the file, b"" for an element that an edit made.
    `offset` is where the header begins: in the file, or for a deflated data set in what it inflates to, counted on
    from the end of the meta information; -1 for an element that an edit made.
    """

    tag: int
    vr: str
    header: bytes
    value: bytes | Items | Fragments
    offset: int = -1


@dataclass(slots=True)
class Item:
    """One item of a sequence (PS3.5 7.5).

    `header` is its 8 bytes as in the file, b"" for one that an edit made; `delimiter` the 8 bytes of its item
    delimitation item, b"" where its length is defined.
    """

    header: bytes
    elements: list[Element]
    delimiter: bytes = b""


@dataclass(slots=True)
class Items:
    """The value of a sequence.

    `delimiter` is the 8 bytes of its sequence delimitation item, b"" where its length is defined. `implicit_little`:
    the items are implicit VR little endian whatever the transfer syntax (CP-246), because the element's VR is UN.
    """

    items: list[Item]
    delimiter: bytes = b""
    implicit_little: bool = False


@dataclass(slots=True)
class Fragments:
    """The value of an encapsulated element (PS3.5 A.4), verbatim: every item with its header, then the delimiter."""

    data: bytes


@dataclass(slots=True)
class DicomFile:
    """One file.

    `preamble` is its 128 bytes, b"" where there is none. `meta` is group 0002, always explicit VR little endian save
    in odd files, empty where it is missing. `transfer_syntax_uid` is (0002,0010), or what was taken for it where the
    file does not say. `explicit` and `little_endian` are how the data set is in fact encoded. `elements` is the data
    set. `trailing` is what follows it: zeros, or what pads a deflated data set. `problems` were noticed on the
    way; duplicates and tags out of order among them.
    """

    preamble: bytes
    meta: list[Element]
    transfer_syntax_uid: str
    explicit: bool
    little_endian: bool
    deflated: bool
    elements: list[Element]
    trailing: bytes = b""
    problems: list[Problem] = field(default_factory=list)


def load(data: bytes, limits: Limits) -> DicomFile:
    """The file as a tree.

    Raises EMPTY_FILE, NOT_DICOM, TRUNCATED_FILE, MALFORMED_DICOM, STRUCTURE_LIMIT, as the tokenizer does.
    """
    tokenizer = Tokenizer(limits)
    builder = _Builder(tokenizer)
    # In pieces, because a deflated file is inflated piece by piece.
    for start in range(0, len(data), MIB):
        builder.take(tokenizer.feed(data[start : start + MIB]))
    builder.take(tokenizer.close())
    return builder.file


class _Builder:
    """Builds the tree from the tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.file = DicomFile(b"", [], "", explicit=True, little_endian=True, deflated=False, elements=[])
        self._tokenizer = tokenizer
        self._elements = self.file.elements
        # The lists and sequences around the one that is being filled.
        self._lists: list[list[Element]] = []
        self._sequences: list[Items] = []
        self._orders = [TagOrder()]
        self._bulk: list[bytes] = []
        self._bulk_element: Element | None = None

    def take(self, stream: Iterator[Event]) -> None:
        """Adds what the tokens say."""
        for event in stream:
            if isinstance(event, Run):
                buffer = event.buffer
                for tag, vr, start, value_start, stop in event.elements:
                    header, value = buffer[start:value_start], buffer[value_start:stop]
                    self._add(Element(tag, vr, header, value, event.base + start))
                continue
            kind, tag, vr, header, value, offset = event
            if kind == tokens.CHUNK:
                self._bulk.append(value)
            elif kind in {tokens.BULK, tokens.FRAGMENTS}:
                self._bulk_element = self._add(
                    Element(tag, vr, header, Fragments(b"") if kind == tokens.FRAGMENTS else b"", offset)
                )
            elif kind == tokens.BULK_END:
                self._end_bulk()
            else:
                self._structure(kind, Element(tag, vr, header, value, offset))

    def _structure(self, kind: int, token: Element) -> None:
        if kind == tokens.SEQUENCE:
            items = Items([], implicit_little=token.vr == "UN")
            self._add(Element(token.tag, token.vr, token.header, items, token.offset))
            self._sequences.append(items)
        elif kind == tokens.SEQUENCE_END:
            self._sequences.pop().delimiter = token.header
        elif kind == tokens.ITEM_BEGIN:
            item = Item(token.header, [])
            self._sequences[-1].items.append(item)
            self._lists.append(self._elements)
            self._orders.append(TagOrder())
            self._elements = item.elements
        elif kind == tokens.ITEM_END:
            self._sequences[-1].items[-1].delimiter = token.header
            self._elements = self._lists.pop()
            self._orders.pop()
        else:
            self._frame(kind, token)

    def _frame(self, kind: int, token: Element) -> None:
        file, tokenizer = self.file, self._tokenizer
        assert isinstance(token.value, bytes)
        if kind == tokens.PREAMBLE:
            file.preamble = token.value
        elif kind == tokens.META_ELEMENT:
            file.meta.append(token)
        elif kind == tokens.DATA_SET:
            encoding = tokenizer.encoding
            file.transfer_syntax_uid = tokenizer.transfer_syntax_uid
            file.explicit, file.little_endian = encoding.explicit, encoding.little_endian
            file.deflated = encoding.deflated
            file.problems = tokenizer.problems
        elif kind == tokens.TRAILING:
            file.trailing += token.value

    def _add(self, element: Element) -> Element:
        code = self._orders[-1].check(element.tag)
        if code is not None:
            self._tokenizer.note(code, MESSAGES[code], element.tag)
        self._elements.append(element)
        return element

    def _end_bulk(self) -> None:
        data = b"".join(self._bulk)
        self._bulk.clear()
        element, self._bulk_element = self._bulk_element, None
        assert element is not None
        if isinstance(element.value, Fragments):
            element.value.data = data
        else:
            element.value = data
