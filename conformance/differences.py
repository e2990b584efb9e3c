"""What can differ, and which of it the rules explain."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """A kind of difference: the rule that explains it ("" for none: a defect of the engine, or of the comparer), and
    what it is. The rules are those that the engine is built to; docs/conformance.md says what each means.
    """

    # Of reading.
    TRUNCATED = ("R9", "cut off in the middle, which pydicom does not notice")
    BROKEN = ("M11", "a structure that is broken, which pydicom passes over")
    LIMITED = ("R8", "goes past a limit on structure")
    ORACLE_FAILED = ("R5", "read, where pydicom fails")
    ORACLE_VALUE = ("values", "a value that pydicom cannot convert")
    DUPLICATES = ("M1", "an element that stands twice: all are kept and the first one counts, pydicom keeps the last")
    HIDDEN_SEQUENCE = ("R6", "items inside a UN, which pydicom keeps as bytes")
    OTHER_VR = ("R6", "implicit VR inside explicit VR, or a VR that pydicom guesses")
    DELIMITER_IN_FRAGMENT = ("M2", "fragments that hold the bytes of a delimiter, where pydicom stops")
    CHARSET = ("R7", "text in a character set that pydicom mends in another way, or not at all")
    DIRECTORY = ("M4", "a DICOMDIR, which cannot be edited: it points into itself by offsets")
    NO_EDIT = ("M5", "an edit that the file's own text stands in the way of")
    NOT_OPENED = ("R5", "dcmdump opens neither the file as it came nor as it was edited")

    # Nothing explains these.
    REFUSED = ("", "refused, where there is nothing wrong with it")
    ACCEPTED = ("", "read, where it is broken")
    DEFECT = ("", "an exception that is no error of the service")
    TIMEOUT = ("", "not done in time")
    CRASH = ("", "the process died")
    COMPARER = ("", "the comparison itself failed")
    CHUNKING = ("", "read in other pieces it is something else (R1)")
    STRUCTURE = ("", "elements, items or delimiters other than those of the file (R5, R6)")
    ELEMENTS = ("", "elements other than pydicom's")
    ORDER = ("", "elements in another order than pydicom's")
    VR = ("", "a VR other than pydicom's")
    VALUE = ("", "a value other than pydicom's")
    TAG = ("", "one of the 20 attributes is not what pydicom says")
    JSON = ("", "the JSON model does not say what the file says")
    META = ("", "file meta information that should have stayed, or is wrong (M4)")
    PREAMBLE = ("", "a preamble that is not zeros (M4)")
    NOT_IDENTICAL = ("", "bytes changed that no edit and no rule touches (M1, M2, M13)")
    NOT_EDITED = ("", "the edited value is not there")
    NOT_READABLE = ("", "the edited file cannot be opened")

    @property
    def rule(self) -> str:
        """The rule that explains it, "" where none does."""
        return self.value[0]

    @property
    def text(self) -> str:
        """What it is."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. `where` is a tag, or what it was noticed in: never a value."""

    kind: Kind
    where: str = ""
