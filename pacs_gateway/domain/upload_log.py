"""The log of what was uploaded to a study: one per study, added to by every upload, revived by one after a deletion.

What it counts, and how it stands, follows from the ledger's entries of its files, as the database reckons it.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

from pacs_gateway.domain.ledger import StudyFacts
from pacs_gateway.domain.tags import DicomTags


class UploadStatus(StrEnum):
    """How the uploads to a study stand."""

    IN_PROGRESS = "in_progress"
    SUCCESS = "success"
    PARTIAL = "partial"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class UploadLog:
    """The log of one study."""

    id: UUID
    patient_id: UUID
    order_id: UUID | None
    uploaded_by_id: UUID
    study_instance_uid: str
    upload_source: str
    uploaded_at: datetime
    orthanc_study_id: str = ""
    number_of_files: int = 0
    total_size_bytes: int = 0
    original_patient_id: str = ""
    original_patient_name: str = ""
    original_accession_number: str = ""
    original_study_date: str = ""
    original_modality: str = ""
    modified_patient_id: str = ""
    modified_patient_name: str = ""
    modified_accession_number: str = ""
    tags_modified: bool = False
    upload_status: UploadStatus = UploadStatus.IN_PROGRESS
    error_message: str = ""
    upload_duration_seconds: float = 0.0
    is_deleted: bool = False
    instances_missing: int = 0
    instances_unlogged: int = 0

    @property
    def holds_files(self) -> bool:
        """Whether the PACS holds a file that this log counts: then the study is that patient's."""
        return self.number_of_files > 0 and not self.is_deleted

    @property
    def stored_patient_id(self) -> str:
        """The PatientID that the study's files have in the PACS."""
        return self.modified_patient_id or self.original_patient_id

    def facts_of(self, stored: DicomTags, *, orthanc_study_id: str, order_id: UUID | None, edited: bool) -> StudyFacts:
        """What a file that is stored tells of its study; `edited` says that it was stored otherwise than it came."""
        facts = StudyFacts(orthanc_study_id, order_id or self.order_id)
        if not edited:
            return facts
        return replace(
            facts,
            tags_modified=True,
            modified_patient_id=_if_other(stored.patient_id, self.original_patient_id),
            modified_patient_name=_if_other(stored.patient_name, self.original_patient_name),
            modified_accession_number=_if_other(stored.accession_number, self.original_accession_number),
        )

    def with_facts(self, facts: StudyFacts) -> "UploadLog":
        """The log with these facts. What an earlier file changed stays told where this one changed nothing."""
        log = replace(self, orthanc_study_id=facts.orthanc_study_id, order_id=facts.order_id)
        if not facts.tags_modified:
            return log
        return replace(
            log,
            tags_modified=True,
            modified_patient_id=facts.modified_patient_id,
            modified_patient_name=facts.modified_patient_name,
            modified_accession_number=facts.modified_accession_number,
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """How many instances that a log counts the PACS does not hold, and how many it holds that the log counts not."""

    missing: int = 0
    unlogged: int = 0

    @classmethod
    def between(cls, log: UploadLog, held: int) -> "Difference":
        """The difference where the PACS holds so many."""
        return cls(max(0, log.number_of_files - held), max(0, held - log.number_of_files))


def log_for(
    known: UploadLog | None,
    patient_id: UUID,
    original: DicomTags,
    *,
    study_uid: str,
    by: UUID,
    source: str,
    at: datetime,
) -> UploadLog:
    """A study's log when a file is on its way to it, for this patient. It starts anew where none of the study's files
    is stored: nothing is the study's patient, order or first file before. It counts as deleted as long as it did.
    """
    if known is not None and known.holds_files:
        return known
    fresh = UploadLog(
        id=known.id if known else uuid4(),
        patient_id=patient_id,
        order_id=None,
        uploaded_by_id=by,
        study_instance_uid=study_uid,
        upload_source=source,
        uploaded_at=at,
        original_patient_id=original.patient_id,
        original_patient_name=original.patient_name,
        original_accession_number=original.accession_number,
        original_study_date=original.study_date,
        original_modality=original.modality,
        is_deleted=known is not None and known.is_deleted,
    )
    if known is None or known.is_deleted or known.patient_id != patient_id:
        return fresh
    return replace(fresh, error_message=known.error_message, upload_duration_seconds=known.upload_duration_seconds)


def _if_other(stored: str, original: str) -> str:
    return stored if stored != original else ""


@dataclass(frozen=True, slots=True)
class Deletion:
    """The trace of a study's deletion. It is written before the study goes and completed after."""

    id: UUID
    study_instance_uid: str
    orthanc_study_id: str
    reason: str
    requested_by_id: UUID
    requested_at: datetime
    upload_log_id: UUID | None = None
    completed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class UploadLogEntry:
    """A log as it is shown: with the names behind its ids, and with the study's last completed deletion."""

    log: UploadLog
    uploaded_by: str
    deletion: Deletion | None = None
    deleted_by: str = ""


@dataclass(frozen=True, slots=True)
class UploadLogFilter:
    """Which logs to list; None for any."""

    patient_id: UUID | None = None
    order_id: UUID | None = None
    study_instance_uid: str | None = None
    upload_status: UploadStatus | None = None
    uploaded_from: datetime | None = None
    uploaded_until: datetime | None = None
