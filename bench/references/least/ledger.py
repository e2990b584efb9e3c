"""Everything of the database: five statements, each an exchange for all files that wait for it at the moment.

The tables are copies of ours, empty, with the same indexes and checks, made when this begins and dropped when it ends:
so the reconciler of the stack's own gateway does not look after files that are not its own.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Generic, TypeVar
from uuid import UUID, uuid4

import asyncpg

AskT = TypeVar("AskT")
AnswerT = TypeVar("AnswerT")

# Deadlines are asyncpg's own.
_SECONDS: Final = 6
_SETTINGS: Final = {"plan_cache_mode": "force_generic_plan"}
_DROP: Final = "DROP TABLE IF EXISTS least_files, least_logs"
_MAKE: Final = """
CREATE TABLE least_logs (LIKE dicom_upload_logs INCLUDING ALL,
    FOREIGN KEY (patient_id) REFERENCES patients, FOREIGN KEY (uploaded_by_id) REFERENCES users);
CREATE TABLE least_files (LIKE dicom_upload_files INCLUDING ALL,
    FOREIGN KEY (upload_log_id) REFERENCES least_logs, FOREIGN KEY (uploaded_by_id) REFERENCES users)
"""
_USERS: Final = """
SELECT id FROM users WHERE id = ANY($1::uuid[]) AND is_active AND role <> 'viewer'
"""
_PATIENTS: Final = """
SELECT id, mrn, full_name, coalesce(to_char(birth_date, 'YYYYMMDD'), '') AS birth_date, sex
  FROM patients WHERE id = ANY($1::uuid[])
"""
_WHOSE: Final = """
SELECT patient.id AS patient_id, orders.id AS order_id, orders.patient_id AS order_patient_id,
       log.id AS log_id, log.patient_id AS log_patient_id, log.is_deleted
  FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS asked (mrn, accession, study, place)
  LEFT JOIN patients patient ON patient.mrn = asked.mrn
  LEFT JOIN orders ON orders.accession_number = asked.accession AND asked.accession <> ''
  LEFT JOIN least_logs log ON log.study_instance_uid = asked.study
 ORDER BY asked.place
"""
# Of a study's first files.
_BEGIN_LOG: Final = """
INSERT INTO least_logs (id, patient_id, order_id, uploaded_by_id, study_instance_uid, original_patient_id,
                        original_patient_name, original_accession_number, original_study_date, original_modality,
                        upload_status, uploaded_at, upload_source)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'in_progress', now(), 'api') ON CONFLICT DO NOTHING
"""
_BEGIN: Final = """
INSERT INTO least_files (id, upload_id, upload_log_id, uploaded_by_id, study_instance_uid, series_instance_uid,
                         sop_instance_uid, orthanc_id, filename, source_sha256, source_size_bytes, stored_sha256,
                         stored_md5, stored_size_bytes, gateway_id, state, upload_source, received_at)
SELECT *, $15::uuid, 'received', 'api', now()
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[],
              $9::text[], $10::text[], $11::bigint[], $12::text[], $13::text[], $14::bigint[])
"""
# A deletion says so in the log before it deletes anything: a file that was looked at before that, and is told of after
# it, finds no log here. An instance counts once, with the file that Orthanc took for a new one.
_FINISH: Final = """
WITH held AS (SELECT id FROM least_logs WHERE id = ANY($2::uuid[]) AND NOT is_deleted ORDER BY id FOR NO KEY UPDATE),
done AS (
    UPDATE least_files file SET state = 'verified', is_current = new.counts, finished_at = now()
      FROM unnest($1::uuid[], $3::bool[]) AS new (id, counts)
     WHERE file.id = new.id AND file.state = 'received' AND file.upload_log_id IN (SELECT id FROM held)
    RETURNING file.id, file.upload_log_id, file.stored_size_bytes, new.counts),
counted AS (
    UPDATE least_logs log
       SET number_of_files = log.number_of_files + new.number, total_size_bytes = log.total_size_bytes + new.size,
           orthanc_study_id = study.orthanc_id, upload_status = 'success', file_names_stale = true,
           upload_duration_seconds = log.upload_duration_seconds + study.seconds
      FROM (SELECT upload_log_id, count(*) FILTER (WHERE counts) AS number,
                   coalesce(sum(stored_size_bytes) FILTER (WHERE counts), 0) AS size
              FROM done GROUP BY upload_log_id) AS new
      JOIN (SELECT log, max(orthanc_id) AS orthanc_id, sum(seconds) AS seconds
              FROM unnest($2::uuid[], $4::text[], $5::float8[]) AS one (log, orthanc_id, seconds) GROUP BY log) AS study
        ON study.log = new.upload_log_id
     WHERE log.id = new.upload_log_id)
SELECT id FROM done
"""


class RefusedError(Exception):
    """A file that is not stored, or a caller who may not."""


class Together(Generic[AskT, AnswerT]):
    """Asks what several want to know at once: while one exchange is under way, the next one gathers."""

    def __init__(self, ask_all: Callable[[Sequence[AskT]], Awaitable[Sequence[AnswerT]]]) -> None:
        self._ask_all = ask_all
        self._waiting: list[tuple[AskT, asyncio.Future[AnswerT]]] = []
        self._asking: asyncio.Task[None] | None = None

    def ask(self, one: AskT) -> "asyncio.Future[AnswerT]":
        """What `ask_all` answers to this one."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[AnswerT] = loop.create_future()
        self._waiting.append((one, future))
        if self._asking is None:
            self._asking = loop.create_task(self._work())
        return future

    async def _work(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                answers = await self._ask_all([one for one, _ in group])
            except Exception as error:  # noqa: BLE001 - those who wait raise it
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), answer in zip(group, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
        self._asking = None


class Ledger:
    """The five questions, each with a connection of its own."""

    def __init__(self, users: Any, patients: Any, whose: Any, begin: Any, finish: Any) -> None:
        self._connection_of_users = users
        self._connection_of_patients = patients
        self._connection_of_whose = whose
        self._connection_of_begin = begin
        self._connection_of_finish = finish
        self._id = uuid4()
        # By user id: whether the user may upload.
        self.users: Together[UUID, bool] = Together(self._users)
        # By the id of a patient: what files that are coerced to it are to say, None where there is no such patient.
        self.patients: Together[UUID, Any] = Together(self._patients)
        # By PatientID, AccessionNumber, StudyInstanceUID, user id and the tags: patient, order, and log.
        self.whose: Together[tuple[str, str, str, UUID, Any], Any] = Together(self._whose)
        # The columns of an entry.
        self.begin: Together[tuple[Any, ...], None] = Together(self._begin)
        # Entry, log, whether Orthanc took it for a new one, its study there, the seconds it took: whether it is stored.
        self.finish: Together[tuple[UUID, UUID, bool, str, float], bool] = Together(self._finish)

    async def _users(self, asked: Sequence[UUID]) -> Sequence[bool]:
        good = {row["id"] for row in await self._connection_of_users.fetch(_USERS, list(set(asked)))}
        return [one in good for one in asked]

    async def _patients(self, asked: Sequence[UUID]) -> Sequence[Any]:
        rows = {row["id"]: row for row in await self._connection_of_patients.fetch(_PATIENTS, list(set(asked)))}
        return [rows.get(one) for one in asked]

    async def _whose(self, asked: Sequence[tuple[str, str, str, UUID, Any]]) -> Sequence[Any]:
        mrns, accessions, studies, _, _ = zip(*asked, strict=True)
        rows = await self._connection_of_whose.fetch(_WHOSE, mrns, accessions, studies)
        new = {
            study: (uuid4(), row["patient_id"], row["order_id"], user, study, *_original(tags))
            for (_, _, study, user, tags), row in zip(asked, rows, strict=True)
            if row["log_id"] is None and row["patient_id"] is not None
        }
        if not new:
            return list(rows)
        await self._connection_of_whose.executemany(_BEGIN_LOG, list(new.values()))
        return list(await self._connection_of_whose.fetch(_WHOSE, mrns, accessions, studies))

    async def _begin(self, entries: Sequence[tuple[Any, ...]]) -> Sequence[None]:
        await self._connection_of_begin.execute(_BEGIN, *zip(*entries, strict=True), self._id)
        return [None] * len(entries)

    async def _finish(self, files: Sequence[tuple[UUID, UUID, bool, str, float]]) -> Sequence[bool]:
        done = {row["id"] for row in await self._connection_of_finish.fetch(_FINISH, *zip(*files, strict=True))}
        return [entry in done for entry, *_ in files]


@asynccontextmanager
async def ledger(url: str) -> AsyncIterator[Ledger]:
    """A ledger on tables of its own, which are gone afterwards."""
    async with AsyncExitStack() as resources:
        connections = []
        for _ in range(5):
            connections.append(await asyncpg.connect(url, command_timeout=_SECONDS, server_settings=_SETTINGS))
            resources.push_async_callback(connections[-1].close)
        await connections[0].execute(f"{_DROP}; {_MAKE}")
        resources.push_async_callback(connections[0].execute, _DROP)
        yield Ledger(*connections)


def _original(tags: Any) -> tuple[str, ...]:
    return (tags.dicom_patient_id, tags.patient_name, tags.accession_number, tags.study_date, tags.modality)
