"""The engine, asked in the ways its callers ask it: with a file in pieces."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from conformance.walker import ITEM_END, SEQUENCE_END, Part
from tag_service.domain.editing.edits import Edits
from tag_service.domain.editing.rewrite import rewriter_of
from tag_service.domain.parsing import tokens
from tag_service.domain.parsing.tokenizer import Tokenizer
from tag_service.domain.reading.dicom_json import JsonWriter
from tag_service.domain.reading.dicom_tags import DicomTags
from tag_service.domain.reading.header_reader import HeaderReader
from tag_service.domain.standard.limits import Limits

LIMITS: Final = Limits()
PIECE_BYTES: Final = 256 * 1024
# Cuts that fall anywhere.
ODD_PIECE_BYTES: Final = 4099
# A value that is longer is bulk data, and no part of the header.
WHOLE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Tokenized:
    """What the tokenizer makes of a file, in the terms of the walker."""

    preamble: bytes
    meta: list[Part]
    parts: list[Part]
    trailing: bytes
    transfer_syntax_uid: str


def pieces(data: bytes, size: int = PIECE_BYTES) -> Iterator[bytes]:
    """The file in pieces."""
    return (data[start : start + size] for start in range(0, len(data), size))


def tags_of(data: bytes) -> DicomTags:
    """The 20 attributes. Raises ServiceError."""
    reader = HeaderReader(LIMITS)
    if not any(map(reader.feed, pieces(data))):
        reader.close()
    return reader.header().tags


def json_of(data: bytes) -> bytes:
    """All attributes as the DICOM JSON model. Raises ServiceError."""
    writer = JsonWriter(LIMITS)
    for piece in pieces(data):
        writer.feed(piece)
    writer.close()
    return writer.data()


def rewritten(data: bytes, edits: Edits, size: int = PIECE_BYTES) -> bytes:
    """The edited file, fed in pieces of a size. Raises ServiceError."""
    rewriter = rewriter_of(edits, LIMITS, at=datetime.now(UTC), system="CONFORMANCE")
    return b"".join((*(out for piece in pieces(data, size) for out in rewriter.feed(piece)), *rewriter.close()))


def tokenized(data: bytes, size: int = PIECE_BYTES) -> Tokenized:
    """The tokens of a file that is fed in pieces of a size. Raises ServiceError."""
    tokenizer = Tokenizer(LIMITS)
    collector = _Collector()
    for piece in pieces(data, size):
        collector.take(tokenizer.feed(piece))
    collector.take(tokenizer.close())
    return Tokenized(
        collector.preamble, collector.meta, collector.parts, bytes(collector.trailing), tokenizer.transfer_syntax_uid
    )


class _Collector:
    """Makes parts of tokens."""

    def __init__(self) -> None:
        self.preamble = b""
        self.meta: list[Part] = []
        self.parts: list[Part] = []
        self.trailing = bytearray()
        self._depth = 0
        self._bulk: list[bytes] = []
        self._open = (0, b"")

    def take(self, stream: Iterable[tokens.Event]) -> None:
        """Adds what the tokens say."""
        for event in stream:
            if isinstance(event, tokens.Run):
                for tag, _, start, value_start, stop in event.elements:
                    self._add(tag, event.buffer[start:value_start], event.buffer[value_start:stop])
            elif event[0] in {tokens.BULK, tokens.FRAGMENTS, tokens.CHUNK, tokens.BULK_END}:
                self._bulk_token(event)
            elif event[0] in {tokens.SEQUENCE, tokens.SEQUENCE_END, tokens.ITEM_BEGIN, tokens.ITEM_END}:
                self._structure(event)
            else:
                self._frame(event)

    def _bulk_token(self, token: tokens.Token) -> None:
        kind, tag, _, header, value, _ = token
        if kind == tokens.CHUNK:
            self._bulk.append(value)
        elif kind == tokens.BULK_END:
            # An element without a value is one all the same.
            self._add(*self._open, b"".join(self._bulk))
            self._bulk.clear()
        else:
            self._open = (tag, header)

    def _structure(self, token: tokens.Token) -> None:
        kind, tag, _, header, value, _ = token
        self._depth -= kind == tokens.ITEM_END
        self._add({tokens.SEQUENCE_END: SEQUENCE_END, tokens.ITEM_END: ITEM_END}.get(kind, tag), header, value)
        self._depth += kind == tokens.ITEM_BEGIN

    def _frame(self, token: tokens.Token) -> None:
        kind, tag, _, header, value, _ = token
        if kind == tokens.META_ELEMENT:
            self.meta.append(Part(0, tag, header, value))
        elif kind == tokens.PREAMBLE:
            self.preamble = value
        elif kind == tokens.TRAILING:
            self.trailing += value

    def _add(self, tag: int, header: bytes, value: bytes) -> None:
        # The end of what has a defined length has no header.
        if header:
            self.parts.append(Part(self._depth, tag, header, value))
