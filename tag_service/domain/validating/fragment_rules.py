"""What can be wrong with the items of an encapsulated value (PS3.5 A.4)."""

from collections.abc import Iterator
from typing import Final

from tag_service.domain.parsing.headers import PLAIN_HEADER
from tag_service.domain.standard.problems import Finding, ProblemCode
from tag_service.domain.standard.vr import ITEM

_ODD_FRAGMENT: Final = Finding(ProblemCode.INVALID_VALUE, "A fragment has an odd length.", "PS3.5 A.4")
_DELIMITER: Final = Finding(ProblemCode.INVALID_DELIMITER, "The delimiter of the fragments has a length.")
# The group of items and delimiters, little endian.
_LITTLE_GROUP: Final = b"\xfe\xff"


class FragmentRules:
    """Looks at the chunks of one encapsulated value as they come.

    `fragments` is how many there are so far, `table_bytes` the length of the basic offset table before them.
    """

    def __init__(self) -> None:
        self.fragments = -1
        self.table_bytes = 0
        self._left = 0
        self._has_odd_fragment = False
        self._delimiter_length = 0

    def add(self, chunk: bytes) -> None:
        """A chunk: the whole header of an item or of the delimiter, or some of what an item holds."""
        if self._left:
            self._left -= len(chunk)
            return
        is_little = chunk[:2] == _LITTLE_GROUP
        group, element, length = PLAIN_HEADER[is_little](chunk, 0)
        if group << 16 | element != ITEM:
            self._delimiter_length = length
            return
        self._left = length
        self.fragments += 1
        if self.fragments:
            self._has_odd_fragment |= bool(length % 2)
        else:
            self.table_bytes = length

    def end(self) -> Iterator[Finding]:
        """What is wrong with all of it."""
        if self._has_odd_fragment:
            yield _ODD_FRAGMENT
        if self._delimiter_length:
            yield _DELIMITER
