"""What can be wrong with an element by itself: its VR, its VM, its value, and the private block it lies in."""

from functools import lru_cache
from typing import Final

from tag_service.domain.reading.dicom_tags import undecodable
from tag_service.domain.standard import values
from tag_service.domain.standard.charset import SPECIFIC_CHARACTER_SET, TEXT_VRS, Charsets, charsets_of, is_known
from tag_service.domain.standard.dictionary import entry_of, is_private, is_private_creator
from tag_service.domain.standard.numbers import SIZES
from tag_service.domain.standard.problems import Finding, ProblemCode
from tag_service.domain.standard.text import text_of

_ODD_LENGTH: Final = Finding(ProblemCode.INVALID_VALUE, "The value has an odd length.", "PS3.5 7.1.1")
_WRONG_VR: Final = Finding(ProblemCode.WRONG_VR, "The VR is not the one that the dictionary has for the tag.")
_UNKNOWN_TAG: Final = Finding(ProblemCode.UNKNOWN_TAG, "The tag is not private, and the dictionary does not know it.")
_UNKNOWN_CHARSET: Final = Finding(
    ProblemCode.INVALID_VALUE, "A character set is declared that the standard does not know.", "PS3.3 C.12.1.1.2"
)
_NO_CREATOR: Final = Finding(ProblemCode.CREATOR_MISSING, "The private element lies in a block without a creator.")
_NO_BLOCK: Final = Finding(
    ProblemCode.CREATOR_MISSING, "The private element lies where no creator can reserve a block."
)
# Where the form of values is laid down, but for most VRs.
_FORMS: Final = {"PN": "PS3.5 6.2.1", "UI": "PS3.5 9.1"}
_FIRST_IN_BLOCK: Final = 0x1000


@lru_cache(maxsize=4096)
def look_up(tag: int, vr: str) -> tuple[Finding | None, str]:
    """What is wrong with the VR of an element, and what its VM is: "1-n" where no dictionary says.

    UN is never wrong (PS3.5 6.2.2), and of private elements only their makers know.
    """
    if is_private(tag):
        return None, "1-n"
    if not tag & 0xFFFF:
        return (None if vr in {"UL", "UN"} else _WRONG_VR), "1"
    entry = entry_of(tag)
    if entry is None:
        return _UNKNOWN_TAG, "1-n"
    return (None if vr == "UN" or vr in entry[0].split(" or ") else _WRONG_VR), entry[1]


def check_length(length: int) -> list[Finding]:
    """What is wrong with the length of a value that is not looked at."""
    return [_ODD_LENGTH] if length % 2 else []


def check_vr(tag: int, vr: str) -> list[Finding]:
    """What is wrong with an element of this tag having this VR."""
    finding, _ = look_up(tag, vr)
    return [finding] if finding else []


def check_element(tag: int, vr: str, value: bytes, charsets: Charsets) -> list[Finding]:
    """What is wrong with an element, whose value is in this character set."""
    wrong_vr, vm = look_up(tag, vr)
    findings = [wrong_vr] if wrong_vr else []
    length = len(value)
    if length % 2:
        findings.append(_ODD_LENGTH)
    if vr in values.TEXTUAL_VRS:
        if tag == SPECIFIC_CHARACTER_SET and not is_known(charsets_of(value)):
            findings.append(_UNKNOWN_CHARSET)
        if length:
            findings += _check_text(vr, vm, value, charsets)
    elif length and (size := SIZES.get(vr)):
        if length % size:
            message = f"The length of the value is impossible for VR {vr}."
            findings.append(Finding(ProblemCode.INVALID_VALUE, message))
        elif problem := values.check_multiplicity(vm, length // size):
            findings.append(_wrong_multiplicity(problem))
    return findings


def _check_text(vr: str, vm: str, value: bytes, charsets: Charsets) -> list[Finding]:
    text, is_exact = text_of(value, vr, charsets)
    if not is_exact:
        rule = "" if vr in TEXT_VRS else "PS3.5 6.2"
        return [Finding(ProblemCode.UNDECLARED_CHARSET, undecodable(vr), rule)]
    if problem := values.check(vr, text):
        return [Finding(ProblemCode.INVALID_VALUE, f"The value {problem}.", _FORMS.get(vr, ""))]
    if text and (problem := values.check_multiplicity(vm, len(values.split(vr, text)))):
        return [_wrong_multiplicity(problem)]
    return []


def _wrong_multiplicity(problem: str) -> Finding:
    return Finding(ProblemCode.INVALID_VALUE, f"The element {problem}.", "PS3.6 6")


class PrivateBlocks:
    """The blocks of one data set or item that private creators have reserved (PS3.5 7.8.1).

    As the elements of a group stand together, only the blocks of the last one are kept. `last` is group and block of
    the last element, group << 8 | block: nothing is to be said of another one in the same.
    """

    __slots__ = ("_blocks", "_group", "last")

    def __init__(self) -> None:
        self.last = 0
        self._group = 0
        self._blocks: set[int] = set()

    def check(self, tag: int, vr: str) -> list[Finding]:
        """What is wrong with a private element of this VR standing next; what lacks a creator is told once a block."""
        if tag >> 16 != self._group:
            self._group, self._blocks = tag >> 16, set()
        element = tag & 0xFFFF
        if is_private_creator(tag):
            self._blocks.add(element)
            return [] if vr in {"LO", "UN"} else [_WRONG_VR]
        block = element >> 8 if element >= _FIRST_IN_BLOCK else 0
        if block:
            self.last = tag >> 8
        if not element or block in self._blocks:
            return []
        self._blocks.add(block)
        return [_NO_CREATOR if block else _NO_BLOCK]
