"""Reading the 20 attributes of DicomTags out of the header, and no further."""

from collections.abc import Iterator
from typing import Final

from tag_service.domain.parsing import tokens
from tag_service.domain.parsing.order import MESSAGES, TagOrder
from tag_service.domain.parsing.tokenizer import Tokenizer
from tag_service.domain.parsing.tokens import Event, Run
from tag_service.domain.reading.dicom_tags import FIELDS, HIGHEST, IDENTIFYING, Header, decode_tags
from tag_service.domain.standard.charset import DEFAULT, SPECIFIC_CHARACTER_SET, charsets_of
from tag_service.domain.standard.dictionary import PIXEL_TAGS
from tag_service.domain.standard.limits import Limits

_WANTED: Final = frozenset({*FIELDS, SPECIFIC_CHARACTER_SET})
# What is read past the highest tag is read in vain.
_MAX_RUN: Final = 64
_BEGINNINGS: Final = frozenset({tokens.BULK, tokens.FRAGMENTS, tokens.SEQUENCE})


class HeaderReader:
    """Feed it the file until it is `done`, close it when the file ends before that, then ask for the `header`.

    It is done at the first pixel data of the data set itself, or past the highest tag it wants. As real files have tags
    out of order, the latter counts only where all was in order and the identifying attributes have come.
    """

    def __init__(self, limits: Limits) -> None:
        self.done = False
        self._tokenizer = Tokenizer(limits, max_run=_MAX_RUN)
        self._values: dict[int, bytes] = {}
        self._order = TagOrder()
        # Whether no element seen stands twice, or behind one with a higher tag.
        self.in_order = True
        self._depth = 0

    def passes_on(self, size: int) -> bool:
        """Whether a piece of this many bytes would lie in a bulk value, and so take next to no time."""
        return self._tokenizer.bulk_left >= size

    def feed(self, data: bytes) -> bool:
        """Takes in a piece; gives `done`. Raises what the tokenizer does."""
        self._take(self._tokenizer.feed(data))
        if self.done:
            self._tokenizer.stop()
        return self.done

    def close(self) -> None:
        """Takes in the end of the file. Raises what the tokenizer does."""
        self._take(self._tokenizer.close())
        self.done = True

    def header(self) -> Header:
        """What was read."""
        # Decoded at the end: the character set need not come first.
        charsets = charsets_of(self._values.get(SPECIFIC_CHARACTER_SET, b"")) or DEFAULT
        return Header(decode_tags(self._values, charsets, self._tokenizer), tuple(self._tokenizer.problems))

    def watch(self, event: Event) -> None:
        """Takes in an event of somebody else's reading of the file, instead of the file itself."""
        if not self.done:
            self._take_event(event)

    def _take(self, stream: Iterator[Event]) -> None:
        for event in stream:
            if self._take_event(event):
                break

    def _take_event(self, event: Event) -> bool:
        """Takes in an event; whether that is enough."""
        if isinstance(event, Run):
            return not self._depth and self._take_run(event)
        kind, tag, _, _, _, _ = event
        if kind == tokens.SEQUENCE_END:
            self._depth -= 1
        elif kind in _BEGINNINGS:
            if not self._depth and self._take_tag(tag):
                return True
            self._depth += kind == tokens.SEQUENCE
        return False

    def _take_run(self, run: Run) -> bool:
        """Takes the values that are wanted; whether that is enough."""
        values, ascending = self._values, self._order.ascending
        last = ascending[-1] if ascending else -1
        for tag, _, _, start, stop in run.elements:
            # As `_take_tag` does, without a call for each.
            if tag > last:
                last = tag
                ascending.append(tag)
            else:
                self._note_disorder(tag)
            if tag > HIGHEST:
                if self._is_enough(tag):
                    return True
            elif tag in _WANTED and tag not in values:
                values[tag] = run.buffer[start:stop]
        return False

    def _take_tag(self, tag: int) -> bool:
        """Takes notice of an element that is no plain one; whether that is enough."""
        self._note_disorder(tag)
        return tag > HIGHEST and self._is_enough(tag)

    def _is_enough(self, tag: int) -> bool:
        self.done = tag in PIXEL_TAGS or (self.in_order and all(wanted in self._values for wanted in IDENTIFYING))
        return self.done

    def _note_disorder(self, tag: int) -> None:
        if (code := self._order.check(tag)) is not None:
            self.in_order = False
            self._tokenizer.note(code, MESSAGES[code], tag)
