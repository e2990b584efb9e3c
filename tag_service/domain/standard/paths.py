"""How an attribute is named to be edited or read: the PATHs of ris.tags.v1, in text and parsed.

PatientID                                               a keyword of PS3.6
(0010,0020)                                             a tag
(0029,"SIEMENS CSA HEADER",10)                          a private attribute by its creator (PS3.5 7.8.1)
ReferencedStudySequence[0].ReferencedSOPInstanceUID     an attribute of an item, items counted from 0
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from pydicom.datadict import get_private_entry

from tag_service.domain.standard import dictionary, values

# A path is no longer than this, and so never deeper than the default limit on nesting.
_MAX_PATH_CHARACTERS = 1024

_ATTRIBUTE = re.compile(
    r"(?P<keyword>[A-Za-z][A-Za-z0-9]*)"
    r"|\((?P<group>[0-9A-Fa-f]{4}), ?"
    r'(?:(?P<element>[0-9A-Fa-f]{4})|"(?P<creator>[^"\\]+)", ?(?P<private>[0-9A-Fa-f]{2}))\)'
)
_ITEM = re.compile(r"\[([0-9]{1,9})\]")
# The part before the first "=" outside quotation marks: a creator may hold one.
_ASSIGNMENT = re.compile(r'((?:[^="]|"[^"]*")*)=(.*)', re.DOTALL)

_SPECIFIC_CHARACTER_SET = 0x00080005


class PathError(Exception):
    """A text that is no path, or a path that is refused; the message is a violation's description."""


@dataclass(frozen=True, slots=True)
class PrivateAttribute:
    """A private attribute whatever block its creator has reserved: `element` is the last byte of its tag."""

    group: int
    creator: str
    element: int


Attribute = int | PrivateAttribute  # an int is a tag, group << 16 | element


@dataclass(frozen=True, slots=True)
class Step:
    """Into the item of this number of a sequence."""

    sequence: Attribute
    item: int


@dataclass(frozen=True, slots=True)
class Path:
    """An attribute of the data set, or of an item that `steps` lead to."""

    steps: tuple[Step, ...]
    attribute: Attribute

    @property
    def is_private(self) -> bool:
        """Whether the attribute or a sequence on the way to it is private."""
        return any(isinstance(part, PrivateAttribute) for part in (*self.sequences(), self.attribute))

    def sequences(self) -> tuple[Attribute, ...]:
        """The sequences on the way."""
        return tuple(step.sequence for step in self.steps)


def split_assignment(text: str) -> tuple[str, str]:
    """PATH and VALUE of "PATH=VALUE". Raises PathError."""
    match = _ASSIGNMENT.fullmatch(text)
    if match is None:
        raise PathError("is not of the form PATH=VALUE")
    return match[1], match[2]


def uneditable(tag: int) -> str:
    """Why no edit may name a tag; "" where it may."""
    group = tag >> 16
    if group % 2:
        return 'names a private tag without its creator: write (gggg,"CREATOR",ee)'
    if group == 0x0002:
        return "names an element of the file meta information, which follows from the data set"
    if tag == _SPECIFIC_CHARACTER_SET:
        return "names SpecificCharacterSet, which follows from the values"
    if tag & 0xFFFF == 0 and group:
        return "names a group length, which no file needs"
    return unreadable(tag)


def unreadable(tag: int) -> str:
    """Why no file can have a tag; "" where one can."""
    group = tag >> 16
    if group == 0x0000:
        return "names a command element, which no file has"
    return "names a delimiter" if group == 0xFFFE else ""


def parse(text: str, refusal: Callable[[int], str] = uneditable) -> Path:
    """The path that a text spells. Raises PathError, also with what `refusal` says of a tag in it."""
    if len(text) > _MAX_PATH_CHARACTERS:
        raise PathError(f"has a path of more than {_MAX_PATH_CHARACTERS} characters")
    steps: list[Step] = []
    position = 0
    while True:
        match = _ATTRIBUTE.match(text, position)
        if match is None:
            raise PathError(
                'is no path of keywords, tags (gggg,eeee) or private tags (gggg,"CREATOR",ee), with items as [0].'
            )
        attribute = _attribute(match, refusal)
        if match.end() == len(text):
            return Path(tuple(steps), attribute)
        item = _ITEM.match(text, match.end())
        if item is None or text[item.end() : item.end() + 1] != ".":
            raise PathError("must go on with [item]. after a sequence and end in an attribute")
        steps.append(Step(_sequence(attribute), int(item[1])))
        position = item.end() + 1


def _attribute(match: re.Match[str], refusal: Callable[[int], str]) -> Attribute:
    if match["creator"] is None:
        tag = _tag(match)
        if problem := refusal(tag):
            raise PathError(problem)
        return tag
    group, creator = int(match["group"], 16), match["creator"].strip(" ")
    # PS3.5 7.8.1: the groups that can hold private attributes.
    if group % 2 == 0 or group in {0x0001, 0x0003, 0x0005, 0x0007, 0xFFFF}:
        raise PathError("names a creator in a group that cannot be private")
    if not creator or values.check("LO", creator, "1"):
        raise PathError("names a creator that is not a value of VR LO")
    return PrivateAttribute(group, creator, int(match["private"], 16))


def _tag(match: re.Match[str]) -> int:
    if not match["keyword"]:
        return int(match["group"], 16) << 16 | int(match["element"], 16)
    tag = dictionary.tag_of(match["keyword"])
    if tag is None:
        raise PathError("names a keyword that the dictionary does not know")
    return tag


def _sequence(attribute: Attribute) -> Attribute:
    """The attribute, unless it is known to be no sequence."""
    vr = vr_of(attribute)
    if vr not in {"SQ", ""}:
        raise PathError("leads into an attribute that is not a sequence")
    return attribute


def vr_of(attribute: Attribute) -> str:
    """The VR, or the alternatives as PS3.6 writes them ("US or SS"); "" for one that no dictionary knows."""
    return _look_up(attribute)[0]


def vm_of(attribute: Attribute) -> str:
    """The VM as PS3.6 writes it; "1-n" for an attribute that no dictionary knows."""
    return _look_up(attribute)[1]


def _look_up(attribute: Attribute) -> tuple[str, str]:
    """VR and VM."""
    if not isinstance(attribute, PrivateAttribute):
        entry = dictionary.entry_of(attribute)
        return entry[:2] if entry else ("", "1-n")
    try:
        vr, vm = get_private_entry(attribute.group << 16 | 0x1000 | attribute.element, attribute.creator)[:2]
    except KeyError:
        return "", "1-n"
    # pydicom writes one of its private VRs as OB_OW.
    return vr.replace("_", " or "), vm
