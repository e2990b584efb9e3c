"""Databases of their own for the tests of migrations/ and of the PostgreSQL adapter, on the tests' server."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import asyncpg
from alembic import command
from alembic.config import Config

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
    """Brings the database up to a revision, by alembic in this process: one of its own costs a second and more."""
    await _in_this_process(command.upgrade, url, revision)


async def downgrade(url: str, revision: str) -> None:
    """Takes the database back to a revision, in the same way."""
    await _in_this_process(command.downgrade, url, revision)


async def _in_this_process(change: Callable[[Config, str], None], url: str, revision: str) -> None:
    with patch.dict(os.environ, DATABASE_URL=url):
        await asyncio.to_thread(change, Config(str(ROOT / "migrations" / "alembic.ini")), revision)


@asynccontextmanager
async def empty_database(server_url: str) -> AsyncIterator[str]:
    """The URL of a new database on this server, which is dropped at the end."""
    async with _new_database(server_url, "template1") as url:
        yield url


@asynccontextmanager
async def copy_of(model_url: str) -> AsyncIterator[str]:
    """The URL of a new database that is as this one, to which nobody is connected; it is dropped at the end."""
    async with _new_database(_at(model_url, "postgres"), urlsplit(model_url).path.removeprefix("/")) as url:
        yield url


@asynccontextmanager
async def _new_database(server_url: str, template: str) -> AsyncIterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    await execute(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield _at(server_url, name)
    finally:
        await execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def _at(server_url: str, name: str) -> str:
    return urlsplit(server_url)._replace(path=f"/{name}").geturl()


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
async def migrated_database(migrated_url: str) -> AsyncIterator[Migrated]:
    """A copy of the database with all tables, which is dropped at the end."""
    async with copy_of(migrated_url) as url:
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
