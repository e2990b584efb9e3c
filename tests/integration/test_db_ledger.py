"""The ledger in a real PostgreSQL, and what the logs count by it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest

from pacs_gateway.adapters.db import PostgresDatabase
from pacs_gateway.domain.ledger import FileState, LedgerFile, Step, StudyFacts
from pacs_gateway.domain.registry import OrderEntry, PatientEntry, Role, UserEntry
from pacs_gateway.domain.upload import KnownRequest
from pacs_gateway.domain.upload_log import Difference, UploadLog, UploadStatus
from tests.integration.databases import Migrated, connected, execute, migrated_database
from tests.integration.ledger_files import NOW, content_of, failed, file_of, verified


@dataclass(frozen=True, slots=True)
class World:
    """A database with a log of a study, of which no file is known."""

    database: PostgresDatabase
    url: str
    log: UploadLog

    async def write(self, *files: LedgerFile) -> list[list[LedgerFile]]:
        """Writes a step for each, one after the other; what each is told of its rivals."""
        return [list(await self.database.ledger.write(Step(file, seconds=1))) for file in files]

    async def read(self) -> UploadLog:
        """The log as another transaction sees it."""
        async with self.database.begin() as work:
            return (await work.upload_logs.by_study(["1.2.3"]))["1.2.3"]

    async def entries(self, file: LedgerFile) -> list[LedgerFile]:
        """The entries of the file's instance, the newest first."""
        async with self.database.begin() as work:
            return list(await work.ledger.of_instance(file.orthanc_id))

    async def stands(self) -> tuple[str, int, int, str]:
        """Status, number, size and message of the log."""
        log = await self.read()
        return log.upload_status.value, log.number_of_files, log.total_size_bytes, log.error_message


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
        (user,) = await work.users.upsert([UserEntry("anna", "Anna", Role.ADMIN, is_active=True)])
        (patient,) = await work.patients.upsert([PatientEntry("1", "Smith^Anna", None, "")])
        log = UploadLog(uuid4(), patient.id, None, user.id, "1.2.3", "manual", NOW)
        await work.lock_study("1.2.3")
        await work.upload_logs.save(log)
        await work.commit()
    return World(migrated.database, migrated.url, log)


async def test_an_entry_reads_back_as_it_was_written(world: World) -> None:
    """Every field survives, and the latest step is what is known of a file."""
    file = replace(
        file_of(world.log, 1),
        filename="ä/\"'\\.dcm",
        edits_sha256="e" * 64,
        stored=replace(content_of(b"x"), size_bytes=5_000_000_000),
        overwrites=True,
    )
    await world.write(file)
    assert await world.entries(file) == [file]
    await world.write(verified(file))
    assert await world.entries(file) == [verified(file)]
    hostile = file_of(world.log, 2, filename="a\0b\ud800")
    await world.write(hostile)
    assert (await world.entries(hostile))[0].filename == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"


async def test_the_log_follows_its_files(world: World) -> None:
    """In progress while one is on its way; then by what is stored and what failed, each instance once."""
    first, second = file_of(world.log, 1), file_of(world.log, 2)
    await world.write(first, second)
    assert await world.stands() == ("in_progress", 0, 0, "")
    await world.write(verified(first))
    assert await world.stands() == ("in_progress", 1, 2, "")
    await world.write(failed(second))
    assert await world.stands() == ("partial", 1, 2, "1 of 2 files failed: STORE_REFUSED")
    again = file_of(world.log, 2)
    await world.write(again, verified(again))
    assert await world.stands() == ("success", 2, 5, "")
    assert (await world.read()).upload_duration_seconds == 3


@pytest.mark.parametrize(
    ("stored", "reasons", "is_open", "status", "message"),
    [
        (0, "", True, UploadStatus.IN_PROGRESS, ""),
        (2, "", False, UploadStatus.SUCCESS, ""),
        (0, "A", False, UploadStatus.FAILED, "1 of 1 files failed: A"),
        (1, "BAB", False, UploadStatus.PARTIAL, "3 of 4 files failed: A, B"),
        (1, "AB", True, UploadStatus.IN_PROGRESS, "2 of 3 files failed: A, B"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_the_status_follows_from_the_files(
    world: World, *, stored: int, reasons: str, is_open: bool, status: UploadStatus, message: str, at_once: bool
) -> None:
    """A file on its way makes a log one in progress; else what is stored and what failed decide. It makes no difference
    whether they become known together or one by one.
    """
    numbers = iter(range(100))
    steps = [Step(file_of(world.log, next(numbers)))] if is_open else []
    steps += [Step(verified(file_of(world.log, next(numbers)))) for _ in range(stored)]
    steps += [Step(failed(file_of(world.log, next(numbers)), reason)) for reason in reasons]
    async with world.database.begin() as work:
        if at_once:
            await work.ledger.write(*steps)
        else:
            for step in steps:
                await work.ledger.write(step)
        await work.commit()
    log = await world.read()
    assert (log.upload_status, log.error_message, log.number_of_files) == (status, message, stored)


async def test_of_one_instance_in_a_group_one_file_counts(world: World) -> None:
    """The last that is stored, else the last; written once more, the same steps change nothing."""
    one, two, three = (file_of(world.log, 1, stored=content_of(b"x" * size)) for size in (10, 20, 30))
    four, five = (failed(file_of(world.log, 2), reason) for reason in ("A", "B"))
    for _ in range(2):
        async with world.database.begin() as work:
            steps = [Step(file) for file in (verified(one), verified(two), failed(three), four, five)]
            await work.ledger.write(*steps, Step(failed(file_of(world.log, 3)), counts=False))
            await work.commit()
        assert await world.stands() == ("partial", 1, 20, "1 of 2 files failed: B")
    async with world.database.begin() as work:
        await work.ledger.write(Step(five, counts=False), Step(verified(file_of(world.log, 2))))
        await work.commit()
    assert await world.stands() == ("success", 2, 23, "")


async def test_a_file_that_failed_and_is_there_after_all_is_counted(world: World) -> None:
    """What one gateway gave up, another one may find in the PACS."""
    file = file_of(world.log, 1)
    await world.write(failed(file), verified(file))
    assert await world.stands() == ("success", 1, 2, "")


async def test_a_failure_to_store_again_does_not_unstore(world: World) -> None:
    """What is stored stays counted, by the entry that stored it."""
    await world.write(verified(file_of(world.log, 1)), failed(file_of(world.log, 1, filename="again")))
    assert await world.stands() == ("success", 1, 2, "")


async def test_what_is_stored_again_counts_once_with_its_last_size(world: World) -> None:
    """The last content of an instance that was stored is the one that counts."""
    other = file_of(world.log, 1, stored=content_of(b"x" * 700))
    await world.write(verified(file_of(world.log, 1)), other, verified(other))
    assert await world.stands() == ("success", 1, 700, "")


async def test_what_is_known_to_be_stored_is_not_taken_back(world: World) -> None:
    """A gateway that missed that its file was found in the PACS does not make a failure of it."""
    file = file_of(world.log, 1)
    await world.write(verified(file), failed(file), file.left_open("X", state=FileState.STORED))
    assert [one.state for one in await world.entries(file)] == [FileState.VERIFIED]
    assert (await world.stands())[:2] == ("success", 1)


async def test_a_step_tells_of_the_other_entries_of_its_instance(world: World) -> None:
    """Those that are open or counted as stored, of which all has come; neither failures nor what is gone."""
    old, gone, bare = (file_of(world.log, 1, filename=name) for name in ("old", "gone", "bare"))
    bare = replace(bare, stored=replace(bare.stored, md5=""))
    await world.write(old, bare, failed(gone), verified(file_of(world.log, 2)))
    mine = file_of(world.log, 1)
    assert await world.write(mine, verified(old), mine, verified(mine)) == [[old], [], [verified(old)], []]


async def test_what_was_left_open_is_settled_by_what_is_stored_later(world: World) -> None:
    """An entry whose fate nobody knew has come to nothing, once the instance is stored by another."""
    lost = file_of(world.log, 1)
    await world.write(lost, lost.left_open("ORTHANC_UNAVAILABLE", state=FileState.RECEIVED))
    assert (await world.stands())[0] == "in_progress"
    again = file_of(world.log, 1)
    await world.write(again, verified(again))
    assert (await world.stands())[:2] == ("success", 1)
    states = {one.id: one.state for one in await world.entries(again)}
    assert states == {lost.id: FileState.FAILED, again.id: FileState.VERIFIED}


async def test_many_steps_at_once_lose_nothing(world: World, migrated: Migrated) -> None:
    """Files of one study, written by two gateways at the same moment, some of them twice, are each counted once."""
    other = PostgresDatabase(migrated.url)
    try:

        async def upload(database: PostgresDatabase, number: int) -> None:
            file = file_of(world.log, number)
            await database.ledger.write(Step(file))
            await database.ledger.write(Step(verified(file), seconds=1))

        uploads = [upload(database, number) for number in range(100) for database in (world.database, other)]
        await asyncio.gather(*uploads)
    finally:
        await other.close()
    assert await world.stands() == ("success", 100, sum(range(1, 101)), "")
    assert (await world.read()).upload_duration_seconds == 200


async def test_a_group_takes_few_transactions(world: World) -> None:
    """A hundred steps at the same moment are written in a handful of transactions."""
    before = await _transactions(world.url)
    await asyncio.gather(*(world.write(file_of(world.log, number)) for number in range(100)))
    async with connected(world.url) as connection:
        xmins = await connection.fetch("SELECT DISTINCT xmin::text FROM dicom_upload_files")
    assert before == 0
    assert len(xmins) <= 5


async def _transactions(url: str) -> int:
    async with connected(url) as connection:
        return int(await connection.fetchval("SELECT count(DISTINCT xmin::text) FROM dicom_upload_files"))


async def test_a_step_that_cannot_be_written_fails_alone(world: World) -> None:
    """A defect in one file's entry keeps no other file of the group from the disk."""
    bad = file_of(world.log, 1, uploaded_by_id=uuid4())
    steps = [Step(file_of(world.log, 2)), Step(bad), Step(file_of(world.log, 3))]
    outcomes = await asyncio.gather(*map(world.database.ledger.write, steps), return_exceptions=True)
    assert isinstance(outcomes[1], asyncpg.ForeignKeyViolationError)
    assert outcomes[::2] == [[], []]
    assert await _count_files(world.url) == 2


async def _count_files(url: str) -> int:
    async with connected(url) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM dicom_upload_files"))


async def test_the_ledger_is_written_though_all_connections_are_taken(migrated: Migrated, world: World) -> None:
    """Those who wait for the ledger while they hold all connections of the pool do not wait for themselves."""
    database = PostgresDatabase(migrated.url, pool_size=2)
    try:
        async with asyncio.timeout(3), database.begin() as first, database.begin() as second:
            await first.share_studies(["1.2.3"])
            await second.share_studies(["1.2.3"])
            await asyncio.gather(*(database.ledger.write(Step(file_of(world.log, number))) for number in range(2)))
    finally:
        await database.close()


@pytest.mark.parametrize("is_stored", [False, True])
async def test_who_waits_for_the_registry_holds_no_log_meanwhile(world: World, is_stored: bool) -> None:  # noqa: FBT001
    """While the RIS changes its patients, the ledger waits without a lock that the RIS's change may need: they cannot
    deadlock.
    """
    async with connected(world.url) as registry, connected(world.url) as other:
        async with registry.transaction():
            await registry.execute("SELECT pg_advisory_xact_lock(1, 1)")
            file = file_of(world.log, 1)
            writing = asyncio.create_task(world.write(verified(file) if is_stored else file))
            await asyncio.sleep(0.2)
            assert not writing.done()
            async with asyncio.timeout(1):
                await other.execute("UPDATE dicom_upload_logs SET error_message = 'mark'")
        await writing
    assert (await world.stands())[:2] == (("success", 1) if is_stored else ("in_progress", 0))


async def test_a_connection_that_broke_is_no_loss(world: World) -> None:
    """A step whose connection the server closed meanwhile is written over another one."""
    await world.write(file_of(world.log, 1))
    async with connected(world.url) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await world.write(file_of(world.log, 2))
    assert await _count_files(world.url) == 2


async def test_a_file_tells_of_its_study(world: World) -> None:
    """The facts that come with a file are in the log, with it; texts are cut to their columns."""
    facts = StudyFacts("o-1", None, tags_modified=True, modified_patient_id="M", modified_patient_name="N" * 300)
    await world.database.ledger.write(Step(verified(file_of(world.log, 1)), facts=facts))
    log = await world.read()
    assert (log.orthanc_study_id, log.tags_modified, log.modified_patient_id) == ("o-1", True, "M")
    assert log.modified_patient_name == "N" * 255


async def test_a_forgotten_log_counts_anew(world: World) -> None:
    """After a deletion, what was stored before counts no more, and the next file revives the log."""
    await world.write(verified(file_of(world.log, 1)), verified(file_of(world.log, 2)), failed(file_of(world.log, 3)))
    async with world.database.begin() as work:
        await work.lock_study("1.2.3")
        await work.upload_logs.save(replace(await world.read(), is_deleted=True))
        await work.ledger.forget(world.log.id)
        assert not await work.ledger.counts("o-1.2.3.1")
        await work.commit()
    await world.write(failed(file_of(world.log, 4)))
    assert (await world.stands(), (await world.read()).is_deleted) == (
        ("failed", 0, 0, "1 of 1 files failed: STORE_REFUSED"),
        True,
    )
    await world.write(verified(file_of(world.log, 4)))
    assert (await world.stands(), (await world.read()).is_deleted) == (("success", 1, 5, ""), False)


async def test_a_forgotten_instance_counts_no_more(world: World) -> None:
    """What was taken out of the PACS for another content is not counted until that is there."""
    await world.write(verified(file_of(world.log, 1)), verified(file_of(world.log, 2)))
    async with world.database.begin() as work:
        assert await work.ledger.counts("o-1.2.3.1")
        await work.ledger.forget_instance("o-1.2.3.1")
        await work.commit()
    assert (await world.stands())[1:3] == (1, 3)
    await world.write(verified(file_of(world.log, 1)))
    assert (await world.stands())[1:3] == (2, 5)


async def test_a_step_within_a_transaction_lasts_with_it(world: World) -> None:
    """What a unit of work adds to the ledger is there when it is committed, and not before."""
    async with world.database.begin() as work:
        await work.ledger.write(Step(file_of(world.log, 1)))
    assert await _count_files(world.url) == 0
    async with world.database.begin() as work:
        await work.ledger.write(Step(file_of(world.log, 1)))
        await work.commit()
    assert await _count_files(world.url) == 1


async def test_a_log_that_is_held_is_nobody_elses_until_the_end(world: World) -> None:
    """Who holds logs reads them as they are, and writes their files; who writes to one meanwhile waits."""
    await world.write(verified(file_of(world.log, 1)))
    async with world.database.begin() as work:
        held = await work.upload_logs.hold(["1.2.3", "nowhere", "", "\0"])
        assert held == {"1.2.3": await world.read()}
        waiting = asyncio.create_task(world.write(file_of(world.log, 3)))
        await work.ledger.write(Step(verified(file_of(world.log, 2))))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await work.commit()
    await waiting
    assert (await world.stands())[:2] == ("in_progress", 2)


async def test_the_ris_changes_no_order_while_a_log_is_held(world: World) -> None:
    """Who holds a log may believe what he reads of its order, until he has written what that says."""
    new = OrderEntry(world.log.patient_id, "N-1", "CT", "scheduled")

    async def put() -> None:
        async with world.database.begin() as work:
            await work.orders.upsert([new])
            await work.commit()

    async with world.database.begin() as work:
        await work.upload_logs.hold(["1.2.3"])
        putting = asyncio.create_task(put())
        await asyncio.sleep(0.2)
        assert not putting.done()
        assert await work.orders.by_accession("N-1") is None
        await work.commit()
    await putting


async def test_who_writes_to_several_logs_waits_for_all_of_them_before_any_is_his(world: World) -> None:
    """Files on their way and files that are stored, written together, do not deadlock with who holds their logs."""
    other = replace(world.log, id=uuid4(), study_instance_uid="1.2.4")
    first, last = sorted((world.log, other), key=lambda log: log.id)
    async with world.database.begin() as work:
        await work.upload_logs.save(other)
        await work.commit()
    await world.write(verified(file_of(first, 1)), verified(file_of(last, 1)))

    async def write() -> None:
        async with world.database.begin() as work:
            await work.ledger.write(Step(file_of(last, 2)), Step(verified(file_of(first, 2))))
            await work.commit()

    async with world.database.begin() as work:
        await work.upload_logs.hold([first.study_instance_uid])
        writing = asyncio.create_task(write())
        await asyncio.sleep(0.2)
        async with asyncio.timeout(0.9):  # PostgreSQL looks for deadlocks after a second
            await work.upload_logs.hold([last.study_instance_uid])
    await writing


async def test_a_file_that_does_not_count_leaves_the_log_as_it_is(world: World) -> None:
    """A file that was kept out, or is another patient's, is in the ledger and not in the log."""
    file = file_of(world.log, 1)
    await world.write(file)
    await world.database.ledger.write(Step(failed(file), counts=False))
    assert await world.stands() == ("success", 0, 0, "")
    assert (await world.read()).upload_status is UploadStatus.SUCCESS
    assert await world.database.ledger.write(Step(failed(file_of(world.log, 2, upload_log_id=None)))) == []


async def test_a_writer_who_leaves_keeps_nobody_waiting(world: World) -> None:
    """A step whose caller is cancelled, wherever it is, leaves the ledger working for all others."""

    async def write(number: int) -> UUID:
        file = file_of(world.log, number)
        await world.database.ledger.write(Step(file))
        return file.id

    tasks = [asyncio.create_task(write(number)) for number in range(60)]
    await asyncio.sleep(0.003)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, UUID) for outcome in outcomes[1::2])
    assert await _count_files(world.url) >= 30


# --- what the reconciler asks


async def orphans(world: World, lease: float = 30) -> list[UUID]:
    """The entries that no living gateway will close."""
    async with world.database.begin() as work:
        return [one.id for one in await work.ledger.orphans(lease_seconds=lease, limit=10)]


async def test_the_open_entries_of_a_gateway_are_its_own_while_it_lives(migrated: Migrated, world: World) -> None:
    """A gateway gives a sign of life with its first entry, and keeps its entries by further ones."""
    other = PostgresDatabase(migrated.url)
    try:
        file = file_of(world.log, 1, received_at=datetime.now(UTC))
        await other.ledger.write(Step(file))
        assert await orphans(world) == []
        await execute(world.url, "UPDATE gateways SET seen_at = now() - interval '31 seconds'")
        assert await orphans(world) == [file.id]
        await other.ledger.beat()
        assert await orphans(world) == []
        await execute(world.url, "UPDATE dicom_upload_files SET received_at = now() - interval '61 minutes'")
        assert await orphans(world) == [file.id]
    finally:
        await other.close()


async def test_an_entry_that_was_given_up_is_an_orphan_at_once(migrated: Migrated, world: World) -> None:
    """Left open with a reason, or abandoned where not even that could be written."""
    mine = PostgresDatabase(migrated.url)
    now = datetime.now(UTC)
    left, lost, kept = (file_of(world.log, number, received_at=now) for number in (1, 2, 3))
    try:
        for file in (left, lost, kept, left.left_open("ORTHANC_UNAVAILABLE", state=FileState.RECEIVED)):
            await mine.ledger.write(Step(file))
        mine.ledger.abandon(lost.id)
        assert await orphans(world) == [left.id]
        await mine.ledger.beat()
        assert set(await orphans(world)) == {left.id, lost.id}
        assert not mine.ledger.abandoned
    finally:
        await mine.close()
    async with world.database.begin() as work:
        assert await work.ledger.get(lost.id) == replace(lost, error="ABANDONED")
        assert await work.ledger.get(uuid4()) is None


async def test_one_gateway_leads_at_a_time(migrated: Migrated, world: World) -> None:
    """Who leads keeps all others from it until it is done, or gone."""
    other = PostgresDatabase(migrated.url)
    try:
        async with world.database.lead() as first, other.lead() as second:
            assert (first, second) == (True, False)
        for _ in range(50):
            async with other.lead() as leads:
                if leads:
                    break
            await asyncio.sleep(0.02)
        assert leads
    finally:
        await other.close()


async def test_a_recount_says_what_the_entries_come_to(world: World) -> None:
    """A log whose counts went wrong is put right by its entries."""
    await world.write(verified(file_of(world.log, 1)), failed(file_of(world.log, 2)))
    await execute(
        world.url, "UPDATE dicom_upload_logs SET number_of_files = 9, total_size_bytes = 9, upload_status = 'success'"
    )
    async with world.database.begin() as work:
        await work.ledger.recount(world.log.id)
        await work.commit()
    assert await world.stands() == ("partial", 1, 2, "1 of 2 files failed: STORE_REFUSED")


async def test_the_list_of_files_is_made_when_a_study_is_at_rest(world: World) -> None:
    """The column file_names follows the entries that count, and is not made again before they change."""
    third = file_of(world.log, 3)
    await world.write(verified(file_of(world.log, 1)), failed(file_of(world.log, 2)), third)

    async def make() -> int:
        async with world.database.begin() as work:
            made = await work.upload_logs.list_files(limit=10)
            await work.commit()
        return made

    assert await make() == 0
    await world.write(verified(third))
    assert [await make(), await make()] == [1, 0]
    async with connected(world.url) as connection:
        listed = json.loads(await connection.fetchval("SELECT file_names FROM dicom_upload_logs"))
    assert listed == [
        {"sop_instance_uid": f"1.2.3.{n}", "name": f"{n}.dcm", "size_bytes": n + 1, "error": error}
        for n, error in ((1, ""), (2, "STORE_REFUSED"), (3, ""))
    ]


async def test_logs_are_compared_when_they_are_due(world: World) -> None:
    """At rest, not deleted, and not compared for a while, or since the last upload; what was found is in the log."""

    async def due(seconds: float = 60) -> int:
        async with world.database.begin() as work:
            return len(await work.upload_logs.to_compare(older_seconds=seconds, limit=10))

    assert await due() == 0
    await world.write(verified(file_of(world.log, 1)))
    assert await due() == 1
    async with world.database.begin() as work:
        await work.upload_logs.compared({world.log.id: Difference(missing=1, unlogged=2)})
        await work.upload_logs.compared({})
        await work.commit()
    assert (await world.read()).instances_missing == 1
    assert (await world.read()).instances_unlogged == 2
    assert [await due(), await due(0)] == [0, 1]


async def test_a_log_in_progress_without_an_open_entry_is_unfinished(world: World) -> None:
    """Such are the logs of before the ledger; one whose upload may just be beginning is left alone."""

    async def unfinished() -> list[UUID]:
        async with world.database.begin() as work:
            return [one.id for one in await work.upload_logs.unfinished(lease_seconds=30, limit=10)]

    await execute(world.url, "UPDATE dicom_upload_logs SET uploaded_at = now() - interval '1 minute'")
    assert await unfinished() == [world.log.id]
    await execute(world.url, "UPDATE dicom_upload_logs SET uploaded_at = now()")
    assert await unfinished() == []
    await world.write(file_of(world.log, 1))
    await execute(world.url, "UPDATE dicom_upload_logs SET uploaded_at = now() - interval '1 minute'")
    assert await unfinished() == []


# --- requests that carry an id


async def test_an_id_is_claimed_once_kept_and_freed(world: World) -> None:
    """Who claims a free id has it; others are told what is known, until it is released, its time is over, or its
    gateway dead.
    """
    user = uuid4()

    async def claim(asked: str = "a", *, keep: float = 60, lease: float = 30) -> KnownRequest | None:
        async with world.database.begin() as work:
            known = await work.requests.claim(user, "r", asked, keep_seconds=keep, lease_seconds=lease)
            await work.commit()
        return known

    await world.database.ledger.beat()
    assert await claim() is None
    assert await claim("b") == KnownRequest("a", "", None)
    assert await claim(lease=-1) is None
    async with world.database.begin() as work:
        await work.requests.finish(user, "r", "c", [b"1", b"2"])
        await work.requests.release(user, "r")
        await work.commit()
    assert await claim(lease=-1) == KnownRequest("a", "c", (b"1", b"2"))
    await execute(world.url, "UPDATE upload_requests SET expires_at = now() - interval '1 second'")
    assert await claim() is None
    async with world.database.begin() as work:
        await work.requests.release(user, "r")
        await work.commit()
    claims = await asyncio.gather(*(claim() for _ in range(8)))
    assert claims.count(None) == 1
