"""The port `Database` in memory: units of work that see what is committed and their own changes, and locks."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import UUID, uuid4

from pacs_gateway.domain.ledger import LedgerFile
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
from pacs_gateway.domain.sessions import ExpectedFile, UploadSession
from pacs_gateway.domain.study import StudyLink
from pacs_gateway.domain.upload import KnownRequest
from pacs_gateway.domain.upload_log import (
    Deletion,
    Difference,
    UploadLog,
    UploadLogEntry,
    UploadLogFilter,
    UploadStatus,
)
from pacs_gateway.domain.whose import Claims, Known
from service_runtime.errors import Reason, ServiceError, not_found
from tests.unit.pacs_gateway.fake_ledger import FakeLedger, FakeLedgerEntries, SharedLock
from tests.unit.pacs_gateway.fake_quarantine import FakeQuarantine, FakeQuarantineEntries
from tests.unit.pacs_gateway.fake_sessions import FakeSessions
from tests.unit.pacs_gateway.hooks import Hooks

T = TypeVar("T")


def database_away() -> ServiceError:
    """What the real one raises when PostgreSQL is away."""
    return ServiceError(Reason.DATABASE_UNAVAILABLE, "The database cannot be reached. Retry.", retry_after=5)


@dataclass
class Tables:
    """Every row, by its id."""

    patients: dict[UUID, Patient] = field(default_factory=dict)
    orders: dict[UUID, Order] = field(default_factory=dict)
    users: dict[UUID, User] = field(default_factory=dict)
    logs: dict[UUID, UploadLog] = field(default_factory=dict)
    deletions: dict[UUID, Deletion] = field(default_factory=dict)
    files: dict[UUID, LedgerFile] = field(default_factory=dict)
    sessions: dict[UUID, UploadSession] = field(default_factory=dict)


class FakeDatabase:
    """The database. Its hooks' places: `begin`, `statement`, `commit` (before it), `committed`, `end`; `ledger`, before
    steps are written for all uploads together, and `written`; `find_user`.
    """

    def __init__(self) -> None:
        self.tables = Tables()
        self.hooks = Hooks()
        self.locks: defaultdict[str, SharedLock] = defaultdict(SharedLock)
        # The entries that the logs count.
        self.current: set[UUID] = set()
        self.ledger = FakeLedger(self)
        self.gateways_dead = False
        self.requests: dict[tuple[UUID, str], KnownRequest] = {}
        # What the sessions list.
        self.expected: dict[UUID, list[ExpectedFile]] = {}
        self.led_by_another = False
        self.quarantine = FakeQuarantine()
        self.compared: dict[UUID, Difference] = {}

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["FakeUnitOfWork"]:
        """A new unit of work."""
        await self.hooks.reach("begin")
        work = FakeUnitOfWork(self)
        try:
            yield work
        finally:
            for key, lock in work.held.items():
                lock.release(alone=key not in work.shared)
            await self.hooks.reach("end")

    async def find_user(self, user_id: UUID) -> User | None:
        """The user with this id, as committed."""
        await self.hooks.reach("find_user")
        return self.tables.users.get(user_id)

    async def look_up(self, claims: Sequence[Claims]) -> Sequence[Known]:
        """What is known of each file, as committed."""
        async with self.begin() as work:
            return await work.look_up(claims)

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[bool]:
        """Whether no other gateway leads."""
        await self.hooks.reach("lead")
        yield not self.led_by_another

    async def check(self) -> str:
        """A version."""
        await self.hooks.reach("begin")
        return "18.0"

    def log_of(self, study_uid: str) -> UploadLog | None:
        """The log of a study, as it is committed."""
        return next((log for log in self.tables.logs.values() if log.study_instance_uid == study_uid), None)


class FakeUnitOfWork:
    """One transaction (READ COMMITTED)."""

    def __init__(self, database: FakeDatabase) -> None:
        self.database = database
        self.changes = Tables()
        self.gone: set[UUID] = set()
        self.held: dict[str, SharedLock] = {}
        self.shared: set[str] = set()
        self.steps: list[Callable[[], None]] = []
        self.patients = FakePatients(self)
        self.orders = FakeOrders(self)
        self.users = FakeUsers(self)
        self.upload_logs = FakeUploadLogs(self)
        self.ledger = FakeLedgerEntries(self)
        self.requests = FakeRequests(self)
        self.quarantine = FakeQuarantineEntries(self)
        self.sessions = FakeSessions(self)

    async def lock_study(self, study_uid: str) -> None:
        """Holds the study to the end of this unit of work."""
        await self.hold(f"study {study_uid}")

    async def share_studies(self, study_uids: Collection[str]) -> Collection[str]:
        """Holds those of the studies that nobody holds alone, or waits for, with others to the end of this unit of
        work.
        """
        free = [uid for uid in study_uids if self.database.locks[f"study {uid}"].can_be_shared]
        for uid in free:
            await self.hold(f"study {uid}", alone=False)
        return free

    async def look_up(self, claims: Sequence[Claims]) -> Sequence[Known]:
        """What is known of each file."""
        orders = (await self.rows("orders")).values()
        known = []
        for claim in claims:
            by_accession = next((one for one in orders if one.accession_number == claim.accession_number), None)
            known.append(
                Known(
                    patient=(await self.patients.by_mrn([claim.mrn])).get(claim.mrn) if claim.mrn else None,
                    by_accession=by_accession if claim.accession_number else None,
                    named_order=next((one for one in orders if one.id == claim.order_id), None),
                    log=(await self.upload_logs.by_study([claim.study_instance_uid])).get(claim.study_instance_uid),
                    is_being_deleted=await self.upload_logs.open_deletion(claim.study_instance_uid) is not None,
                )
            )
        return known

    async def lock_order(self, order_id: UUID) -> None:
        """Holds the order to the end of this unit of work."""
        await self.hold(f"order {order_id}")

    async def commit(self) -> None:
        """Makes the changes last."""
        await self.database.hooks.reach("commit")
        for name in Tables.__dataclass_fields__:
            rows = getattr(self.database.tables, name)
            rows |= getattr(self.changes, name)
            for row_id in self.gone & rows.keys():
                del rows[row_id]
        for step in self.steps:
            step()
        self.changes, self.gone, self.steps = Tables(), set(), []
        await self.database.hooks.reach("committed")

    async def hold(self, key: str, *, alone: bool = True) -> None:
        """Waits for a lock, unless it is held already."""
        await self.database.hooks.reach("statement")
        if key not in self.held:
            await self.database.locks[key].acquire(alone=alone)
            self.held[key] = self.database.locks[key]
            if not alone:
                self.shared.add(key)

    async def rows(self, table: str) -> dict[UUID, Any]:
        """The rows of a table as this unit of work sees them."""
        await self.database.hooks.reach("statement")
        seen = getattr(self.database.tables, table) | getattr(self.changes, table)
        return {row_id: row for row_id, row in seen.items() if row_id not in self.gone}


class FakeRequests:
    """The requests that carry an id; each call is its own transaction here."""

    def __init__(self, work: FakeUnitOfWork) -> None:
        self._known = work.database.requests

    async def claim(self, user_id: UUID, request_id: str, asked_sha256: str, **_times: float) -> KnownRequest | None:
        """Takes the id, or tells who has it."""
        known = self._known.get((user_id, request_id))
        if known is None:
            self._known[user_id, request_id] = KnownRequest(asked_sha256, "", None)
        return known

    async def finish(self, user_id: UUID, request_id: str, content_sha256: str, answers: Sequence[bytes]) -> None:
        """Keeps the answers."""
        known = self._known[user_id, request_id]
        self._known[user_id, request_id] = KnownRequest(known.asked_sha256, content_sha256, tuple(answers))

    async def release(self, user_id: UUID, request_id: str) -> None:
        """Gives the id up."""
        self._known.pop((user_id, request_id), None)


class FakePatients:
    """The patients."""

    def __init__(self, work: FakeUnitOfWork) -> None:
        self._work = work

    async def get(self, patient_id: UUID) -> Patient | None:
        """The patient with this id."""
        return (await self._work.rows("patients")).get(patient_id)

    async def many(self, patient_ids: Collection[UUID]) -> Mapping[UUID, Patient]:
        """The patients with these ids."""
        return {key: row for key, row in (await self._work.rows("patients")).items() if key in patient_ids}

    async def by_mrn(self, mrns: Collection[str]) -> Mapping[str, Patient]:
        """The patients with these MRNs."""
        assert "" not in mrns, "an empty identifier is never asked for"
        return {row.mrn: row for row in (await self._work.rows("patients")).values() if row.mrn in mrns}

    async def make_provisional(self, patient: Patient) -> Patient:
        """Adds the patient, or gives the one with the MRN."""
        await self._work.hold(f"mrn {patient.mrn}")
        known = await self.by_mrn([patient.mrn])
        if patient.mrn not in known:
            self._work.changes.patients[patient.id] = replace(patient, is_provisional=True)
        return (await self.by_mrn([patient.mrn]))[patient.mrn]

    async def upsert(self, entries: Sequence[PatientEntry]) -> Sequence[Patient]:
        """Makes or changes patients; a provisional one takes on the id that the RIS gives its MRN."""
        made = []
        for entry in entries:
            known = (await self.by_mrn([entry.mrn])).get(entry.mrn)
            patient_id = entry.id or (known.id if known else uuid4())
            if known and known.id != patient_id:
                if not known.is_provisional:
                    raise ServiceError(Reason.REGISTRY_CONFLICT, "The MRN is there under another id.")
                await self._move(known.id, patient_id)
            patient = Patient(patient_id, entry.mrn, entry.full_name, entry.birth_date, entry.sex)
            self._work.changes.patients[patient_id] = patient
            made.append(patient)
        return made

    async def page(self, request: PageRequest, *, mrn: str | None) -> Page[Patient]:
        """A page by id."""
        rows = (await self._work.rows("patients")).values()
        return _page([row for row in rows if mrn in {None, row.mrn}], request)

    async def _move(self, old: UUID, new: UUID) -> None:
        self._work.gone.add(old)
        for table in ("orders", "logs"):
            for row_id, row in (await self._work.rows(table)).items():
                if row.patient_id == old:
                    getattr(self._work.changes, table)[row_id] = replace(row, patient_id=new)


class FakeOrders:
    """The orders."""

    def __init__(self, work: FakeUnitOfWork) -> None:
        self._work = work

    async def get(self, order_id: UUID) -> Order | None:
        """The order with this id."""
        return (await self._work.rows("orders")).get(order_id)

    async def many(self, order_ids: Collection[UUID]) -> Mapping[UUID, Order]:
        """The orders with these ids."""
        return {key: row for key, row in (await self._work.rows("orders")).items() if key in order_ids}

    async def by_accession(self, accession_number: str) -> Order | None:
        """The order with this accession number."""
        assert accession_number, "an empty identifier is never asked for"
        rows = (await self._work.rows("orders")).values()
        return next((row for row in rows if row.accession_number == accession_number), None)

    async def fill(self, order_id: UUID, study: OrderStudy) -> None:
        """Sets the DICOM fields."""
        rows = await self._work.rows("orders")
        if order_id in rows:
            self._work.changes.orders[order_id] = replace(rows[order_id], study=study)

    async def clear(self, study_instance_uid: str) -> None:
        """Empties the DICOM fields of the study's orders."""
        for row_id, row in (await self._work.rows("orders")).items():
            if row.study is not None and row.study.study_instance_uid == study_instance_uid:
                self._work.changes.orders[row_id] = replace(row, study=None)

    async def upsert(self, entries: Sequence[OrderEntry]) -> Sequence[Order]:
        """Makes or changes orders; their DICOM fields stay."""
        made = []
        for entry in entries:
            if entry.patient_id not in await self._work.rows("patients"):
                raise not_found(Reason.PATIENT_NOT_FOUND, "patient", str(entry.patient_id))
            known = await self.by_accession(entry.accession_number)
            if known and entry.id not in {None, known.id}:
                raise ServiceError(Reason.REGISTRY_CONFLICT, "The accession number is there under another id.")
            order_id = entry.id or (known.id if known else uuid4())
            before = await self.get(order_id)
            order = Order(
                order_id,
                entry.patient_id,
                entry.accession_number,
                entry.modality,
                entry.status,
                before.study if before else None,
            )
            self._work.changes.orders[order_id] = order
            made.append(order)
        return made

    async def page(
        self, request: PageRequest, *, patient_id: UUID | None, accession_number: str | None, status: str | None
    ) -> Page[Order]:
        """A page by id."""
        wanted = [
            row
            for row in (await self._work.rows("orders")).values()
            if patient_id in {None, row.patient_id}
            and accession_number in {None, row.accession_number}
            and status in {None, row.status}
        ]
        return _page(wanted, request)


class FakeUsers:
    """The users."""

    def __init__(self, work: FakeUnitOfWork) -> None:
        self._work = work

    async def upsert(self, entries: Sequence[UserEntry]) -> Sequence[User]:
        """Makes or changes users."""
        made = []
        for entry in entries:
            rows = (await self._work.rows("users")).values()
            known = next((row for row in rows if row.username == entry.username), None)
            if known and entry.id not in {None, known.id}:
                raise ServiceError(Reason.REGISTRY_CONFLICT, "The username is there under another id.")
            user_id = entry.id or (known.id if known else uuid4())
            user = User(user_id, entry.username, entry.full_name, entry.role, entry.is_active)
            self._work.changes.users[user_id] = user
            made.append(user)
        return made

    async def page(self, request: PageRequest, *, username: str | None) -> Page[User]:
        """A page by id."""
        rows = (await self._work.rows("users")).values()
        return _page([row for row in rows if username in {None, row.username}], request)


class FakeUploadLogs:
    """The upload logs and the traces of deletions."""

    def __init__(self, work: FakeUnitOfWork) -> None:
        self._work = work

    async def by_study(self, study_uids: Collection[str]) -> Mapping[str, UploadLog]:
        """The logs of these studies."""
        rows = (await self._work.rows("logs")).values()
        return {row.study_instance_uid: row for row in rows if row.study_instance_uid in study_uids}

    async def hold(self, study_uids: Collection[str]) -> Mapping[str, UploadLog]:
        """The logs of these studies."""
        return await self.by_study(study_uids)

    async def links(self, orthanc_study_ids: Collection[str]) -> Mapping[str, StudyLink]:
        """What these studies were uploaded for."""
        logs = (await self._work.rows("logs")).values()
        return {
            log.orthanc_study_id: StudyLink(log.patient_id, log.order_id)
            for log in logs
            if log.orthanc_study_id in orthanc_study_ids and not log.is_deleted
        }

    async def save(self, log: UploadLog) -> None:
        """Adds or replaces the log; its study must be locked, have no other log, and its patient be there."""
        key = f"study {log.study_instance_uid}"
        assert key in self._work.held.keys() - self._work.shared, "the study must be locked"
        known = (await self.by_study([log.study_instance_uid])).get(log.study_instance_uid)
        assert known is None or known.id == log.id, "a study has one log"
        if log.patient_id not in await self._work.rows("patients"):
            raise not_found(Reason.PATIENT_NOT_FOUND, "patient", str(log.patient_id))
        self._work.changes.logs[log.id] = log

    async def entry(self, log_id: UUID) -> UploadLogEntry | None:
        """The log as it is shown."""
        log = (await self._work.rows("logs")).get(log_id)
        return await self._entry(log) if log else None

    async def page(self, request: PageRequest, wanted: UploadLogFilter) -> Page[UploadLogEntry]:
        """A page, newest first."""
        equal = ("patient_id", "order_id", "study_instance_uid", "upload_status")
        found = [
            log
            for log in (await self._work.rows("logs")).values()
            if all(getattr(wanted, name) in {None, getattr(log, name)} for name in equal)
            and (wanted.uploaded_from is None or log.uploaded_at >= wanted.uploaded_from)
            and (wanted.uploaded_until is None or log.uploaded_at < wanted.uploaded_until)
        ]
        found.sort(key=lambda log: log.id)
        found.sort(key=lambda log: log.uploaded_at, reverse=True)
        places = [(log.uploaded_at.isoformat(), str(log.id)) for log in found]
        start = places.index(request.after) + 1 if request.after else 0
        end = start + request.limit
        items = tuple([await self._entry(log) for log in found[start:end]])
        return Page(items, len(found), places[end - 1] if end < len(found) else ())

    async def unfinished(self, *, lease_seconds: float, limit: int) -> Sequence[UploadLog]:  # noqa: ARG002 - the port's
        """Logs in progress without an open entry."""
        opened = {one.upload_log_id for one in (await self._work.rows("files")).values() if one.is_open}
        logs = (await self._work.rows("logs")).values()
        return [one for one in logs if one.upload_status is UploadStatus.IN_PROGRESS and one.id not in opened][:limit]

    async def to_compare(self, *, older_seconds: float, limit: int) -> Sequence[UploadLog]:  # noqa: ARG002 - the port's
        """Logs at rest."""
        logs = (await self._work.rows("logs")).values()
        at_rest = (one for one in logs if one.upload_status is not UploadStatus.IN_PROGRESS and not one.is_deleted)
        return list(at_rest)[:limit]

    async def compared(self, differences: Mapping[UUID, Difference]) -> None:
        """Notes how logs compare with what the PACS holds."""
        self._work.database.compared |= differences

    async def list_files(self, *, limit: int) -> int:  # noqa: ARG002 - the port's
        """Lists no files."""
        return 0

    async def save_deletion(self, deletion: Deletion) -> None:
        """Adds or replaces the trace."""
        await self._work.database.hooks.reach("statement")
        self._work.changes.deletions[deletion.id] = deletion

    async def open_deletion(self, study_uid: str) -> Deletion | None:
        """The latest trace of the study, when it was never completed."""
        latest = max(await self._deletions(study_uid), key=lambda one: one.requested_at, default=None)
        return latest if latest and latest.completed_at is None else None

    async def _deletions(self, study_uid: str) -> list[Deletion]:
        rows = (await self._work.rows("deletions")).values()
        return [row for row in rows if row.study_instance_uid == study_uid]

    async def _entry(self, log: UploadLog) -> UploadLogEntry:
        users = await self._work.rows("users")
        done = [one for one in await self._deletions(log.study_instance_uid) if one.completed_at is not None]
        last = max(done, key=lambda one: one.completed_at, default=None)
        by = users[last.requested_by_id].full_name if last else ""
        return UploadLogEntry(log, users[log.uploaded_by_id].full_name, last, by)


def _page(rows: Collection[T], request: PageRequest) -> Page[T]:
    found = sorted(rows, key=_key)
    after = [row for row in found if not request.after or _key(row) > request.after[0]]
    shown = after[: request.limit]
    return Page(tuple(shown), len(found), (_key(shown[-1]),) if len(after) > len(shown) else ())


def _key(row: Any) -> str:
    return str(row.id)
