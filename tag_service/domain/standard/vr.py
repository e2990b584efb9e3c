"""The value representations (PS3.5 6.2) and how their headers look (PS3.5 7.1.2)."""

from typing import Final

# With explicit VR: two reserved bytes, then a length of four bytes.
LONG_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
# With explicit VR: a length of two bytes.
SHORT_VRS: Final = frozenset(
    "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()  # noqa: SIM905 - a table reads better so
)
VRS: Final = LONG_VRS | SHORT_VRS
# Text without a length limit worth the name.
LONG_TEXT_VRS: Final = frozenset({"LT", "ST", "UC", "UR", "UT"})
# The binary VRs that hold bulk data.
BULK_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
# Text that a backslash does not divide into several values.
SINGLE_VALUED_VRS: Final = frozenset({"LT", "ST", "UR", "UT"})

UNDEFINED_LENGTH: Final = 0xFFFFFFFF
# Tags from here on are items and delimiters.
DELIMITERS: Final = 0xFFFE0000
ITEM: Final = 0xFFFEE000
ITEM_DELIMITATION: Final = 0xFFFEE00D
SEQUENCE_DELIMITATION: Final = 0xFFFEE0DD
