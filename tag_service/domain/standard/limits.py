"""How large and how deep a file may be, so that no file can exhaust the process."""

from dataclasses import dataclass

MIB = 1024 * 1024
GIB = 1024 * MIB
# File meta information (PS3.10 7.1) has about ten elements and a few hundred bytes. Whoever edits a file holds it.
META_ELEMENTS = 1000
META_BYTES = 16 * MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits on one file. Going past one is STRUCTURE_LIMIT.

    `depth` counts sequences within sequences; `header_bytes` everything that is no bulk data; `elements` also counts
    items, and what was looked at in vain for a sequence in a UN; a deflated data set may inflate to `inflated_bytes`,
    and to `inflation_ratio` times the bytes it came as once it is past the first MiB.
    """

    depth: int = 100
    header_bytes: int = 64 * MIB
    elements: int = 1_000_000
    inflated_bytes: int = 4 * GIB
    inflation_ratio: int = 200
