"""What other readers make of a file: pydicom, and dcmdump where it is installed."""

import io
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pydicom
from pydicom.charset import python_encoding
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue

from conformance.differences import Difference, Kind
from conformance.trees import Node
from tag_service.domain.reading.dicom_tags import DicomTags

DCMDUMP: Final = shutil.which("dcmdump")
_DCMDUMP_SECONDS: Final = 60
_DELIMITER_BYTES: Final = 8
_UNDEFINED: Final = b"\xff\xff\xff\xff"
_KEYWORDS: Final = {
    name: "".join({"id": "ID", "uid": "UID", "sop": "SOP"}.get(word, word.capitalize()) for word in words)
    for name in DicomTags._fields
    if (words := name.split("_"))
}


def read(data: bytes, *, force: bool) -> pydicom.FileDataset | None:
    """What pydicom reads; None where it fails. `force`: also what has no preamble."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(io.BytesIO(data), force=force)
    except Exception:  # noqa: BLE001 - it raises whatever comes up
        return None


def dcmdump_opens(path: Path) -> bool:
    """Whether dcmdump opens a file. Only to be asked where it is installed."""
    assert DCMDUMP is not None
    command = [DCMDUMP, "--quiet", str(path)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_DCMDUMP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def compare_tags(tags: DicomTags, data_set: pydicom.Dataset, nodes: list[Node]) -> Iterator[Difference]:
    """The 20 attributes against pydicom's."""
    counts = _counts(nodes)
    for name, keyword in _KEYWORDS.items():
        ours = getattr(tags, name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = _text(data_set.get(keyword))
        except Exception:  # noqa: BLE001 - it raises whatever comes up
            yield Difference(Kind.ORACLE_VALUE, keyword)
            continue
        # pydicom leaves out the component groups at the end of a name that are empty (PS3.5 6.2.1).
        if ours == theirs or (keyword.endswith("Name") and ours.rstrip("=") == theirs):
            continue
        if counts.get(pydicom.datadict.tag_for_keyword(keyword) or 0, 0) > 1:
            yield Difference(Kind.DUPLICATES, keyword)
        elif not ours.isascii() and not _declares_charset(data_set):
            yield Difference(Kind.CHARSET, keyword)
        else:
            yield Difference(Kind.TAG, keyword)


def _declares_charset(data_set: pydicom.Dataset) -> bool:
    """Whether the character set is declared, in the very words of the standard."""
    terms = _text(data_set.get("SpecificCharacterSet")).split("\\")
    return any(terms) and all(term in python_encoding for term in terms)


def _text(value: Any) -> str:
    """A value of pydicom as the text that it stands for."""
    if value is None:
        return ""
    if isinstance(value, MultiValue):
        return "\\".join(map(_text, value))
    if isinstance(value, bytes):
        return value.decode("latin-1").strip(" \0")
    return str(value).strip(" \0")


def _counts(nodes: list[Node]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for node in nodes:
        counts[node.tag] = counts.get(node.tag, 0) + 1
    return counts


def compare_elements(nodes: list[Node], data_set: pydicom.Dataset, *, explicit: bool) -> Iterator[Difference]:
    """Every element against pydicom's: tag, order, VR where it is explicit, value bytes, and what is inside."""
    waiting = [(nodes, data_set, explicit)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while waiting:
            ours, theirs, is_explicit = waiting.pop()
            if any(count > 1 for count in _counts(ours).values()):
                yield Difference(Kind.DUPLICATES)
            # pydicom has each tag once: where it stood first, with what came last.
            unique = {node.tag: node for node in ours}
            tags = [int(tag) for tag in theirs.keys()]  # noqa: SIM118 - iterating converts the elements
            if set(tags) != set(unique):
                odd = min(set(tags) ^ set(unique))
                yield Difference(Kind.ELEMENTS, _tag_text(odd))
            elif tags != list(unique):
                yield Difference(Kind.ORDER)
            for tag in tags:
                if tag not in unique:
                    continue
                node = unique[tag]
                raw = theirs.get_item(tag)
                yield from _compare_vr(node, raw, is_explicit=is_explicit)
                if node.items is None:
                    yield from _compare_value(node, raw)
                    continue
                inner = _items_of(theirs, tag)
                if inner is None:
                    is_same = isinstance(raw, RawDataElement) and (raw.value or b"") == bytes(node.inner)
                    yield Difference(Kind.HIDDEN_SEQUENCE if is_same else Kind.VALUE, _tag_text(tag))
                elif len(inner) != len(node.items):
                    yield Difference(Kind.VALUE, _tag_text(tag))
                else:
                    inside = is_explicit and node.header[4:6] != b"UN"
                    waiting += [(item, other, inside) for item, other in zip(node.items, inner, strict=True)]


def _items_of(data_set: pydicom.Dataset, tag: int) -> list[pydicom.Dataset] | None:
    try:
        element = data_set[tag]
    except Exception:  # noqa: BLE001 - it raises whatever comes up
        return None
    return list(element.value) if element.VR == "SQ" else None


def _compare_vr(node: Node, raw: Any, *, is_explicit: bool) -> Iterator[Difference]:
    if not (is_explicit and isinstance(raw, RawDataElement)):
        return
    vr = node.header[4:6].decode("latin-1")
    if vr != raw.VR:
        guessed = raw.VR is None or not vr.isalpha()
        yield Difference(Kind.OTHER_VR if guessed else Kind.VR, _tag_text(node.tag))


def _compare_value(node: Node, raw: Any) -> Iterator[Difference]:
    if not isinstance(raw, RawDataElement):
        if not _is_converted(node.value, raw.value):
            yield Difference(Kind.VALUE, _tag_text(node.tag))
        return
    theirs = raw.value or b""
    is_open = node.header.endswith(_UNDEFINED)
    ours = node.value[:-_DELIMITER_BYTES] if is_open else node.value
    if ours != theirs:
        is_cut = is_open and ours.startswith(theirs)
        yield Difference(Kind.DELIMITER_IN_FRAGMENT if is_cut else Kind.VALUE, _tag_text(node.tag))


def _is_converted(value: bytes, converted: Any) -> bool:
    """Whether a value that pydicom needed itself, and so converted already, is what these bytes say."""
    if isinstance(converted, int):
        return converted in {int.from_bytes(value, "little"), int.from_bytes(value, "big")}
    if not converted:
        return not value.strip(b" \0")
    return _text(converted) == "\\".join(part.strip(" \0") for part in value.decode("latin-1").split("\\"))


def _tag_text(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
