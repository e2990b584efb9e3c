"""migrations/ against a real PostgreSQL."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine

from deploy.local.process import ROOT
from pacs_gateway.adapters.db.engine import connector
from pacs_gateway.adapters.db.models import SCHEMA_REVISION, metadata
from tests.integration.databases import alembic, connected, copy_of, downgrade, empty_database, execute, migrate

SCRIPTS = ScriptDirectory.from_config(Config(str(ROOT / "migrations" / "alembic.ini")))
REVISIONS = [script.revision for script in reversed(list(SCRIPTS.walk_revisions()))]

# Everything that makes a schema: columns, constraints and indexes, each as PostgreSQL itself spells it.
_SCHEMA = """
SELECT table_name || '.' || column_name AS name,
       concat_ws(' ', data_type, character_maximum_length, is_nullable, column_default) AS definition
  FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL
SELECT conrelid::regclass || ' ' || conname, pg_get_constraintdef(oid) FROM pg_constraint
 WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
"""

NEW_USER = "INSERT INTO users (id, username, full_name, role) VALUES (gen_random_uuid(), 'u', 'U', 'admin')"
NEW_PATIENT = "INSERT INTO patients (id, mrn, full_name, sex) VALUES (gen_random_uuid(), '1', 'A', 'F')"
NEW_LOG = """INSERT INTO dicom_upload_logs
    (id, patient_id, uploaded_by_id, study_instance_uid, upload_status, uploaded_at, upload_source)
    SELECT gen_random_uuid(), p.id, u.id, '1.2', 'success', now(), 'manual' FROM patients p, users u"""


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    """A database without tables."""
    async with empty_database(postgres_url) as url:
        yield url


@pytest.fixture
async def migrated(migrated_url: str) -> AsyncIterator[str]:
    """A database with all tables."""
    async with copy_of(migrated_url) as url:
        yield url


async def schema(url: str) -> dict[str, str]:
    """The schema by the names of its parts, alembic's own table apart."""
    async with connected(url) as connection:
        rows = {row["name"]: row["definition"] for row in await connection.fetch(_SCHEMA)}
    return {name: definition for name, definition in rows.items() if "alembic_version" not in name}


async def test_every_revision_can_be_undone_and_done_again(url: str) -> None:
    """Downgrading a revision restores exactly the schema before it, and upgrading again the schema after it."""
    before = await schema(url)
    assert before == {}
    for number, revision in enumerate(REVISIONS):
        await migrate(url, revision)
        after = await schema(url)
        assert after != before
        await downgrade(url, REVISIONS[number - 1] if number else "base")
        assert await schema(url) == before
        await migrate(url, revision)
        assert await schema(url) == after
        before = after


async def test_what_the_ris_had_survives_the_way_down_and_up(url: str) -> None:
    """Taking back the gateway's revisions leaves the RIS's rows as they were."""
    await migrate(url)
    await execute(url, NEW_USER)
    await execute(url, NEW_PATIENT)
    await execute(url, NEW_LOG)
    await downgrade(url, "0001")
    await migrate(url)
    async with connected(url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM patients") == 1
        assert await connection.fetchval("SELECT count(*) FROM users") == 1


async def test_what_the_logs_listed_is_in_the_ledger_and_back(url: str) -> None:
    """The files of the logs of before become entries, counted as the log counts them, and go back into its list."""
    await migrate(url, "0003")
    for statement in (NEW_USER, NEW_PATIENT, NEW_LOG):
        await execute(url, statement)
    listed = [
        {"sop_instance_uid": "1.2.1", "name": "a.dcm", "size_bytes": 5_000_000_000, "error": ""},
        {"sop_instance_uid": "1.2.2", "name": "b.dcm", "size_bytes": 7, "error": "STORE_REFUSED"},
    ]
    async with connected(url) as connection:
        await connection.execute("UPDATE dicom_upload_logs SET file_names = $1", json.dumps(listed))
    await execute(
        url,
        NEW_LOG.replace("'1.2'", "'1.3'")
        .replace("upload_source)", "upload_source, is_deleted, file_names)")
        .replace(
            "'manual'", """'api', true, '[{"sop_instance_uid": "1.3.1", "name": "c", "size_bytes": 1, "error": ""}]'"""
        ),
    )
    await migrate(url)
    async with connected(url) as connection:
        rows = await connection.fetch(
            "SELECT study_instance_uid, sop_instance_uid, filename, stored_size_bytes, state, error, is_current,"
            " upload_source FROM dicom_upload_files ORDER BY sop_instance_uid"
        )
        await connection.execute("UPDATE dicom_upload_logs SET file_names_stale = true, file_names = '[]'")
    assert [tuple(row) for row in rows] == [
        ("1.2", "1.2.1", "a.dcm", 5_000_000_000, "verified", "", True, "manual"),
        ("1.2", "1.2.2", "b.dcm", 0, "failed", "STORE_REFUSED", True, "manual"),
        ("1.3", "1.3.1", "c", 1, "verified", "", False, "api"),
    ]
    await downgrade(url, "0003")
    async with connected(url) as connection:
        rows = await connection.fetch("SELECT file_names FROM dicom_upload_logs ORDER BY study_instance_uid")
    back = {file["sop_instance_uid"]: file["error"] for file in json.loads(rows[0]["file_names"])}
    assert back == {"1.2.1": "", "1.2.2": "STORE_REFUSED"}


async def test_the_models_do_not_drift_from_the_migrations(migrated: str, tmp_path: Path) -> None:
    """`alembic check`, run from any directory, finds nothing to generate."""
    outcome = await alembic(migrated, "check", cwd=tmp_path)
    assert outcome.status == 0, outcome.output


async def test_the_models_make_the_very_schema_that_the_migrations_make(url: str, migrated: str) -> None:
    """Every column, default, constraint, check and index agrees, names included, which `alembic check` does not see."""
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connector(url, settings={}))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
    assert await schema(url) == await schema(migrated)


async def test_the_schema_is_the_documented_one(migrated: str) -> None:
    """Types, lengths and names that others rely on are there."""
    found = await schema(migrated)
    promised = {
        "dicom_upload_logs.total_size_bytes": "bigint NO '0'::bigint",
        "dicom_upload_logs.file_names": "json NO '[]'::json",
        "dicom_upload_logs.order_id": "uuid YES",
        "dicom_upload_logs.study_instance_uid": "character varying 64 NO",
        "dicom_upload_logs.original_patient_name": "character varying 255 NO ''::character varying",
        "dicom_upload_logs.original_study_date": "character varying 8 NO ''::character varying",
        "dicom_upload_logs.upload_status": "character varying 20 NO",
        "dicom_upload_logs.uploaded_at": "timestamp with time zone NO",
        "dicom_upload_logs.tags_modified": "boolean NO false",
        "dicom_upload_logs.is_deleted": "boolean NO false",
        "dicom_upload_logs uq_study_instance_uid": "UNIQUE (study_instance_uid)",
        "orders fk_orders_uploaded_by": "FOREIGN KEY (uploaded_by_id) REFERENCES users(id)",
        "orders.study_instance_uid": "character varying 64 YES",
        "orders.upload_source": "character varying 20 YES",
        "orders.uploaded_at": "timestamp with time zone YES",
        "patients uq_patients_mrn": "UNIQUE (mrn)",
        "orders uq_orders_accession_number": "UNIQUE (accession_number)",
        "users uq_users_username": "UNIQUE (username)",
    }
    assert {name: found.get(name) for name in promised} == promised
    indexed = [definition for name, definition in found.items() if name.startswith("index")]
    for column in ("study_instance_uid", "orthanc_study_id", "patient_id", "order_id", "uploaded_at"):
        assert any(f"ON public.dicom_upload_logs USING btree ({column})" in definition for definition in indexed)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("users", "role", "root"),
        ("patients", "sex", "X"),
        ("dicom_upload_logs", "upload_status", "done"),
        ("dicom_upload_logs", "upload_source", "fax"),
    ],
)
async def test_the_database_refuses_a_value_that_is_none_of_the_known(
    migrated: str, table: str, column: str, value: str
) -> None:
    """A role, sex, status or source that the domain does not know never gets in, whoever writes it."""
    for statement in (NEW_USER, NEW_PATIENT, NEW_LOG):
        await execute(migrated, statement)
    async with connected(migrated) as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(f"UPDATE {table} SET {column} = $1", value)  # noqa: S608 - the test's own names


async def test_migrators_of_one_database_take_turns(url: str) -> None:
    """Three migrators at the same moment all succeed, and the database is at the newest revision."""
    outcomes = await asyncio.gather(*(alembic(url, "upgrade", "head") for _ in range(3)))
    assert [outcome.status for outcome in outcomes] == [0, 0, 0], outcomes
    async with connected(url) as connection:
        versions = await connection.fetch("SELECT version_num FROM alembic_version")
    assert [row["version_num"] for row in versions] == [REVISIONS[-1]]


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "postgres"])
async def test_a_url_may_be_spelt_for_libpq_or_for_sqlalchemy(url: str, scheme: str) -> None:
    """Every customary scheme of a PostgreSQL URL reaches the same database."""
    outcome = await alembic(url.replace("postgresql", scheme, 1), "upgrade", "head")
    assert outcome.status == 0, outcome.output
    async with connected(url) as connection:
        assert await connection.fetchval("SELECT version_num FROM alembic_version") == REVISIONS[-1]


async def test_without_a_url_the_migrator_says_what_is_missing() -> None:
    """DATABASE_URL is named when it is not set."""
    outcome = await alembic(None, "upgrade", "head")
    assert outcome.status != 0
    assert "DATABASE_URL" in outcome.output


async def test_the_statements_can_be_printed_without_a_database() -> None:
    """`--sql` prints what a careful operator wants to read first, and connects nowhere."""
    outcome = await alembic("postgresql://nobody@127.0.0.1:1/none", "upgrade", "head", "--sql")
    assert outcome.status == 0, outcome.output
    assert "CREATE TABLE dicom_upload_logs" in outcome.output


def test_the_code_asks_for_the_newest_revision() -> None:
    """The revision that readiness asks for is the one that `upgrade head` leads to."""
    assert SCRIPTS.get_current_head() == SCHEMA_REVISION
