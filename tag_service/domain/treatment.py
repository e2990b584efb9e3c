"""What becomes of every element of a file whatever its depth, beside the edits that name single attributes."""

import uuid
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from tag_service.domain import dictionary
from tag_service.domain.plan import Addition


class Fate(Enum):
    """What becomes of one element. A sequence that is kept or replaced is gone into; one that is emptied has no items.
    Of bulk data, a replacement knows no text.
    """

    KEEP = 1
    REMOVE = 2
    EMPTY = 3
    REPLACE = 4


@dataclass(frozen=True, slots=True)
class Identity:
    """The identifiers of a file as it came, "" where it has none; they may stand behind what depends on them."""

    patient_id: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""


class Treatment(Protocol):
    """One treatment of one file."""

    def begin(self, identity: Identity) -> None:
        """Called before anything else, with what the file is."""

    def fate(self, tag: int, vr: str, creator: str) -> Fate:
        """What becomes of an element; `creator` is its private creator, "" where it has none or none was found."""

    def replacement(self, tag: int, vr: str, text: str) -> str:
        """The new value for this one, as ASCII text that its VR allows; values are joined by a backslash."""

    def additions(self) -> tuple[Addition, ...]:
        """What is set in the data set besides."""


class RemovePrivate:
    """Removes every private element and its creators (PS3.5 7.8)."""

    def begin(self, identity: Identity) -> None:
        """Needs nothing."""

    def fate(self, tag: int, vr: str, creator: str) -> Fate:  # noqa: ARG002 - only the group counts
        """By the group alone."""
        return Fate.REMOVE if dictionary.is_private(tag) else Fate.KEEP

    def replacement(self, tag: int, vr: str, text: str) -> str:  # noqa: ARG002 - nothing is replaced
        """Nothing is replaced."""
        return text

    def additions(self) -> tuple[Addition, ...]:
        """None."""
        return ()


class Derive:
    """Makes a new instance of the file: wherever its own StudyInstanceUID, SeriesInstanceUID or SOPInstanceUID stands,
    nested or not, a new one takes its place (PS3.5 B.2), always the same for the same.
    """

    def __init__(self) -> None:
        self._new: dict[str, str] = {}

    def begin(self, identity: Identity) -> None:
        """Makes the new UIDs."""
        own = {identity.study_instance_uid, identity.series_instance_uid, identity.sop_instance_uid}
        self._new = {uid: f"2.25.{uuid.uuid4().int}" for uid in own if uid}

    def fate(self, tag: int, vr: str, creator: str) -> Fate:  # noqa: ARG002 - any UID counts
        """All UIDs are looked at."""
        return Fate.REPLACE if vr == "UI" else Fate.KEEP

    def replacement(self, tag: int, vr: str, text: str) -> str:  # noqa: ARG002 - only the text counts
        """The new UID for an own one; any other stays."""
        return "\\".join(self._new.get(uid, uid) for uid in text.split("\\"))

    def additions(self) -> tuple[Addition, ...]:
        """None."""
        return ()


class Both:
    """One treatment, and another one of what it keeps."""

    def __init__(self, first: Treatment, second: Treatment) -> None:
        self._first = first
        self._second = second

    def begin(self, identity: Identity) -> None:
        """Begins both."""
        self._first.begin(identity)
        self._second.begin(identity)

    def fate(self, tag: int, vr: str, creator: str) -> Fate:
        """The first one's, where that is not to keep it."""
        fate = self._first.fate(tag, vr, creator)
        return self._second.fate(tag, vr, creator) if fate is Fate.KEEP else fate

    def replacement(self, tag: int, vr: str, text: str) -> str:
        """Of the one that asked for it."""
        asked = self._first if self._first.fate(tag, vr, "") is Fate.REPLACE else self._second
        return asked.replacement(tag, vr, text)

    def additions(self) -> tuple[Addition, ...]:
        """Those of both."""
        return (*self._first.additions(), *self._second.additions())
