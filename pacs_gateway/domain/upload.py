"""One upload: what the caller asks for, and what became of each file."""

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from pacs_gateway.domain.tags import DicomTags, Edits


class UploadSource(StrEnum):
    """Where an upload comes from."""

    MANUAL = "manual"
    API = "api"
    CD_IMPORT = "cd_import"


class PatientMatch(StrEnum):
    """What to do when a file's PatientID is not the MRN of the patient that the caller names."""

    REQUIRE = "REQUIRE"
    COERCE = "COERCE"
    ACCEPT = "ACCEPT"


class UnknownPatients(StrEnum):
    """What to do with a file whose patient the RIS has not told of."""

    CREATE = "create"
    REJECT = "reject"


class OnConflict(StrEnum):
    """What to do when the PACS holds an instance with the file's SOPInstanceUID and other content."""

    REJECT = "REJECT"
    OVERWRITE = "OVERWRITE"
    KEEP = "KEEP"


class FileStatus(StrEnum):
    """What became of a file. Of one that is kept out, the PACS keeps another content, as on_conflict=KEEP asks."""

    STORED = "stored"
    ALREADY_STORED = "already_stored"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """What is known of a request: SHA-256 (hex) of what it asked and of what it brought, and how it was answered, None
    while it is under way.
    """

    asked_sha256: str
    content_sha256: str
    answers: tuple[bytes, ...] | None


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """What holds for every file of an upload. Without `patient_id` there is nothing to match. `session_id` is the
    session that the files are for.
    """

    patient_id: UUID | None = None
    order_id: UUID | None = None
    source: UploadSource = UploadSource.MANUAL
    patient_match: PatientMatch = PatientMatch.REQUIRE
    on_conflict: OnConflict = OnConflict.REJECT
    edits: Edits = field(default_factory=Edits)
    session_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is in the PACS and logged; `tags` are those of what the PACS holds."""

    status: FileStatus
    orthanc_id: str
    tags: DicomTags
    patient_id: UUID
    order_id: UUID | None
    upload_log_id: UUID
