"""A tree of elements back to bytes. What no edit touched comes out as the bytes it came as; lengths always fit."""

import struct
from collections.abc import Iterator
from itertools import chain

from tag_service.domain.dataset import Element, Fragments, Item, Items
from tag_service.domain.transfer_syntax import IMPLICIT_LE, Encoding
from tag_service.domain.vr import LONG_VRS

# The longest value of even length in 16 bits.
MAX_SHORT_FORM_BYTES = 65_534
_UNDEFINED_LENGTH = b"\xff\xff\xff\xff"
# An item (FFFE,E000) without content, by "is little endian".
_NEW_ITEM = {True: b"\xfe\xff\x00\xe0\0\0\0\0", False: b"\xff\xfe\xe0\x00\0\0\0\0"}
_ITEM_HEADER_BYTES = 8

# Pieces below this size are joined, so that a header is no piece of its own.
_PIECE_BYTES = 256 * 1024


def is_short_form(vr: str, encoding: Encoding) -> bool:
    """Whether a value of this VR has at most MAX_SHORT_FORM_BYTES."""
    return encoding.explicit and vr not in LONG_VRS


def _header(element: Element, length: int, encoding: Encoding) -> bytes:
    """Tag, VR and length of an element that an edit made."""
    order = _order(encoding)
    start = struct.pack(f"{order}HH", element.tag >> 16, element.tag & 0xFFFF)
    if not encoding.explicit:
        return start + struct.pack(f"{order}I", length)
    if is_short_form(element.vr, encoding):
        return start + element.vr.encode("ascii") + struct.pack(f"{order}H", length)
    return start + element.vr.encode("ascii") + struct.pack(f"{order}HI", 0, length)


def _header_bytes(element: Element, encoding: Encoding) -> int:
    if element.header:
        return len(element.header)
    return 12 if encoding.explicit and not is_short_form(element.vr, encoding) else 8


def _with_length(header: bytes, length: int, encoding: Encoding) -> bytes:
    """The header of a sequence or an item with this length, unless its length is undefined."""
    # Sequences and items have 32 bits for it in every encoding.
    if header.endswith(_UNDEFINED_LENGTH):
        return header
    return header[:-4] + struct.pack(f"{_order(encoding)}I", length)


def encoding_inside(items: Items, encoding: Encoding) -> Encoding:
    """How what is in the items of a sequence is written, which itself is written in `encoding`."""
    return IMPLICIT_LE if items.implicit_little else encoding


def _order(encoding: Encoding) -> str:
    return "<" if encoding.little_endian else ">"


def serialise(elements: list[Element], encoding: Encoding) -> Iterator[bytes]:
    """The bytes of a data set, in pieces of any size."""
    sizes = _sizes(elements, encoding)
    open_nodes: list[tuple[Iterator[Element | Item | bytes], Encoding]] = [(iter(elements), encoding)]
    while open_nodes:
        nodes, current = open_nodes[-1]
        node = next(nodes, None)
        if node is None:
            open_nodes.pop()
        elif isinstance(node, bytes):
            yield node
        elif isinstance(node, Item):
            size = sizes[id(node)]
            yield _with_length(node.header or _NEW_ITEM[current.little_endian], size, current)
            open_nodes.append((chain(node.elements, (node.delimiter,)), current))
        elif isinstance(node.value, Items):
            size = sizes[id(node.value)]
            yield _with_length(node.header or _header(node, size, current), size, current)
            open_nodes.append((chain(node.value.items, (node.value.delimiter,)), encoding_inside(node.value, current)))
        else:
            value = node.value.data if isinstance(node.value, Fragments) else node.value
            yield node.header or _header(node, len(value), current)
            yield value


def _sizes(elements: list[Element], encoding: Encoding) -> dict[int, int]:
    """How many bytes every Item and Items takes without its own header and delimiter, by id()."""
    found: list[tuple[Item | Items, Encoding]] = []
    waiting = [(elements, encoding)]
    while waiting:
        siblings, current = waiting.pop()
        for element in siblings:
            if isinstance(element.value, Items):
                inside = encoding_inside(element.value, current)
                found.append((element.value, inside))
                found += ((item, inside) for item in element.value.items)
                waiting += ((item.elements, inside) for item in element.value.items)
    sizes: dict[int, int] = {}
    # Whatever is inside something was found after it.
    for node, current in reversed(found):
        if isinstance(node, Item):
            sizes[id(node)] = sum(_header_bytes(inner, current) + _value_size(inner, sizes) for inner in node.elements)
        else:
            sizes[id(node)] = sum(_ITEM_HEADER_BYTES + sizes[id(item)] + len(item.delimiter) for item in node.items)
    return sizes


def _value_size(element: Element, sizes: dict[int, int]) -> int:
    value = element.value
    if isinstance(value, Items):
        return sizes[id(value)] + len(value.delimiter)
    return len(value.data if isinstance(value, Fragments) else value)


def in_pieces(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes with small neighbours joined; a large part stays the object it is."""
    joined = bytearray()
    for part in parts:
        if len(part) >= _PIECE_BYTES or len(joined) >= _PIECE_BYTES:
            if joined:
                yield bytes(joined)
            joined = bytearray()
        if len(part) >= _PIECE_BYTES:
            yield part
        else:
            joined += part
    if joined:
        yield bytes(joined)
