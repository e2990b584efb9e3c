"""What is odd or wrong about a file, said without its values."""

from dataclasses import dataclass
from enum import StrEnum

from service_runtime.errors import Reason, ServiceError

MAX_PROBLEMS = 100


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


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. `tag` is where: (gggg,eeee), after the path into sequences; "" where none applies."""

    code: ProblemCode | Reason
    message: str
    tag: str = ""
    severity: Severity = Severity.WARNING


def problem_of(error: ServiceError) -> Problem:
    """The error that ended the reading of a file, as a problem."""
    return Problem(error.reason, error.message, error.metadata.get("tag", ""), Severity.ERROR)
