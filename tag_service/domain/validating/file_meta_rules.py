"""What can be wrong with the file meta information (PS3.10 7.1)."""

from collections.abc import Iterator
from typing import Final

from tag_service.domain.parsing.order import MESSAGES, TagOrder
from tag_service.domain.standard.charset import DEFAULT
from tag_service.domain.standard.dictionary import name_of_uid
from tag_service.domain.standard.problems import Finding, ProblemCode
from tag_service.domain.standard.text import text_of
from tag_service.domain.validating.element_rules import check_element

MEDIA_STORAGE_SOP_CLASS_UID: Final = 0x00020002
_GROUP_LENGTH: Final = 0x00020000
_MEDIA_STORAGE_SOP_INSTANCE_UID: Final = 0x00020003
_TRANSFER_SYNTAX_UID: Final = 0x00020010
# Type 1 of table 7.1-1; that there is a transfer syntax, the tokenizer looks after.
_REQUIRED: Final = (
    _GROUP_LENGTH,
    0x00020001,  # File Meta Information Version
    MEDIA_STORAGE_SOP_CLASS_UID,
    _MEDIA_STORAGE_SOP_INSTANCE_UID,
    0x00020012,  # Implementation Class UID
)
# What repeats an attribute of the data set.
_MIRRORED: Final = {0x00080016: MEDIA_STORAGE_SOP_CLASS_UID, 0x00080018: _MEDIA_STORAGE_SOP_INSTANCE_UID}
_MISSING: Final = Finding(ProblemCode.META_MISSING, "The element is absent or empty; it must have a value.")
_STALE: Final = Finding(ProblemCode.META_MISMATCH, "It is not the length of the file meta information behind it.")
_DIFFERENT: Final = Finding(ProblemCode.META_MISMATCH, "It is not the UID that the data set says.")
_IMPLICIT: Final = Finding(ProblemCode.META_MISMATCH, "The element is not in explicit VR, little endian.")
_UNKNOWN: Final = Finding(
    ProblemCode.UNKNOWN_UID,
    "The standard has no such transfer syntax; it is private, or newer than what is known here.",
)


class FileMetaRules:
    """Looks at the elements of group 0002 as they come."""

    def __init__(self) -> None:
        self._order = TagOrder()
        self._uids: dict[int, str] = {}
        self._filled: set[int] = set()
        self._length: int | None = None
        self._length_end = 0

    def uid(self, tag: int) -> str:
        """The value of this UID, "" where it is absent."""
        return self._uids.get(tag, "")

    def add(self, tag: int, vr: str, header: bytes, value: bytes, offset: int) -> Iterator[Finding]:
        """An element; what is wrong with it by itself."""
        if code := self._order.check(tag):
            yield Finding(code, MESSAGES[code])
        if header[4:6] != vr.encode("ascii"):
            yield _IMPLICIT
        yield from check_element(tag, vr, value, DEFAULT)
        if value.strip(b" \0") or (value and tag == _GROUP_LENGTH):
            self._filled.add(tag)
        if vr == "UI":
            self._uids.setdefault(tag, text_of(value, "UI", DEFAULT).text)
        if tag == _GROUP_LENGTH and self._length is None and len(value) == 4:
            self._length = int.from_bytes(value, "little")
            self._length_end = offset + len(header) + len(value)

    def end(self, offset: int) -> Iterator[tuple[int, Finding]]:
        """What is wrong with all of it, where it ends at this offset; nothing where there is none at all."""
        if not self._filled:
            return
        if self._length is not None and self._length_end + self._length != offset:
            yield _GROUP_LENGTH, _STALE
        for tag in _REQUIRED:
            if tag not in self._filled:
                yield tag, _MISSING
        transfer_syntax = self.uid(_TRANSFER_SYNTAX_UID)
        if transfer_syntax and not name_of_uid(transfer_syntax):
            yield _TRANSFER_SYNTAX_UID, _UNKNOWN

    def compare(self, tag: int, uid: str) -> Iterator[tuple[int, Finding]]:
        """What is wrong with it, now that the data set says this UID."""
        mirror = _MIRRORED.get(tag, 0)
        if uid and self.uid(mirror) not in {"", uid}:
            yield mirror, _DIFFERENT
