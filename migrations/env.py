# ruff: noqa: INP001 - alembic runs this as a file, not as part of a package
"""Alembic's environment: brings the database at DATABASE_URL to another revision, all in one transaction.

    DATABASE_URL=postgresql://... python -m alembic -c migrations/alembic.ini upgrade head

With --sql it prints the statements and connects nowhere.
"""

import asyncio
import os
import sys

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from pacs_gateway.adapters.db.engine import connector
from pacs_gateway.adapters.db.models import metadata

# Of all migrators of one database, one works and the others wait, then find nothing left to do.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('migrations', 0))")
_LOCK_TIMEOUT = "60s"


def _print_sql() -> None:
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
    with context.begin_transaction():
        connection.execute(_LOCK)
        context.run_migrations()


async def _connect_and_migrate() -> None:
    url = os.environ.get("DATABASE_URL")
    if not url:
        sys.exit("DATABASE_URL is not set. It names the database to migrate.")
    connect = connector(url, settings={"lock_timeout": _LOCK_TIMEOUT})
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_migrate)


if context.is_offline_mode():
    _print_sql()
else:
    asyncio.run(_connect_and_migrate())
