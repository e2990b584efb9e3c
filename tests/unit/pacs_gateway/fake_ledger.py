"""The ledger in memory, and the locks of studies, for the fake database."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pacs_gateway.domain.ledger import ABANDONED, FileState, LedgerFile, Step
from pacs_gateway.domain.upload_log import UploadLog, UploadStatus

if TYPE_CHECKING:
    from tests.unit.pacs_gateway.fake_database import FakeDatabase, FakeUnitOfWork


class SharedLock:
    """A lock that one holds alone, or many share, first come first served."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[bool, asyncio.Future[None]]] = deque()
        self._sharers = 0
        self._alone = False

    @property
    def can_be_shared(self) -> bool:
        """Whether nobody has it alone, or waits."""
        return not self._alone and not self._waiting

    async def acquire(self, *, alone: bool) -> None:
        """Waits for it."""
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((alone, admitted))
        self._admit()
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self.release(alone=alone)
            raise

    def release(self, *, alone: bool) -> None:
        """Lets it go."""
        self._alone = self._alone and not alone
        self._sharers -= not alone
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            alone, admitted = self._waiting[0]
            if not admitted.cancelled():
                if self._alone or (alone and self._sharers):
                    return
                self._alone = alone
                self._sharers += not alone
                admitted.set_result(None)
            self._waiting.popleft()


class FakeLedger:
    """The port `Ledger`."""

    def __init__(self, database: FakeDatabase) -> None:
        self._database = database
        self.abandoned: set[UUID] = set()

    async def write(self, step: Step) -> Sequence[LedgerFile]:
        """Makes a step last."""
        await self._database.hooks.reach("ledger")
        add_step(self._database, step)
        await self._database.hooks.reach("written")
        files = self._database.tables.files.values()
        return [
            one
            for one in files
            if step.file.is_open
            and one.orthanc_id == step.file.orthanc_id
            and one.id != step.file.id
            and one.stored.md5
            and (one.is_open or (one.id in self._database.current and one.state is FileState.VERIFIED))
        ]

    async def beat(self) -> None:
        """Gives a sign of life."""
        await self._database.hooks.reach("beat")

    def abandon(self, entry_id: UUID) -> None:
        """Says that nobody will write what becomes of a file. The real one says it with its next sign of life."""
        self.abandoned.add(entry_id)
        files = self._database.tables.files
        if entry_id in files and files[entry_id].is_open:
            files[entry_id] = replace(files[entry_id], error=ABANDONED)


class FakeLedgerEntries:
    """The port `LedgerEntries`."""

    def __init__(self, work: FakeUnitOfWork) -> None:
        self._work = work
        self._database = work.database

    async def write(self, *steps: Step) -> None:
        """Adds steps."""
        for step in steps:
            self._work.steps.append(lambda step=step: add_step(self._database, step))

    async def of_instance(self, orthanc_id: str) -> Sequence[LedgerFile]:
        """Entries of an instance, the newest first."""
        found = (await self._work.rows("files")).values()
        of_it = [one for one in found if one.orthanc_id == orthanc_id and one.stored.md5]
        return sorted(of_it, key=lambda one: one.received_at, reverse=True)

    async def get(self, entry_id: UUID) -> LedgerFile | None:
        """The entry with this id."""
        return (await self._work.rows("files")).get(entry_id)

    async def orphans(self, *, lease_seconds: float, limit: int) -> Sequence[LedgerFile]:  # noqa: ARG002 - the port's
        """Open entries that are given up, or of all gateways where the test says that these are dead."""
        found = (await self._work.rows("files")).values()
        orphans = [one for one in found if one.is_open and (one.error or self._database.gateways_dead)]
        return sorted(orphans, key=lambda one: one.received_at)[:limit]

    async def recount(self, upload_log_id: UUID) -> None:
        """Has the log say what its entries come to."""
        self._work.steps.append(lambda: _stand(self._database, upload_log_id, 0.0))

    async def counts(self, orthanc_id: str) -> bool:
        """Whether a log counts the instance as stored."""
        found = (await self._work.rows("files")).values()
        return any(one.orthanc_id == orthanc_id and _is_counted(self._database, one) for one in found)

    async def forget(self, upload_log_id: UUID) -> None:
        """Has the log count no file any more."""

        def forget() -> None:
            files = self._database.tables.files.values()
            self._database.current -= {one.id for one in files if one.upload_log_id == upload_log_id}

        self._work.steps.append(forget)

    async def forget_instance(self, orthanc_id: str) -> None:
        """Has no log count the instance any more."""

        def forget() -> None:
            for one in self._database.tables.files.values():
                if one.orthanc_id == orthanc_id and _is_counted(self._database, one):
                    self._database.current.remove(one.id)
                    _stand(self._database, one.upload_log_id, 0.0)

        self._work.steps.append(forget)

    async def forget_entry(self, entry: LedgerFile) -> None:
        """Has its log count it no more."""

        def forget() -> None:
            self._database.current.discard(entry.id)
            _stand(self._database, entry.upload_log_id, 0.0)

        self._work.steps.append(forget)


def _is_counted(database: FakeDatabase, file: LedgerFile) -> bool:
    return file.id in database.current and file.state is FileState.VERIFIED


def add_step(database: FakeDatabase, step: Step) -> None:
    """What the step changes: its entry, the log, the order."""
    tables, file = database.tables, step.file
    known = tables.files.get(file.id)
    if known is None or known.state is not FileState.VERIFIED or file.state is FileState.VERIFIED:
        tables.files[file.id] = file
    if step.order_study is not None:
        tables.orders[step.order_id] = replace(tables.orders[step.order_id], study=step.order_study)
    if file.upload_log_id is None:
        return
    if file.is_open:
        _change(
            database,
            file.upload_log_id,
            upload_status=UploadStatus.IN_PROGRESS,
            uploaded_at=file.received_at,
            uploaded_by_id=file.uploaded_by_id,
            upload_source=file.upload_source,
        )
        return
    if step.facts is not None:
        tables.logs[file.upload_log_id] = tables.logs[file.upload_log_id].with_facts(step.facts)
    if file.state is FileState.VERIFIED:
        for one in list(tables.files.values()):
            if one.orthanc_id == file.orthanc_id and one.is_open and one.error:
                tables.files[one.id] = one.failed(one.error, at=file.received_at)
    if step.counts:
        _count(database, file)
    _stand(database, file.upload_log_id, step.seconds)


def _count(database: FakeDatabase, file: LedgerFile) -> None:
    same = [
        one
        for one in database.tables.files.values()
        if one.upload_log_id == file.upload_log_id
        and one.sop_instance_uid == file.sop_instance_uid
        and one.id in database.current
    ]
    if file.state is not FileState.VERIFIED and any(one.state is FileState.VERIFIED for one in same):
        return
    database.current -= {one.id for one in same}
    database.current.add(file.id)
    if file.state is FileState.VERIFIED:
        _change(database, file.upload_log_id, is_deleted=False)


def _stand(database: FakeDatabase, log_id: UUID, seconds: float) -> None:
    files = [one for one in database.tables.files.values() if one.upload_log_id == log_id]
    counted = [one for one in files if one.id in database.current]
    stored = [one for one in counted if one.state is FileState.VERIFIED]
    failed = [one for one in counted if one.state is FileState.FAILED]
    total, reasons = len(stored) + len(failed), ", ".join(sorted({one.error for one in failed}))
    status = UploadStatus.SUCCESS
    if any(one.is_open for one in files):
        status = UploadStatus.IN_PROGRESS
    elif failed:
        status = UploadStatus.PARTIAL if stored else UploadStatus.FAILED
    _change(
        database,
        log_id,
        number_of_files=len(stored),
        total_size_bytes=sum(one.stored.size_bytes for one in stored),
        upload_status=status,
        error_message=f"{len(failed)} of {total} files failed: {reasons}" if failed else "",
        upload_duration_seconds=database.tables.logs[log_id].upload_duration_seconds + seconds,
    )


def _change(database: FakeDatabase, log_id: UUID, **changed: Any) -> None:
    log: UploadLog = database.tables.logs[log_id]
    database.tables.logs[log_id] = replace(log, **changed)
