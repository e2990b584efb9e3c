"""What the use cases need from outside. The adapters implement these; every error they raise is a ServiceError."""

from collections.abc import AsyncGenerator, AsyncIterable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from pacs_gateway.domain.ledger import Content, LedgerFile, Step
from pacs_gateway.domain.media import DirectoryRecord
from pacs_gateway.domain.paging import Page, PageRequest
from pacs_gateway.domain.registry import (
    Order,
    OrderEntry,
    OrderStudy,
    Patient,
    PatientEntry,
    User,
    UserEntry,
)
from pacs_gateway.domain.sessions import ExpectedFile, SessionFile, UploadSession
from pacs_gateway.domain.study import (
    Counts,
    Fingerprint,
    PacsSeries,
    PacsStudy,
    StoredInstance,
    StudyFilter,
    StudyLink,
    StudyOrder,
)
from pacs_gateway.domain.tags import DicomTags, Edits, HeaderEdit
from pacs_gateway.domain.upload import KnownRequest
from pacs_gateway.domain.upload_log import Deletion, Difference, UploadLog, UploadLogEntry, UploadLogFilter
from pacs_gateway.domain.whose import Claims, Known
from pacs_gateway.use_cases.quarantine_ports import QuarantineEntries
from service_runtime.errors import ServiceError

_FATE: Final = ("fate", "unknown")


def fate_unknown(error: ServiceError) -> ServiceError:
    """The error, which says besides that the file may be stored all the same."""
    error.metadata |= [_FATE]
    return error


def is_fate_unknown(error: BaseException) -> bool:
    """Whether the error says that the file may be stored all the same."""
    return isinstance(error, ServiceError) and _FATE in error.metadata.items()


class TagService(Protocol):
    """tag_service. Raises its errors, and TAG_SERVICE_UNAVAILABLE."""

    async def read_tags(self, chunks: AsyncIterable[bytes]) -> DicomTags:
        """The tags of a file; stops reading `chunks` once they are known."""

    def modify(self, chunks: AsyncIterable[bytes], edits: Edits) -> AsyncGenerator[bytes, None]:
        """The edited file. It is complete only when the iteration ends; with no edits it is checked all the same."""

    async def modify_header(self, beginning: bytes, file_size: int, edits: Edits, *, ending: bytes = b"") -> HeaderEdit:
        """What `read_tags` and `modify` would give for a file of this size, if the bytes that it begins with tell, and
        those that it ends with: a KiB is enough for what images have behind their pixels.
        """

    async def read_directory(self, chunks: AsyncIterable[bytes]) -> Sequence[DirectoryRecord]:
        """The files that a DICOMDIR names, in order; none where the file is no DICOMDIR. The caller bounds its size."""

    async def check(self) -> str:
        """Returns "" when tag_service is ready; raises TAG_SERVICE_UNAVAILABLE."""


class Pacs(Protocol):
    """Orthanc. Raises ORTHANC_UNAVAILABLE and ORTHANC_ERROR."""

    async def check(self) -> str:
        """Orthanc's version."""

    async def store(self, chunks: AsyncIterable[bytes]) -> StoredInstance:
        """Stores one file. When `chunks` raises, nothing is stored. Raises STORE_REFUSED.

        Where all of the file was sent and no answer made sense, it may be stored: is_fate_unknown of what is raised.
        """

    async def store_whole(self, data: bytes) -> StoredInstance:
        """Stores one file that is here as a whole. Raises as `store`."""

    async def fingerprint(self, orthanc_id: str, *, read_again: bool = True) -> Fingerprint | None:
        """Size and MD5 of a stored instance; None where there is none. `read_again`: proved by reading it, else noted
        when it was stored. Raises STORE_UNVERIFIED.
        """

    def file(self, orthanc_id: str) -> AsyncGenerator[bytes, None]:
        """The bytes of a stored instance; none where there is none."""

    async def study_of(self, orthanc_id: str) -> PacsStudy | None:
        """The study of a stored instance; None where there is none."""

    async def delete_instance(self, orthanc_id: str) -> None:
        """Deletes an instance; no error where there is none."""

    async def find_studies(
        self, wanted: StudyFilter, *, limit: int, order: Sequence[StudyOrder] = ()
    ) -> Sequence[PacsStudy]:
        """The studies that match, in order, at most `limit`. Who must know that these are all asks for one more."""

    async def contents(self, orthanc_study_ids: Collection[str]) -> Mapping[str, tuple[PacsStudy, Counts]]:
        """The studies as they are now, by their Orthanc ids, and what they hold; those that are gone are left out. Two
        calls, however many they are.
        """

    async def counts(self, study_uids: Collection[str]) -> Mapping[str, Counts]:
        """What the studies hold, by StudyInstanceUID, in one call however many they are."""

    async def series(self, orthanc_study_id: str) -> Sequence[PacsSeries] | None:
        """The series of a study, in order; None where there is no such study."""

    async def instances(self, orthanc_series_id: str) -> Sequence[str]:
        """The instances of a series (Orthanc's ids), in order."""

    async def delete_study(self, orthanc_study_id: str) -> None:
        """Deletes a study; no error where there is none."""

    async def picture(self, orthanc_id: str) -> bytes | None:
        """A PNG of an instance; None where it cannot be shown."""

    async def last_change(self) -> int:
        """A number that is another one whenever something came into Orthanc; 0 where that cannot be told."""


class SetAside(Protocol):
    """A copy of a file, as long as it is not closed."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What it is."""

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The file, from its start."""

    async def aclose(self) -> None:
        """Keeps it no longer."""


class Spool(Protocol):
    """Where copies are kept for a while, out of memory."""

    async def set_aside(self, chunks: AsyncIterable[bytes]) -> SetAside | None:
        """Copies a file; None of no chunks. Raises OVERLOADED where there is no room for it."""


class Patients(Protocol):
    """The patients of the registry."""

    async def get(self, patient_id: UUID) -> Patient | None:
        """The patient with this id."""

    async def many(self, patient_ids: Collection[UUID]) -> Mapping[UUID, Patient]:
        """The patients with these ids."""

    async def by_mrn(self, mrns: Collection[str]) -> Mapping[str, Patient]:
        """The patients with these MRNs, by MRN."""

    async def make_provisional(self, patient: Patient) -> Patient:
        """Adds the patient, unless another call has added the MRN meanwhile; the one that is there then."""

    async def upsert(self, entries: Sequence[PatientEntry]) -> Sequence[Patient]:
        """Makes or changes patients, in order. Raises REGISTRY_CONFLICT."""

    async def page(self, request: PageRequest, *, mrn: str | None) -> Page[Patient]:
        """A page of patients by id."""


class Orders(Protocol):
    """The orders of the registry."""

    async def get(self, order_id: UUID) -> Order | None:
        """The order with this id."""

    async def many(self, order_ids: Collection[UUID]) -> Mapping[UUID, Order]:
        """The orders with these ids."""

    async def by_accession(self, accession_number: str) -> Order | None:
        """The order with this accession number."""

    async def fill(self, order_id: UUID, study: OrderStudy) -> None:
        """Sets the order's DICOM fields."""

    async def clear(self, study_instance_uid: str) -> None:
        """Empties the DICOM fields of the orders that this study was uploaded for."""

    async def upsert(self, entries: Sequence[OrderEntry]) -> Sequence[Order]:
        """Makes or changes orders, in order. Raises REGISTRY_CONFLICT, PATIENT_NOT_FOUND."""

    async def page(
        self, request: PageRequest, *, patient_id: UUID | None, accession_number: str | None, status: str | None
    ) -> Page[Order]:
        """A page of orders by id."""


class Users(Protocol):
    """The users of the registry."""

    async def upsert(self, entries: Sequence[UserEntry]) -> Sequence[User]:
        """Makes or changes users, in order. Raises REGISTRY_CONFLICT."""

    async def page(self, request: PageRequest, *, username: str | None) -> Page[User]:
        """A page of users by id."""


class UploadLogs(Protocol):
    """The upload logs and the traces of deletions."""

    async def by_study(self, study_uids: Collection[str]) -> Mapping[str, UploadLog]:
        """The logs of these studies, by StudyInstanceUID."""

    async def hold(self, study_uids: Collection[str]) -> Mapping[str, UploadLog]:
        """The logs of these studies, by StudyInstanceUID. To the end of the transaction nobody else changes them, and
        the RIS changes no patient and no order.
        """

    async def links(self, orthanc_study_ids: Collection[str]) -> Mapping[str, StudyLink]:
        """What these studies were uploaded for, by Orthanc's id, for one StudyInstanceUID may stand under several
        PatientIDs; nothing for those that were deleted since.
        """

    async def save(self, log: UploadLog) -> None:
        """Adds or replaces the log with this id. The study must be locked."""

    async def entry(self, log_id: UUID) -> UploadLogEntry | None:
        """The log with this id, as it is shown."""

    async def page(self, request: PageRequest, wanted: UploadLogFilter) -> Page[UploadLogEntry]:
        """A page of logs, newest first."""

    async def unfinished(self, *, lease_seconds: float, limit: int) -> Sequence[UploadLog]:
        """Logs that have been in progress for so long, and have no open entry: those of before the ledger."""

    async def to_compare(self, *, older_seconds: float, limit: int) -> Sequence[UploadLog]:
        """Logs of studies that are at rest and not deleted, and were not compared with the PACS for so long, or since
        they changed; the longest ones first.
        """

    async def compared(self, differences: Mapping[UUID, Difference]) -> None:
        """Notes how logs compare with what the PACS holds."""

    async def list_files(self, *, limit: int) -> int:
        """Brings the lists of files of logs at rest up to date, of so many; how many it was."""

    async def save_deletion(self, deletion: Deletion) -> None:
        """Adds or replaces the trace with this id."""

    async def open_deletion(self, study_uid: str) -> Deletion | None:
        """The latest trace of the study, when it was never completed."""


class LedgerEntries(Protocol):
    """The ledger, within a transaction."""

    async def write(self, *steps: Step) -> None:
        """Adds steps, as Ledger.write does."""

    async def of_instance(self, orthanc_id: str) -> Sequence[LedgerFile]:
        """Entries of an instance of which all has come, the newest first."""

    async def get(self, entry_id: UUID) -> LedgerFile | None:
        """The entry with this id."""

    async def orphans(self, *, lease_seconds: float, limit: int) -> Sequence[LedgerFile]:
        """Open entries of which no gateway says any more what becomes of them: it gave no sign of life for so long,
        or gave them up. The oldest first.
        """

    async def recount(self, upload_log_id: UUID) -> None:
        """Has the log say what its entries come to."""

    async def counts(self, orthanc_id: str) -> bool:
        """Whether a log counts the instance as stored."""

    async def forget(self, upload_log_id: UUID) -> None:
        """Has the log count no file any more. What it says itself changes with its next file."""

    async def forget_instance(self, orthanc_id: str) -> None:
        """Has no log count the instance any more."""

    async def forget_entry(self, entry: LedgerFile) -> None:
        """Has the entry's log count it no more."""


class UploadRequests(Protocol):
    """The requests that carry an id, by user and id."""

    async def claim(
        self, user_id: UUID, request_id: str, asked_sha256: str, *, keep_seconds: float, lease_seconds: float
    ) -> KnownRequest | None:
        """Takes the id for a request; where it is taken, what is known of the one that has it. One that is under way at
        a gateway without a sign of life for `lease_seconds` has it no more, nor one of which the time is over.
        """

    async def finish(self, user_id: UUID, request_id: str, content_sha256: str, answers: Sequence[bytes]) -> None:
        """Keeps the answers to the request."""

    async def release(self, user_id: UUID, request_id: str) -> None:
        """Gives up the id of a request that is not to be replayed."""


class UploadSessions(Protocol):
    """The upload sessions. What has come into them is told by the ledger's entries."""

    async def add(self, session: UploadSession, files: Sequence[ExpectedFile]) -> None:
        """Adds a session, with the files that it lists."""

    async def get(self, session_id: UUID) -> UploadSession | None:
        """The session with this id."""

    async def hold(self, session_id: UUID) -> UploadSession | None:
        """The session with this id, which nobody else holds, or shares, until the end of the transaction."""

    async def share(self, session_id: UUID, content: Content) -> tuple[UploadSession, bool] | None:
        """The session with this id, once nobody holds it, and whether it expects a file of this SHA-256 and size: it
        lists it, or fewer others than it is for are in it or on their way.
        """

    async def files(self, session: UploadSession) -> Sequence[SessionFile]:
        """The files that the session lists, else those that have come and did not fail, by SHA-256."""

    async def complete(self, session: UploadSession) -> None:
        """Keeps that a session is completed, and its receipt. It must be held."""

    async def due(self, *, now: datetime, limit: int) -> Sequence[UUID]:
        """Open sessions whose time is over, so many at most."""

    async def expire(self, session: UploadSession) -> None:
        """Keeps that a session is expired. It must be held."""

    async def settled_by(self, session: UploadSession) -> Sequence[LedgerFile]:
        """The entries for what never came into expired sessions, of which all has come with this one that is complete:
        where they list files, these and those that completed sessions list; else files of the same study.
        """


class UnitOfWork(Protocol):
    """One transaction: what is not committed when it ends is rolled back."""

    patients: Patients
    orders: Orders
    users: Users
    upload_logs: UploadLogs
    ledger: LedgerEntries
    requests: UploadRequests
    sessions: UploadSessions
    quarantine: QuarantineEntries

    async def lock_study(self, study_uid: str) -> None:
        """Waits for, and holds until the end of the transaction, the right to change what is known of a study."""

    async def share_studies(self, study_uids: Collection[str]) -> Collection[str]:
        """Keeps that right from everybody until the end of the transaction, for those of the studies of which nobody
        has it, or waits for it; which these are.
        """

    async def lock_order(self, order_id: UUID) -> None:
        """Waits for, and holds until the end of the transaction, the right to say which study an order has."""

    async def look_up(self, claims: Sequence[Claims]) -> Sequence[Known]:
        """What the registry and the logs know of each of these files, in one statement however many they are."""

    async def commit(self) -> None:
        """Makes the changes last."""


class Ledger(Protocol):
    """The ledger, written for all uploads together."""

    async def write(self, step: Step) -> Sequence[LedgerFile]:
        """Makes a step last, and brings the log and the order up to date with it. The other entries of the instance
        that are open, or that a log counts as stored, and of which all has come; none for a file whose fate is known.

        Not to be awaited by who has changed anything in a unit of work that is not committed. Raises OVERLOADED.
        """

    async def beat(self) -> None:
        """Gives a sign of life: until the next one is overdue, nobody else looks into the entries of this gateway."""

    def abandon(self, entry_id: UUID) -> None:
        """Says that nobody here will write what becomes of a file, so that the reconciler may look into it."""


class Database(Protocol):
    """PostgreSQL. Whatever of it raises, raises DATABASE_UNAVAILABLE when PostgreSQL is away or too slow."""

    @property
    def ledger(self) -> Ledger:
        """The ledger."""

    def begin(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """A new unit of work."""

    async def find_user(self, user_id: UUID) -> User | None:
        """The user with this id, as of now and outside of any unit of work. Raises OVERLOADED."""

    async def look_up(self, claims: Sequence[Claims]) -> Sequence[Known]:
        """What the registry and the logs know of each of these files, as of one moment and outside of any unit of work.
        One at a time asks.
        """

    def lead(self) -> AbstractAsyncContextManager[bool]:
        """Whether this gateway is, while the context lasts, the only one of all that reconciles."""

    async def check(self) -> str:
        """The server's version."""


class ReceiptSigner(Protocol):
    """The key of receipts."""

    @property
    def keys(self) -> bytes:
        """The JWKS (RFC 7517) that receipts are checked with: its public half, and those of the keys before it."""

    def sign(self, claims: Mapping[str, Any]) -> str:
        """The receipt: a JWS (RFC 7515, compact). It takes as long as the claims are long, and blocks."""


class Clock(Protocol):
    """What time it is."""

    def __call__(self) -> datetime:
        """Now, in UTC."""
