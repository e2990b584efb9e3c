"""What a key makes of the identifiers of a file: the same for the same key, and beyond guessing without it."""

import base64
import hmac
import re
from datetime import date, timedelta
from typing import Final

from tag_service.domain.standard.dictionary import name_of_uid

# Each use has a label of its own, so that no value under one says anything about another.
_UID: Final = b"uid\0"
_PATIENT: Final = b"patient\0"
_DAYS: Final = b"days\0"

# Ten years: beyond recognising a visit by its date, and well within what dates can say.
_MAX_SHIFT_DAYS: Final = 3652
# 80 bits, as 16 letters and digits.
_PATIENT_BYTES: Final = 10
_PATIENT_PREFIX: Final = "DEID-"
# What may follow the date in a DT (PS3.5 6.2), and stays.
_TIME_OF_DT: Final = re.compile(r"(?:[0-9]{2}){0,3}(?:\.[0-9]{1,6})?(?:[+-][0-9]{4})?")


class Pseudonyms:
    """New names for old ones under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def uid(self, uid: str) -> str:
        """The UID in place of this one: a UUID of version 8 (RFC 9562) below 2.25 (PS3.5 B.2).

        One that PS3.6 registers, such as a well-known frame of reference, names no instance and stays; "" stays "".
        """
        if not uid or name_of_uid(uid):
            return uid
        number = int.from_bytes(self._digest(_UID, uid)[:16], "big")
        number = number & ~(0xF << 76) | 8 << 76
        number = number & ~(0x3 << 62) | 2 << 62
        return f"2.25.{number}"

    def patient(self, patient_id: str) -> str:
        """The identifier in place of this patient's, valid as LO, SH... and as a name; "" stays ""."""
        if not patient_id:
            return ""
        digest = self._digest(_PATIENT, patient_id)[:_PATIENT_BYTES]
        return _PATIENT_PREFIX + base64.b32encode(digest).decode("ascii")

    def days(self, patient_id: str) -> int:
        """How many days this patient's dates are shifted: into the past, so that none comes to lie in the future."""
        return -1 - int.from_bytes(self._digest(_DAYS, patient_id)[:8], "big") % _MAX_SHIFT_DAYS

    def _digest(self, label: bytes, text: str) -> bytes:
        # Whatever the text is, lone halves of surrogate pairs included, it has bytes of its own.
        return hmac.digest(self._key, label + text.encode("utf-8", "surrogatepass"), "sha256")


def shifted(vr: str, text: str, days: int) -> str:
    """A DA or DT value so many days later, at the precision that it has; "" for what is no date, or leaves the
    calendar. ACR-NEMA's YYYY.MM.DD becomes YYYYMMDD.
    """
    return "\\".join(_shifted(vr, single, days) for single in text.split("\\"))


def _shifted(vr: str, text: str, days: int) -> str:
    if vr == "DA":
        text = text.replace(".", "")
        digits, rest = text, ""
        if len(digits) != 8:
            return ""
    else:
        end = next((index for index, char in enumerate(text) if not "0" <= char <= "9"), len(text))
        digits, rest = text[: min(end, 8)], text[min(end, 8) :]
        if not _TIME_OF_DT.fullmatch(rest):
            return ""
    try:
        year, month, day = int(digits[:4]), int(digits[4:6] or 1), int(digits[6:8] or 1)
        later = date(year, month, day) + timedelta(days)
    except (ValueError, OverflowError):
        return ""
    return f"{later:%Y%m%d}".rjust(8, "0")[: len(digits)] + rest
