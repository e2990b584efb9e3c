"""Databases of their own for the tests of migrations/ and of the PostgreSQL adapter, on the tests' server."""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from deploy.local.process import ROOT, python_environment
from pacs_gateway.adapters.db import PostgresDatabase


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command came to."""

    status: int
    output: str


async def alembic(url: str | None, *words: str, cwd: Path = ROOT) -> Outcome:
    """Runs alembic the way operators do."""
    environment = python_environment({"DATABASE_URL": url or ""})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alembic", "-c", str(ROOT / "migrations" / "alembic.ini"), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
        cwd=cwd,
    )
    output, _ = await process.communicate()
    return Outcome(process.returncode or 0, output.decode())


async def migrate(url: str, revision: str = "head") -> None:
    """Brings the database up to a revision."""
    outcome = await alembic(url, "upgrade", revision)
    assert outcome.status == 0, outcome.output


@asynccontextmanager
async def empty_database(server_url: str) -> AsyncIterator[str]:
    """The URL of a new database, which is dropped at the end."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await execute(server_url, f"CREATE DATABASE {name}")
    try:
        yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
    finally:
        await execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@dataclass(frozen=True, slots=True)
class Migrated:
    """A database with all tables, and the adapter over it."""

    url: str
    database: PostgresDatabase

    async def empty(self) -> None:
        """Removes all rows."""
        ours = (
            "dicom_upload_logs, dicom_upload_files, upload_sessions, upload_session_files, study_deletions, gateways, "
            "dicom_quarantine, dicom_quarantine_events"
        )
        await execute(self.url, f"TRUNCATE users, patients, orders, {ours}")


@asynccontextmanager
async def migrated_database(server_url: str) -> AsyncIterator[Migrated]:
    """A new database with all tables, which is dropped at the end."""
    async with empty_database(server_url) as url:
        await migrate(url)
        database = PostgresDatabase(url)
        try:
            yield Migrated(url, database)
        finally:
            await database.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection past the adapter, to see and do what it does not."""
    connection = await asyncpg.connect(url, timeout=5)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


async def execute(url: str, statement: str) -> None:
    """Runs one statement past the adapter."""
    async with connected(url) as connection:
        await connection.execute(statement)
