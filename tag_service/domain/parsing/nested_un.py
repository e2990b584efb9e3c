"""Sequences whose element says UN: implicit VR little endian whatever the transfer syntax (CP-246, PS3.5 6.2.2).

With implicit VR those count among them that no dictionary knows, such as private ones.
"""

from struct import Struct
from typing import Final

from tag_service.domain.standard.dictionary import implicit_vr, is_private
from tag_service.domain.standard.vr import DELIMITERS, ITEM, ITEM_DELIMITATION, SEQUENCE_DELIMITATION, UNDEFINED_LENGTH

_HEADER: Final = Struct("<HHL").unpack_from
_OPEN: Final = -1


def holds_items(value: bytes, *, depth: int) -> tuple[bool, int]:
    """Whether a value of VR UN and of defined length is a sequence: items of well-formed elements to its last byte; and
    how many items and elements were looked at to tell.

    Nothing but its bytes tells, so all of them have to fit. Deeper than `depth`, itself included, it counts as plain
    bytes.
    """
    # The open sequences and items, by turns: where each ends.
    ends = [len(value)]
    position = looked_at = 0
    while ends:
        end = ends[-1]
        if end != _OPEN and position >= end:
            if position > end:
                return False, looked_at
            ends.pop()
            continue
        if len(value) - position < 8:
            return False, looked_at
        group, element, length = _HEADER(value, position)
        tag = group << 16 | element
        position += 8
        looked_at += 1
        in_sequence = len(ends) % 2
        if tag == (SEQUENCE_DELIMITATION if in_sequence else ITEM_DELIMITATION) and end == _OPEN:
            ends.pop()
        elif in_sequence and tag == ITEM:
            ends.append(_OPEN if length == UNDEFINED_LENGTH else position + length)
        elif in_sequence or tag >= DELIMITERS or not tag:
            return False, looked_at
        else:
            inner = _end_of_sequence(tag, length, position)
            if inner is None:
                position += length
            elif len(ends) // 2 >= depth:
                return False, looked_at
            else:
                ends.append(inner)
    return position == len(value), looked_at


def _end_of_sequence(tag: int, length: int, position: int) -> int | None:
    """Where the sequence ends that an element is; None when it is none, or an undefined length makes no sense in it."""
    vr = implicit_vr(tag)
    if length == UNDEFINED_LENGTH:
        return _OPEN if vr in {"SQ", "UN"} or is_private(tag) else None
    return position + length if vr == "SQ" else None
