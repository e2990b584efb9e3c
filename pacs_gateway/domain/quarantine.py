"""The quarantine: files that were refused for whose they are, kept as they came until somebody decides about them."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from pacs_gateway.domain.ledger import Content
from pacs_gateway.domain.tags import DicomTags
from pacs_gateway.domain.upload import UploadOptions
from service_runtime.errors import Reason, ServiceError

# What is wrong with these is whose they are said to be, which somebody can find out.
KEPT_FOR: Final = frozenset(
    {
        Reason.PATIENT_MISMATCH,
        Reason.PATIENT_ID_MISSING,
        Reason.PATIENT_UNKNOWN,
        Reason.ORDER_PATIENT_MISMATCH,
        Reason.STUDY_PATIENT_MISMATCH,
    }
)

_RETRY_SECONDS: Final = 5


class QuarantineState(StrEnum):
    """How a file in the quarantine stands. `lost`: its bytes are not in the folder."""

    QUARANTINED = "quarantined"
    LOST = "lost"
    RELEASED = "released"
    DISCARDED = "discarded"
    EXPIRED = "expired"


# About these somebody has still to decide.
OPEN_STATES: Final = (QuarantineState.QUARANTINED, QuarantineState.LOST)


class QuarantineAction(StrEnum):
    """What was done with a file in the quarantine."""

    QUARANTINED = "quarantined"
    RETRIED = "retried"
    RELEASED = "released"
    DISCARDED = "discarded"
    EXPIRED = "expired"
    LOST = "lost"
    FOUND = "found"


@dataclass(frozen=True, slots=True)
class Refused:
    """An upload's file that was refused: the name that its sender gave it, and what the upload asked for."""

    name: str
    upload_id: UUID
    uploaded_by_id: UUID
    options: UploadOptions
    edits_sha256: str


@dataclass(frozen=True, slots=True)
class QuarantinedFile:
    """A file in the quarantine, its attributes as it came. `patient_id` and `order_id` are those that the upload named;
    `reason` is what it was refused for last. The same bytes are one file, however often they were refused.
    """

    id: UUID
    state: QuarantineState
    reason: str
    patient_id: UUID | None
    order_id: UUID | None
    uploaded_by_id: UUID
    upload_source: str
    filename: str
    source: Content
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    original_patient_id: str
    original_patient_name: str
    original_accession_number: str
    original_study_date: str
    original_modality: str
    quarantined_at: datetime
    refused_at: datetime
    refusals: int = 1

    @property
    def is_open(self) -> bool:
        """Whether somebody has still to decide about it."""
        return self.state in OPEN_STATES

    def refused_again(self, reason: Reason) -> "QuarantinedFile":
        """The file after another try to store it was refused for this reason."""
        return replace(self, reason=reason.value)


@dataclass(frozen=True, slots=True)
class QuarantineEvent:
    """What was done with a file in the quarantine. `by_id` is None where the gateway did it by itself; `reason` is what
    a try failed for, or why the file was discarded.
    """

    action: QuarantineAction
    at: datetime
    by_id: UUID | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """A file in the quarantine as it is shown: with the names behind its ids, and what was done with it, the oldest
    first, each with the name of who did it.
    """

    file: QuarantinedFile
    uploaded_by: str
    events: tuple[tuple[QuarantineEvent, str], ...] = ()


@dataclass(frozen=True, slots=True)
class QuarantineFilter:
    """Which files to list; None for any, of `state` for those about which somebody has still to decide."""

    reason: str | None = None
    patient_id: UUID | None = None
    state: QuarantineState | None = None
    uploaded_from: datetime | None = None
    uploaded_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class FoundFile:
    """What lies in the quarantine's folder: a file, or the part of one that has come; unchanged for so long."""

    id: UUID
    is_part: bool
    age_seconds: float


def quarantined(
    file_id: UUID, refused: Refused, refusal: ServiceError, tags: DicomTags, source: Content, *, at: datetime
) -> QuarantinedFile:
    """The file in the quarantine, where the refusal is its first."""
    return QuarantinedFile(
        id=file_id,
        state=QuarantineState.QUARANTINED,
        reason=refusal.reason.value,
        patient_id=refused.options.patient_id,
        order_id=refused.options.order_id,
        uploaded_by_id=refused.uploaded_by_id,
        upload_source=refused.options.source,
        filename=refused.name,
        source=source,
        study_instance_uid=tags.study_instance_uid,
        series_instance_uid=tags.series_instance_uid,
        sop_instance_uid=tags.sop_instance_uid,
        original_patient_id=tags.patient_id,
        original_patient_name=tags.patient_name,
        original_accession_number=tags.accession_number,
        original_study_date=tags.study_date,
        original_modality=tags.modality,
        quarantined_at=at,
        refused_at=at,
    )


def is_final(error: ServiceError) -> bool:
    """Whether the error is about the file, so that another try with the same options comes to the same."""
    return error.retry_after is None and error.reason not in {Reason.INTERNAL_ERROR, Reason.ORTHANC_ERROR}


def file_lost() -> ServiceError:
    """The error for a file whose bytes are not in the folder, or are no longer those that came."""
    return ServiceError(
        Reason.QUARANTINED_FILE_LOST,
        "The bytes of the quarantined file are gone, or are not those that came. Have the file sent again.",
    )


def quarantine_full() -> ServiceError:
    """The error for a file for which there is no room."""
    return ServiceError(
        Reason.QUARANTINE_FULL,
        "The quarantine, or the disk under it, is full.",
        metadata={"limit": "QUARANTINE_MAX_MB"},
    )


def quarantine_unavailable() -> ServiceError:
    """The error for a quarantine whose folder cannot be read or written."""
    return ServiceError(
        Reason.QUARANTINE_UNAVAILABLE,
        "The folder of the quarantine cannot be read or written. Retry.",
        retry_after=_RETRY_SECONDS,
    )
