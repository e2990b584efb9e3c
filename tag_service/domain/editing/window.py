"""What was written and may still change: the lengths of the sequences and items that are open (PS3.5 7.5).

An edit inside a sequence of defined length changes that length, which stands before it. So what is written is held
until every such sequence and item around it has ended. What grows too large for that is let go: a length that no edit
can change stays as it is, any other becomes undefined (PS3.5 7.5.2), ended by a delimitation item.
"""

from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import Final

from tag_service.domain.standard.limits import MIB
from tag_service.domain.standard.vr import ITEM_DELIMITATION, SEQUENCE_DELIMITATION

# As much is held at most, and one piece more.
HELD_BYTES: Final = 8 * MIB
_PIECE_BYTES: Final = 256 * 1024
_UNDEFINED: Final = b"\xff\xff\xff\xff"
_LENGTH: Final = {True: Struct("<L"), False: Struct(">L")}
_DELIMITER: Final = {True: Struct("<HHL"), False: Struct(">HHL")}


class Length(Enum):
    """What becomes of the length of a sequence or item.

    `COUNTED`: it is written when all that stands inside is known. `FIXED`: it stays, and so must all that stands
    inside. `UNDEFINED`: it was so, or has become so.
    """

    COUNTED = 1
    FIXED = 2
    UNDEFINED = 3


@dataclass(slots=True)
class Container:
    """An open sequence or item. `start` is how much was written at its content, `source` the content's offset in the
    file (-1 for what an edit makes). `changes`: edits may change what stands inside, beyond group lengths. `little` is
    the byte order of its length, `little_inside` that of what it holds.
    """

    start: int
    source: int
    length: Length
    little: bool
    little_inside: bool
    is_item: bool
    changes: bool
    becomes_undefined: bool = False


class Window:
    """Takes what is written and gives it in `pieces`, as soon as nothing in it can change any more.

    `written` counts the bytes from the first on.
    """

    def __init__(self) -> None:
        self.written = 0
        self._buffer = bytearray()
        self._first = 0
        self._open: list[Container] = []
        # How many of them are counted, and fixed.
        self._counted = 0
        self._fixed = 0
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Writes."""
        self._buffer += data
        self.written += len(data)

    def pass_on(self, data: bytes, end: int) -> None:
        """Writes a part of a bulk value that ends at this offset of the file; without a copy where nothing is held."""
        if self._counted:
            self.write(data)
            self.settle(end)
            return
        self._flush()
        self._pieces.append(data)
        self.written += len(data)
        self._first = self.written

    @property
    def is_held(self) -> bool:
        """Whether what is written now is held."""
        return bool(self._counted)

    def pass_over(self, size: int) -> None:
        """Counts a part of a bulk value that goes out unseen, while nothing is held."""
        self._flush()
        self.written += size
        self._first = self.written

    def begin(
        self,
        header: bytes,
        *,
        little: bool,
        is_item: bool,
        little_inside: bool | None = None,
        source: int = -1,
        changes: bool = True,
    ) -> None:
        """Writes the header of a sequence or item, which ends in its length, and begins its content."""
        self.write(header)
        length = Length.COUNTED
        if header.endswith(_UNDEFINED):
            length = Length.UNDEFINED
        elif self.is_fixed:
            length = Length.FIXED
        self._counted += length is Length.COUNTED
        self._fixed += length is Length.FIXED
        inside = little if little_inside is None else little_inside
        self._open.append(Container(self.written, source, length, little, inside, is_item, changes))

    def end(self, delimiter: bytes = b"") -> None:
        """Ends what was begun last; `delimiter` is the delimitation item of one whose length was undefined."""
        container = self._open.pop()
        if container.length is Length.COUNTED:
            self._counted -= 1
            at = container.start - self._first - 4
            _LENGTH[container.little].pack_into(self._buffer, at, self.written - container.start)
            return
        self._fixed -= container.length is Length.FIXED
        if container.becomes_undefined:
            tag = ITEM_DELIMITATION if container.is_item else SEQUENCE_DELIMITATION
            self.write(_DELIMITER[container.little_inside].pack(tag >> 16, tag & 0xFFFF, 0))
        else:
            self.write(delimiter)

    @property
    def is_fixed(self) -> bool:
        """Whether what is written now must be as long as it was."""
        return bool(self._fixed)

    def settle(self, offset: int) -> None:
        """Lets go of what was held, where that has become too much; `offset` is how far the file has been read."""
        if self._counted and len(self._buffer) > HELD_BYTES:
            for container in self._open:
                if container.length is Length.COUNTED:
                    self._let_go(container, offset)
            self._counted = 0
        if not self._counted and len(self._buffer) >= _PIECE_BYTES:
            self._flush()

    @property
    def held_bytes(self) -> int:
        """How much is held."""
        return len(self._buffer)

    def pieces(self) -> list[bytes]:
        """What was written since the last call and can change no more."""
        if not self._counted:
            self._flush()
        pieces, self._pieces = self._pieces, []
        return pieces

    def _let_go(self, container: Container, offset: int) -> None:
        same = offset - container.source == self.written - container.start
        if self.is_fixed or (same and not container.changes):
            container.length = Length.FIXED
            self._fixed += 1
            return
        container.length = Length.UNDEFINED
        container.becomes_undefined = True
        at = container.start - self._first - 4
        self._buffer[at : at + 4] = _UNDEFINED

    def _flush(self) -> None:
        if self._buffer:
            self._pieces.append(bytes(self._buffer))
            self._buffer.clear()
            self._first = self.written
