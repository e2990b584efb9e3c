"""Upload sessions in a real PostgreSQL: what they list, what has come, and who may hold them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from pacs_gateway.adapters.db import PostgresDatabase
from pacs_gateway.domain.ledger import Content, FileState, LedgerFile, Step
from pacs_gateway.domain.registry import Patient, PatientEntry, Role, UserEntry
from pacs_gateway.domain.sessions import Arrival, ExpectedFile, Progress, SessionState, UploadSession, broken_off
from pacs_gateway.domain.upload import OnConflict, PatientMatch, UploadOptions, UploadSource
from pacs_gateway.domain.upload_log import UploadLog, UploadStatus
from pacs_gateway.use_cases.ports import UnitOfWork
from tests.integration.databases import Migrated, connected, migrated_database
from tests.integration.ledger_files import NOW, failed, file_of, verified


@dataclass(frozen=True, slots=True)
class World:
    """A database with a log of a study, of which no file is known."""

    database: PostgresDatabase
    url: str
    log: UploadLog

    async def add(self, *files: LedgerFile, number: int = 0, **changed: Any) -> UploadSession:
        """A session that lists these files, or is for so many."""
        session_id = uuid4()
        session = UploadSession(
            id=session_id,
            created_by_id=self.log.uploaded_by_id,
            created_at=NOW,
            expires_at=NOW + timedelta(hours=1),
            options=UploadOptions(session_id=session_id),
            number_of_files=number or len(files),
            lists_files=bool(files),
        )
        session = replace(session, **changed)
        async with self.database.begin() as work:
            listed = [ExpectedFile(one.source.sha256, one.source.size_bytes, one.filename) for one in files]
            await work.sessions.add(session, listed)
            await work.commit()
        return session

    async def write(self, *files: LedgerFile) -> None:
        """Writes a step for each, one after the other."""
        for file in files:
            await self.database.ledger.write(Step(file))

    async def arrivals(self, session: UploadSession) -> dict[str, Arrival]:
        """What has become of the files of a session, by what they are called."""
        async with self.database.begin() as work:
            return {one.expected.name: one.arrival for one in await work.sessions.files(session)}

    async def expects(self, session: UploadSession, file: LedgerFile) -> bool:
        """Whether the session expects the file."""
        async with self.database.begin() as work:
            found = await work.sessions.share(session.id, file.source)
        assert found is not None
        assert found[0] == session
        return found[1]

    async def status(self) -> tuple[str, int, str]:
        """Status, number and message of the log."""
        async with self.database.begin() as work:
            log = (await work.upload_logs.by_study(["1.2.3"]))["1.2.3"]
        return log.upload_status.value, log.number_of_files, log.error_message


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


def into(session: UploadSession, file: LedgerFile) -> LedgerFile:
    """Another entry of the file, for the session."""
    return replace(file, id=uuid4(), session_id=session.id)


async def get(work: UnitOfWork, session_id: UUID) -> UploadSession:
    """The session, which must be there."""
    session = await work.sessions.get(session_id)
    assert session is not None
    return session


async def test_a_session_reads_back_as_it_was_written(world: World) -> None:
    """Every field survives, and so does its completion."""
    options = UploadOptions(
        patient_id=world.log.patient_id,
        source=UploadSource.API,
        patient_match=PatientMatch.COERCE,
        on_conflict=OnConflict.KEEP,
    )
    session = await world.add(file_of(world.log, 1))
    other_id = uuid4()
    other = await world.add(number=5, id=other_id, options=replace(options, session_id=other_id))
    async with world.database.begin() as work:
        assert await get(work, session.id) == session
        assert await get(work, other.id) == other
        assert await work.sessions.get(uuid4()) is None
        held = await work.sessions.hold(other.id)
        assert held == other
        done = replace(other, state=SessionState.COMPLETED, completed_at=NOW, receipt="a.b.c")
        await work.sessions.complete(done)
        await work.commit()
    async with world.database.begin() as work:
        assert await get(work, other.id) == done


async def test_the_ledger_tells_what_has_become_of_each_file(world: World) -> None:
    """Of several entries of one file the one that says most counts, in whatever order they came."""
    files = [file_of(world.log, number) for number in range(6)]
    session = await world.add(*files)
    missing, moving, stored, refused, gone, again = files
    kept = replace(failed(into(session, missing), "PATIENT_MISMATCH"), state=FileState.QUARANTINED, upload_log_id=None)
    await world.write(
        into(session, moving),
        verified(into(session, stored)),
        failed(into(session, refused)),
        verified(into(session, gone)),
        verified(into(session, again)),
        # It says less than what was stored.
        failed(into(session, replace(again, received_at=again.received_at + timedelta(hours=1)))),
        # Outside of the session.
        verified(replace(missing, id=uuid4())),
    )
    async with world.database.begin() as work:
        await work.ledger.forget_instance(gone.orthanc_id)
        await work.commit()
    assert await world.arrivals(session) == {
        "0.dcm": Arrival.MISSING,
        "1.dcm": Arrival.IN_PROGRESS,
        "2.dcm": Arrival.STORED,
        "3.dcm": Arrival.FAILED,
        "4.dcm": Arrival.DELETED,
        "5.dcm": Arrival.STORED,
    }
    await world.write(verified(into(session, gone)), kept)
    assert (await world.arrivals(session))["4.dcm"] is Arrival.STORED
    assert (await world.arrivals(session))["0.dcm"] is Arrival.FAILED


async def test_an_upload_outside_of_a_session_takes_nothing_from_it(world: World) -> None:
    """The same content again, which the log counts in its place, is as good; another content is not."""
    file = file_of(world.log, 1)
    session = await world.add(number=1)
    await world.write(verified(into(session, file)), verified(replace(file, id=uuid4())))
    assert await world.arrivals(session) == {"1.dcm": Arrival.STORED}
    other = replace(file, id=uuid4(), stored=Content(9, "9" * 64, "9" * 32))
    await world.write(verified(other))
    assert await world.arrivals(session) == {"1.dcm": Arrival.DELETED}


async def test_a_session_expects_what_it_lists(world: World) -> None:
    """By digest and size both, and as often as it comes."""
    file, other = file_of(world.log, 1), file_of(world.log, 2)
    session = await world.add(file)
    assert await world.expects(session, file)
    await world.write(verified(into(session, file)))
    assert await world.expects(session, file)
    assert not await world.expects(session, other)
    assert not await world.expects(session, replace(file, source=replace(file.source, size_bytes=99)))


async def test_a_session_expects_as_many_as_it_counts(world: World) -> None:
    """What is stored or on its way takes a place, what failed does not, and nothing takes two."""
    files = [file_of(world.log, number) for number in range(4)]
    session = await world.add(number=2)
    kept = replace(failed(into(session, files[3]), "PATIENT_MISMATCH"), state=FileState.QUARANTINED, upload_log_id=None)
    await world.write(failed(into(session, files[0])), kept)
    await world.write(verified(into(session, files[1])), into(session, files[1]))
    assert await world.arrivals(session) == {"1.dcm": Arrival.STORED}
    assert await world.expects(session, files[2])
    await world.write(into(session, files[2]))
    assert await world.expects(session, files[2])
    assert await world.expects(session, files[1])
    assert not await world.expects(session, files[3])


async def test_who_completes_a_session_holds_up_its_files(world: World) -> None:
    """A file that is held against it meanwhile waits, and then sees it completed; the ledger itself is not held up."""
    file = file_of(world.log, 1)
    session = await world.add(file)
    async with world.database.begin() as work:
        held = await work.sessions.hold(session.id)
        assert held is not None
        async with asyncio.timeout(3):
            await world.write(into(session, file))

        async def share() -> SessionState:
            async with world.database.begin() as other:
                found = await other.sessions.share(session.id, file.source)
            assert found is not None
            return found[0].state

        sharing = asyncio.create_task(share())
        await asyncio.sleep(0.2)
        assert not sharing.done()
        await work.sessions.complete(replace(held, state=SessionState.COMPLETED, completed_at=NOW))
        await work.commit()
    assert await sharing is SessionState.COMPLETED


async def test_those_whose_time_is_over_are_due(world: World) -> None:
    """Open ones, the longest first."""
    first = await world.add(number=1, expires_at=NOW)
    second = await world.add(number=1, expires_at=NOW + timedelta(seconds=1))
    await world.add(number=1, expires_at=NOW, state=SessionState.COMPLETED)
    await world.add(number=1, expires_at=NOW + timedelta(days=1))
    async with world.database.begin() as work:
        at = NOW + timedelta(seconds=2)
        assert list(await work.sessions.due(now=at, limit=9)) == [first.id, second.id]
        assert list(await work.sessions.due(now=at, limit=1)) == [first.id]
        await work.sessions.expire(replace(first, state=SessionState.EXPIRED))
        assert list(await work.sessions.due(now=at, limit=9)) == [second.id]


async def test_what_never_came_counts_until_all_of_it_has_come(world: World) -> None:
    """A session that lists less than was missing settles nothing; others that expired keep their own entries."""
    files = [file_of(world.log, number) for number in range(3)]
    expired, another = await world.add(*files), await world.add(number=2)

    async def expire(session: UploadSession) -> None:
        async with world.database.begin() as work:
            for entry in broken_off(Progress(session, await work.sessions.files(session)), at=NOW):
                await work.ledger.write(Step(entry))
            await work.sessions.expire(replace(session, state=SessionState.EXPIRED))
            await work.commit()

    async def complete(*files: LedgerFile) -> None:
        session = await world.add(*files)
        await world.write(*(verified(into(session, file)) for file in files))
        async with world.database.begin() as work:
            done = replace(session, state=SessionState.COMPLETED, completed_at=NOW)
            await work.sessions.complete(done)
            for entry in await work.sessions.settled_by(done):
                await work.ledger.forget_entry(entry)
            await work.commit()

    await world.write(verified(into(expired, files[0])))
    await expire(expired)
    assert await world.status() == (UploadStatus.PARTIAL.value, 1, "1 of 2 files failed: SESSION_EXPIRED")
    await world.write(verified(into(another, files[0])))
    await expire(another)
    assert await world.status() == (UploadStatus.PARTIAL.value, 1, "2 of 3 files failed: SESSION_EXPIRED")
    # It shares a study with the one that counts, which is all that can be said of that.
    await complete(files[1])
    assert await world.status() == (UploadStatus.PARTIAL.value, 2, "1 of 3 files failed: SESSION_EXPIRED")
    # What a completed session brought need not be sent a third time.
    await complete(files[2])
    assert await world.status() == (UploadStatus.SUCCESS.value, 3, "")


async def test_a_session_follows_its_patient(world: World) -> None:
    """A provisional patient takes on the RIS's id, or becomes one with another: the session is that patient's."""
    async with world.database.begin() as work:
        found = await work.patients.make_provisional(Patient(uuid4(), "P2", "Jones", None, "", is_provisional=True))
        await work.commit()
    session = await world.add(number=1, options=UploadOptions(patient_id=found.id))
    for new_id in (uuid4(), world.log.patient_id):
        async with world.database.begin() as work:
            entry = PatientEntry("P2", "Jones^Bob", None, "", id=new_id)
            (patient,) = await work.patients.upsert([entry])
            await work.commit()
        async with world.database.begin() as work:
            assert (await get(work, session.id)).options.patient_id == patient.id == new_id
        async with connected(world.url) as connection:
            await connection.execute("UPDATE patients SET is_provisional = true WHERE id = $1", new_id)


async def test_the_ledger_outlives_a_session_that_is_deleted(world: World) -> None:
    """What operators clear away takes its list with it, and leaves the entries."""
    file = file_of(world.log, 1)
    session = await world.add(file)
    entry = verified(into(session, file))
    await world.write(entry)
    async with connected(world.url) as connection:
        await connection.execute("DELETE FROM upload_sessions WHERE id = $1", session.id)
        assert await connection.fetchval("SELECT count(*) FROM upload_session_files") == 0
    async with world.database.begin() as work:
        assert await work.ledger.get(entry.id) == replace(entry, session_id=None)
