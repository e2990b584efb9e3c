"""The ledger: one entry for each file of each upload, which says at every moment how far the file has come.

An entry is on disk before Orthanc can store the file, with the digests of what came and of what is sent; so whatever
Orthanc holds of an upload that broke off can be told by them.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pacs_gateway.domain.registry import OrderStudy
from pacs_gateway.domain.study import Fingerprint
from pacs_gateway.domain.tags import Edits


class FileState(StrEnum):
    """How far a file has come. Of one that is received or stored, the fate is still open."""

    RECEIVED = "received"
    STORED = "stored"
    VERIFIED = "verified"
    FAILED = "failed"
    QUARANTINED = "quarantined"


OPEN = frozenset({FileState.RECEIVED, FileState.STORED})
# What a file failed for that was not stored because another content was to be kept (on_conflict=KEEP).
KEPT = "KEPT"
# What is said of a file whose gateway went away, or could not say what became of it.
ABANDONED = "ABANDONED"


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file: their number, SHA-256 and MD5 (hex). MD5, for it is what Orthanc computes."""

    size_bytes: int = 0
    sha256: str = ""
    md5: str = ""

    @property
    def fingerprint(self) -> Fingerprint:
        """What Orthanc tells of a file that it holds."""
        return Fingerprint(self.size_bytes, self.md5)


NOTHING = Content()


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """An entry. `stored` is what Orthanc holds, or is sent, of the file; `source` what the sender sent. Both are known
    when all of the file has come, but not the MD5 of `source`, which nobody asks for.

    `overwrites` says that another content of the instance was deleted for it. `error` is the reason it failed for.
    `session_id` is the upload session that it was sent into, if any.
    """

    id: UUID
    upload_id: UUID
    upload_log_id: UUID | None
    uploaded_by_id: UUID
    upload_source: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    orthanc_id: str
    filename: str
    edits_sha256: str
    received_at: datetime
    source: Content = NOTHING
    stored: Content = NOTHING
    state: FileState = FileState.RECEIVED
    error: str = ""
    overwrites: bool = False
    finished_at: datetime | None = None
    session_id: UUID | None = None

    @property
    def is_open(self) -> bool:
        """Whether its fate is still to be known."""
        return self.state in OPEN

    def is_same_upload(self, other: "LedgerFile") -> bool:
        """Whether the other is the same file with the same edits, whatever time stamps these have put into it."""
        mine = (self.orthanc_id, self.source.sha256, self.edits_sha256)
        return bool(self.source.sha256) and mine == (other.orthanc_id, other.source.sha256, other.edits_sha256)

    def same_as(self, held: Fingerprint, entries: Iterable["LedgerFile"]) -> Content | None:
        """What the PACS holds, where it came of the same file with the same edits, as one of the entries tells."""
        same = (one.stored for one in entries if self.is_same_upload(one) and one.stored.fingerprint == held)
        return next(same, None)

    def sent(self, source: Content, stored: Content) -> "LedgerFile":
        """The entry when all of the file has come."""
        return replace(self, source=source, stored=stored)

    def verified(self, stored: Content, *, at: datetime) -> "LedgerFile":
        """The entry when Orthanc was seen to hold this content."""
        return replace(self, state=FileState.VERIFIED, stored=stored, error="", finished_at=at)

    def failed(self, reason: str, *, at: datetime) -> "LedgerFile":
        """The entry when the file is not stored, for a reason."""
        return replace(self, state=FileState.FAILED, error=reason, finished_at=at)

    def left_open(self, reason: str, *, state: FileState) -> "LedgerFile":
        """The entry when the file may be stored or not, and its sender is told why. The reconciler finds out."""
        return replace(self, state=state, error=reason)


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What a stored file tells of its study, to be put into the study's log."""

    orthanc_study_id: str
    order_id: UUID | None = None
    tags_modified: bool = False
    modified_patient_id: str = ""
    modified_patient_name: str = ""
    modified_accession_number: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes known of a file: its entry as it is now, and what goes into its study's log and its order with it.

    `seconds` is how long storing the file took, told once, with its last step. `counts`: the log counts the file once
    its fate is known.
    """

    file: LedgerFile
    facts: StudyFacts | None = None
    order_id: UUID | None = None
    order_study: OrderStudy | None = None
    seconds: float = 0.0
    counts: bool = True


def digest_of(edits: Edits) -> str:
    """SHA-256 (hex) of edits, "" of none: what tells the same edits again without keeping a value of them."""
    if edits.is_empty:
        return ""
    return hashlib.sha256(json.dumps(asdict(edits), sort_keys=True).encode()).hexdigest()
