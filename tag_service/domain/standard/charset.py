"""Specific Character Set (0008,0005): text values to text and back (PS3.5 6.1, PS3.3 C.12.1.1.2).

The tables of codecs and escape sequences are pydicom's; decoding and encoding are strict here, and what is not exact
says so. A character set is a tuple of defined terms; `charsets_of` makes it out of the attribute's value. A value that
names none is DEFAULT. An item without the attribute is in its parent's character set.
"""

import re
from functools import lru_cache
from itertools import groupby
from typing import Final, NamedTuple

from pydicom.charset import CODES_TO_ENCODINGS, STAND_ALONE_ENCODINGS, python_encoding

SPECIFIC_CHARACTER_SET: Final = 0x00080005

Charsets = tuple[str, ...]

DEFAULT: Final[Charsets] = ("",)
UTF_8: Final[Charsets] = ("ISO_IR 192",)
# The VRs whose text is in the specific character set; all other text is ISO 646 (PS3.5 6.1.2.2).
TEXT_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})

_ESC: Final = b"\x1b"
_ESCAPE: Final = re.compile(rb"\x1b(?:\$[()]?|[()-])[@-Z]")
# What takes a value with code extensions back to its first character set (PS3.5 6.1.2.5.3).
_RESETS: Final = {"PN": re.compile(r"([\r\n\f\t\\^=])")}
_RESETS_IN_TEXT: Final = re.compile(r"([\r\n\f\t\\])")
# G0 sets of two bytes a character; Python's codecs need their escape sequence to decode them.
_TWO_BYTES: Final = {"iso2022_jp": b"\x1b$B", "iso2022_jp_2": b"\x1b$(D"}
_CODE_OF: Final = {codec: escape for escape, codec in CODES_TO_ENCODINGS.items()} | {"shift_jis": b"\x1b)I"}
_ASCII_CODECS: Final = frozenset({python_encoding[""], "ascii"})
_MISSPELT: Final = (
    (re.compile(r"ISO[-_ .]?2022[-_ .]?IR[-_ .]?(\d+)"), "ISO 2022 IR {}"),
    (re.compile(r"ISO[-_ .]?IR[-_ .]?(\d+)"), "ISO_IR {}"),
    (re.compile(r"(?:ISO[-_ .]?)?8859[-_ .](1|2|3|4)"), "ISO_IR {}"),
    (re.compile(r"(?:UTF|utf)[-_ ]?8"), "ISO_IR 192"),
)
_LATIN: Final = {"ISO_IR 1": "ISO_IR 100", "ISO_IR 2": "ISO_IR 101", "ISO_IR 3": "ISO_IR 109", "ISO_IR 4": "ISO_IR 110"}


class CharsetError(ValueError):
    """Text that its character set cannot hold, or bytes that are no text in theirs. Carries no value."""


class Decoded(NamedTuple):
    """Text, and whether it is exactly what the bytes say.

    It is not when they hold more than ASCII and no character set is declared, or are wrong in the declared one; the
    text is then the best guess.
    """

    text: str
    exact: bool = True


@lru_cache(maxsize=256)
def charsets_of(value: bytes) -> Charsets:
    """The defined terms in a value of (0008,0005), with the usual misspellings mended.

    A term that nobody knows stays as it is: `is_known` tells, and no text decodes exactly in it.
    """
    terms = tuple(_mended(term.strip(" \0")) for term in value[:1024].decode("latin-1").split("\\"))
    if terms[0] in STAND_ALONE_ENCODINGS:
        return terms[:1]
    return (terms[0], *(term for term in terms[1:] if term and term not in STAND_ALONE_ENCODINGS))


def is_known(charsets: Charsets) -> bool:
    """Whether every term is a defined term."""
    return all(term in python_encoding for term in charsets)


def decode(value: bytes, charsets: Charsets, vr: str) -> Decoded:
    """The text of a whole value, its padding and its backslashes included. Never raises."""
    if value.isascii() and _ESC not in value:
        # The same in every character set, and most values are so.
        return Decoded(value.decode("ascii"))
    try:
        return Decoded(decode_strict(value, charsets, vr))
    except CharsetError:
        return Decoded(_best_effort(value, charsets, vr), exact=False)


def decode_strict(value: bytes, charsets: Charsets, vr: str) -> str:
    """The text of a whole value. Raises CharsetError where `decode` would say that it is not exact."""
    try:
        codec = _first_codec(charsets)
        if _ESC not in value or charsets[0] in STAND_ALONE_ENCODINGS:
            return value.decode(codec)
        return _decode_extended(value, charsets, vr, errors="strict")
    except UnicodeError:
        raise CharsetError("the bytes are no text in the character set") from None


def encode(text: str, charsets: Charsets, vr: str) -> bytes:
    """The bytes of a whole value, without padding. Raises CharsetError where the character set cannot hold it."""
    if text.isascii():
        return text.encode("ascii")
    try:
        codec = _first_codec(charsets)
        if charsets[0] in STAND_ALONE_ENCODINGS:
            encoded = text.encode(codec)
        else:
            parts = _resets(vr).split(text)
            encoded = b"".join(_encode_extended(part, charsets) for part in parts)
        # Codecs hold more than the sets they stand for, and some escapes depend on what came before.
        if decode_strict(encoded, charsets, vr) == text:
            return encoded
    except UnicodeError:
        pass
    raise CharsetError("the character set cannot hold the text")


def _mended(term: str) -> str:
    if term in python_encoding:
        return term
    upper = term.upper()
    for pattern, form in _MISSPELT:
        found = pattern.fullmatch(upper)
        if found:
            mended = form.format(*found.groups())
            return _LATIN.get(mended, mended)
    return upper if upper in python_encoding else term


def _codec(term: str) -> str:
    """The codec of a term. For unknown terms, and for the default repertoire, it is strict ASCII."""
    codec = python_encoding.get(term, "ascii")
    return "ascii" if codec in _ASCII_CODECS else codec


def _first_codec(charsets: Charsets) -> str:
    """The codec in force before any escape sequence; the two-byte Japanese sets never are."""
    codec = _codec(charsets[0])
    return "ascii" if codec in _TWO_BYTES else codec


def _resets(vr: str) -> re.Pattern[str]:
    return _RESETS.get(vr, _RESETS_IN_TEXT)


def _decode_extended(value: bytes, charsets: Charsets, vr: str, *, errors: str) -> str:
    """Text with code extensions (ISO 2022): escape sequences switch G0 (bytes below 0x80) or G1 (the others)."""
    if len(charsets) == 1 and errors == "strict":
        raise UnicodeError
    first = _first_codec(charsets)
    resets = re.compile(_resets(vr).pattern.encode("ascii"))
    text: list[str] = []
    g0, g1 = "", first
    position = 0
    for escape in (*_ESCAPE.finditer(value), None):
        run = value[position : escape.start() if escape else len(value)]
        if g0:
            text.append((_TWO_BYTES[g0] + run).decode(g0, errors))
        else:
            head, *tail = resets.split(run)
            text.append(head.decode(g1, errors))
            if tail:
                g1 = first
                text.append(b"".join(tail).decode(g1, errors))
        if escape:
            position = escape.end()
            g0, g1 = _designated(escape.group(), g0, g1)
    return "".join(text)


def _designated(escape: bytes, g0: str, g1: str) -> tuple[str, str]:
    """The codecs of G0 ("" for one byte a character) and G1 after an escape sequence."""
    codec = CODES_TO_ENCODINGS.get(escape)
    if codec is None:
        raise UnicodeError
    if codec in _TWO_BYTES:
        return codec, g1
    if escape[1:2] == b"(":
        return "", g1
    return g0, codec


def _encode_extended(part: str, charsets: Charsets) -> bytes:
    """A part of a value that no reset divides: in the first set as far as it goes, then by escape sequences."""
    first = _first_codec(charsets)
    if _holds(first, part):
        return part.encode(first)
    codecs = [codec for codec in map(_codec, charsets[1:]) if codec in _CODE_OF]
    encoded = bytearray()
    g1 = first

    def codec_of(char: str) -> str:
        if char.isascii():
            return "ascii"
        return next((codec for codec in (first, *codecs) if _holds(codec, char)), "")

    for codec, chars in groupby(part, codec_of):
        run = "".join(chars)
        if codec in _TWO_BYTES:
            tail = b"\x1b(J" if first == "shift_jis" else b"\x1b(B"
            encoded += run.encode(codec).removesuffix(b"\x1b(B") + tail
        elif codec == "ascii":
            encoded += run.encode(codec)
        elif codec:
            encoded += (_CODE_OF[codec] if codec != g1 else b"") + run.encode(codec)
            g1 = codec
        else:
            raise UnicodeError
    return bytes(encoded)


def _holds(codec: str, text: str) -> bool:
    try:
        encoded = text.encode(codec)
    except UnicodeError:
        return False
    if codec == "shift_jis":
        # JIS X 0201 is its single-byte part.
        return len(encoded) == len(text)
    return codec not in _TWO_BYTES or encoded.startswith(_TWO_BYTES[codec])


def _best_effort(value: bytes, charsets: Charsets, vr: str) -> str:
    codec = _first_codec(charsets)
    if _ESC in value:
        try:
            return _decode_extended(value, charsets, vr, errors="replace")
        except UnicodeError:
            return value.decode("latin-1")
    if codec != "ascii":
        return value.decode(codec, "replace")
    # Nothing is declared: UTF-8 hardly ever decodes by chance, Latin-1 always does.
    try:
        return value.decode("utf-8")
    except UnicodeError:
        return value.decode("latin-1")
