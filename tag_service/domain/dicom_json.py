"""The DICOM JSON model (PS3.18 annex F) of every attribute of a data set.

What the annex leaves open, and what real files make necessary:
- Bulk data is left out: pixel data, encapsulated values, long values, and values of OB, OD, OF, OL, OV, OW and UN
  beyond INLINE_BYTES; shorter ones are InlineBinary, as little endian as they were. In place of a value that is left
  out stands where it is, "BulkDataURI": "?offset=N&length=M" (F.2.6), relative to the file that was read: M bytes from
  byte N on, of an encapsulated value with the headers of its items and its delimiter. Of a deflated file N counts on
  from the end of the file meta information, in what follows as it is inflated.
- DS and IS are numbers where their text is a finite number, else strings. FL and FD that are not finite are the strings
  NaN, Infinity and -Infinity; SV and UV beyond 2^53 are strings. Binary numbers of an impossible length are left out as
  bulk data is.
- UN of a standard attribute has its dictionary's VR; UN that holds items is SQ.
- Text is what the character set in force makes of it, and (0008,0005) therefore ISO_IR 192 (PS3.18 F.1).
- Of an attribute that stands twice the first one counts. File meta information and group lengths are left out (F.2).
"""

import base64
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tag_service.domain import tokens
from tag_service.domain.charset import DEFAULT, SPECIFIC_CHARACTER_SET, Charsets, charsets_of
from tag_service.domain.dictionary import entry_of, is_private_creator
from tag_service.domain.limits import Limits
from tag_service.domain.numbers import NUMBERS, SIZES, numbers, tags
from tag_service.domain.text import text_of
from tag_service.domain.tokenizer import Tokenizer
from tag_service.domain.tokens import Event, Run, Token
from tag_service.domain.vr import BULK_VRS, SINGLE_VALUED_VRS, VRS

INLINE_BYTES: Final = 1024
_PIXEL_REPRESENTATION: Final = 0x00280103
_MAX_EXACT: Final = 1 << 53
_INTEGER: Final = re.compile(r"[+-]?\d{1,18}")
_DECIMAL: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?")
_PN_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")


@dataclass(slots=True)
class _Object:
    """A data set or item that is being written: its attributes as JSON, and what its values depend on."""

    charsets: Charsets = DEFAULT
    is_signed: bool = False
    little: bool = True
    attributes: dict[int, str] = field(default_factory=dict)

    def add(self, tag: int, text: str) -> None:
        if tag & 0xFFFF:
            self.attributes.setdefault(tag, text)

    def text(self) -> str:
        """In ascending order of the names (F.2.2)."""
        return "{" + ",".join(f'"{tag:08X}":{text}' for tag, text in sorted(self.attributes.items())) + "}"


@dataclass(slots=True)
class _Sequence:
    tag: int
    little: bool
    items: list[str] = field(default_factory=list)


class JsonWriter:
    """Feed it the whole file, close it, then ask for its `text`."""

    def __init__(self, limits: Limits) -> None:
        self._tokenizer = Tokenizer(limits)
        # The VR of a value that comes in chunks, and its offset.
        self._bulk = ("", 0)
        self._objects = [_Object()]
        self._sequences: list[_Sequence] = []

    def passes_on(self, size: int) -> bool:
        """Whether a piece of this many bytes would lie in a bulk value, and so take next to no time."""
        return self._tokenizer.bulk_left >= size

    def feed(self, data: bytes) -> None:
        """Takes in a piece. Raises what the tokenizer does."""
        self._take(self._tokenizer.feed(data))

    def close(self) -> None:
        """Takes in the end of the file. Raises what the tokenizer does."""
        self._take(self._tokenizer.close())

    def text(self) -> str:
        """The data set as a JSON object."""
        return self._objects[0].text()

    def _take(self, stream: Iterator[Event]) -> None:
        objects = self._objects
        for event in stream:
            if isinstance(event, Run):
                current = objects[-1]
                for tag, vr, _, start, stop in event.elements:
                    self._element(current, tag, vr, event.buffer[start:stop], event.base + start)
            elif event[0] != tokens.CHUNK:
                self._take_token(event, objects[-1])

    def _take_token(self, token: Token, current: _Object) -> None:
        objects, sequences = self._objects, self._sequences
        kind, tag, vr, header, _, offset = token
        if kind in {tokens.BULK, tokens.FRAGMENTS}:
            self._bulk = _known(vr), offset + len(header)
        elif kind == tokens.BULK_END:
            vr, start = self._bulk
            current.add(tag, _left_out(vr, start, offset - start))
        elif kind == tokens.SEQUENCE:
            sequences.append(_Sequence(tag, current.little or vr == "UN"))
        elif kind == tokens.ITEM_BEGIN:
            objects.append(_Object(current.charsets, current.is_signed, sequences[-1].little))
        elif kind == tokens.ITEM_END:
            sequences[-1].items.append(objects.pop().text())
        elif kind == tokens.SEQUENCE_END:
            sequence = sequences.pop()
            current.add(sequence.tag, _with_values("SQ", sequence.items))
        elif kind == tokens.DATA_SET:
            current.little = self._tokenizer.encoding.little_endian

    def _element(self, current: _Object, tag: int, vr: str, value: bytes, offset: int) -> None:
        if tag == SPECIFIC_CHARACTER_SET:
            current.charsets = charsets_of(value)
            current.add(tag, '{"vr":"CS","Value":["ISO_IR 192"]}')
            return
        little = current.little
        if vr == "UN":
            # Whoever wrote UN kept the value as implicit VR little endian (PS3.5 6.2.2).
            vr, little = _standard_vr(tag), True
        elif vr == "US" and not self._tokenizer.encoding.explicit and current.is_signed and _may_be_signed(tag):
            vr = "SS"
        if tag == _PIXEL_REPRESENTATION:
            current.is_signed = value[:2].strip(b"\0") == b"\x01"
        vr = _known(vr)
        if (vr in BULK_VRS and len(value) > INLINE_BYTES) or len(value) % SIZES.get(vr, 1):
            current.add(tag, _left_out(vr, offset, len(value)))
        else:
            current.add(tag, _attribute(vr, value, current.charsets, little=little))


def _standard_vr(tag: int) -> str:
    """The VR of an attribute that says UN: the dictionary's, where that leaves no choice and it is no sequence."""
    if is_private_creator(tag):
        return "LO"
    entry = entry_of(tag)
    return entry[0] if entry and entry[0] in VRS and entry[0] != "SQ" else "UN"


def _may_be_signed(tag: int) -> bool:
    entry = entry_of(tag)
    return entry is not None and "SS" in entry[0]


def _known(vr: str) -> str:
    return vr if vr in VRS else "UN"


def _attribute(vr: str, value: bytes, charsets: Charsets, *, little: bool) -> str:
    """One attribute: {"vr": ..., "Value": [...]}."""
    if vr in BULK_VRS:
        if not value:
            return f'{{"vr":"{vr}"}}'
        return f'{{"vr":"{vr}","InlineBinary":"{base64.b64encode(value).decode("ascii")}"}}'
    if vr == "AT":
        return _with_values(vr, [f'"{tag:08X}"' for tag in tags(value, little=little)])
    if vr in NUMBERS:
        return _with_values(vr, [_number(number) for number in numbers(vr, value, little=little)])
    text = text_of(value, vr, charsets).text
    write = _WRITERS.get(vr, _string)
    parts = [text] if vr in SINGLE_VALUED_VRS else text.split("\\")
    return _with_values(vr, [write(part) if part else "null" for part in parts] if text else [])


def _left_out(vr: str, offset: int, length: int) -> str:
    """An attribute whose value, at this offset and of this length, is not told."""
    return f'{{"vr":"{vr}","BulkDataURI":"?offset={offset}&length={length}"}}' if length else f'{{"vr":"{vr}"}}'


def _with_values(vr: str, values: list[str]) -> str:
    return f'{{"vr":"{vr}","Value":[{",".join(values)}]}}' if values else f'{{"vr":"{vr}"}}'


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _person_name(text: str) -> str:
    groups = zip(_PN_GROUPS, text.split("=", 2), strict=False)
    return "{" + ",".join(f'"{name}":{_string(group)}' for name, group in groups if group) + "}"


def _integer_string(text: str) -> str:
    return str(int(text)) if _INTEGER.fullmatch(text) else _string(text)


def _decimal_string(text: str) -> str:
    if _INTEGER.fullmatch(text):
        return str(int(text))
    if _DECIMAL.fullmatch(text) and math.isfinite(float(text)):
        return repr(float(text))
    return _string(text)


_WRITERS: Final[dict[str, Callable[[str], str]]] = {
    "PN": _person_name,
    "IS": _integer_string,
    "DS": _decimal_string,
}


def _number(number: float) -> str:
    if isinstance(number, int):
        return str(number) if abs(number) <= _MAX_EXACT else f'"{number}"'
    if math.isfinite(number):
        return repr(number)
    if math.isnan(number):
        return '"NaN"'
    return '"Infinity"' if number > 0 else '"-Infinity"'
