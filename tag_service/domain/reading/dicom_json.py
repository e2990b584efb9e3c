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
from dataclasses import dataclass, replace
from typing import Final

from tag_service.domain.parsing import tokens
from tag_service.domain.parsing.tokenizer import Tokenizer
from tag_service.domain.parsing.tokens import Event, Run, Token
from tag_service.domain.reading.json_output import JsonOutput
from tag_service.domain.standard.charset import DEFAULT, SPECIFIC_CHARACTER_SET, Charsets, charsets_of
from tag_service.domain.standard.dictionary import entry_of, is_private_creator
from tag_service.domain.standard.limits import MIB, Limits
from tag_service.domain.standard.numbers import NUMBERS, SIZES, numbers, tags
from tag_service.domain.standard.text import text_of
from tag_service.domain.standard.vr import BULK_VRS, SINGLE_VALUED_VRS, VRS

INLINE_BYTES: Final = 1024
# Envoy takes an answer of 32 MiB, and its framing.
ANSWER_BYTES: Final = 32 * MIB - 1024
_PIXEL_REPRESENTATION: Final = 0x00280103
_MAX_EXACT: Final = 1 << 53
_INTEGER: Final = re.compile(r"[+-]?\d{1,18}")
_DECIMAL: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?")
# Numbers, divided as in a file, that JSON (RFC 8259 6) writes the same, and that any reader of it can hold.
_JSON_NUMBER: Final = r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?(?:[eE][+-]?[0-9]{1,2})?"
_JSON_NUMBERS: Final = re.compile(rf"(?:{_JSON_NUMBER})?+(?:\\(?:{_JSON_NUMBER})?+)*+")
_NUMBER_STRING_VRS: Final = frozenset({"DS", "IS"})
_STRING_VRS: Final = VRS - BULK_VRS - NUMBERS.keys() - {"AT", "DS", "IS", "PN", "SQ"}
_BACKSLASH: Final = "\\"
_string: Final[Callable[[str], str]] = json.JSONEncoder(ensure_ascii=False).encode
# Where there is no value, by VR; save where that depends on more.
_EMPTY: Final = {vr: f'{{"vr":"{vr}"}}' for vr in VRS - {"UN", "US"}}
# What other values depend on.
_TELLING: Final = frozenset({SPECIFIC_CHARACTER_SET, _PIXEL_REPRESENTATION})
_PN_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")


@dataclass(frozen=True, slots=True)
class _Scope:
    """What the values of a data set or item depend on."""

    charsets: Charsets = DEFAULT
    is_signed: bool = False
    little: bool = True


@dataclass(slots=True)
class _Sequence:
    little: bool
    item_count: int = 0


class JsonWriter:
    """Feed it the whole file, close it, then ask for its `data`. Every call raises what the tokenizer does, and
    STRUCTURE_LIMIT once the JSON would be longer than `max_bytes`.
    """

    def __init__(self, limits: Limits, *, max_bytes: int = ANSWER_BYTES) -> None:
        self._tokenizer = Tokenizer(limits)
        self._output = JsonOutput(max_bytes)
        # The VR of a value that comes in chunks, and its offset.
        self._bulk = ("", 0)
        self._scopes = [_Scope()]
        self._sequences: list[_Sequence] = []
        # Inside a sequence that does not count: how many sequences have begun, it included.
        self._passing_over = 0

    def passes_on(self, size: int) -> bool:
        """Whether a piece of this many bytes would lie in a bulk value, and so take next to no time."""
        return self._tokenizer.bulk_left >= size

    def feed(self, data: bytes) -> None:
        """Takes in a piece."""
        self._take(self._tokenizer.feed(data))

    def close(self) -> None:
        """Takes in the end of the file."""
        self._take(self._tokenizer.close())

    def data(self) -> bytes:
        """The data set as a JSON object, in UTF-8; to be asked for once."""
        return self._output.finish()

    def _take(self, stream: Iterator[Event]) -> None:
        for event in stream:
            if self._passing_over:
                self._pass_over(event)
            elif isinstance(event, Run):
                self._take_run(event)
            elif event[0] != tokens.CHUNK:
                self._take_token(event, self._scopes[-1])

    def _pass_over(self, event: Event) -> None:
        if not isinstance(event, Run):
            self._passing_over += (event[0] == tokens.SEQUENCE) - (event[0] == tokens.SEQUENCE_END)

    def _take_run(self, run: Run) -> None:
        scope, written_tags, texts = self._scopes[-1], [], []
        buffer, base, last = run.buffer, run.base, self._output.last_tag
        for tag, vr, _, start, stop in run.elements:
            if tag not in _TELLING:
                if not tag & 0xFFFF or (tag <= last and self._output.holds(tag)):
                    continue
                if start == stop and vr in _EMPTY:
                    text = _EMPTY[vr]
                elif vr in _STRING_VRS or vr in _NUMBER_STRING_VRS:
                    text = _text_attribute(vr, text_of(buffer[start:stop], vr, scope.charsets).text)
                else:
                    text = self._element(scope, tag, vr, buffer[start:stop], base + start)
            else:
                text = self._element(scope, tag, vr, buffer[start:stop], base + start)
                scope = self._scopes[-1] = _told(scope, tag, buffer[start:stop])
            written_tags.append(tag)
            texts.append(text)
        self._output.add_all(written_tags, texts)

    def _take_token(self, token: Token, scope: _Scope) -> None:
        kind, tag, vr, header, _, offset = token
        if kind == tokens.ITEM_BEGIN:
            sequence = self._sequences[-1]
            self._scopes.append(scope if scope.little is sequence.little else replace(scope, little=sequence.little))
            self._output.begin_item(sequence.item_count)
            sequence.item_count += 1
        elif kind == tokens.ITEM_END:
            self._scopes.pop()
            self._output.end_item()
        elif kind == tokens.SEQUENCE:
            if tag & 0xFFFF and self._output.begin_sequence(tag):
                self._sequences.append(_Sequence(scope.little or vr == "UN"))
            else:
                self._passing_over = 1
        elif kind == tokens.SEQUENCE_END:
            self._output.end_sequence(self._sequences.pop().item_count)
        elif kind in {tokens.BULK, tokens.FRAGMENTS}:
            self._bulk = _known(vr), offset + len(header)
        elif kind == tokens.BULK_END:
            vr, start = self._bulk
            if tag & 0xFFFF:
                self._output.add(tag, _left_out(vr, start, offset - start))
        elif kind == tokens.DATA_SET:
            self._scopes[-1] = replace(scope, little=self._tokenizer.encoding.little_endian)

    def _element(self, scope: _Scope, tag: int, vr: str, value: bytes, offset: int) -> str:
        if tag == SPECIFIC_CHARACTER_SET:
            return '{"vr":"CS","Value":["ISO_IR 192"]}'
        little = scope.little
        if vr == "UN" and self._tokenizer.encoding.explicit:
            # Whoever wrote UN kept the value as implicit VR little endian (PS3.5 6.2.2).
            vr, little = _standard_vr(tag), True
        elif vr == "US" and not self._tokenizer.encoding.explicit and scope.is_signed and _may_be_signed(tag):
            vr = "SS"
        vr = _known(vr)
        if (vr in BULK_VRS and len(value) > INLINE_BYTES) or len(value) % SIZES.get(vr, 1):
            return _left_out(vr, offset, len(value))
        return _attribute(vr, value, scope.charsets, little=little)


def _told(scope: _Scope, tag: int, value: bytes) -> _Scope:
    """What the values that follow depend on, once this one of _TELLING has come."""
    if tag == SPECIFIC_CHARACTER_SET:
        return replace(scope, charsets=charsets_of(value))
    return replace(scope, is_signed=value[:2].strip(b"\0") == b"\x01")


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
        return _with_values(vr, _numbers(numbers(vr, value, little=little)))
    return _text_attribute(vr, text_of(value, vr, charsets).text)


def _text_attribute(vr: str, text: str) -> str:
    if not text:
        return f'{{"vr":"{vr}"}}'
    if vr in SINGLE_VALUED_VRS or (vr in _STRING_VRS and "\\" not in text):
        return f'{{"vr":"{vr}","Value":[{_string(text)}]}}'
    if vr in _NUMBER_STRING_VRS and _JSON_NUMBERS.fullmatch(text):
        return _with_values(vr, [part or "null" for part in text.split(_BACKSLASH)])
    write = _WRITERS.get(vr, _string)
    return _with_values(vr, [write(part) if part else "null" for part in text.split(_BACKSLASH)])


def _left_out(vr: str, offset: int, length: int) -> str:
    """An attribute whose value, at this offset and of this length, is not told."""
    return f'{{"vr":"{vr}","BulkDataURI":"?offset={offset}&length={length}"}}' if length else f'{{"vr":"{vr}"}}'


def _with_values(vr: str, values: list[str]) -> str:
    return f'{{"vr":"{vr}","Value":[{",".join(values)}]}}' if values else f'{{"vr":"{vr}"}}'


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


def _numbers(values: tuple[int | float, ...]) -> list[str]:
    if not values:
        return []
    if isinstance(values[0], float):
        are_plain = all(map(math.isfinite, values))
    else:
        are_plain = min(values) >= -_MAX_EXACT and max(values) <= _MAX_EXACT
    # Lists of thousands are written in one go.
    return [str(list(values))[1:-1].replace(" ", "")] if are_plain else list(map(_number, values))


def _number(number: float) -> str:
    if isinstance(number, int):
        return str(number) if abs(number) <= _MAX_EXACT else f'"{number}"'
    if math.isfinite(number):
        return repr(number)
    if math.isnan(number):
        return '"NaN"'
    return '"Infinity"' if number > 0 else '"-Infinity"'
