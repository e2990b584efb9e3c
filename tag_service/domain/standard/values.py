"""Values as text: what their VR allows (PS3.5 table 6.2-1), and the bytes they become.

A value that consists of several is one text with a backslash between them, as in a file (PS3.5 6.4). Nothing here ever
repeats a value: what is wrong is told by the rule that it breaks.
"""

import math
import re
import struct
from collections.abc import Callable
from datetime import date

from tag_service.domain.standard.charset import TEXT_VRS
from tag_service.domain.standard.vr import SINGLE_VALUED_VRS

# VRs that `check` and `encode` know: all but sequences and those that hold bulk or unknown bytes.
TEXTUAL_VRS = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}) | TEXT_VRS
NUMERIC_VRS = frozenset({"AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})
SETTABLE_VRS = TEXTUAL_VRS | NUMERIC_VRS

# The longest value in characters (PS3.5 table 6.2-1). PN has its limit for each component group.
_MAX_CHARACTERS = {
    "AE": 16,
    "CS": 16,
    "DS": 16,
    "DT": 26,
    "IS": 12,
    "LO": 64,
    "LT": 10240,
    "SH": 16,
    "ST": 1024,
    "UI": 64,
}
_MAX_NAME_GROUPS = 3
_MAX_NAME_COMPONENTS = 5
_MAX_NAME_GROUP_CHARACTERS = 64

# No control character, C1 included, and no half of a surrogate pair is text. ST, LT and UT take TAB, LF, FF and CR; ESC
# belongs to the encoding (PS3.5 6.1.3).
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_IN_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LONG_TEXT_VRS = frozenset({"LT", "ST", "UT"})

_FORMS = {
    "AE": (re.compile(r"[\x20-\x7e]*[\x21-\x7e][\x20-\x7e]*"), "is not an AE title: ASCII, not spaces alone"),
    "AS": (re.compile(r"[0-9]{3}[DWMY]"), "is not an age: three digits and D, W, M or Y"),
    "CS": (re.compile(r"[A-Z0-9 _]*"), "is not a code: upper case letters, digits, space and underscore"),
    "DA": (re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})"), "is not a date: YYYYMMDD"),
    "DS": (re.compile(r" *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *"), "is not a decimal number"),
    "DT": (
        re.compile(
            r"([0-9]{4})(?:([0-9]{2})(?:([0-9]{2})(?:([01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)"
            r"(?:\.[0-9]{1,6})?)?)?)?)?)?([+-][0-9]{4})?"
        ),
        "is not a date and time: YYYYMMDDHHMMSS.FFFFFF&ZZXX, right parts may be missing",
    ),
    "IS": (re.compile(r" *[+-]?[0-9]+ *"), "is not a whole number"),
    "TM": (
        re.compile(r"(?:[01][0-9]|2[0-3])(?:[0-5][0-9](?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?"),
        "is not a time: HHMMSS.FFFFFF, right parts may be missing",
    ),
    "UI": (re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*"), "is not a UID"),
    "UR": (re.compile(r"[A-Za-z0-9:/?#\[\]@!$&'()*+,;=%\-._~]+ *"), "is not a URI"),
    "AT": (re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?"), "is not a tag: (gggg,eeee)"),
}
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,20}")
_REAL_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_MAX_REAL_CHARACTERS = 64

# struct's code of the binary VRs; FL and FD hold reals, the others whole numbers.
_CODES = {"SS": "h", "US": "H", "SL": "i", "UL": "I", "SV": "q", "UV": "Q", "FL": "f", "FD": "d"}
_REAL_VRS = frozenset({"FD", "FL"})
_RANGES = {
    "IS": (-(2**31), 2**31 - 1),
    "SS": (-(2**15), 2**15 - 1),
    "US": (0, 2**16 - 1),
    "SL": (-(2**31), 2**31 - 1),
    "UL": (0, 2**32 - 1),
    "SV": (-(2**63), 2**63 - 1),
    "UV": (0, 2**64 - 1),
}

# PS3.6 6: "1", "2-4", "1-n", "2-2n".
_VM = re.compile(r"([0-9]+)(?:-(?:([0-9]+)|([0-9]*)n))?")


def split(vr: str, text: str) -> list[str]:
    """The single values of a text; none for an empty one."""
    if not text:
        return []
    return [text] if vr in SINGLE_VALUED_VRS else text.split("\\")


def check(vr: str, text: str, vm: str = "1-n") -> str:
    """What is wrong with a value, without its padding, for this VR and VM (as PS3.6 writes it); "" when nothing.

    An empty value is right for every VR: it empties the attribute. VRs that cannot be written as text are not checked.
    """
    if vr not in SETTABLE_VRS:
        return ""
    single_values = split(vr, text)
    if single_values and (problem := check_multiplicity(vm, len(single_values))):
        return problem
    for single in single_values:
        # One of several text values may be empty, a number cannot (PS3.5 6.4).
        if (single or vr in NUMERIC_VRS) and (problem := _check_single(vr, single)):
            return problem
    return ""


def check_multiplicity(vm: str, count: int) -> str:
    """What is wrong with the number of values of an attribute of this VM; "" when nothing."""
    match = _VM.fullmatch(vm)
    if match is None:
        return ""
    least, most, step = match.groups()
    if step is not None:
        right = count >= int(least) and count % int(step or 1) == 0
    else:
        right = int(least) <= count <= int(most or least)
    return "" if right else f"holds {count} values, where the VM is {vm}"


def _check_single(vr: str, single: str) -> str:
    control = _CONTROL_IN_TEXT if vr in _LONG_TEXT_VRS else _CONTROL
    if control.search(single):
        return "holds a control character"
    if len(single) > _MAX_CHARACTERS.get(vr, len(single)):
        return f"is longer than the {_MAX_CHARACTERS[vr]} characters of {vr}"
    return _check_form(vr, single)


def _check_form(vr: str, single: str) -> str:
    if vr == "PN":
        return _check_name(single)
    if vr in _CODES:
        return _check_number(vr, single)
    if vr not in _FORMS:
        return ""
    form, problem = _FORMS[vr]
    match = form.fullmatch(single)
    if match is None:
        return problem
    return "" if _is_in_range(vr, match) else _OUT_OF_RANGE[vr]


def _check_name(name: str) -> str:
    """PS3.5 6.2.1: at most 3 component groups of at most 64 characters and 5 components each."""
    groups = name.split("=")
    if len(groups) > _MAX_NAME_GROUPS:
        return "holds more than 3 component groups"
    if any(len(group) > _MAX_NAME_GROUP_CHARACTERS for group in groups):
        return "holds a component group of more than 64 characters"
    if any(group.count("^") >= _MAX_NAME_COMPONENTS for group in groups):
        return "holds a component group of more than 5 components"
    return ""


def _check_number(vr: str, single: str) -> str:
    if vr in _REAL_VRS:
        if len(single) > _MAX_REAL_CHARACTERS or not _REAL_NUMBER.fullmatch(single):
            return "is not a decimal number"
        try:
            struct.pack("<" + _CODES[vr], float(single))
        except OverflowError:
            return f"is out of the range of {vr}"
        return "" if math.isfinite(float(single)) else f"is out of the range of {vr}"
    if not _WHOLE_NUMBER.fullmatch(single):
        return "is not a whole number"
    least, most = _RANGES[vr]
    return "" if least <= int(single) <= most else f"is out of the range of {vr}"


_OUT_OF_RANGE = {
    "DA": "is not a date of the calendar",
    "DS": "is beyond what a 64-bit floating point number holds",
    "DT": "is not a date of the calendar, or its offset from UTC is none",
    "IS": "is beyond 32 bits",
}


def _is_in_range(vr: str, match: re.Match[str]) -> bool:
    if vr == "DA":
        return _is_date(*match.groups())
    if vr == "DT":
        year, month, day, _, offset = match.groups()
        return _is_date(year, month or "01", day or "01") and _is_offset(offset)
    if vr == "DS":
        return math.isfinite(float(match[0]))
    if vr == "IS":
        least, most = _RANGES[vr]
        return least <= int(match[0]) <= most
    return True


def _is_date(year: str, month: str, day: str) -> bool:
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return False
    return True


def _is_offset(offset: str | None) -> bool:
    """&ZZXX of DT: -1200 to +1400, and no -0000."""
    if offset is None:
        return True
    hours_and_minutes = int(offset[1:])
    most = 1200 if offset[0] == "-" else 1400
    return hours_and_minutes <= most and hours_and_minutes % 100 < 60 and offset != "-0000"


def encode(vr: str, text: str, *, little_endian: bool, encode_text: Callable[[str], bytes]) -> bytes:
    """The bytes of a value that `check` has passed, padded to even length.

    `encode_text` is asked for the VRs that depend on the character set; what it raises goes through.
    """
    if vr == "AT":
        return _encode_tags(text, little_endian=little_endian)
    if vr in _CODES:
        number = float if vr in _REAL_VRS else int
        numbers = [number(single) for single in split(vr, text)]
        return struct.pack(f"{'<' if little_endian else '>'}{len(numbers)}{_CODES[vr]}", *numbers)
    return pad(vr, encode_text(text) if vr in TEXT_VRS else text.encode("ascii"))


def _encode_tags(text: str, *, little_endian: bool) -> bytes:
    form = _FORMS["AT"][0]
    numbers = [int(half, 16) for single in split("AT", text) for half in form.sub(r"\1 \2", single).split()]
    return struct.pack(f"{'<' if little_endian else '>'}{len(numbers)}H", *numbers)


def pad(vr: str, value: bytes) -> bytes:
    """The value with an even length (PS3.5 6.2): UI is padded with NUL, all other text with a space."""
    if len(value) % 2 == 0:
        return value
    return value + (b"\0" if vr == "UI" else b" ")
