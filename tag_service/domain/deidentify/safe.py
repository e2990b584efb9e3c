"""Private attributes that are safe to retain (PS3.15 table E.3.10-1, edition 2026c): measurements, flags, scales, parts
of pictures and presentations.
"""

from collections.abc import Iterator
from typing import Final

# Group, private creator, elements in the creator's block.
_PLAIN: Final = (
    (0x00E1, "ELSCINT1", "21 50"),
    (0x01E1, "ELSCINT1", "26"),
    (0x01F1, "ELSCINT1", "01 07 26 27"),
    (0x0903, "GEIIS PACS", "10-12"),
    (0x0019, "GEMS_ACQU_01", "23 24 27 9E"),
    (0x0045, "GEMS_HELIOS_01", "01 02"),
    (0x0043, "GEMS_PARM_01", "27 39 6F"),
    (0x0025, "GEMS_SERS_01", "07"),
    (0x7E01, "HOLOGIC, Inc.", "01 02 12"),
    (0x0099, "NQHeader", "04 05 10 20 21"),
    (0x0199, "NQLeft", "01-16"),
    (0x0299, "NQRight", "01-16"),
    (
        0x2001,
        "Philips Imaging DD 001",
        "01-0C 0E-1F 21-51 53-5A 5D 5E 60-64 67 6D 6E 71 72 74-77 7A-8C 90-94 9B 9D 9F A1-A5 C0-C3 CB D0-DF F1-F7 FF",
    ),
    (0x2001, "Philips Imaging DD 002", "01-39 3E-40 50 52 53 5A 5C-5E 63 65-68 6B 71-75"),
    (
        0x2001,
        "Philips Imaging DD 097",
        "02-04 07 0D 0F 17-1F 21-28 2A-2D 2F-32 36-3B 3D 40 41 44-47 4A-4C A1-A6 A8 AA AB",
    ),
    (0x2001, "Philips Imaging DD 129", "03 05-09"),
    (0x2005, "Philips MR Imaging DD 001", "0D 0E"),
    (0x7053, "Philips PET Private Group", "00 09"),
    (0x0025, "Philips ST80i", "01"),
    (0x0019, "SIEMENS MR HEADER", "0C-0E 27"),
    (0x7FD1, "SIEMENS SYNGO ULTRA-SOUND TOYON DATA STREAMING", "01 10 11"),
    (0x0119, "SIEMENS Ultrasound SC2000", "00 01 04-09 10-13 21"),
    (0x0129, "SIEMENS Ultrasound SC2000", "03-05 08 10 21 22 29 30"),
    (0x0139, "SIEMENS Ultrasound SC2000", "01"),
    (0x0149, "SIEMENS Ultrasound SC2000", "01-03"),
    (0x7FD1, "SIEMENS Ultrasound SC2000", "01 10 11"),
)
# Those of VR SQ: the elements in their items are decided upon by themselves.
_SEQUENCES: Final = (
    (0x7E01, "HOLOGIC, Inc.", "10 11"),
    (0x2001, "Philips Imaging DD 001", "5F 65 66 68-6B 6F 73 79 9A C5-C7 CA E9 F9 FB-FD"),
    (0x2001, "Philips Imaging DD 002", "3A-3D 57 58 5F 64"),
    (0x2001, "Philips Imaging DD 097", "01 05 06 08 0A 0B 0E 12 2E 3C 3E 42 49 A9"),
    (0x2001, "Philips Imaging DD 129", "00-02 04"),
    (0x0119, "SIEMENS Ultrasound SC2000", "02 03"),
    (0x0129, "SIEMENS Ultrasound SC2000", "00 06 09 11 20"),
)
# Those of VR UI, one of which names a series.
_UIDS: Final = (
    (0x0099, "NQHeader", "01 02"),
    (0x7FD1, "SIEMENS SYNGO ULTRA-SOUND TOYON DATA STREAMING", "09"),
    (0x0129, "SIEMENS Ultrasound SC2000", "02 07 12"),
    (0x7FD1, "SIEMENS Ultrasound SC2000", "09"),
)


def _elements(text: str) -> Iterator[int]:
    for word in text.split():
        first, _, last = word.partition("-")
        yield from range(int(first, 16), int(last or first, 16) + 1)


def _by_element(rows: tuple[tuple[int, str, str], ...]) -> frozenset[tuple[str, int]]:
    """Creator, and tag with the block taken out of the element: (gggg,00ee)."""
    return frozenset((creator, group << 16 | element) for group, creator, text in rows for element in _elements(text))


PLAIN: Final = _by_element(_PLAIN)
SEQUENCES: Final = _by_element(_SEQUENCES)
UIDS: Final = _by_element(_UIDS)
_CREATORS: Final = frozenset((creator, group) for group, creator, _ in (*_PLAIN, *_SEQUENCES, *_UIDS))


def names_safe_block(tag: int, creator: str) -> bool:
    """Whether an element that reserves a block for this creator may be followed by safe ones."""
    return (creator, tag >> 16) in _CREATORS


def element_of(tag: int, creator: str) -> tuple[str, int]:
    """What PLAIN, SEQUENCES and UIDS know a private element by."""
    return creator, tag & 0xFFFF00FF
