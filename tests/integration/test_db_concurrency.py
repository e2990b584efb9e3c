"""Many transactions at one moment in a real PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from pacs_gateway.adapters.db import PostgresDatabase
from pacs_gateway.domain.ledger import Step
from pacs_gateway.domain.paging import PageRequest
from pacs_gateway.domain.registry import OrderEntry, OrderStudy, Patient, PatientEntry, Role, UserEntry
from pacs_gateway.domain.upload_log import UploadLog
from service_runtime.errors import Reason, ServiceError
from tests.integration.databases import Migrated, connected, copy_of, migrated_database
from tests.integration.ledger_files import file_of, verified

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
async def migrated(migrated_url: str) -> AsyncIterator[Migrated]:
    """The database of this module."""
    async with migrated_database(migrated_url) as migrated:
        yield migrated


@pytest.fixture
async def database(migrated: Migrated) -> PostgresDatabase:
    """The adapter over a database without rows."""
    await migrated.empty()
    return migrated.database


async def make_user(database: PostgresDatabase) -> UUID:
    """The id of a user."""
    async with database.begin() as work:
        (user,) = await work.users.upsert([UserEntry("anna", "Anna", Role.ADMIN, is_active=True)])
        await work.commit()
    return user.id


async def put_patients(database: PostgresDatabase, *entries: PatientEntry) -> list[UUID]:
    """The ids of the patients after an upsert in a transaction of its own."""
    async with database.begin() as work:
        patients = await work.patients.upsert(entries)
        await work.commit()
    return [patient.id for patient in patients]


async def put_orders(database: PostgresDatabase, *entries: OrderEntry) -> list[UUID]:
    """The ids of the orders after an upsert in a transaction of its own."""
    async with database.begin() as work:
        orders = await work.orders.upsert(entries)
        await work.commit()
    return [order.id for order in orders]


async def provisional(database: PostgresDatabase, mrn: str) -> Patient:
    """A patient that an upload made, or found."""
    async with database.begin() as work:
        patient = await work.patients.make_provisional(Patient(uuid4(), mrn, "X", None, "", is_provisional=True))
        await work.commit()
    return patient


def entry(mrn: str, patient_id: UUID | None = None) -> PatientEntry:
    """What the RIS tells of a patient."""
    return PatientEntry(mrn, "Smith^Anna", None, "", patient_id)


async def unavailable_after(awaitable: Awaitable[Any]) -> float:
    """How many seconds it takes to raise DATABASE_UNAVAILABLE."""
    began = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        await awaitable
    assert caught.value.reason is Reason.DATABASE_UNAVAILABLE
    return time.monotonic() - began


async def test_studies_may_be_shared(database: PostgresDatabase) -> None:
    """Many share the lock of a study at once. Who wants it alone waits for all of them; those who would share it are
    told that they cannot, also while somebody waits for it, and get what else is free.
    """
    async with database.begin() as first, database.begin() as second, database.begin() as third:
        assert set(await first.share_studies(["1.2", "1.3"])) == {"1.2", "1.3"}
        assert set(await second.share_studies(["1.2"])) == {"1.2"}
        alone = asyncio.create_task(third.lock_study("1.2"))
        await asyncio.sleep(0.1)
        assert not alone.done()
        async with database.begin() as fourth:
            assert set(await fourth.share_studies(["1.2", "1.3"])) == {"1.3"}
        await first.commit()
        await second.commit()
        await alone
        async with database.begin() as fourth:
            assert await fourth.share_studies(["1.2"]) == frozenset()
            await third.commit()
            assert set(await fourth.share_studies(["1.2"])) == {"1.2"}


async def test_an_order_is_locked_apart_from_studies(database: PostgresDatabase) -> None:
    """The lock of an order keeps out who wants the order, and nobody who wants a study."""
    order_id = uuid4()
    async with database.begin() as first, database.begin() as second:
        await first.lock_order(order_id)
        await second.lock_study(str(order_id))
        waiting = asyncio.create_task(second.lock_order(order_id))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await first.commit()
        await waiting


async def test_a_study_is_locked_until_its_transaction_ends(database: PostgresDatabase) -> None:
    """The lock of a study keeps others out until the end of the transaction, but not those of another study."""
    order: list[str] = []

    async def second() -> None:
        async with database.begin() as work:
            await work.lock_study("1.2")
            order.append("second has it")

    async with database.begin() as work:
        await work.lock_study("1.2")
        await work.lock_study("1.2")
        waiting = asyncio.create_task(second())
        async with database.begin() as other:
            await other.lock_study("1.3")
        await asyncio.sleep(0.3)
        order.append("first ends")
    await waiting
    assert order == ["first ends", "second has it"]


async def test_waiting_for_a_study_has_an_end(database: PostgresDatabase) -> None:
    """Who waits too long for a study's lock is told to retry, and the connection works on."""
    async with database.begin() as holder:
        await holder.lock_study("1.2")
        async with database.begin() as work:
            assert 3 < await unavailable_after(work.lock_study("1.2")) < 8
    async with database.begin() as work:
        await work.lock_study("1.2")


async def test_an_unknown_patient_is_made_once(database: PostgresDatabase) -> None:
    """Twenty uploads for one unknown MRN at once get one and the same provisional patient."""
    made = await asyncio.gather(*(provisional(database, "1") for _ in range(20)))
    assert len({patient.id for patient in made}) == 1
    async with database.begin() as work:
        assert (await work.patients.page(PageRequest(10), mrn=None)).items == (made[0],)


async def test_upserts_of_the_same_patients_do_not_get_in_each_others_way(database: PostgresDatabase) -> None:
    """Upserts that name the same patients in different orders all pass; each MRN ends with one id."""
    mrns = [str(number) for number in range(200)]
    batches = [mrns, mrns[::-1], mrns[100:] + mrns[:100], mrns[::2] + mrns[1::2]] * 3
    results = await asyncio.gather(*(put_patients(database, *map(entry, batch)) for batch in batches))
    ids = [dict(zip(batch, result, strict=True)) for batch, result in zip(batches, results, strict=True)]
    assert all(each == ids[0] for each in ids)


async def test_upserts_that_want_one_mrn_under_two_ids_end_in_one_conflict(database: PostgresDatabase) -> None:
    """Of two that give a new MRN different ids, one passes and the other is told of the conflict."""
    outcomes = await asyncio.gather(
        *(put_patients(database, entry("1", uuid4())) for _ in range(8)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(refused) == 7
    assert all(isinstance(error, ServiceError) and error.reason is Reason.REGISTRY_CONFLICT for error in refused)


async def test_an_upload_and_the_ris_may_tell_of_a_patient_at_once(database: PostgresDatabase) -> None:
    """Whichever comes first, the patient ends with the RIS's id and is not provisional."""
    for number in range(20):
        theirs = uuid4()
        await asyncio.gather(provisional(database, f"{number}"), put_patients(database, entry(f"{number}", theirs)))
        async with database.begin() as work:
            patient = (await work.patients.by_mrn([f"{number}"]))[f"{number}"]
        assert (patient.id, patient.is_provisional) == (theirs, False)


async def test_users_may_be_put_by_several_at_once(database: PostgresDatabase) -> None:
    """Upserts of the same new user at once all pass with the same id."""

    async def put() -> UUID:
        return await make_user(database)

    assert len(set(await asyncio.gather(*(put() for _ in range(10))))) == 1


async def test_uploads_go_on_while_the_ris_gives_ids(database: PostgresDatabase) -> None:
    """Uploads for provisional patients, and upserts that give these their ids, wait for each other at most, and every
    order and log ends under the RIS's id.
    """
    user_id = await make_user(database)
    mrns = [str(number) for number in range(12)]
    theirs = {mrn: uuid4() for mrn in mrns}
    made = {mrn: (await provisional(database, mrn)).id for mrn in mrns}
    order_ids = await put_orders(database, *(OrderEntry(made[mrn], f"A{mrn}", "CT", "new") for mrn in mrns))

    async with database.begin() as work:
        for mrn, order_id in zip(mrns, order_ids, strict=True):
            log = UploadLog(uuid4(), made[mrn], order_id, user_id, f"1.2.{mrn}", "manual", NOW)
            await work.upload_logs.save(log)
        await work.commit()

    async def upload(mrn: str, order_id: UUID) -> None:
        uid = f"1.2.{mrn}"
        for number in range(6):
            async with database.begin() as work:
                assert await work.share_studies([uid])
                log = (await work.upload_logs.by_study([uid]))[uid]
                # As long as a file takes to be read back: the RIS may give the patient its id meanwhile.
                await asyncio.sleep(0.01)
                file = verified(file_of(log, number))
                study = OrderStudy(uid, "o", 1, number, "", "", user_id, NOW, "manual")
                await database.ledger.write(Step(file, order_id=order_id, order_study=study))

    async def give_ids(batch: list[str]) -> None:
        await put_patients(database, *(entry(mrn, theirs[mrn]) for mrn in batch))
        await put_orders(database, *(OrderEntry(theirs[mrn], f"A{mrn}", "CT", "done") for mrn in batch))

    uploads = (upload(mrn, order_id) for mrn, order_id in zip(mrns, order_ids, strict=True))
    upserts = [give_ids(mrns[start : start + 3][::-1]) for start in range(0, 12, 3)]
    await asyncio.gather(*uploads, *upserts, *(give_ids(mrns[6:]) for _ in range(2)))
    async with database.begin() as work:
        logs = await work.upload_logs.by_study([f"1.2.{mrn}" for mrn in mrns])
        orders = await work.orders.many(order_ids)
    assert {uid: log.patient_id for uid, log in logs.items()} == {f"1.2.{mrn}": theirs[mrn] for mrn in mrns}
    assert all(log.number_of_files == 6 for log in logs.values())
    assert {order.accession_number: (order.patient_id, order.status) for order in orders.values()} == {
        f"A{mrn}": (theirs[mrn], "done") for mrn in mrns
    }
    assert all(order.study is not None for order in orders.values())


async def test_a_cancelled_transaction_is_rolled_back_and_gives_its_connection_back(migrated: Migrated) -> None:
    """A caller that goes away in the middle of anything holds no lock and no connection afterwards."""
    await migrated.empty()
    database = PostgresDatabase(migrated.url, pool_size=2)
    try:
        for delay in (0, 0.0005, 0.001, 0.002, 0.004, 0.01, 0.05) * 3:

            async def work_forever() -> None:
                async with database.begin() as work:
                    await work.patients.upsert([entry("1")])
                    await work.lock_study("1.2")
                    await asyncio.sleep(60)

            task = asyncio.create_task(work_forever())
            await asyncio.sleep(delay)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        async with database.begin() as first, database.begin() as second:
            await first.lock_study("1.2")
            assert await second.patients.by_mrn(["1"]) == {}
    finally:
        await database.close()


async def test_connections_are_kept_and_used_again(migrated_url: str) -> None:
    """However many units of work there are, committed, rolled back or broken off, those at a time share so many
    connections.
    """
    pids = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY pid"
    )
    async with copy_of(migrated_url) as url, connected(url) as connection:
        database = PostgresDatabase(url, pool_size=3)

        async def work(number: int) -> None:
            async with database.begin() as work:
                await work.patients.upsert([entry(str(number))])
                if number % 2:
                    await work.commit()
                if number % 5 == 4:
                    raise ZeroDivisionError

        try:
            await asyncio.gather(*map(work, range(30)), return_exceptions=True)
            before = await connection.fetch(pids)
            await asyncio.gather(*map(work, range(30, 40)), return_exceptions=True)
            async with database.begin() as last:
                assert set(await last.patients.by_mrn(list(map(str, range(40))))) == {str(n) for n in range(1, 40, 2)}
            assert await connection.fetch(pids) == before
            assert len(before) == 3
        finally:
            await database.close()


async def test_more_work_than_connections_waits_and_then_is_told(migrated: Migrated) -> None:
    """Who finds all connections taken waits a few seconds, is told to retry, and can once one is free."""
    database = PostgresDatabase(migrated.url, pool_size=1)
    try:
        async with database.begin():
            assert 3 < await unavailable_after(database.check()) < 8
            waiting = asyncio.create_task(database.check())
            await asyncio.sleep(0.1)
            assert not waiting.done()
        assert await waiting
    finally:
        await database.close()
