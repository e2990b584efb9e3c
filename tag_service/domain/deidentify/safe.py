"""Private attributes that are safe to retain (PS3.15 table E.3.10-1): measurements, flags and scales, and parts of
pictures.

The rows come from a transcription of the table that is older than 2026c, and are checked against no newer one: what is
not here is removed.
"""

from collections.abc import Iterator
from typing import Final

# Group, private creator, elements in the creator's block.
_ROWS: Final = (
    (0x00E1, "ELSCINT1", "21"),
    (0x01E1, "ELSCINT1", "26 50"),
    (0x01F1, "ELSCINT1", "01 07 26 27"),
    (0x0903, "GEIIS PACS", "10-12"),
    (0x0019, "GEMS_ACQU_01", "23 24 27 9E"),
    (0x0045, "GEMS_HELIOS_01", "01 02"),
    (0x0043, "GEMS_PARM_01", "27 39 6F"),
    (0x0045, "GEMS_SENO_02", "06 1B 20 27 29-2B 49 58 59 60 61 64 71 72 90 A0-A2 A4 A7 A8"),
    (0x0025, "GEMS_SERS_01", "07"),
    (0x0019, "HOLOGIC, Inc.", "06-08 16 25-29 30-35 37 40-46 50-53 60-62 70 71 80 85 87 89 8A 90 97 98"),
    (0x7E01, "HOLOGIC, Inc.", "01 02 10-12"),
    (0x7F01, "HOLOGIC, Inc.", "01 02 10-12"),
    (0x0019, "LORAD Selenia", "06-08 16 26-29 30-35 37 40 41 50-53 60 70 71 80 90"),
    (0x0099, "NQHeader", "01 04 05 10 20 21"),
    (0x0199, "NQLeft", "01-16"),
    (0x0299, "NQRight", "01-16"),
    (0x2001, "Philips Imaging DD 001", "03 04"),
    (0x2005, "Philips MR Imaging DD 001", "0D 0E"),
    (0x7053, "Philips PET Private Group", "00 09"),
    (0x200D, "Philips US Imaging DD 023", "45"),
    (0x200D, "Philips US Imaging DD 033", "00-08 0D 0F-11 14 21"),
    (0x200D, "Philips US Imaging DD 034", "01-05 08-14 17 18 1B-28"),
    (0x200D, "Philips US Imaging DD 035", "01 03 04 07-0A 0C 0D"),
    (0x200D, "Philips US Imaging DD 036", "15-19 20"),
    (0x200D, "Philips US Imaging DD 038", "01-04"),
    (0x200D, "Philips US Imaging DD 039", "01-0D 15"),
    (0x200D, "Philips US Imaging DD 040", "01-07 20"),
    (0x200D, "Philips US Imaging DD 042", "15 16 20 30 31 40 50-60 70-78 8C"),
    (0x200D, "Philips US Imaging DD 045", "F1 F3-F6 F8 FA FB"),
    (0x200D, "Philips US Imaging DD 046", "17"),
    (0x200D, "Philips US Imaging DD 048", "01"),
    (0x200D, "Philips US Imaging DD 065", "07"),
    (0x200D, "Philips US Imaging DD 066", "00 01 03 04"),
    (0x0019, "SIEMENS MR HEADER", "0C-0E 27"),
)


def _elements(text: str) -> Iterator[int]:
    for word in text.split():
        first, _, last = word.partition("-")
        yield from range(int(first, 16), int(last or first, 16) + 1)


# Creator, and tag with the block taken out of the element: (gggg,00ee).
_SAFE: Final = frozenset(
    (creator, group << 16 | element) for group, creator, text in _ROWS for element in _elements(text)
)
_CREATORS: Final = frozenset((creator, group) for group, creator, _ in _ROWS)


def is_safe(tag: int, creator: str) -> bool:
    """Whether the private element of this creator may be retained; of an element that reserves a block, whether the
    block can hold such.
    """
    if 0x10 <= tag & 0xFFFF <= 0xFF:
        return (creator, tag >> 16) in _CREATORS
    return (creator, tag & 0xFFFF00FF) in _SAFE
