"""A whole file as a tree, for the editing half: every element keeps the bytes it came as.

The tree is built, and must be walked, iteratively: its depth is the file's, and the file may be hostile.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tag_service.domain.problems import Problem


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
    set. `trailing` is what follows it: zeros, or the NUL that pads a deflated data set. `problems` were noticed on the
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
