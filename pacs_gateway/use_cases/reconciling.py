"""Finding out what became of files whose gateway did not live to say it, and how the logs compare with the PACS.

Every gateway gives signs of life; the one that leads looks into the entries of those that give none any more, by asking
Orthanc what is there. It does so again and again, a bounded part at a time, and doing it twice changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import structlog

from pacs_gateway.domain.ledger import ABANDONED, Content, FileState, LedgerFile, Step
from pacs_gateway.domain.registry import OrderStudy
from pacs_gateway.domain.study import Counts, PacsStudy
from pacs_gateway.domain.tags import DicomTags
from pacs_gateway.domain.upload_log import Difference, UploadLog
from pacs_gateway.use_cases.ports import Clock, Database, Pacs, UnitOfWork
from pacs_gateway.use_cases.quarantine_upkeep import QuarantineUpkeep
from pacs_gateway.use_cases.sessions import expire_sessions
from service_runtime.errors import Reason, ServiceError
from service_runtime.logs import describe

log = structlog.get_logger()

# What one pass takes on at most; the rest is the next one's.
_ENTRIES = 1000
_ENTRIES_AT_A_TIME = 100
_LOGS = 500
_LOGS_AT_A_TIME = 50
_SESSIONS = 100
# A gateway is taken for dead when it missed so many signs of life.
_BEATS = 4
# A pass that broke off is made again sooner.
_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Report:
    """What one pass came to: entries by their fate; logs of before the ledger that were closed; upload sessions that
    expired; logs compared with the PACS, and how many instances it held less, and more, than these count.
    """

    verified: int = 0
    failed: int = 0
    closed: int = 0
    expired: int = 0
    compared: int = 0
    missing: int = 0
    unlogged: int = 0


class Reconciler:
    """Reconciles the ledger with the PACS."""

    def __init__(
        self,
        *,
        database: Database,
        pacs: Pacs,
        clock: Clock,
        lease_seconds: float,
        interval_seconds: float,
        compare_seconds: float,
        quarantine: QuarantineUpkeep | None = None,
    ) -> None:
        """A gateway without a sign of life for `lease_seconds` is dead. A pass is made every `interval_seconds`; it
        compares the logs with the PACS that were not for `compare_seconds`, and looks after the `quarantine`.
        """
        self._database = database
        self._pacs = pacs
        self._clock = clock
        self._lease = lease_seconds
        self._interval = interval_seconds
        self._compare_seconds = compare_seconds
        self._quarantine = quarantine

    async def run(self) -> None:
        """Gives signs of life and makes passes, until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self._database.ledger.beat, self._lease / _BEATS))
            tasks.create_task(self._repeat(self._pass, self._interval))

    async def reconcile(self) -> Report | None:
        """One pass; None where another gateway leads. Raises what says that a part is away."""
        async with self._database.lead() as leads:
            if not leads:
                return None
            if self._quarantine is not None:
                # It needs no PACS, and so comes before what does.
                await self._quarantine.run()
            report = await self._settle_orphans(Report())
            report = replace(report, closed=await self._close_unfinished())
            report = await self._compare(report)
            report = replace(report, expired=await expire_sessions(self._database, self._clock, limit=_SESSIONS))
            async with self._database.begin() as work:
                await work.upload_logs.list_files(limit=_LOGS)
                await work.commit()
        return report

    async def _pass(self) -> None:
        report = await self.reconcile()
        if report is None:
            return
        level = log.warning if report.missing or report.unlogged else log.info
        if replace(report, compared=0) != Report():
            level("reconciled", **{name: getattr(report, name) for name in Report.__dataclass_fields__})

    @staticmethod
    async def _repeat(work: Callable[[], Awaitable[None]], seconds: float) -> None:
        away: str | None = None
        while True:
            try:
                await work()
                pause, away = seconds, None
            except ServiceError as error:
                # Told once, however long it lasts.
                if error.reason != away:
                    log.warning("reconciling broke off", reason=error.reason)
                pause, away = min(seconds, _RETRY_SECONDS), error.reason
            except Exception as error:  # noqa: BLE001 - it must not end while the gateway lives
                log.error("defect", **describe(error))  # noqa: TRY400 - it would log the text
                pause = seconds
            await asyncio.sleep(pause)

    # --- entries that nobody else closes

    async def _settle_orphans(self, report: Report) -> Report:
        seen: set[UUID] = set()
        while len(seen) < _ENTRIES:
            async with self._database.begin() as work:
                found = await work.ledger.orphans(lease_seconds=self._lease, limit=_ENTRIES_AT_A_TIME)
            fresh = [entry for entry in found if entry.id not in seen]
            if not fresh:
                break
            for entry in fresh:
                seen.add(entry.id)
                state = await self._settle(entry)
                report = replace(
                    report,
                    verified=report.verified + (state is FileState.VERIFIED),
                    failed=report.failed + (state is FileState.FAILED),
                )
        return report

    async def _settle(self, orphan: LedgerFile) -> FileState | None:
        """What became of the file: what the PACS holds of it decides. None where that was said meanwhile."""
        async with self._database.begin() as work:
            await work.lock_study(orphan.study_instance_uid)
            entry = await work.ledger.get(orphan.id)
            if entry is None or not entry.is_open:
                return None
            known = (await work.upload_logs.by_study([entry.study_instance_uid])).get(entry.study_instance_uid)
            try:
                content = await self._held(work, entry)
            except ServiceError as error:
                if error.reason is not Reason.STORE_UNVERIFIED:
                    raise
                entry, content = replace(entry, error=error.reason), None
            study = await self._pacs.study_of(entry.orthanc_id) if content is not None else None
            if content is None or study is None or known is None:
                step = Step(entry.failed(entry.error or ABANDONED, at=self._clock()))
            elif known.holds_files and study.patient_id != known.stored_patient_id:
                # The study came to be another patient's while the file travelled, and must not be two.
                if not await work.ledger.counts(entry.orthanc_id):
                    await self._pacs.delete_instance(entry.orthanc_id)
                step = Step(entry.failed(Reason.STUDY_PATIENT_MISMATCH, at=self._clock()), counts=False)
            else:
                step = await self._found(work, entry, content, study, known)
            await work.ledger.write(step)
            await work.commit()
        return step.file.state

    async def _held(self, work: UnitOfWork, entry: LedgerFile) -> Content | None:
        """What the PACS holds of the file, or of the same one sent before; None where it holds nothing of the kind."""
        held = await self._pacs.fingerprint(entry.orthanc_id)
        if held is None:
            if entry.overwrites:
                # The old content went for the new one, which never came.
                await work.ledger.forget_instance(entry.orthanc_id)
            return None
        if held == entry.stored.fingerprint:
            return entry.stored
        return entry.same_as(held, await work.ledger.of_instance(entry.orthanc_id))

    async def _found(
        self, work: UnitOfWork, entry: LedgerFile, content: Content, study: PacsStudy, known: UploadLog
    ) -> Step:
        tags = DicomTags(
            patient_id=study.patient_id, patient_name=study.patient_name, accession_number=study.accession_number
        )
        edited = known.original_patient_id != study.patient_id or bool(entry.edits_sha256)
        facts = known.facts_of(tags, orthanc_study_id=study.orthanc_study_id, order_id=None, edited=edited)
        return Step(
            entry.verified(content, at=self._clock()),
            facts=facts if known.with_facts(facts) != known else None,
            order_id=known.order_id,
            order_study=await self._order_study(work, entry, study, known) if known.order_id is not None else None,
        )

    async def _order_study(
        self, work: UnitOfWork, entry: LedgerFile, study: PacsStudy, known: UploadLog
    ) -> OrderStudy | None:
        """What the order says of the study; None where the order is another patient's meanwhile."""
        assert known.order_id is not None  # noqa: S101 - asked for a log that has one
        uid = study.study_instance_uid
        await work.lock_order(known.order_id)
        counts = (await self._pacs.counts([uid])).get(uid)
        # From here on the RIS gives no order to another patient.
        held = (await work.upload_logs.hold([uid])).get(uid)
        order = await work.orders.get(known.order_id)
        if order is None or held is None or order.patient_id != held.patient_id or counts is None:
            return None
        return OrderStudy(
            study_instance_uid=study.study_instance_uid,
            orthanc_study_id=study.orthanc_study_id,
            number_of_series=counts.number_of_series,
            number_of_images=counts.number_of_instances,
            study_date=study.study_date,
            study_time=study.study_time,
            uploaded_by_id=entry.uploaded_by_id,
            uploaded_at=self._clock(),
            upload_source=entry.upload_source,
        )

    # --- logs of before the ledger

    async def _close_unfinished(self) -> int:
        """Logs in progress without any open entry. Of what was on its way nothing is known, and so it counts as failed;
        what of it is in the PACS all the same shows as unlogged.
        """
        async with self._database.begin() as work:
            found = await work.upload_logs.unfinished(lease_seconds=self._lease, limit=_LOGS)
        for one in found:
            async with self._database.begin() as work:
                await work.lock_study(one.study_instance_uid)
                await work.ledger.write(Step(self._unknown_file(one)))
                await work.commit()
        return len(found)

    def _unknown_file(self, one: UploadLog) -> LedgerFile:
        return LedgerFile(
            id=uuid4(),
            upload_id=one.id,
            upload_log_id=one.id,
            uploaded_by_id=one.uploaded_by_id,
            upload_source=one.upload_source,
            study_instance_uid=one.study_instance_uid,
            series_instance_uid="",
            sop_instance_uid="",
            orthanc_id="",
            filename="",
            edits_sha256="",
            received_at=one.uploaded_at,
        ).failed(ABANDONED, at=self._clock())

    # --- the logs and the PACS

    async def _compare(self, report: Report) -> Report:
        """Compares what the logs count with what the PACS holds, a part of them at each pass."""
        async with self._database.begin() as work:
            logs = await work.upload_logs.to_compare(older_seconds=self._compare_seconds, limit=_LOGS)
        for start in range(0, len(logs), _LOGS_AT_A_TIME):
            some = logs[start : start + _LOGS_AT_A_TIME]
            counts = await self._pacs.counts([one.study_instance_uid for one in some])
            found = {one.id: Difference.between(one, _held(counts, one)) for one in some}
            for one in some:
                if found[one.id] != Difference():
                    found[one.id] = await self._look_again(one)
            async with self._database.begin() as work:
                await work.upload_logs.compared(found)
                await work.commit()
            report = replace(
                report,
                compared=report.compared + len(found),
                missing=report.missing + sum(one.missing for one in found.values()),
                unlogged=report.unlogged + sum(one.unlogged for one in found.values()),
            )
        return report

    async def _look_again(self, one: UploadLog) -> Difference:
        """The difference while nobody changes the study, after the log has counted its entries anew."""
        uid = one.study_instance_uid
        async with self._database.begin() as work:
            await work.lock_study(uid)
            await work.ledger.recount(one.id)
            await work.commit()
        async with self._database.begin() as work:
            await work.lock_study(uid)
            now = (await work.upload_logs.by_study([uid])).get(uid)
            counts = await self._pacs.counts([uid])
        return Difference() if now is None or now.is_deleted else Difference.between(now, _held(counts, now))


def _held(counts: Mapping[str, Counts], one: UploadLog) -> int:
    """How many instances of the log's study the PACS holds."""
    uid = one.study_instance_uid
    return counts[uid].number_of_instances if uid in counts else 0
