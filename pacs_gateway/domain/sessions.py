"""Upload sessions: what a client is going to send, what has become of it, and what its receipt says.

What has come is told by the ledger's entries alone. A file is known by the SHA-256 of what the client sends, so however
often it is sent, it counts once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid5

from pacs_gateway.domain.ledger import Content, FileState, LedgerFile
from pacs_gateway.domain.upload import UploadOptions
from service_runtime.errors import Reason, ServiceError, not_found


class SessionState(StrEnum):
    """How a session stands."""

    OPEN = "open"
    COMPLETED = "completed"
    EXPIRED = "expired"


class Arrival(StrEnum):
    """What has become of a file of a session."""

    MISSING = "missing"
    IN_PROGRESS = "in_progress"
    STORED = "stored"
    FAILED = "failed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class ExpectedFile:
    """A file that is to come: SHA-256 (hex) and size of what the client sends, and what the client calls it."""

    sha256: str
    size_bytes: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class SessionFile:
    """A file of a session, and the entry of the ledger that says most of it. `is_held`: the PACS holds what the entry
    says, as far as the ledger knows.
    """

    expected: ExpectedFile
    entry: LedgerFile | None = None
    is_held: bool = False

    @property
    def arrival(self) -> Arrival:
        """What has become of it."""
        if self.entry is None:
            return Arrival.MISSING
        if self.entry.is_open:
            return Arrival.IN_PROGRESS
        if self.entry.state is not FileState.VERIFIED:
            return Arrival.FAILED
        return Arrival.STORED if self.is_held else Arrival.DELETED


@dataclass(frozen=True, slots=True)
class UploadSession:
    """A session. `options` hold for each upload into it, and have no edits: these are each upload's own.

    `lists_files`: it says which files are to come, and not only how many. `receipt` is the JWS, "" until it is
    completed.
    """

    id: UUID
    created_by_id: UUID
    created_at: datetime
    expires_at: datetime
    options: UploadOptions
    number_of_files: int
    lists_files: bool
    state: SessionState = SessionState.OPEN
    completed_at: datetime | None = None
    receipt: str = ""

    def state_at(self, now: datetime) -> SessionState:
        """How it stands; one that is open expires by itself."""
        return SessionState.EXPIRED if self.state is SessionState.OPEN and self.expires_at <= now else self.state

    def expect_open(self, now: datetime) -> None:
        """Raises SESSION_EXPIRED, SESSION_COMPLETED."""
        state = self.state_at(now)
        if state is SessionState.EXPIRED:
            raise session_expired()
        if state is SessionState.COMPLETED:
            raise ServiceError(
                Reason.SESSION_COMPLETED, "The session is completed, and takes no more files. Make another."
            )


@dataclass(frozen=True, slots=True)
class Progress:
    """A session and its files, by SHA-256: those that it lists, else those that have come."""

    session: UploadSession
    files: Sequence[SessionFile]

    @property
    def stored(self) -> Sequence[SessionFile]:
        """The files that the PACS holds."""
        return [one for one in self.files if one.arrival is Arrival.STORED]

    @property
    def contents(self) -> Mapping[str, tuple[str, Content]]:
        """What the PACS holds, by the SHA-256 of what was sent: the instance's id in Orthanc, and its content."""
        entries = {one.expected.sha256: one.entry for one in self.stored if one.entry is not None}
        return {sha256: (entry.orthanc_id, entry.stored) for sha256, entry in entries.items()}

    @property
    def is_moving(self) -> bool:
        """Whether a file is on its way, or its fate not known."""
        return any(one.arrival is Arrival.IN_PROGRESS for one in self.files)

    @property
    def number_missing(self) -> int:
        """How many files are still to be stored."""
        return max(0, self.session.number_of_files - len(self.stored))

    @property
    def missing(self) -> Sequence[str]:
        """The SHA-256 of the files that are, as far as the session lists them."""
        if not self.session.lists_files:
            return ()
        return tuple(one.expected.sha256 for one in self.files if one.arrival is not Arrival.STORED)

    def expect_complete(self) -> None:
        """Raises SESSION_INCOMPLETE."""
        if self.number_missing:
            raise session_incomplete(self.number_missing)


def broken_off(progress: Progress, *, at: datetime) -> Sequence[LedgerFile]:
    """What the logs are to say of a session that expired with files missing: in each log that counts some of its files,
    an entry for those that never came. Which study they are of, nobody knows.
    """
    if not progress.number_missing:
        return ()
    session = progress.session
    of_logs = {one.entry.upload_log_id: one.entry for one in progress.stored if one.entry is not None}
    return [
        LedgerFile(
            id=uuid5(session.id, str(log_id)),
            upload_id=session.id,
            upload_log_id=log_id,
            uploaded_by_id=session.created_by_id,
            upload_source=session.options.source,
            study_instance_uid=entry.study_instance_uid,
            series_instance_uid="",
            # A UID out of the session's id (PS3.5 B.2), so that no other entry takes this one's place.
            sop_instance_uid=f"2.25.{session.id.int}",
            orthanc_id="",
            filename="",
            edits_sha256="",
            received_at=at,
            session_id=session.id,
        ).failed(Reason.SESSION_EXPIRED, at=at)
        for log_id, entry in sorted(of_logs.items(), key=lambda one: str(one[0]))
    ]


def receipt_claims(progress: Progress, *, issuer: str, at: datetime) -> Mapping[str, Any]:
    """What the receipt of a complete session says: ids, digests and sizes, and nothing that names a patient."""
    session = progress.session
    return {
        "iss": issuer,
        "iat": int(at.timestamp()),
        "jti": str(session.id),
        "patient_id": str(session.options.patient_id or ""),
        "order_id": str(session.options.order_id or ""),
        "files": [_line(one.expected, one.entry) for one in progress.stored if one.entry is not None],
    }


def _line(expected: ExpectedFile, entry: LedgerFile) -> Mapping[str, Any]:
    return {
        "sha256": expected.sha256,
        "size_bytes": expected.size_bytes,
        "stored_sha256": entry.stored.sha256,
        "stored_size_bytes": entry.stored.size_bytes,
        "study_instance_uid": entry.study_instance_uid,
        "series_instance_uid": entry.series_instance_uid,
        "sop_instance_uid": entry.sop_instance_uid,
        "orthanc_id": entry.orthanc_id,
        "verified_at": entry.finished_at.isoformat() if entry.finished_at is not None else "",
    }


def no_such_session(session_id: UUID) -> ServiceError:
    """The error for a session that is not there, or not the caller's."""
    return not_found(Reason.SESSION_NOT_FOUND, "upload session", str(session_id))


def session_expired() -> ServiceError:
    """The error for a session whose time is over."""
    return ServiceError(
        Reason.SESSION_EXPIRED, "The session's time is over. Make another for all of its files, and send them again."
    )


def session_incomplete(missing: int) -> ServiceError:
    """The error for a session that is to be completed, and of which files are missing."""
    return ServiceError(
        Reason.SESSION_INCOMPLETE,
        f"{missing} files are missing. Get the session to see which, and send them.",
        metadata={"missing": str(missing)},
    )


def session_changed() -> ServiceError:
    """The error for a session whose files go on changing while it is completed."""
    return ServiceError(
        Reason.SESSION_INCOMPLETE,
        "Files of the session changed while it was completed. Try again.",
        metadata={"missing": "0"},
        retry_after=1,
    )


def not_expected() -> ServiceError:
    """The error for a file that a session does not expect."""
    return ServiceError(
        Reason.FILE_NOT_EXPECTED,
        "The file is none that the session expects, by its SHA-256 and size, or one more than it does.",
    )
