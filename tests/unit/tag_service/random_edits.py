"""Random edits of a random file, and what they make of its tree: a plain model of the rewriter, on the tree itself."""

import struct
from dataclasses import dataclass, replace
from random import Random

from tests.unit.tag_service.building import Writer
from tests.unit.tag_service.random_files import (
    CHARACTER_SET,
    CHARACTER_SETS,
    CREATOR,
    TEXT_VRS,
    BuiltFile,
    Fragments,
    Items,
    Node,
    Tree,
    Value,
    inner_writer,
    is_private,
)

# Attributes that edits name: a PATH, the tag, the VR and a value of ASCII that is valid for it.
ATTRIBUTES = (
    ("PatientID", 0x00100020, "LO", "NEW 7"),
    ("PatientName", 0x00100010, "PN", "Doe^Jane=X"),
    ("(0010,0040)", 0x00100040, "CS", "F"),
    ("StudyDate", 0x00080020, "DA", "20240229"),
    ("AccessionNumber", 0x00080050, "SH", ""),
    ("(0008, 1030)", 0x00081030, "LO", "CHEST"),
    ("Rows", 0x00280010, "US", "258"),
    ("ImagePositionPatient", 0x00200032, "DS", "1\\-2.5\\3"),
    ("FrameOfReferenceUID", 0x00200052, "UI", "1.2.3"),
    ("PatientComments", 0x00104000, "LT", "two\r\nlines"),
    ("EventTimeOffset", 0x00082134, "FD", "1.5"),
    ("LongCodeValue", 0x00080119, "UC", "12345"),
    ("(FFFC,FFFC)", 0xFFFCFFFC, "OB", None),
)
SEQUENCES = (("ReferencedImageSequence", 0x00081140), ("RequestAttributesSequence", 0x00400275))
_CODES = {"US": "H", "FD": "d"}
_SIEMENS = ("SIEMENS CSA HEADER", 0x0029, 0x08)


@dataclass(frozen=True, slots=True)
class RandomEdits:
    """What is asked of the rewriter, as keywords of `building.edit`, the tree that it must make, and the attributes of
    the data set, but sequences and private ones, that it is about.
    """

    keywords: dict[str, object]
    tree: Tree
    tags: tuple[int, ...]


def without_group_lengths(tree: Tree) -> Tree:
    """The tree as any rewriting leaves it (M3)."""
    return tuple(_inside(node, without_group_lengths) for node in tree if node.tag & 0xFFFF)


def without_private(tree: Tree) -> Tree:
    """The tree without anything private."""
    return tuple(_inside(node, without_private) for node in tree if not is_private(node))


def _inside(node: Node, change) -> Node:
    return replace(node, items=tuple(map(change, node.items))) if isinstance(node, Items) else node


def random_edits(random: Random, file: BuiltFile) -> RandomEdits:
    """Up to five edits that do not touch each other."""
    tree, writer = without_group_lengths(file.tree), file.writer
    keywords: dict[str, object] = {"force": True}
    texts: dict[str, list[str]] = {"set": [], "remove": []}
    if not random.randrange(4):
        keywords["remove_private_tags"] = True
        tree = without_private(tree)
    chosen = random.sample(ATTRIBUTES, random.randrange(4))
    for path, tag, vr, value in chosen:
        if tag != 0x00100020 and (value is None or not random.randrange(3)):
            texts["remove"].append(path)
            tree = _removed(tree, tag)
        elif value is not None:
            texts["set"].append(f"{path}={value}")
            tree = replaced(tree, new_value(tag, vr, value, writer), writer)
    for path, tag in random.sample(SEQUENCES, random.randrange(2)):
        steps = _nested_edit(random, tree, tag, writer)
        if steps is not None:
            text, tree = steps
            texts["set"].append(f"{path}[{text}")
    if "remove_private_tags" not in keywords and not random.randrange(2):
        tree = _private_edit(random, tree, writer, texts)
    keywords |= {name: tuple(edits) for name, edits in texts.items()}
    return RandomEdits(keywords, tree, tuple(tag for _, tag, _, _ in chosen))


def new_value(tag: int, vr: str, value: str, writer: Writer, codec: str = "ascii") -> Value:
    """A new element as the rewriter writes it."""
    if vr in _CODES:
        number = float(value) if vr == "FD" else int(value)
        return Value(tag, vr, struct.pack(writer.order + _CODES[vr], number))
    data = value.encode(codec)
    return Value(tag, vr, data + (b"\0" if vr == "UI" else b" ") * (len(data) % 2), text=value)


def _removed(tree: Tree, tag: int) -> Tree:
    return tuple(node for node in tree if node.tag != tag)


def replaced(tree: Tree, new: Node, writer: Writer) -> Tree:
    """The tree with a new element in place of all of its tag; where there are none, before the first greater tag."""
    assert not (isinstance(new, Value) and writer.explicit and len(new.data) > 65_534)
    if any(node.tag == new.tag for node in tree):
        return tuple(new if node.tag == new.tag else node for node in tree)
    at = next((index for index, node in enumerate(tree) if node.tag > new.tag), len(tree))
    return (*tree[:at], new, *tree[at:])


def _nested_edit(random: Random, tree: Tree, tag: int, writer: Writer) -> tuple[str, Tree] | None:
    """An edit inside a sequence, as the rest of its PATH=VALUE, and the tree; None where the file has it twice."""
    found = [node for node in tree if node.tag == tag]
    if len(found) > 1 or (found and not isinstance(found[0], Items)):
        return None
    sequence = found[0] if found else Items(tag, "SQ", ())
    assert isinstance(sequence, Items)
    if not sequence.items:
        # Item 0 is made.
        sequence = replace(sequence, items=((),), open_items=(False,))
    index = random.randrange(len(sequence.items))
    path, inner_tag, vr, value = random.choice([one for one in ATTRIBUTES if one[3]])
    inside = inner_writer(sequence, writer)
    item = replaced(sequence.items[index], new_value(inner_tag, vr, value, inside), inside)
    items = (*sequence.items[:index], item, *sequence.items[index + 1 :])
    return f"{index}].{path}={value}", replaced(tree, replace(sequence, items=items), writer)


def _private_edit(random: Random, tree: Tree, writer: Writer, texts: dict[str, list[str]]) -> Tree:
    """Removes a private attribute by its creator, or sets one of a creator that the file does not have."""
    groups = [node.tag >> 16 for node in tree if is_private(node) and isinstance(node, Value) and _is_creator(node)]
    if groups and random.randrange(2):
        group, element = random.choice(groups), random.randrange(4)
        texts["remove"].append(f'({group:04X},"{CREATOR}",{element:02X})')
        return _removed(tree, group << 16 | 0x1000 | element)
    creator, group, element = _SIEMENS
    block = 0x11 if group in groups else 0x10
    texts["set"].append(f'({group:04X},"{creator}",{element:02X})=NEW')
    tree = replaced(tree, new_value(group << 16 | block, "LO", creator, writer), writer)
    return replaced(tree, new_value(group << 16 | block << 8 | element, "CS", "NEW", writer), writer)


def _is_creator(node: Node) -> bool:
    return 0x10 <= node.tag & 0xFFFF < 0x100


# Text that the character set of the file cannot hold (M5).


def transcoded(tree: Tree, charset: str) -> Tree:
    """The tree with all text in UTF-8, and with the character set of the data set and of every item that says one."""
    done = _transcoded(tree, charset)
    return replaced(done, Value(CHARACTER_SET, "CS", b"ISO_IR 192"), Writer("")) if charset == "" else done


def _transcoded(tree: Tree, inherited: str) -> Tree:
    charset = inherited
    for node in tree:
        if node.tag == CHARACTER_SET and isinstance(node, Value):
            charset = node.text or ""
    return tuple(_in_utf_8(node, charset) for node in tree)


def _in_utf_8(node: Node, charset: str) -> Node:
    if isinstance(node, Fragments):
        return node
    if isinstance(node, Items):
        return replace(node, items=tuple(_transcoded(item, charset) for item in node.items))
    if node.tag == CHARACTER_SET:
        return Value(CHARACTER_SET, "CS", b"ISO_IR 192")
    if node.vr not in TEXT_VRS or node.data.isascii() or CHARACTER_SETS[charset][0] == "utf-8" or node.text is None:
        return node
    data = node.text.encode()
    return replace(node, data=data + b" " * (len(data) % 2))
