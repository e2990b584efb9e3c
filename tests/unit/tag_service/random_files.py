"""Random data sets as trees, what the bytes of a tree are, and what the DICOM JSON model of it is.

Everything random comes from one `random.Random`, so that a property test and the fuzzer make the same things, and
either can make one again. What is expected of a value is known from making it, and never read back out of its bytes.
"""

import base64
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from pydicom.datadict import DicomDictionary

from tests.unit.tag_service.building import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Writer,
)

JPEG = "1.2.840.10008.1.2.4.50"
WRITERS = [Writer(uid) for uid in (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED, JPEG)]
IMPLICIT = Writer(IMPLICIT_LITTLE)
CREATOR = "ACME 1"
CHARACTER_SET = 0x00080005
PIXEL_DATA = 0x7FE00010
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

# Character sets with a codec of Python's, and letters that it holds. "" is the one of a file that says none.
CHARACTER_SETS = {
    "": ("ascii", "ABCxyz019 .-"),
    "ISO_IR 100": ("latin-1", "ABCxyz9 .-äéßÿ"),
    "ISO_IR 144": ("iso8859_5", "ABCxyz9 .-ПривЖ"),
    "ISO_IR 192": ("utf-8", "ABCxyz9 .-äΩЖ山田"),
    "GB18030": ("gb18030", "ABCxyz9 .-王小东é"),
}
# The VRs that a character set is for, and those that a backslash does not divide.
TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_SINGLE_VRS = frozenset({"LT", "ST", "UR", "UT"})
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_OTHER_TEXT = "ABCXYZ0123456789_"
_MAX_DEPTH = 3
_BULK_BYTES = 64 * 1024
_LONG_HEADER_BYTES = 12

# What has a meaning for the engine is put in on purpose, or not at all.
_SPECIAL = {CHARACTER_SET, 0x00080016, 0x00080018, 0x00280103, 0x00080001, PIXEL_DATA}


def _tags_by_vr() -> dict[str, list[int]]:
    """Standard attributes by VR, those with a choice of VRs left out."""
    tags: dict[str, list[int]] = {}
    for tag, entry in sorted(DicomDictionary.items()):
        if len(entry[0]) == 2 and tag >> 16 > 0x0007 and tag >> 16 < 0x7FE0 and tag not in _SPECIAL and tag & 0xFFFF:
            tags.setdefault(entry[0], []).append(tag)
    return tags


TAGS = _tags_by_vr()


@dataclass(frozen=True, slots=True)
class Value:
    """A plain element: its bytes, what the JSON model shows of it (None: no more than where it is), and what it
    says where it is text.
    """

    tag: int
    vr: str
    data: bytes
    shown: object = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """A sequence; of VR UN where its items are implicit VR little endian whatever the file is. `undefined`: its length;
    `open_items`: which of its items have one that is.
    """

    tag: int
    vr: str
    items: tuple[tuple["Node", ...], ...]
    undefined: bool = False
    open_items: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Fragments:
    """Encapsulated pixel data."""

    tag: int
    vr: str
    fragments: tuple[bytes, ...]


Node = Value | Items | Fragments
Tree = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """A tree, how it is written, and its character set."""

    tree: Tree
    writer: Writer
    charset: str

    @property
    def data(self) -> bytes:
        """The file."""
        return self.writer.file(encode(self.tree, self.writer))


# What the bytes of a tree are.


def encode(tree: Tree, writer: Writer) -> bytes:
    """The elements, one after the other."""
    return b"".join(encode_node(node, writer) for node in tree)


def encode_node(node: Node, writer: Writer) -> bytes:
    """One element with all that is in it."""
    if isinstance(node, Value):
        return writer.element(node.tag, node.vr, node.data)
    if isinstance(node, Fragments):
        pieces = [writer.tag(_ITEM, len(fragment)) + fragment for fragment in node.fragments]
        return writer.header(node.tag, node.vr, _UNDEFINED) + b"".join(pieces) + writer.tag(_SEQUENCE_END, 0)
    inside = inner_writer(node, writer)
    content = b""
    for item, is_open in zip(node.items, node.open_items, strict=True):
        elements = encode(item, inside)
        end = inside.tag(_ITEM_END, 0) if is_open else b""
        content += inside.tag(_ITEM, _UNDEFINED if is_open else len(elements)) + elements + end
    if node.undefined:
        return writer.header(node.tag, node.vr, _UNDEFINED) + content + inside.tag(_SEQUENCE_END, 0)
    return writer.header(node.tag, node.vr, len(content)) + content


def inner_writer(node: Items, writer: Writer) -> Writer:
    """How the items of a sequence are written, which itself is written so."""
    return IMPLICIT if node.vr == "UN" else writer


# What the JSON model of a tree is.


def as_json(tree: Tree) -> dict[str, object]:
    """The DICOM JSON model (PS3.18 F); a BulkDataURI is here the very bytes that it refers to."""
    model: dict[str, object] = {}
    for node in tree:
        if node.tag & 0xFFFF:
            model.setdefault(f"{node.tag:08X}", _attribute(node))
    return dict(sorted(model.items()))


def _attribute(node: Node) -> dict[str, object]:
    if isinstance(node, Items):
        return {"vr": "SQ", "Value": [as_json(item) for item in node.items]} if node.items else {"vr": "SQ"}
    if isinstance(node, Fragments):
        return {"vr": node.vr, "BulkDataURI": encode_node(node, Writer(JPEG))[_LONG_HEADER_BYTES:]}
    if node.shown is None and node.data:
        return {"vr": node.vr, "BulkDataURI": node.data}
    if isinstance(node.shown, bytes):
        return {"vr": node.vr, "InlineBinary": base64.b64encode(node.shown).decode()}
    if node.shown:
        return {"vr": node.vr, "Value": node.shown}
    return {"vr": node.vr}


def every(tree: Tree) -> Iterator[Node]:
    """The elements and those in their items."""
    for node in tree:
        yield node
        if isinstance(node, Items):
            for item in node.items:
                yield from every(item)


# Making them.


def random_file(random: Random) -> BuiltFile:
    """A file in one of the encodings."""
    writer = random.choice(WRITERS)
    charset = random.choice(list(CHARACTER_SETS))
    head = [
        text_value(random, 0x00080016, "UI", ["1.2.840.10008.5.1.4.1.1.7"], "ascii"),
        text_value(random, 0x00080018, "UI", ["1.2.3.4"], "ascii"),
    ]
    tree = _random_elements(random, writer, charset, declares=True, depth=0)
    tail = _random_tail(random, writer)
    return BuiltFile((*head, *sorted_in(tree), *tail), writer, charset)


def sorted_in(nodes: list[Node]) -> list[Node]:
    """The elements in tag order; those of one tag stay in theirs."""
    return sorted(nodes, key=lambda node: node.tag)


def _random_tail(random: Random, writer: Writer) -> list[Node]:
    """Pixel data, and what may stand behind it."""
    tail: list[Node] = []
    if writer.transfer_syntax == JPEG:
        sizes = [0, *(2 * random.randrange(9) for _ in range(random.randrange(3)))]
        tail.append(Fragments(PIXEL_DATA, "OB", tuple(_random_bytes(random, size) for size in sizes)))
    elif random.randrange(2):
        size = random.choice([0, 2, 64, 70_000])
        tail.append(Value(PIXEL_DATA, "OW", _random_bytes(random, size)))
    if not random.randrange(4):
        tail += [_creator(0x7FE1), _private_value(random, writer, 0x7FE1, "ascii")]
    if not random.randrange(4):
        tail.append(Value(0xFFFCFFFC, "OB", bytes(6), shown=bytes(6)))
    return tail


def _random_elements(random: Random, writer: Writer, charset: str, *, declares: bool, depth: int) -> list[Node]:
    """The elements of a data set or an item; `declares`: it says its character set."""
    codec = CHARACTER_SETS[charset][0]
    nodes: list[Node] = []
    if declares and charset:
        nodes.append(text_value(random, CHARACTER_SET, "CS", [charset], "ascii", shown=["ISO_IR 192"]))
    for _ in range(random.randrange(1 if depth else 3, 4 if depth else 12)):
        vr = random.choice(sorted(TAGS))
        if vr == "SQ":
            if depth < _MAX_DEPTH:
                nodes.append(_random_sequence(random, writer, charset, depth))
            continue
        nodes.append(random_value(random, random.choice(TAGS[vr]), vr, writer, charset))
    if not random.randrange(3):
        group = random.choice([0x0009, 0x0029, 0x0043])
        nodes += [_creator(group), _private_value(random, writer, group, codec)]
    if depth and not random.randrange(6):
        # An icon: pixel data that does not end the header (R4).
        nodes.append(Value(PIXEL_DATA, "OW", _random_bytes(random, 8)))
    # An attribute once, but for now and then one twice.
    nodes = list({node.tag: node for node in nodes}.values())
    twice = [node for node in nodes if isinstance(node, Value) and node.tag != CHARACTER_SET and not is_private(node)]
    if twice and not random.randrange(6):
        nodes.append(random.choice(twice))
    if not random.randrange(4):
        group = random.choice(nodes).tag & 0xFFFF0000 if nodes else 0x00080000
        nodes.append(Value(group, "UL", struct.pack(f"{writer.order}L", random.randrange(999))))
    nodes = sorted_in(nodes)
    if len(nodes) > 1 and not random.randrange(6) and not any(map(is_private, nodes)):
        # Out of order, but not the character set, which what is read before it cannot know.
        moved = nodes.pop(random.randrange(len(nodes)))
        nodes.insert(0 if moved.tag == CHARACTER_SET else len(nodes), moved)
    return nodes


def is_private(node: Node) -> bool:
    """Whether it is of a private group."""
    return bool((node.tag >> 16) % 2)


def _creator(group: int) -> Value:
    return Value(group << 16 | 0x0010, "LO", CREATOR.encode(), shown=[CREATOR], text=CREATOR)


def _private_value(random: Random, writer: Writer, group: int, codec: str) -> Node:
    tag = group << 16 | 0x1000 | random.randrange(4)
    if writer.explicit and random.randrange(2):
        return text_value(random, tag, "LO", [random.choice(["old", "older", ""])], codec)
    data = _random_bytes(random, 2 * random.randrange(8))
    return Value(tag, "UN", data, shown=data or None)


def _random_sequence(random: Random, writer: Writer, charset: str, depth: int) -> Items:
    tag, vr, undefined = random.choice(TAGS["SQ"]), "SQ", bool(random.randrange(2))
    is_unknown = not random.randrange(4)
    if is_unknown and writer.explicit:
        # Says UN, and holds items all the same (CP-246).
        vr = "UN"
    elif is_unknown:
        # With implicit VR nothing but what it holds tells that a private attribute is a sequence.
        tag, vr = 0x00091010 + random.randrange(4), "UN"
    inside = IMPLICIT if vr == "UN" else writer
    items = []
    # A UN of defined length without items is an empty value.
    for _ in range(random.randrange(1 if vr == "UN" else 0, 4)):
        own = random.choice(list(CHARACTER_SETS)) if not random.randrange(3) else ""
        items.append(tuple(_random_elements(random, inside, own or charset, declares=bool(own), depth=depth + 1)))
    made = Items(tag, vr, tuple(items), undefined, tuple(bool(random.randrange(2)) for _ in items))
    # Larger ones of defined length are bulk data.
    return replace(made, undefined=True) if vr == "UN" and len(encode_node(made, writer)) > _BULK_BYTES else made


def random_value(random: Random, tag: int, vr: str, writer: Writer, charset: str) -> Value:
    """A value of any VR but SQ."""
    codec, letters = CHARACTER_SETS[charset]
    if vr in _BYTES:
        data = _random_bytes(random, random.choice([0, 2, 8, 24, 1024, 1032, 66_000]))
        return Value(tag, vr, data, shown=data if 0 < len(data) <= 1024 else None)
    count = random.choice([0, 1, 1, 1, 2, 3])
    if vr == "AT":
        tags = [random.randrange(1 << 32) for _ in range(count)]
        data = b"".join(struct.pack(f"{writer.order}HH", number >> 16, number & 0xFFFF) for number in tags)
        return Value(tag, vr, data, shown=[f"{number:08X}" for number in tags])
    if vr in _NUMBERS:
        return _number_value(random, tag, vr, writer, count)
    if vr in {"IS", "DS"}:
        return _number_string(random, tag, vr, count)
    alphabet = letters if vr in TEXT_VRS else _OTHER_TEXT
    if vr in _SINGLE_VRS:
        alphabet += "\\"
        count = min(count, 1)
    texts = [_random_text(random, alphabet) for _ in range(count)]
    if vr == "PN":
        texts = ["=".join(_random_text(random, letters) for _ in range(random.randrange(1, 4))) for _ in texts]
    return text_value(random, tag, vr, texts, codec if vr in TEXT_VRS else "ascii")


def _number_value(random: Random, tag: int, vr: str, writer: Writer, count: int) -> Value:
    form = struct.Struct(writer.order + _NUMBERS[vr])
    if vr in {"FL", "FD"}:
        numbers = [random.choice([0.0, -1.5, 1e10, math.inf, -math.inf, math.nan, 0.1]) for _ in range(count)]
        written = [form.pack(number) for number in numbers]
        exact = [form.unpack(data)[0] for data in written]
        names = {math.inf: "Infinity", -math.inf: "-Infinity"}
        shown = ["NaN" if math.isnan(number) else names.get(number, number) for number in exact]
        return Value(tag, vr, b"".join(written), shown=shown)
    bits = form.size * 8
    least = -(1 << bits - 1) if vr[0] == "S" else 0
    edges = [0, 1, least, least + (1 << bits) - 1, min(1 << 53, least + (1 << bits) - 1)]
    integers = [random.choice(edges) for _ in range(count)]
    shown = [number if abs(number) <= 1 << 53 else str(number) for number in integers]
    return Value(tag, vr, b"".join(map(form.pack, integers)), shown=shown)


def _number_string(random: Random, tag: int, vr: str, count: int) -> Value:
    texts, shown = [], []
    for _ in range(count):
        number: float | str = random.choice([0, 7, -12, 2147483647, "", "x"])
        if vr == "DS" and random.randrange(2):
            number = random.choice([0.5, -1e-05, 1e20])
        texts.append(str(number))
        shown.append(None if number == "" else number)
    return replace(text_value(random, tag, vr, texts, "ascii"), shown=shown if any(texts) or count > 1 else [])


def text_value(
    random: Random, tag: int, vr: str, texts: list[str], codec: str, *, shown: list[object] | None = None
) -> Value:
    """A value of text, now and then of odd length, which real files have."""
    text = "\\".join(texts)
    data = text.encode(codec)
    if len(data) % 2 and random.randrange(8):
        data += b"\0" if vr == "UI" else b" "
    if shown is None:
        shown = [_shown(text, vr) for text in texts] if any(texts) or len(texts) > 1 else []
    return Value(tag, vr, data, shown=shown, text=text)


def _shown(text: str, vr: str) -> object:
    if vr == "PN" and text:
        groups = zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False)
        return {name: group for name, group in groups if group}
    return text or None


def _random_text(random: Random, letters: str) -> str:
    """Text that neither begins nor ends with a space, which would be padding."""
    return "".join(random.choice(letters) for _ in range(random.randrange(8))).strip(" ")


def _random_bytes(random: Random, size: int) -> bytes:
    """So many bytes, of which those of a long value repeat."""
    start = bytes(random.randrange(256) for _ in range(min(size, 8)))
    return (start * (size // 8 + 1))[:size] if size else b""
