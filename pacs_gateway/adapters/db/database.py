"""The port `Database` over PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final
from uuid import UUID

from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from pacs_gateway.adapters.db.engine import connector
from pacs_gateway.adapters.db.failures import deadline, not_migrated
from pacs_gateway.adapters.db.group_ledger import PostgresGroupLedger
from pacs_gateway.adapters.db.kept import KeptConnection
from pacs_gateway.adapters.db.ledger import PostgresLedger
from pacs_gateway.adapters.db.lookups import look_up
from pacs_gateway.adapters.db.models import SCHEMA_REVISION
from pacs_gateway.adapters.db.orders import PostgresOrders
from pacs_gateway.adapters.db.patients import PostgresPatients
from pacs_gateway.adapters.db.pool import Pool
from pacs_gateway.adapters.db.prepared import Prepared
from pacs_gateway.adapters.db.quarantine import PostgresQuarantine
from pacs_gateway.adapters.db.requests import PostgresRequests
from pacs_gateway.adapters.db.session import SERVER_SETTINGS, Session
from pacs_gateway.adapters.db.sessions import PostgresSessions
from pacs_gateway.adapters.db.upload_logs import PostgresUploadLogs
from pacs_gateway.adapters.db.user_lookup import UserLookup
from pacs_gateway.adapters.db.users import PostgresUsers
from pacs_gateway.domain.registry import User
from pacs_gateway.domain.whose import Claims, Known
from pacs_gateway.use_cases.ports import (
    LedgerEntries,
    Orders,
    Patients,
    UnitOfWork,
    UploadLogs,
    UploadRequests,
    UploadSessions,
    Users,
)
from pacs_gateway.use_cases.quarantine_ports import QuarantineEntries

_LEAD_SECONDS: Final = 5
_CLOSE_SECONDS: Final = 5
_CONNECT_SECONDS: Final = 6
# Beside the pairs of Session.
_LEAD: Final = "SELECT pg_try_advisory_lock(1, 3)"
_VERSION: Final = Prepared("SELECT current_setting('server_version') AS version")
_REVISIONS: Final = Prepared("SELECT version_num FROM alembic_version")


class PostgresUnitOfWork:
    """The port `UnitOfWork`: the repositories over one transaction."""

    def __init__(self, session: Session, gateway_id: UUID) -> None:
        self._session = session
        self.patients: Patients = PostgresPatients(session)
        self.orders: Orders = PostgresOrders(session)
        self.users: Users = PostgresUsers(session)
        self._upload_logs = PostgresUploadLogs(session)
        self.upload_logs: UploadLogs = self._upload_logs
        self.ledger: LedgerEntries = PostgresLedger(session, gateway_id)
        self.requests: UploadRequests = PostgresRequests(session, gateway_id)
        self.sessions: UploadSessions = PostgresSessions(session)
        self.quarantine: QuarantineEntries = PostgresQuarantine(session, gateway_id)

    async def lock_study(self, study_uid: str) -> None:
        """Waits for, and holds until the end of the transaction, the right to change what is known of a study.

        Raises DATABASE_UNAVAILABLE when another holds it for too long.
        """
        await self._session.lock_study(study_uid)

    async def share_studies(self, study_uids: Collection[str]) -> Collection[str]:
        """Keeps that right from everybody until the end of the transaction, for those of the studies of which nobody
        has it, or waits for it; which these are.
        """
        return await self._session.share_studies(study_uids)

    async def look_up(self, claims: Sequence[Claims]) -> Sequence[Known]:
        """What the registry and the logs know of each of these files."""
        known = await look_up(self._session.run, claims)
        self._upload_logs.read(one.log for one in known if one.log is not None)
        return known

    async def lock_order(self, order_id: UUID) -> None:
        """Waits for, and holds until the end of the transaction, the right to say which study an order has.

        Raises DATABASE_UNAVAILABLE when another holds it for too long.
        """
        await self._session.lock_order(str(order_id))

    async def commit(self) -> None:
        """Makes the changes last. When this raises DATABASE_UNAVAILABLE, whether they do is unknown."""
        await self._session.commit()


class PostgresDatabase:
    """The port `Database`. Everything of it raises DATABASE_UNAVAILABLE when PostgreSQL is away or too slow, and works
    again once it is back.
    """

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        """`url` is postgresql://...; raises ValueError where it is not. At most `pool_size` connections are made, one
        more for the ledger, one for finding users and one for `look_up`, each at its first use.
        """
        self._connect = connector(url, settings=SERVER_SETTINGS)
        self._pool = Pool(_engine(url), size=pool_size)
        # A connection of its own: those who wait for the ledger may hold all the others meanwhile.
        self._ledger_pool = Pool(_engine(url), size=1)
        self.ledger = PostgresGroupLedger(self._ledger_pool)
        self._users = UserLookup(self._connect)
        self._lookups = KeptConnection(self._connect)

    async def close(self) -> None:
        """Closes the connections, once what waits to be written is."""
        await self.ledger.close()
        await self._users.close()
        await self._lookups.close()
        # A server that hangs does not say goodbye.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._pool.close()
                await self._ledger_pool.close()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        """A new unit of work. What it has not committed when it ends is rolled back."""
        session = await Session.open(self._pool)
        try:
            yield PostgresUnitOfWork(session, self.ledger.gateway_id)
        finally:
            await session.close()

    async def find_user(self, user_id: UUID) -> User | None:
        """The user with this id, as of now. Raises DATABASE_UNAVAILABLE, OVERLOADED."""
        return await self._users.find(user_id)

    async def look_up(self, claims: Sequence[Claims]) -> Sequence[Known]:
        """What the registry and the logs know of each of these files, as of now. Not for two at a time. Raises
        DATABASE_UNAVAILABLE.
        """
        return await look_up(self._lookups.run, claims)

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[bool]:
        """Whether this gateway is, while the context lasts, the only one of all that reconciles. PostgreSQL knows it by
        a connection of its own, so that a gateway that dies leads no longer.
        """
        async with deadline(_CONNECT_SECONDS):
            connection = await self._connect()
        try:
            async with deadline(_LEAD_SECONDS):
                leads = await connection.fetchval(_LEAD)
            yield bool(leads)
        finally:
            connection.terminate()

    async def check(self) -> str:
        """The server's version. Raises DATABASE_UNAVAILABLE also when the migrations have not been run."""
        session = await Session.open(self._pool)
        try:
            (server,) = await session.run(_VERSION)
            revisions = [row.version_num for row in await session.run(_REVISIONS)]
        finally:
            await session.close()
        if revisions != [SCHEMA_REVISION]:
            raise not_migrated()
        return str(server.version)


def _engine(url: str) -> AsyncEngine:
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connector(url, settings=SERVER_SETTINGS),
        poolclass=NullPool,
        # A session begins and ends its transactions itself.
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
    )
