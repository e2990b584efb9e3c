"""The DICOM JSON model (PS3.18 F) that the engine writes, held against the bytes of the file."""

import base64
import json
import math
import struct
from collections.abc import Iterator
from typing import Any, Final

from pydicom.datadict import dictionary_VR

from conformance.differences import Difference, Kind
from conformance.trees import Node
from conformance.walker import PIXEL_TAGS, Walked

_CHARACTER_SET: Final = 0x00080005
# A value that is longer may be left out.
_INLINE_BYTES: Final = 1024
_WHOLE_BYTES: Final = 64 * 1024
_NUMBERS: Final = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_BINARY: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_SINGLE: Final = frozenset({"LT", "ST", "UR", "UT"})
_STANDARD_VRS: Final = (
    _BINARY
    | _NUMBERS.keys()
    | _SINGLE
    | set(
        "AE AS AT CS DA DS DT IS LO PN SH SQ TM UC UI".split()  # noqa: SIM905 - a table reads better so
    )
)


def compare(text: str | bytes, nodes: list[Node], walked: Walked) -> Iterator[Difference]:
    """What the JSON says otherwise than the bytes: the attributes, their VRs, items and values, and where those values
    are that it leaves out.

    Text that is not ASCII is only looked for: what it has to be, the comparison of the 20 attributes tells.
    """
    waiting = [(json.loads(text), nodes, walked.explicit, walked.little_endian)]
    while waiting:
        written, ours, is_explicit, is_little = waiting.pop()
        first: dict[int, Node] = {}
        for node in ours:
            if node.tag & 0xFFFF:
                first.setdefault(node.tag, node)
        if list(written) != [f"{tag:08X}" for tag in sorted(first)]:
            yield Difference(Kind.JSON, "attributes")
            continue
        for tag, node in first.items():
            attribute = written[f"{tag:08X}"]
            if node.items is not None:
                items = attribute.get("Value", [])
                if attribute["vr"] != "SQ" or len(items) != len(node.items):
                    yield Difference(Kind.JSON, _where(tag))
                    continue
                is_file = is_explicit and node.header[4:6] == b"SQ"
                inside = (is_file, is_little or (is_explicit and not is_file))
                waiting += [(item, other, *inside) for item, other in zip(items, node.items, strict=True)]
                continue
            is_referred = "BulkDataURI" in attribute
            is_right = attribute["vr"] in _vrs(node, explicit=is_explicit) and (
                _is_reference(attribute, node, walked.begin)
                if is_referred
                else _is_right(attribute, node, little=is_little or (is_explicit and node.header[4:6] == b"UN"))
            )
            if not is_right:
                yield Difference(Kind.JSON, _where(tag))


def _where(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _vrs(node: Node, *, explicit: bool) -> set[str]:
    """The VRs that the attribute may have."""
    try:
        listed = set(dictionary_VR(node.tag).split(" or "))
    except KeyError:
        is_creator = (node.tag >> 16) % 2 and 0x10 <= node.tag & 0xFFFF < 0x100
        listed = {"LO"} if is_creator else {"UN"}
    vr = node.header[4:6].decode("latin-1") if explicit else ""
    if vr in _STANDARD_VRS and vr != "UN":
        return {vr}
    return listed | {"UN"}


def _is_reference(attribute: dict[str, Any], node: Node, begin: int) -> bool:
    """Whether a value is one that may be left out, and what stands in its place says where it is."""
    vr, size = attribute["vr"], len(node.value)
    is_bulk = node.tag in PIXEL_TAGS or node.header.endswith(b"\xff\xff\xff\xff") or size > _WHOLE_BYTES
    is_long = vr in _BINARY and size > _INLINE_BYTES
    is_odd = size % (struct.calcsize(_NUMBERS[vr]) if vr in _NUMBERS else 4 if vr == "AT" else 1)
    expected = {"vr": vr, "BulkDataURI": f"?offset={begin + node.offset}&length={size}"}
    return bool(attribute == expected and size and (is_bulk or is_long or is_odd))


def _is_right(attribute: dict[str, Any], node: Node, *, little: bool) -> bool:
    """Whether a value is what the bytes say; `little`: so they are, as those of a UN always are (PS3.5 6.2.2)."""
    vr = attribute["vr"]
    if node.tag == _CHARACTER_SET:
        return bool(attribute.get("Value") == ["ISO_IR 192"])
    if vr in _BINARY:
        return base64.b64decode(attribute.get("InlineBinary", "")) == node.value
    return _are_values(attribute.get("Value", []), vr, node.value, little=little)


def _are_values(values: list[Any], vr: str, value: bytes, *, little: bool) -> bool:
    if vr == "SQ":
        return not value.strip(b"\0")
    if vr == "AT":
        return values == _tags(value, little=little)
    if vr in _NUMBERS:
        return _are_numbers(values, vr, value, little=little)
    return _is_text(values, vr, value)


def _tags(value: bytes, *, little: bool) -> list[str]:
    if len(value) % 4:
        return []
    return [f"{group:04X}{element:04X}" for group, element in struct.iter_unpack("<HH" if little else ">HH", value)]


def _are_numbers(values: list[Any], vr: str, value: bytes, *, little: bool) -> bool:
    form = ("<" if little else ">") + _NUMBERS[vr]
    if len(value) % struct.calcsize(form):
        return not values
    expected = [number for (number,) in struct.iter_unpack(form, value)]
    return len(values) == len(expected) and all(map(_is_number, values, expected))


def _is_number(value: Any, expected: float) -> bool:
    if isinstance(expected, float) and math.isnan(expected):
        return bool(value == "NaN")
    return isinstance(value, int | float | str) and type(expected)(value) == expected


def _is_text(values: list[Any], vr: str, value: bytes) -> bool:
    if not value.isascii() or b"\x1b" in value:
        return bool(values)
    text = value.decode("ascii")
    parts = [text.rstrip(" \0")] if vr in _SINGLE else [part.strip(" \0") for part in text.split("\\")]
    if not any(parts) and len(parts) == 1:
        return not values
    return len(values) == len(parts) and all(
        _is_same(given, part, vr) for given, part in zip(values, parts, strict=True)
    )


def _is_same(given: Any, part: str, vr: str) -> bool:
    if not part:
        return given is None
    if vr == "PN":
        groups = part.split("=", 2)
        names = ("Alphabetic", "Ideographic", "Phonetic")
        return bool(given == {name: group for name, group in zip(names, groups, strict=False) if group})
    if isinstance(given, int | float):
        return vr in {"IS", "DS"} and float(part) == float(given)
    return bool(given == part)
