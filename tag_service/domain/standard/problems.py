"""What is odd or wrong about a file, said without its values."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from service_runtime.errors import Reason, ServiceError

MAX_PROBLEMS: Final = 100


class Severity(StrEnum):
    """`ERROR`: the file cannot be used. `WARNING`: it can, but it breaks the standard."""

    ERROR = "error"
    WARNING = "warning"


class ProblemCode(StrEnum):
    """The problems that are no error; those that are have the code of their Reason."""

    DUPLICATE_TAG = "DUPLICATE_TAG"
    OUT_OF_ORDER = "OUT_OF_ORDER"
    INVALID_VALUE = "INVALID_VALUE"
    UNDECLARED_CHARSET = "UNDECLARED_CHARSET"
    META_MISSING = "META_MISSING"
    PREAMBLE_MISSING = "PREAMBLE_MISSING"
    TRAILING_BYTES = "TRAILING_BYTES"
    META_MISMATCH = "META_MISMATCH"
    WRONG_VR = "WRONG_VR"
    UNKNOWN_TAG = "UNKNOWN_TAG"
    UNKNOWN_UID = "UNKNOWN_UID"
    CREATOR_MISSING = "CREATOR_MISSING"
    ATTRIBUTE_MISSING = "ATTRIBUTE_MISSING"
    INVALID_DELIMITER = "INVALID_DELIMITER"
    PIXEL_DATA_MISMATCH = "PIXEL_DATA_MISMATCH"


# What a problem breaks, where its code says that already: the paragraph of the standard.
RULES: Final[dict[ProblemCode | Reason, str]] = {
    ProblemCode.DUPLICATE_TAG: "PS3.5 7.1",
    ProblemCode.OUT_OF_ORDER: "PS3.5 7.1",
    ProblemCode.INVALID_VALUE: "PS3.5 6.2",
    ProblemCode.UNDECLARED_CHARSET: "PS3.3 C.12.1.1.2",
    ProblemCode.META_MISSING: "PS3.10 7.1",
    ProblemCode.PREAMBLE_MISSING: "PS3.10 7.1",
    ProblemCode.TRAILING_BYTES: "PS3.10 7.2",
    ProblemCode.META_MISMATCH: "PS3.10 7.1",
    ProblemCode.WRONG_VR: "PS3.6 6",
    ProblemCode.UNKNOWN_TAG: "PS3.6 6",
    ProblemCode.UNKNOWN_UID: "PS3.6 A",
    ProblemCode.CREATOR_MISSING: "PS3.5 7.8.1",
    ProblemCode.ATTRIBUTE_MISSING: "PS3.3 C.12.1",
    ProblemCode.INVALID_DELIMITER: "PS3.5 7.5.2",
    ProblemCode.PIXEL_DATA_MISMATCH: "PS3.3 C.7.6.3",
    Reason.EMPTY_FILE: "PS3.10 7.1",
    Reason.NOT_DICOM: "PS3.10 7.1",
    Reason.TRUNCATED_FILE: "PS3.5 7.1.1",
    Reason.MALFORMED_DICOM: "PS3.5 7.5",
}


class Finding(NamedTuple):
    """What a check finds wrong; a problem once it is known where. `rule` "" is that of the code."""

    code: ProblemCode
    message: str
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. `tag` is where: (gggg,eeee), after the path into sequences; "" where none applies. `rule` is what is
    broken: a paragraph of the standard, or a limit of R8.
    """

    code: ProblemCode | Reason
    message: str
    tag: str = ""
    severity: Severity = Severity.WARNING
    rule: str = ""


def problem_of(error: ServiceError) -> Problem:
    """The error that ended the reading of a file, as a problem."""
    details = error.metadata
    if error.reason is Reason.STRUCTURE_LIMIT:
        rule = f"R8: {details['limit']}"
    else:
        rule = details.get("rule") or RULES[error.reason]
    return Problem(error.reason, error.message, details.get("tag", ""), Severity.ERROR, rule)
