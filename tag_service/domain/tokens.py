"""What the tokenizer makes of a file."""

from typing import Final

# (kind, tag, vr, header, value, offset): a plain tuple, because there is one for every element.
Token = tuple[int, int, str, bytes, bytes, int]

PREAMBLE: Final = 0  # value: its 128 bytes
META_ELEMENT: Final = 1  # an element of group 0002, whole
DATA_SET: Final = 2  # begins; `Tokenizer.encoding` and `transfer_syntax_uid` are known from here on
ELEMENT: Final = 3  # an element with its whole value
BULK: Final = 4  # an element whose value follows in CHUNKs up to BULK_END
FRAGMENTS: Final = 5  # the same of an encapsulated value: the CHUNKs are its items, headers and delimiter included
SEQUENCE: Final = 6  # a sequence; vr UN where its items are implicit VR little endian whatever the file is
CHUNK: Final = 7
BULK_END: Final = 8
SEQUENCE_END: Final = 9  # header: its delimitation item, b"" where its length is defined
ITEM_BEGIN: Final = 10
ITEM_END: Final = 11  # header: its delimitation item, b"" where its length is defined
TRAILING: Final = 12  # value: bytes behind the data set
