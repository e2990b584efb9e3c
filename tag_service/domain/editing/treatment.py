"""What becomes of every element of a file whatever its depth, beside the edits that name single attributes."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.editing.plan import Addition
from tag_service.domain.editing.survey import SERIES_INSTANCE_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID
from tag_service.domain.standard import dictionary


class Fate(Enum):
    """What becomes of one element. A sequence that is kept or replaced is gone into; one that is emptied has no
    items.
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

    @property
    def depends_on(self) -> frozenset[int]:
        """The identifiers that `begin` has to know. A file where one turns up too late, or as two, is refused."""

    def begin(self, identity: Identity) -> None:
        """Called before anything else, with what the file is."""

    def fate(self, tag: int, vr: str, creator: str) -> Fate:
        """What becomes of an element; `creator` is its private creator, "" where it has none or none was found."""

    def replacement(self, tag: int, vr: str, text: str | None) -> str:
        """The new value for this one, None for bulk data, as ASCII text that its VR allows; values are joined by a
        backslash. Raises EDIT_REFUSED for one that cannot be done without.
        """

    def additions(self) -> tuple[Addition, ...]:
        """What is set in the data set besides."""


class RemovePrivate:
    """Removes every private element and its creators (PS3.5 7.8)."""

    depends_on: frozenset[int] = frozenset()

    def begin(self, identity: Identity) -> None:
        """Needs nothing."""

    def fate(self, tag: int, vr: str, creator: str) -> Fate:  # noqa: ARG002 - only the group counts
        """By the group alone."""
        return Fate.REMOVE if dictionary.is_private(tag) else Fate.KEEP

    def replacement(self, tag: int, vr: str, text: str | None) -> str:  # noqa: ARG002 - nothing is replaced
        """Nothing is replaced."""
        return text or ""

    def additions(self) -> tuple[Addition, ...]:
        """None."""
        return ()


class Derive:
    """Makes a new instance of the file: wherever its own StudyInstanceUID, SeriesInstanceUID or SOPInstanceUID stands,
    nested or not, a new one takes its place (PS3.5 B.2), always the same for the same.
    """

    depends_on: frozenset[int] = frozenset({STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID})

    def __init__(self, named: Mapping[int, str] | None = None) -> None:
        """`named` are the new UIDs that an edit gives the file, by tag."""
        self._named = named or {}
        self._new: dict[str, str] = {}

    def begin(self, identity: Identity) -> None:
        """Makes the new UIDs."""
        own = {
            STUDY_INSTANCE_UID: identity.study_instance_uid,
            SERIES_INSTANCE_UID: identity.series_instance_uid,
            SOP_INSTANCE_UID: identity.sop_instance_uid,
        }
        self._new = {uid: self._named.get(tag) or f"2.25.{uuid.uuid4().int}" for tag, uid in own.items() if uid}

    def fate(self, tag: int, vr: str, creator: str) -> Fate:  # noqa: ARG002 - any UID counts
        """All UIDs are looked at, those too that somebody on the way wrote as UN."""
        is_uid = vr == "UI" or (vr == "UN" and dictionary.implicit_vr(tag) == "UI")
        return Fate.REPLACE if is_uid else Fate.KEEP

    def replacement(self, tag: int, vr: str, text: str | None) -> str:  # noqa: ARG002 - only the text counts
        """The new UID for an own one; any other stays. Raises EDIT_REFUSED for more UIDs than can be looked at."""
        if text is None:
            where = dictionary.tag_text(tag)
            raise ServiceError(
                Reason.EDIT_REFUSED, f"{where} holds too many UIDs to look for the file's own.", metadata={"tag": where}
            )
        return "\\".join(self._new.get(uid, uid) for uid in text.split("\\"))

    def additions(self) -> tuple[Addition, ...]:
        """None."""
        return ()


class Both:
    """One treatment, and another one of what it keeps."""

    def __init__(self, first: Treatment, second: Treatment) -> None:
        self._first = first
        self._second = second

    @property
    def depends_on(self) -> frozenset[int]:
        """Those of both."""
        return self._first.depends_on | self._second.depends_on

    def begin(self, identity: Identity) -> None:
        """Begins both."""
        self._first.begin(identity)
        self._second.begin(identity)

    def fate(self, tag: int, vr: str, creator: str) -> Fate:
        """The first one's, where that is not to keep it."""
        fate = self._first.fate(tag, vr, creator)
        return self._second.fate(tag, vr, creator) if fate is Fate.KEEP else fate

    def replacement(self, tag: int, vr: str, text: str | None) -> str:
        """Of the one that asked for it."""
        asked = self._first if self._first.fate(tag, vr, "") is Fate.REPLACE else self._second
        return asked.replacement(tag, vr, text)

    def additions(self) -> tuple[Addition, ...]:
        """Those of both."""
        return (*self._first.additions(), *self._second.additions())
