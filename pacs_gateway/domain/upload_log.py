"""The log of what was uploaded to a study: one per study, added to by every upload, revived by one after a deletion."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pacs_gateway.domain.tags import DicomTags


class UploadStatus(StrEnum):
    """How the uploads to a study stand."""

    IN_PROGRESS = "in_progress"
    SUCCESS = "success"
    PARTIAL = "partial"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LoggedFile:
    """One instance of the study: `error` is the reason it failed for, "" when it is stored."""

    sop_instance_uid: str
    name: str
    size_bytes: int
    error: str = ""


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
    files: tuple[LoggedFile, ...] = ()
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

    @property
    def number_of_files(self) -> int:
        """How many instances are stored."""
        return sum(not file.error for file in self.files)

    @property
    def total_size_bytes(self) -> int:
        """The size of the stored instances."""
        return sum(file.size_bytes for file in self.files if not file.error)

    @property
    def holds_files(self) -> bool:
        """Whether the PACS holds a file that this log counts: then the study is that patient's."""
        return self.number_of_files > 0 and not self.is_deleted

    def counts(self, sop_instance_uid: str) -> bool:
        """Whether this log counts the instance as stored."""
        return not self.is_deleted and any(
            file.sop_instance_uid == sop_instance_uid and not file.error for file in self.files
        )

    @property
    def stored_patient_id(self) -> str:
        """The PatientID that the study's files have in the PACS."""
        return self.modified_patient_id or self.original_patient_id

    def begun(self, *, by: UUID, at: datetime, source: str, order_id: UUID | None) -> "UploadLog":
        """The log when a file is on its way to the study. Until it is stored, a study keeps the order it has."""
        return replace(
            self,
            uploaded_by_id=by,
            uploaded_at=at,
            upload_source=source,
            order_id=self.order_id if self.holds_files else order_id or self.order_id,
            upload_status=UploadStatus.IN_PROGRESS,
        )

    def with_file(self, file: LoggedFile, *, seconds: float) -> "UploadLog":
        """The log once the fate of a file is known.

        A file counts once, however often it is sent: what is known last holds, but a failure to store again what is
        stored already does not unstore it. What was stored before a deletion is gone, and counts no more.
        """
        files = {known.sop_instance_uid: known for known in self.files if not self.is_deleted or known.error}
        known = files.get(file.sop_instance_uid)
        if known is None or known.error or not file.error:
            files[file.sop_instance_uid] = file
        failures = sorted({known.error for known in files.values() if known.error})
        failed = sum(bool(known.error) for known in files.values())
        return replace(
            self,
            files=tuple(files.values()),
            upload_status=_status(stored=len(files) - failed, failed=failed),
            error_message=f"{failed} of {len(files)} files failed: {', '.join(failures)}" if failed else "",
            upload_duration_seconds=self.upload_duration_seconds + seconds,
            is_deleted=self.is_deleted and bool(file.error),
        )

    def with_edits(self, stored: DicomTags) -> "UploadLog":
        """The log with what is stored in place of what came."""
        return replace(
            self,
            tags_modified=True,
            modified_patient_id=_if_other(stored.patient_id, self.original_patient_id),
            modified_patient_name=_if_other(stored.patient_name, self.original_patient_name),
            modified_accession_number=_if_other(stored.accession_number, self.original_accession_number),
        )


def _if_other(stored: str, original: str) -> str:
    return stored if stored != original else ""


def _status(*, stored: int, failed: int) -> UploadStatus:
    if not failed:
        return UploadStatus.SUCCESS
    return UploadStatus.PARTIAL if stored else UploadStatus.FAILED


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
    """A log as it is shown: without its files but with their number and size in bytes, with the names behind its ids,
    and with the study's last completed deletion.
    """

    log: UploadLog
    number_of_files: int
    total_size_bytes: int
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
