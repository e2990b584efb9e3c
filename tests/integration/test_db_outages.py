"""The PostgreSQL adapter while PostgreSQL is away, hangs, dies or is not ready, and after it is back."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from deploy.local.stack import Stack
from pacs_gateway.adapters.db import PostgresDatabase
from pacs_gateway.domain.registry import PatientEntry, Role, UserEntry
from pacs_gateway.domain.upload_log import UploadLog
from pacs_gateway.domain.whose import Claims, Known
from pacs_gateway.use_cases.ports import UnitOfWork
from service_runtime.errors import Reason, ServiceError
from tests.integration.databases import alembic, empty_database, execute, migrate, migrated_database

A_FEW_SECONDS = 12
ENTRY = PatientEntry("1", "Smith^Anna", None, "")
USER = UserEntry("anna", "Anna", Role.ADMIN, is_active=True)


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A server of this module's own, for it is treated badly."""
    folder = Path(tmp_path_factory.mktemp("outages"))
    async with Stack(folder, parts=("postgres", "migrations")) as stack:
        # A server that is thrown away writes late: without this, the tables would not survive the first kill.
        await execute(stack.database_url, "CHECKPOINT")
        yield stack


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[PostgresDatabase]:
    """The adapter, with a connection in its pool."""
    await stack.start("postgres")
    async with adapter(stack.database_url) as database:
        await database.check()
        yield database


@asynccontextmanager
async def adapter(url: str) -> AsyncIterator[PostgresDatabase]:
    """The adapter over this URL, closed at the end."""
    database = PostgresDatabase(url)
    try:
        yield database
    finally:
        await database.close()


def server_process(stack: Stack) -> int:
    """The id of the process that all others of the server descend from."""
    process = stack._postgres.child._process
    assert process is not None
    return process.pid


@contextmanager
def hanging(stack: Stack) -> Iterator[None]:
    """Stops the server's processes where they stand: connections stay open and nothing answers."""
    first = server_process(stack)
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    pids = [first, *map(int, children)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def kill(stack: Stack) -> None:
    """Ends the server the hard way, as a power cut does."""
    os.kill(server_process(stack), signal.SIGKILL)
    await asyncio.sleep(0.2)
    await stack.stop("postgres")


async def told_unavailable(awaitable: Awaitable[Any]) -> ServiceError:
    """The error, which is DATABASE_UNAVAILABLE, asks for a retry, and comes within a few seconds."""
    began = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        await awaitable
    assert time.monotonic() - began < A_FEW_SECONDS
    assert caught.value.reason is Reason.DATABASE_UNAVAILABLE
    assert caught.value.retry_after
    return caught.value


async def read(database: PostgresDatabase) -> None:
    """A unit of work from its beginning to its end."""
    async with database.begin() as work:
        await work.patients.by_mrn(["1"])


async def put(work: UnitOfWork) -> None:
    """Changes something."""
    await work.patients.upsert([ENTRY])


async def test_the_adapter_is_there_before_the_server(tmp_path: Path) -> None:
    """Made while there is no server, no database and no table, it says so, and works once all is there."""
    async with Stack(tmp_path, parts=()) as stack, adapter(stack.database_url) as database:
        await told_unavailable(database.check())
        await told_unavailable(read(database))
        await stack.start("postgres")
        assert "migrations" in (await told_unavailable(database.check())).message
        assert "migrations" in (await told_unavailable(read(database))).message
        await migrate(stack.database_url)
        assert await database.check()
        await read(database)


async def test_a_database_at_another_revision_is_not_ready(postgres_url: str) -> None:
    """Readiness asks for the very revision that the code was written for."""
    async with empty_database(postgres_url) as url, adapter(url) as database:
        await migrate(url, "0002")
        assert "migrations" in (await told_unavailable(database.check())).message
        await migrate(url)
        assert (await database.check()).split(".")[0].isdigit()
        assert (await alembic(url, "downgrade", "base")).status == 0
        assert "migrations" in (await told_unavailable(database.check())).message


async def test_a_migration_under_a_running_service_does_not_break_it(migrated_url: str) -> None:
    """A statement that was prepared before the tables were made anew works after, at the latest at the second try."""
    async with migrated_database(migrated_url) as migrated:
        database = migrated.database
        await read(database)
        assert (await alembic(migrated.url, "downgrade", "base")).status == 0
        await told_unavailable(read(database))
        await migrate(migrated.url)
        await read(database)


async def test_a_stopped_server_is_told_and_its_return_is_noticed(stack: Stack, database: PostgresDatabase) -> None:
    """Units of work fail while the server is down, also one in the middle, and pass when it is back."""
    async with database.begin() as work:
        await put(work)
        await stack.stop("postgres")
        await told_unavailable(put(work))
        await told_unavailable(work.commit())
    await told_unavailable(read(database))
    await told_unavailable(database.check())
    await stack.start("postgres")
    await read(database)
    assert await database.check()


async def test_a_server_that_dies_before_the_commit_is_told(stack: Stack, database: PostgresDatabase) -> None:
    """A commit that the server did not answer is an error, and what was not committed is not there afterwards."""
    async with database.begin() as work:
        await work.patients.upsert([PatientEntry("never", "X", None, "")])
        await kill(stack)
        await told_unavailable(work.commit())
    await told_unavailable(read(database))
    await stack.start("postgres")
    async with database.begin() as work:
        assert await work.patients.by_mrn(["never"]) == {}


async def test_every_pooled_connection_may_be_dead(stack: Stack, database: PostgresDatabase) -> None:
    """After a restart that nobody saw, the first unit of work passes, however many connections the pool holds."""
    async with database.begin() as first, database.begin() as second, database.begin() as third:
        for work in (first, second, third):
            await work.patients.by_mrn(["1"])
    await kill(stack)
    await stack.start("postgres")
    await asyncio.gather(*(read(database) for _ in range(5)))


async def test_a_server_that_hangs_is_told_in_time(stack: Stack, database: PostgresDatabase) -> None:
    """A server that takes connections and bytes but answers nothing costs a few seconds, not a worker for ever: at the
    beginning, at a statement, at the commit, at the rollback, which is silent, and at a check.
    """
    first, second, third = (database.begin() for _ in range(3))
    at_statement, at_commit = await first.__aenter__(), await second.__aenter__()
    await put(at_statement)
    await at_commit.users.upsert([USER])
    await (await third.__aenter__()).patients.by_mrn(["1"])
    with hanging(stack):
        began = time.monotonic()
        await asyncio.gather(
            told_unavailable(put(at_statement)),
            told_unavailable(at_commit.commit()),
            third.__aexit__(None, None, None),
            told_unavailable(read(database)),
            told_unavailable(database.check()),
        )
        assert time.monotonic() - began < A_FEW_SECONDS
    await first.__aexit__(None, None, None)
    await second.__aexit__(None, None, None)
    assert await database.check()
    # Nothing of it holds a lock any more.
    async with database.begin() as work:
        await put(work)
        await work.users.upsert([USER])


async def test_what_is_looked_up_is_found_again_after_every_outage(stack: Stack, database: PostgresDatabase) -> None:
    """A lookup, of a user or for a file, is told of a server that is away or hangs, and finds what there is at the
    first try once it is back.
    """
    async with database.begin() as work:
        (user,) = await work.users.upsert([USER])
        (patient,) = await work.patients.upsert([ENTRY])
        await work.commit()
    claims = Claims(ENTRY.mrn, "", None, "")

    async def find() -> None:
        assert await database.find_user(user.id) == user
        assert await database.look_up([claims]) == [Known(patient)]

    async def told() -> None:
        await asyncio.gather(
            told_unavailable(database.find_user(user.id)), told_unavailable(database.look_up([claims]))
        )

    await find()
    await stack.restart("postgres")
    await find()
    await stack.stop("postgres")
    await told()
    await stack.start("postgres")
    await find()
    with hanging(stack):
        await told()
    await find()


async def test_closing_does_not_wait_for_a_server_that_hangs(stack: Stack) -> None:
    """A service can stop while its database hangs."""
    database = PostgresDatabase(stack.database_url)
    await read(database)
    await database.find_user(uuid4())
    with hanging(stack):
        began = time.monotonic()
        await database.close()
        assert time.monotonic() - began < A_FEW_SECONDS


async def test_an_address_that_never_answers_is_told_in_time() -> None:
    """A host that takes the connection and says nothing is as good as away."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with adapter(f"postgresql://nobody@127.0.0.1:{port}/none") as database:
            await told_unavailable(database.check())
            await told_unavailable(database.find_user(uuid4()))
            await told_unavailable(database.look_up([Claims("1", "", None, "")]))


async def test_a_login_or_database_that_is_not_there_is_told(postgres_url: str) -> None:
    """What only an operator can mend makes the service not ready, and never quotes the URL."""
    for url in (
        urlsplit(postgres_url)._replace(path="/nowhere").geturl(),
        postgres_url.replace("postgres@", "stranger@"),
    ):
        async with adapter(url) as database:
            error = await told_unavailable(database.check())
            assert "nowhere" not in error.message
            assert "stranger" not in error.message


@pytest.mark.parametrize("url", ["", "mysql://anna:secret@host/db", "sqlite://", "host=secret"])
def test_a_url_of_another_kind_is_refused_at_once(url: str) -> None:
    """A URL that can never work is an error of the set-up, and is not quoted: it may hold a password."""
    with pytest.raises(ValueError, match="postgresql://") as caught:
        PostgresDatabase(url)
    assert "secret" not in str(caught.value)


async def test_a_defect_does_not_pass_for_an_outage(migrated_url: str) -> None:
    """What the database refuses for good reason stays what it is: retrying would not help."""
    async with migrated_database(migrated_url) as migrated, migrated.database.begin() as work:
        (patient,) = await work.patients.upsert([ENTRY])
        log = UploadLog(uuid4(), patient.id, None, uuid4(), "1.2", "manual", datetime(2026, 3, 1, tzinfo=UTC))
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await work.upload_logs.save(log)
