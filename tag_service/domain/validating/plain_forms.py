"""What single values look like that are right beyond doubt, by VR: patterns that bytes can be held against in place.

A value that does not match may be right as well. One that does is padded as it should be, in ASCII, of the right form
and length, and no more than one; only whether its length is even is not said.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from tag_service.domain.standard import values
from tag_service.domain.validating.element_rules import look_up

# Like re.Pattern.fullmatch: the buffer, the start and the end of the value.
Form = Callable[[bytes, int, int], re.Match[bytes] | None]

_COMPONENT: Final = rb"[ -<>-\[\]_-~]*"
_FORMS: Final[dict[str, Form]] = {
    vr: re.compile(pattern, re.DOTALL).fullmatch
    for vr, pattern in {
        "AE": rb"(?:[!-\[\]-~][ -\[\]-~]{0,15})?",
        "AS": rb"(?:[0-9]{3}[DWMY])?",
        "AT": rb"(?:.{4})?",
        "CS": rb"[A-Z0-9 _]{0,16}",
        "DA": rb"(?:(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|1[0-9]|2[0-8]))?",
        "DS": rb"(?:[+-]?[0-9]{1,7}(?:\.[0-9]{1,6})? ?)?",
        "FD": rb"(?:.{8})?",
        "FL": rb"(?:.{4})?",
        "IS": rb"(?:[+-]?[0-9]{1,9} ?)?",
        "LO": rb"[ -\[\]-~]{0,64}",
        "LT": rb"[\t\n\f\r -~]{0,10240}",
        "PN": rb"(?=.{0,64}\Z)" + _COMPONENT + rb"(?:\^" + _COMPONENT + rb"){0,4}",
        "SH": rb"[ -\[\]-~]{0,16}",
        "SL": rb"(?:.{4})?",
        "SS": rb"(?:.{2})?",
        "ST": rb"[\t\n\f\r -~]{0,1024}",
        "SV": rb"(?:.{8})?",
        "TM": rb"(?:(?:[01][0-9]|2[0-3])[0-5][0-9][0-5][0-9](?:\.[0-9]{1,6} ?)?)?",
        "UC": rb"[ -\[\]-~]*",
        "UI": rb"(?:(?=.{1,64}\Z)(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*\0?)?",
        "UL": rb"(?:.{4})?",
        "US": rb"(?:.{2})?",
        "UT": rb"[\t\n\f\r -~]*",
        "UV": rb"(?:.{8})?",
    }.items()
}


def private_form(vr: str) -> Form | None:
    """The form of a private attribute, None for a VR that has none here."""
    return _FORMS.get(vr)


@lru_cache(maxsize=4096)
def standard_form(tag: int, vr: str) -> Form | None:
    """The form of a standard attribute; None where there is none, or it is not right whatever its value."""
    finding, vm = look_up(tag, vr)
    return _FORMS.get(vr) if finding is None and not values.check_multiplicity(vm, 1) else None
