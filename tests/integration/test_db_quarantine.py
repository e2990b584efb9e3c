"""The quarantine's files in a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from pacs_gateway.adapters.db import PostgresDatabase
from pacs_gateway.domain.ledger import Content, FileState, LedgerFile, Step
from pacs_gateway.domain.paging import PageRequest
from pacs_gateway.domain.quarantine import (
    QuarantineAction,
    QuarantinedFile,
    QuarantineEntry,
    QuarantineEvent,
    QuarantineFilter,
    QuarantineState,
)
from pacs_gateway.domain.registry import OrderEntry, PatientEntry, Role, UserEntry
from service_runtime.errors import InvalidFieldError, Reason, ServiceError
from tests.integration.databases import Migrated, execute, migrated_database
from tests.integration.ledger_files import NOW

LEASE = 30
MANY = 1 << 40


@dataclass(frozen=True, slots=True)
class World:
    """A database with a patient, an order and two users."""

    database: PostgresDatabase
    url: str
    patient_id: UUID
    order_id: UUID
    anna_id: UUID
    boris_id: UUID

    def file(self, number: int = 1, **changed: Any) -> QuarantinedFile:
        """The numbered file, refused now."""
        values = {
            "id": uuid4(),
            "state": QuarantineState.QUARANTINED,
            "reason": "PATIENT_MISMATCH",
            "patient_id": self.patient_id,
            "order_id": self.order_id,
            "uploaded_by_id": self.anna_id,
            "upload_source": "cd_import",
            "filename": f"{number}.dcm",
            "source": Content(number, f"{number:064x}"),
            "study_instance_uid": "1.2.3",
            "series_instance_uid": "1.2.3.1",
            "sop_instance_uid": f"1.2.3.1.{number}",
            "original_patient_id": "MRN",
            "original_patient_name": "Muster^Maria",
            "original_accession_number": "A1",
            "original_study_date": "20240102",
            "original_modality": "CT",
            "quarantined_at": NOW,
            "refused_at": NOW,
        }
        return QuarantinedFile(**values | changed)

    async def add(self, file: QuarantinedFile, *, max_bytes: int = MANY) -> UUID:
        """Adds a file in a transaction of its own."""
        async with self.database.begin() as work:
            file_id = await work.quarantine.add(file, max_bytes=max_bytes)
            await work.commit()
        return file_id

    async def entry(self, file_id: UUID) -> QuarantineEntry:
        """The file as it is shown."""
        async with self.database.begin() as work:
            entry = await work.quarantine.entry(file_id)
        assert entry is not None
        return entry

    async def claim(self, file_id: UUID, database: PostgresDatabase | None = None) -> QuarantinedFile | None:
        """Takes a file for a gateway: this one, or another."""
        async with (database or self.database).begin() as work:
            file = await work.quarantine.claim(file_id, lease_seconds=LEASE)
            await work.commit()
        return file

    async def settle(self, file: QuarantinedFile, event: QuarantineEvent | None = None) -> None:
        """Lets a file go that this gateway has."""
        async with self.database.begin() as work:
            await work.quarantine.settle(file, event)
            await work.commit()

    async def listed(self, wanted: QuarantineFilter, *, limit: int = 1000) -> list[UUID]:
        """The files of all pages, read page by page."""
        found: list[UUID] = []
        after: tuple[str, ...] = ()
        while True:
            async with self.database.begin() as work:
                page = await work.quarantine.page(PageRequest(limit, after), wanted)
            found += [entry.file.id for entry in page.items]
            after = page.last
            if not after:
                assert page.total_size == len(found)
                return found


@pytest.fixture(scope="module")
async def migrated(migrated_url: str) -> AsyncIterator[Migrated]:
    """The database of this module."""
    async with migrated_database(migrated_url) as migrated:
        yield migrated


@pytest.fixture
async def world(migrated: Migrated) -> World:
    """A database that holds nothing but what World says."""
    await migrated.empty()
    async with migrated.database.begin() as work:
        users = [UserEntry(name, name.title(), Role.ADMIN, is_active=True) for name in ("anna", "boris")]
        anna, boris = await work.users.upsert(users)
        (patient,) = await work.patients.upsert([PatientEntry("1", "Smith^Anna", None, "")])
        (order,) = await work.orders.upsert([OrderEntry(patient.id, "A1", "CT", "scheduled")])
        await work.commit()
    await migrated.database.ledger.beat()
    return World(migrated.database, migrated.url, patient.id, order.id, anna.id, boris.id)


@pytest.fixture
async def other(migrated: Migrated) -> AsyncIterator[PostgresDatabase]:
    """The database as another gateway has it."""
    database = PostgresDatabase(migrated.url)
    yield database
    await database.close()


async def test_a_file_reads_back_as_it_was_added(world: World) -> None:
    """Every field survives, and the first thing that was done with it is that it came."""
    file = world.file(filename="ä/\"'\\.dcm", source=Content(5_000_000_000, "e" * 64))
    assert await world.add(file) == file.id
    came = QuarantineEvent(QuarantineAction.QUARANTINED, NOW)
    assert await world.entry(file.id) == QuarantineEntry(file, "Anna", ((came, ""),))
    async with world.database.begin() as work:
        assert await work.quarantine.entry(uuid4()) is None
        assert await work.quarantine.total_bytes() == 5_000_000_000


async def test_what_a_hostile_file_says_fits(world: World) -> None:
    """Texts of any length, and with characters that PostgreSQL refuses, are cut and cleaned."""
    long = "x\x00" * 500
    names = [name for name in QuarantinedFile.__dataclass_fields__ if name.startswith("original_") or "_uid" in name]
    file = world.file(filename=long, **dict.fromkeys(names, long))
    await world.add(file)
    kept = (await world.entry(file.id)).file
    assert kept.original_patient_id == "x\N{REPLACEMENT CHARACTER}" * 32
    assert len(kept.filename) == 1000


async def test_the_same_bytes_are_one_file(world: World) -> None:
    """Added again, also by eight at once, they are counted; the newest refusal is the one that is told."""
    first = world.file()
    await world.add(first)
    again = [world.file(refused_at=NOW + timedelta(hours=1), reason="PATIENT_UNKNOWN", patient_id=None, order_id=None)]
    again += [replace(again[0], id=uuid4(), uploaded_by_id=world.boris_id) for _ in range(7)]
    assert set(await asyncio.gather(*map(world.add, again))) == {first.id}
    entry = await world.entry(first.id)
    assert (entry.file.refusals, entry.file.reason, entry.file.patient_id) == (9, "PATIENT_UNKNOWN", None)
    assert (entry.file.quarantined_at, entry.file.refused_at) == (NOW, NOW + timedelta(hours=1))
    assert len(entry.events) == 1


async def test_a_closed_file_is_not_reopened(world: World) -> None:
    """The same bytes after the file was discarded are another file, and both can be read."""
    first = world.file()
    await world.add(first)
    claimed = await world.claim(first.id)
    assert claimed is not None
    discarded = QuarantineEvent(QuarantineAction.DISCARDED, NOW + timedelta(hours=1), world.boris_id, "why")
    await world.settle(replace(claimed, state=QuarantineState.DISCARDED), discarded)
    second = world.file()
    assert await world.add(second) == second.id
    assert (await world.entry(first.id)).events[-1] == (discarded, "Boris")
    assert await world.listed(QuarantineFilter(state=QuarantineState.DISCARDED)) == [first.id]


async def test_all_files_together_are_no_larger_than_they_may_be(world: World) -> None:
    """However many come at once; what is closed counts no more."""
    files = [world.file(number) for number in range(100, 108)]
    results = await asyncio.gather(*(world.add(file, max_bytes=350) for file in files), return_exceptions=True)
    assert sum(isinstance(result, UUID) for result in results) == 3
    assert all(one.reason is Reason.QUARANTINE_FULL for one in results if isinstance(one, ServiceError))
    async with world.database.begin() as work:
        assert await work.quarantine.total_bytes() <= 350
    file_id = next(result for result in results if isinstance(result, UUID))
    claimed = await world.claim(file_id)
    assert claimed is not None
    await world.settle(replace(claimed, state=QuarantineState.RELEASED))
    await world.add(world.file(109), max_bytes=350)


async def test_the_ledgers_entry_stands_in_the_same_transaction(world: World) -> None:
    """A quarantined entry of the ledger belongs to no log, and is there with the file or not at all."""
    file = world.file()
    entry = LedgerFile(
        id=uuid4(),
        upload_id=uuid4(),
        upload_log_id=None,
        uploaded_by_id=world.anna_id,
        upload_source="manual",
        study_instance_uid="",
        series_instance_uid="",
        sop_instance_uid="",
        orthanc_id="o",
        filename="x",
        edits_sha256="",
        received_at=NOW,
        source=file.source,
        state=FileState.QUARANTINED,
        error="PATIENT_MISMATCH",
        finished_at=NOW,
    )
    for commits in (False, True):
        async with world.database.begin() as work:
            await work.quarantine.add(file, max_bytes=MANY)
            await work.ledger.write(Step(entry))
            if commits:
                await work.commit()
        async with world.database.begin() as work:
            assert (await work.ledger.get(entry.id)) == (entry if commits else None)
            assert (await work.quarantine.entry(file.id) is not None) is commits
    async with world.database.begin() as work:
        assert not await work.ledger.orphans(lease_seconds=0, limit=10)


async def test_one_of_many_claims_wins(world: World, other: PostgresDatabase) -> None:
    """A file that one gateway has is no other's, until it is let go; what this gateway has it may take again."""
    file = world.file()
    await world.add(file)
    await other.ledger.beat()
    claims = await asyncio.gather(*(world.claim(file.id, one) for one in (world.database, other)))
    assert sum(claim is not None for claim in claims) == 1
    winner, loser = (world.database, other) if claims[0] is not None else (other, world.database)
    assert await world.claim(file.id, loser) is None
    assert await world.claim(file.id, winner) is not None
    async with loser.begin() as work:
        await work.quarantine.settle(replace(file, state=QuarantineState.RELEASED))
        await work.commit()
    assert (await world.entry(file.id)).file.is_open
    async with winner.begin() as work:
        await work.quarantine.settle(file)
        await work.commit()
    assert await world.claim(file.id, loser) is not None
    assert await world.claim(uuid4()) is None


@pytest.mark.parametrize(
    "how",
    [
        "UPDATE gateways SET seen_at = now() - interval '1 minute'",
        "UPDATE dicom_quarantine SET claimed_at = now() - interval '2 hours'",
    ],
)
async def test_a_dead_gateways_claim_is_over(world: World, other: PostgresDatabase, how: str) -> None:
    """What a gateway took that gives no sign of life, or took too long ago, is free."""
    file = world.file()
    await world.add(file)
    await other.ledger.beat()
    assert await world.claim(file.id, other) is not None
    assert await world.claim(file.id) is None
    await execute(world.url, how)
    assert await world.claim(file.id) is not None


async def test_files_expire_by_their_last_refusal(world: World, other: PostgresDatabase) -> None:
    """Only open ones, only so old ones, and none that a gateway is trying to store."""
    old, young, taken, closed = (world.file(number) for number in range(1, 5))
    for file in (old, young, taken, closed):
        await world.add(file)
    await world.add(world.file(2, refused_at=NOW + timedelta(days=2)))
    await other.ledger.beat()
    await world.claim(taken.id, other)
    claimed = await world.claim(closed.id)
    assert claimed is not None
    await world.settle(replace(claimed, state=QuarantineState.RELEASED))

    async def expire(before: datetime) -> list[UUID]:
        async with world.database.begin() as work:
            expired = await work.quarantine.expire(before=before, at=NOW, lease_seconds=LEASE, limit=10)
            await work.commit()
        return list(expired)

    assert await expire(NOW) == []
    assert await expire(NOW + timedelta(days=1)) == [old.id]
    assert await expire(NOW + timedelta(days=1)) == []
    entry = await world.entry(old.id)
    assert entry.file.state is QuarantineState.EXPIRED
    assert entry.events[-1] == (QuarantineEvent(QuarantineAction.EXPIRED, NOW), "")


async def test_files_are_marked_once(world: World) -> None:
    """What is lost already is not lost again, and what is closed never."""
    files = [world.file(number) for number in range(1, 4)]
    for file in files:
        await world.add(file)
    claimed = await world.claim(files[0].id)
    assert claimed is not None
    await world.settle(replace(claimed, state=QuarantineState.DISCARDED))
    ids = [file.id for file in files]
    for _ in range(2):
        async with world.database.begin() as work:
            await work.quarantine.mark(ids, QuarantineState.LOST, QuarantineEvent(QuarantineAction.LOST, NOW))
            await work.commit()
    async with world.database.begin() as work:
        states = await work.quarantine.states([*ids, uuid4()])
        first = await work.quarantine.open_files(after=None, limit=1)
        second = await work.quarantine.open_files(after=first[0].id, limit=10)
    assert states == {ids[0]: QuarantineState.DISCARDED, ids[1]: QuarantineState.LOST, ids[2]: QuarantineState.LOST}
    assert [one.id for one in (*first, *second)] == sorted(ids[1:])
    assert [len((await world.entry(one)).events) for one in ids] == [1, 2, 2]
    assert await world.add(world.file(2)) == ids[1]
    assert (await world.entry(ids[1])).file.state is QuarantineState.QUARANTINED


async def test_lists_go_by_filters_and_pages(world: World) -> None:
    """The last refused come first; every filter holds, and pages lose and repeat nothing."""
    files = [world.file(number, refused_at=NOW + timedelta(hours=number // 2)) for number in range(1, 8)]
    files.append(world.file(8, patient_id=None, reason="PATIENT_UNKNOWN", refused_at=NOW))
    for file in files:
        await world.add(file)
    everything = [one.id for one in sorted(files, key=lambda one: (-one.refused_at.timestamp(), one.id))]
    assert await world.listed(QuarantineFilter(), limit=3) == everything
    assert await world.listed(QuarantineFilter(reason="PATIENT_UNKNOWN")) == [files[-1].id]
    assert set(await world.listed(QuarantineFilter(patient_id=world.patient_id))) == {one.id for one in files[:-1]}
    since, until = NOW + timedelta(hours=1), NOW + timedelta(hours=3)
    within = {one.id for one in files if since <= one.refused_at < until}
    assert set(await world.listed(QuarantineFilter(uploaded_from=since, uploaded_until=until))) == within
    assert await world.listed(QuarantineFilter(state=QuarantineState.EXPIRED)) == []
    for after in (("x", str(uuid4())), ("2026-01-01T00:00:00", str(uuid4())), (NOW.isoformat(),)):
        with pytest.raises(InvalidFieldError):
            async with world.database.begin() as work:
                await work.quarantine.page(PageRequest(10, after), QuarantineFilter())


async def test_a_patient_that_takes_on_another_id_keeps_its_files(world: World) -> None:
    """Files follow a provisional patient to the id that the RIS gives it, new or known."""
    async with world.database.begin() as work:
        provisional = PatientEntry("2", "New^Nina", None, "")
        (patient,) = await work.patients.upsert([provisional])
        await work.commit()
    await execute(world.url, "UPDATE patients SET is_provisional = true WHERE mrn = '2'")
    file = world.file(patient_id=patient.id)
    await world.add(file)
    for new in (uuid4(), world.patient_id):
        async with world.database.begin() as work:
            await work.patients.upsert([replace(provisional, id=new)])
            await work.commit()
        await execute(world.url, "UPDATE patients SET is_provisional = true WHERE mrn = '2'")
        assert (await world.entry(file.id)).file.patient_id == new
