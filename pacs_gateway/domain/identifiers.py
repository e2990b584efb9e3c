"""Which texts can serve as identifiers: ones that mean exactly themselves, to the database and to Orthanc."""

import hashlib
import re

# DICOM allows a leading zero of a component nowhere (PS3.5 9.1), real files have them; length and characters must hold.
_UID = re.compile(r"[0-9][0-9.]{0,63}", re.ASCII)
_MAX_LENGTH = 64  # LO (PS3.5 6.2)


def is_uid(value: str) -> bool:
    """Whether it has the form of a UID."""
    return _UID.fullmatch(value) is not None


def is_exact(value: str, *, max_length: int = _MAX_LENGTH) -> bool:
    r"""Whether it is an identifier that matches only itself: not empty, no wildcard (* ?), no \, printable, not padded.

    In a query to Orthanc, an empty value and a wildcard match everything, and a backslash separates values (PS3.4
    C.2.2.2).
    """
    return (
        0 < len(value) <= max_length
        and value == value.strip()
        and value.isprintable()
        and not any(char in "*?\\" for char in value)
    )


def orthanc_id(*identifiers: str) -> str:
    """Orthanc's id of what has these identifiers, as Orthanc reads them (Orthanc Book, "Orthanc identifiers"): of an
    instance, those of its patient (PatientID), study, series and itself.
    """
    digest = hashlib.sha1("|".join(identifiers).encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, len(digest), 8))
