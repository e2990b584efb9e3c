"""Nested JSON objects of the DICOM JSON model (PS3.18 F.2), written straight down under a limit.

The names of an object have to ascend (F.2.2), and so do nearly all tags of nearly all files. What stands behind a
higher tag is kept apart, and put in its place when its object ends.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from io import BytesIO
from itertools import accumulate
from operator import lt
from typing import Final

from service_runtime.errors import Reason, ServiceError

# What an attribute that is kept apart takes besides its text, about.
_APART_BYTES: Final = 200
_NO_TAGS: Final = array("I")
_NO_STARTS: Final = array("Q")


class _Object:
    """A data set or item: where each of its attributes begins whose tag was higher than all before, and the others."""

    __slots__ = ("apart", "starts", "tags")

    def __init__(self) -> None:
        # Most items of a file that is full of them are small: they get arrays when they need them.
        self.tags = _NO_TAGS
        self.starts = _NO_STARTS
        self.apart: dict[int, bytes] = {}

    def place(self, tags: list[int], starts: Iterable[int]) -> None:
        """Notes down where attributes begin whose tags are higher than all before."""
        if not self.tags:
            self.tags, self.starts = array("I"), array("Q")
        self.tags.extend(tags)
        self.starts.extend(starts)

    def holds(self, tag: int) -> bool:
        """Whether it has an attribute of this tag."""
        at = bisect_left(self.tags, tag)
        return tag in self.apart or (at < len(self.tags) and self.tags[at] == tag)


class JsonOutput:
    """One object of attributes. Of an attribute that comes twice the first one counts.

    Every method raises STRUCTURE_LIMIT once the whole would take more than `max_bytes`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = BytesIO()
        self._size = 0
        # How much is kept apart, or counts as if it were there.
        self._apart = 0
        self._objects: list[_Object] = []
        # Of each open sequence: its tag, where it begins, and whether it is to be kept apart.
        self._sequences: list[tuple[int, int, bool]] = []
        self._write(b"{")
        self._objects.append(_Object())

    @property
    def last_tag(self) -> int:
        """The highest tag so far of the object that is being written, -1 while it has none."""
        tags = self._objects[-1].tags
        return tags[-1] if tags else -1

    def holds(self, tag: int) -> bool:
        """Whether the object that is being written has an attribute of this tag."""
        return self._objects[-1].holds(tag)

    def add(self, tag: int, text: str) -> None:
        """Adds an attribute."""
        current = self._objects[-1]
        if not current.tags or tag > current.tags[-1]:
            self._add_ascending(current, [tag], [text])
        elif not current.holds(tag):
            self._set_apart(current, tag, f'"{tag:08X}":{text}'.encode())

    def add_all(self, tags: list[int], texts: list[str]) -> None:
        """Adds attributes."""
        current = self._objects[-1]
        if tags and (not current.tags or tags[0] > current.tags[-1]) and all(map(lt, tags, tags[1:])):
            self._add_ascending(current, tags, texts)
            return
        for tag, text in zip(tags, texts, strict=True):
            self.add(tag, text)

    def begin_sequence(self, tag: int) -> bool:
        """Begins an attribute that holds items; whether it counts. One that does not is not to be written further."""
        current = self._objects[-1]
        is_apart = bool(current.tags) and tag <= current.tags[-1]
        if is_apart and current.holds(tag):
            return False
        if not is_apart:
            self._separate(current, tag)
        self._sequences.append((tag, self._size, is_apart))
        self._write(f'"{tag:08X}":{{"vr":"SQ"'.encode())
        return True

    def end_sequence(self, item_count: int) -> None:
        """Ends it."""
        tag, start, is_apart = self._sequences.pop()
        self._write(b"]}" if item_count else b"}")
        if is_apart:
            self._set_apart(self._objects[-1], tag, self._cut(start))

    def begin_item(self, item_count: int) -> None:
        """Begins an item of the sequence; `item_count` stand before it."""
        self._write(b",{" if item_count else b',"Value":[{')
        self._objects.append(_Object())

    def end_item(self) -> None:
        """Ends it."""
        self._end_object()

    def finish(self) -> bytes:
        """The whole, in UTF-8."""
        self._end_object()
        return self._bytes.getvalue()

    def _end_object(self) -> None:
        current = self._objects.pop()
        if current.apart:
            self._put_in_order(current)
        self._write(b"}")

    def _put_in_order(self, current: _Object) -> None:
        """Puts what was kept apart where it belongs."""
        first = current.starts[0]
        written = self._cut(first)
        parts, begin = [], 0
        for tag in sorted(current.apart):
            at = bisect_left(current.tags, tag)
            # The lowest of those behind it: there is one, else it would not have been kept apart.
            end = current.starts[at] - first
            if end > begin:
                parts.append(written[begin : end - 1])
                begin = end
            parts.append(current.apart[tag])
        parts.append(written[begin:])
        self._apart -= sum(len(text) + _APART_BYTES for text in current.apart.values())
        self._write(b",".join(parts))

    def _add_ascending(self, current: _Object, tags: list[int], texts: list[str]) -> None:
        if current.tags:
            self._write(b",")
        named = [f'"{tag:08X}":{text},' for tag, text in zip(tags, texts, strict=True)]
        text = "".join(named)
        data = text.encode("utf-8")
        sizes = map(len, named) if len(text) == len(data) else (len(part.encode("utf-8")) for part in named)
        current.place(tags, accumulate(sizes, initial=self._size))
        current.starts.pop()
        self._write(data[:-1])

    def _separate(self, current: _Object, tag: int) -> None:
        """Notes down where the next attribute begins."""
        if current.tags:
            self._write(b",")
        current.place([tag], [self._size])

    def _set_apart(self, current: _Object, tag: int, data: bytes) -> None:
        current.apart[tag] = data
        self._apart += len(data) + _APART_BYTES
        if self._size + self._apart > self._max_bytes:
            raise self._too_large()

    def _write(self, data: bytes) -> None:
        self._bytes.write(data)
        self._size += len(data)
        if self._size + self._apart > self._max_bytes:
            raise self._too_large()

    def _cut(self, start: int) -> bytes:
        """Takes back what was written from `start` on."""
        self._bytes.seek(start)
        data = self._bytes.read()
        self._bytes.seek(start)
        self._bytes.truncate()
        self._size = start
        return data

    def _too_large(self) -> ServiceError:
        return ServiceError(
            Reason.STRUCTURE_LIMIT,
            f"All attributes of the file would make an answer of more than {self._max_bytes} bytes. "
            "Choose some with ReadTags.",
            metadata={"limit": "answer bytes", "limit_bytes": str(self._max_bytes)},
        )
