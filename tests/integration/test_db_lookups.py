"""What a real PostgreSQL tells of many files at once, and how it finds that."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from types import ModuleType
from uuid import uuid4

import pytest

from pacs_gateway.adapters.db import ledger, lookups, orders, patients, upload_logs, user_lookup
from pacs_gateway.adapters.db.engine import connector
from pacs_gateway.adapters.db.prepared import Prepared
from pacs_gateway.adapters.db.session import SERVER_SETTINGS
from pacs_gateway.domain.registry import OrderEntry, OrderStudy, PatientEntry, Role, UserEntry
from pacs_gateway.domain.upload_log import Deletion, UploadLog
from pacs_gateway.domain.whose import Claims, Known
from tests.integration.databases import Migrated, migrated_database

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.fixture(scope="module")
async def migrated(migrated_url: str) -> AsyncIterator[Migrated]:
    """The database of this module."""
    async with migrated_database(migrated_url) as migrated:
        yield migrated


async def test_each_file_is_told_what_is_known_of_it(migrated: Migrated) -> None:
    """Patient, orders and log are found by what each file claims, in the order of the files, in a unit of work and
    without one alike; what is empty, or cannot be in any row, is found in none.
    """
    await migrated.empty()
    database = migrated.database
    async with database.begin() as work:
        (user,) = await work.users.upsert([UserEntry("anna", "Anna", Role.ADMIN, is_active=True)])
        smith, jones = await work.patients.upsert(
            [PatientEntry("1", "Smith^Anna", NOW.date(), "F"), PatientEntry("2", "Jones", None, "")]
        )
        first, second = await work.orders.upsert(
            [OrderEntry(smith.id, "A1", "CT", "new"), OrderEntry(jones.id, "A2", "MR", "done")]
        )
        study = OrderStudy("1.2", "o-1", 2, 10, "20260301", "1230", user.id, NOW, "manual")
        await work.orders.fill(second.id, study)
        second = replace(second, study=study)
        log = UploadLog(uuid4(), smith.id, first.id, user.id, "1.2", "manual", NOW, original_patient_name="Sm\u0131th")
        deleted = replace(log, id=uuid4(), study_instance_uid="1.3", patient_id=jones.id, order_id=None)
        for one in (log, deleted):
            await work.upload_logs.save(one)
            await work.upload_logs.save_deletion(
                Deletion(
                    uuid4(), one.study_instance_uid, "", "x", user.id, datetime(2026, 1, 1, tzinfo=UTC), one.id, NOW
                )
            )
        await work.upload_logs.save_deletion(Deletion(uuid4(), "1.3", "", "x", user.id, NOW, deleted.id))
        await work.commit()
    expected = {
        Claims("1", "A1", second.id, "1.2"): Known(smith, first, second, log, is_being_deleted=False),
        Claims("2", "A2", None, "1.3"): Known(jones, second, None, deleted, is_being_deleted=True),
        Claims("1", "", first.id, "1.4"): Known(smith, None, first),
        Claims("", "", None, ""): Known(),
        Claims("1\0", "A\ud800", uuid4(), "1.2\0"): Known(),
        Claims("nobody", "A9", None, "9"): Known(),
    }
    claims = [*expected, *reversed(expected)]
    told = await database.look_up(claims)
    assert told == [expected[one] for one in claims]
    async with database.begin() as work:
        assert await work.look_up(claims) == told
    assert await database.look_up([]) == []


def statements(*modules: ModuleType) -> dict[str, Prepared]:
    """The statements of modules, by their names."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Prepared)
    }


HOT = statements(ledger, lookups, orders, patients, upload_logs, user_lookup)


@pytest.mark.parametrize("statement", HOT.values(), ids=HOT)
async def test_rows_are_found_by_index_however_few_they_are(migrated: Migrated, statement: Prepared) -> None:
    """What is planned once, when there is hardly a row, never reads a whole table: it would when there are many."""
    connection = await connector(migrated.url, settings=SERVER_SETTINGS)()
    try:
        await connection.execute(f"PREPARE hot AS {statement.sql}")
        nulls = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", statement.sql))))
        rows = await connection.fetch(f"EXPLAIN EXECUTE hot ({nulls})")
    finally:
        await connection.close()
    plan = "\n".join(row["QUERY PLAN"] for row in rows)
    assert "Seq Scan" not in plan, plan
    # Nor a whole index, but where all that are in it are looked for: it is of a few rows now, and of many later.
    below = re.findall(r"Index (?:Only )?Scan[^\n]*\n\s+(\S[^\n]*)", plan)
    assert statement is HOT["ledger._ORPHANS"] or all(line.startswith("Index Cond") for line in below), plan
