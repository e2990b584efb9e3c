"""What the tokenizer makes of a file: runs of plain elements, and tokens for all else that there is."""

from dataclasses import dataclass
from typing import Final

# (tag, vr, start, value start, stop): an element with its whole value; the numbers are positions in its run's buffer.
PlainElement = tuple[int, str, int, int, int]


@dataclass(slots=True, eq=False)
class Run:
    """Consecutive elements of one data set or item, contiguous in `buffer`, each with its whole value: at most
    MAX_RUN, at least one. Nothing is sliced out before somebody wants it.

    `base` is the offset of the first byte of `buffer`: in the file, or for a deflated data set in what it inflates to,
    counted on from the end of the meta information.
    """

    buffer: bytes
    base: int
    elements: list[PlainElement]


MAX_RUN: Final = 1024

# (kind, tag, vr, header, value, offset): a plain tuple, because there are very many.
Token = tuple[int, int, str, bytes, bytes, int]

Event = Run | Token

PREAMBLE: Final = 0  # value: its 128 bytes
META_ELEMENT: Final = 1  # an element of group 0002, whole
DATA_SET: Final = 2  # begins; `Tokenizer.encoding` and `transfer_syntax_uid` are known from here on
BULK: Final = 3  # an element whose value follows in CHUNKs up to BULK_END
FRAGMENTS: Final = 4  # the same of an encapsulated value: the CHUNKs are its items, headers and delimiter included
SEQUENCE: Final = 5  # a sequence; vr UN where its items are implicit VR little endian whatever the file is
CHUNK: Final = 6
BULK_END: Final = 7
SEQUENCE_END: Final = 8  # header: its delimitation item, b"" where its length is defined
ITEM_BEGIN: Final = 9
ITEM_END: Final = 10  # header: its delimitation item, b"" where its length is defined
TRAILING: Final = 11  # value: bytes behind the data set
