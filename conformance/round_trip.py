"""What an edit may change, and whether that is all it changed (M1, M2, M3, M4, M13)."""

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from conformance.differences import Difference, Kind
from conformance.walker import ITEM, ITEM_END, SEQUENCE_END, BrokenError, Part, Walked, walk

# Of odd length, so that it is padded.
PATIENT_ID: Final = "CONFORMANCE.1"
_PATIENT_ID_TAG: Final = 0x00100020
_STRUCTURE: Final = frozenset({ITEM, ITEM_END, SEQUENCE_END})
_UNDEFINED: Final = b"\xff\xff\xff\xff"
_OURS: Final = frozenset({0x00020000, 0x00020012, 0x00020013})
# The file meta information that repeats the data set, by what it repeats.
_MIRRORS: Final = {0x00020002: 0x00080016, 0x00020003: 0x00080018}


def compare(before: Walked, data: bytes, *, patient_id: str | None) -> Iterator[Difference]:
    """What is wrong with the bytes of a rewritten file; `patient_id` is the edit, None where nothing was edited."""
    try:
        after = walk(data)
    except BrokenError as error:
        yield Difference(Kind.NOT_READABLE, f"the comparer: {error.what}")
        return
    expected = [part for part in before.parts if part.tag & 0xFFFF]
    is_shorter = len(expected) < len(before.parts)
    if patient_id is not None:
        expected = _edited(expected, patient_id, explicit=before.explicit, little=before.little_endian)
    elif not is_shorter and after.body != before.body:
        yield Difference(Kind.NOT_IDENTICAL, "data set")
    yield from _compare_parts(expected, after.parts)
    if (after.explicit, after.little_endian, after.is_deflated) != (
        before.explicit,
        before.little_endian,
        before.is_deflated,
    ):
        yield Difference(Kind.META, "(0002,0010)")
    if after.trailing.strip(b"\0") or (not before.is_deflated and after.trailing != before.trailing):
        yield Difference(Kind.NOT_IDENTICAL, "what follows the data set")
    yield from _compare_meta(before, after)


def _edited(parts: list[Part], patient_id: str, *, explicit: bool, little: bool) -> list[Part]:
    """The parts with another PatientID, or with one, in tag order."""
    value = patient_id.encode("ascii") + b" " * (len(patient_id) % 2)
    order = "<" if little else ">"
    header = struct.pack(f"{order}HH", _PATIENT_ID_TAG >> 16, _PATIENT_ID_TAG & 0xFFFF)
    header += b"LO" + struct.pack(f"{order}H", len(value)) if explicit else struct.pack(f"{order}L", len(value))
    new = Part(0, _PATIENT_ID_TAG, header, value)

    def is_top(part: Part) -> bool:
        return part.depth == 0 and part.tag not in _STRUCTURE

    if any(is_top(part) and part.tag == _PATIENT_ID_TAG for part in parts):
        return [new if is_top(part) and part.tag == _PATIENT_ID_TAG else part for part in parts]
    numbers = (number for number, part in enumerate(parts) if is_top(part) and part.tag > _PATIENT_ID_TAG)
    at = next(numbers, len(parts))
    return [*parts[:at], new, *parts[at:]]


def _compare_parts(expected: list[Part], found: list[Part]) -> Iterator[Difference]:
    if len(expected) != len(found):
        yield Difference(Kind.NOT_IDENTICAL, "number of elements")
        return
    begins_items = [following.tag == ITEM for _, following in pairwise(found)] + [False]
    for before, after, begins in zip(expected, found, begins_items, strict=True):
        if before == after:
            continue
        # Where something inside went, a defined length is another one; the walk has checked that it is right.
        is_length = (
            (begins or before.tag == ITEM)
            and before[:2] == after[:2]
            and before.header[:-4] == after.header[:-4]
            and _UNDEFINED not in {before.header[-4:], after.header[-4:]}
        )
        if not is_length:
            yield Difference(Kind.NOT_IDENTICAL, f"({before.tag >> 16:04X},{before.tag & 0xFFFF:04X})")
            return


def _compare_meta(before: Walked, after: Walked) -> Iterator[Difference]:
    if after.preamble != bytes(128):
        yield Difference(Kind.PREAMBLE)
    size = sum(len(part.header) + len(part.value) for part in after.meta[1:])
    if not after.meta or after.meta[0].value != struct.pack("<L", size) or after.meta[0].tag != 0x00020000:
        yield Difference(Kind.META, "(0002,0000)")
    found = {part.tag: part.value for part in after.meta}
    instance = {part.tag: part.value for part in reversed(after.parts) if part.depth == 0}
    for part in before.meta:
        if part.tag not in _OURS and part.value.strip(b" \0") and found.get(part.tag) != part.value:
            yield Difference(Kind.META, f"({part.tag >> 16:04X},{part.tag & 0xFFFF:04X})")
    for tag, mirrored in _MIRRORS.items():
        if found.get(tag, b"").strip(b" \0") == b"" != instance.get(mirrored, b"").strip(b" \0"):
            yield Difference(Kind.META, f"({tag >> 16:04X},{tag & 0xFFFF:04X})")
    if not (found.get(0x00020010) and found.get(0x00020012)):
        yield Difference(Kind.META, "(0002,0010)")
