"""The values of the binary VRs that hold numbers or tags (PS3.5 6.2), out of their bytes."""

from collections.abc import Iterator
from struct import Struct, unpack
from typing import Final

NUMBERS: Final = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_STRUCTS: Final = {
    (vr, little): Struct(("<" if little else ">") + code) for vr, code in NUMBERS.items() for little in (True, False)
} | {("AT", True): Struct("<HH"), ("AT", False): Struct(">HH")}
# The bytes of one value.
SIZES: Final = {vr: struct.size for (vr, little), struct in _STRUCTS.items() if little}


def numbers(vr: str, value: bytes, *, little: bool) -> tuple[int | float, ...]:
    """The numbers of a value whose length is a multiple of SIZES[vr]; `vr` is one of NUMBERS."""
    count = len(value) // SIZES[vr]
    return unpack(f"{'<' if little else '>'}{count}{NUMBERS[vr]}", value)


def tags(value: bytes, *, little: bool) -> Iterator[int]:
    """The tags, group << 16 | element, of a value of VR AT whose length is a multiple of 4."""
    return (group << 16 | element for group, element in _STRUCTS["AT", little].iter_unpack(value))
