"""One transaction on one connection, with a deadline on every exchange."""

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any, Final, Self, TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy import CursorResult, Executable
from sqlalchemy.ext.asyncio import AsyncConnection

from pacs_gateway.adapters.db.failures import deadline, is_away, unavailable
from pacs_gateway.adapters.db.pool import Pool
from pacs_gateway.adapters.db.prepared import Prepared, Record

T = TypeVar("T")

_NEEDLESS_PLANS: Final = ("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin")
# PostgreSQL's own limits come first: they leave the connection usable. The deadline is for a server that hangs.
SERVER_SETTINGS: Final = {
    "lock_timeout": "4s",
    "statement_timeout": "5s",
    # Longer than any use case waits for another service between two statements.
    "idle_in_transaction_session_timeout": "360s",
    # Before PostgreSQL 18, what is off below makes plans look dear, and the dear ones are compiled.
    "jit": "off",
    # Statements that are run over and over find their rows by index, whatever their values are; to plan one for its
    # values takes longer than to run it. A plan that was made while there were few rows would read all of them, and
    # goes on to until somebody analyzes the tables; nor does a bitmap scan keep clear of dead rows, of which every step
    # of a file leaves one.
    "plan_cache_mode": "force_generic_plan",
    **dict.fromkeys(_NEEDLESS_PLANS, "off"),
}
_STATEMENT_SECONDS: Final = 6
# Waiting for a connection of the pool, or making one, and seeing whether it still works.
_CONNECT_SECONDS: Final = 5
_ROLLBACK_SECONDS: Final = 2

# Locks of whole areas. Those of studies are single 64-bit keys and never meet these pairs.
_REGISTRY: Final = "1, 1"
_USERS: Final = "1, 2"
_QUARANTINE: Final = "1, 4"
SHARE_REGISTRY: Final = f"SELECT pg_advisory_xact_lock_shared({_REGISTRY})"
# For statements of every other kind, in this transaction.
_PLAN_FOR_VALUES: Final = Prepared(
    "SELECT set_config('plan_cache_mode', 'auto', true), "
    + ", ".join(f"set_config('{name}', 'on', true)" for name in _NEEDLESS_PLANS)
)
_SHARE_REGISTRY: Final = Prepared(SHARE_REGISTRY)
_OWN_REGISTRY: Final = Prepared(f"SELECT pg_advisory_xact_lock({_REGISTRY})")
_OWN_USERS: Final = Prepared(f"SELECT pg_advisory_xact_lock({_USERS})")
_OWN_QUARANTINE: Final = Prepared(f"SELECT pg_advisory_xact_lock({_QUARANTINE})")
_LOCK_STUDY: Final = Prepared("SELECT pg_advisory_xact_lock(hashtextextended(:study_uid, 0))")
_SHARE_STUDIES: Final = Prepared("""
SELECT uid FROM unnest(CAST(:study_uids AS text[])) AS study (uid)
 WHERE pg_try_advisory_xact_lock_shared(hashtextextended(uid, 0))
""")
# Seeded otherwise than the studies, so that no order stands for a study.
_LOCK_ORDER: Final = Prepared("SELECT pg_advisory_xact_lock(hashtextextended(:order_id, 1))")


class Session:
    """A transaction. It is rolled back when it is closed, unless it was committed.

    Statements that are `run` go to the driver, with plans that are made once; all others go through SQLAlchemy, which
    must not begin transactions of its own: its engine is one of AUTOCOMMIT.

    The registry has two kinds of writers. Uploads and deletions share it, from their first change to the end of their
    transaction; an upsert has it to itself, because it may give patients other ids. So neither ever waits for a row
    that the other holds, and they cannot deadlock.
    """

    def __init__(self, connection: AsyncConnection, pool: Pool) -> None:
        self._connection = connection
        self._pool = pool
        sync = connection.sync_connection
        assert sync is not None  # noqa: S101 - it is connected
        self._driver: Any = sync.connection.driver_connection
        self._begun = False
        self._plans_for_values = False
        self._shares_registry = False
        # The logs (id) whose rows are locked until the end of the transaction.
        self.held_logs: set[UUID] = set()

    @classmethod
    async def open(cls, pool: Pool, *, begins: bool = True) -> Self:
        """Takes a connection, and begins: one that does not is for `run_alone`. Raises DATABASE_UNAVAILABLE."""
        async with deadline(_CONNECT_SECONDS):
            if not begins:
                return cls(await pool.take(), pool)
            # The pool cannot tell which of its connections the server has closed meanwhile: beginning does.
            while True:
                session = cls(await pool.take(), pool)
                try:
                    await session.begin()
                except BaseException as error:
                    broken = session.is_broken(error)
                    await session.close()
                    if not broken:
                        raise
                else:
                    return session

    async def begin(self) -> None:
        """Begins."""
        self._begun = True
        await self._driver.execute("BEGIN")

    def is_broken(self, error: BaseException) -> bool:
        """Whether an error says that the server had closed the connection before it was used."""
        if isinstance(error, asyncpg.InternalClientError):
            # The server's last word is here, which nobody had asked for, and its end of the connection not yet.
            self._driver.terminate()
        return isinstance(error, Exception) and self._driver.is_closed() and is_away(error)

    async def close(self) -> None:
        """Rolls back what is not committed and gives the connection back, also when the caller is cancelled."""
        if self._begun or self._driver.is_closed() or self._connection.in_transaction():
            await asyncio.shield(asyncio.ensure_future(self._close()))
        else:
            self._pool.give_back(self._connection)

    async def execute(
        self, statement: Executable, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        """The result of a statement, complete; with a list of `rows`, of the statement for each. Raises
        DATABASE_UNAVAILABLE.
        """
        if not self._plans_for_values:
            await self.run(_PLAN_FOR_VALUES)
            self._plans_for_values = True
        return await self._ask(self._connection.execute(statement, rows))

    async def run(self, statement: Prepared, **values: Any) -> Sequence[Record]:
        """The rows that a statement gives. Raises DATABASE_UNAVAILABLE."""
        if not self._begun:
            await self._ask(self.begin())
        rows: Sequence[Record] = await self._ask(self._driver.fetch(statement.sql, *statement.arguments(values)))
        return rows

    async def run_sharing(self, statement: Prepared, **values: Any) -> Sequence[Record]:
        """As `run`, of a statement that itself shares the registry before it locks a row."""
        rows = await self.run(statement, **values)
        self._shares_registry = True
        return rows

    async def run_alone(self, statement: Prepared, **values: Any) -> Sequence[Record]:
        """The rows that a statement gives which is a transaction by itself: what it changes lasts when this returns.
        Raises DATABASE_UNAVAILABLE, after which it is unknown whether it does.
        """
        assert not self._begun  # noqa: S101 - it would be a part of that transaction
        try:
            rows: Sequence[Record] = await self._ask(self._driver.fetch(statement.sql, *statement.arguments(values)))
        except BaseException:
            # The server may be at it still, and there is no transaction to roll back.
            self._driver.terminate()
            raise
        return rows

    async def commit(self) -> None:
        """Makes the changes last. When this raises DATABASE_UNAVAILABLE, whether they do is unknown."""
        # A transaction in which a statement failed is rolled back by it.
        if await self._ask(self._driver.execute("COMMIT")) != "COMMIT":
            raise unavailable()
        self._begun = self._plans_for_values = self._shares_registry = False
        self.held_logs.clear()

    async def share_registry(self) -> None:
        """Waits until no upsert of patients or orders is under way, and holds the next one up. To be called before each
        change that is not an upsert.
        """
        if not self._shares_registry:
            await self.run(_SHARE_REGISTRY)
            self._shares_registry = True

    async def own_registry(self) -> None:
        """Waits until nobody else writes to patients and orders, and holds the next one up."""
        await self.run(_OWN_REGISTRY)

    async def own_users(self) -> None:
        """Waits until no other upsert of users is under way, and holds the next one up."""
        await self.run(_OWN_USERS)

    async def own_quarantine(self) -> None:
        """Waits until no other file is being added to the quarantine, and holds the next one up."""
        await self.run(_OWN_QUARANTINE)

    async def lock_study(self, study_uid: str) -> None:
        """Waits until no other transaction has the study's lock, and holds it alone."""
        await self.run(_LOCK_STUDY, study_uid=study_uid)

    async def share_studies(self, study_uids: Collection[str]) -> Collection[str]:
        """Holds the locks, with others, of those studies of which no other transaction has it for itself, or waits for
        that; which these are.
        """
        found = await self.run(_SHARE_STUDIES, study_uids=sorted(set(study_uids)))
        return frozenset(row.uid for row in found)

    async def lock_order(self, order_id: str) -> None:
        """Waits until no other transaction has the order's lock, and holds it."""
        await self.run(_LOCK_ORDER, order_id=order_id)

    async def _ask(self, exchange: Awaitable[T]) -> T:
        """The answer of the server to one exchange with it."""
        async with deadline(_STATEMENT_SECONDS):
            try:
                return await exchange
            except Exception as error:
                if self.is_broken(error):
                    raise unavailable() from error
                raise

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(_ROLLBACK_SECONDS):
                # On one that is closed this fails, and so keeps it out of the pool.
                if self._begun or self._driver.is_closed():
                    await self._driver.execute("ROLLBACK")
                # SQLAlchemy thinks that it has begun one, too. The server is asked for nothing.
                if self._connection.in_transaction():
                    await self._connection.rollback()
        except BaseException as error:
            # Whatever it is: the server forgets a transaction whose connection is gone.
            await self._pool.drop(self._connection)
            if not isinstance(error, Exception):
                raise
        else:
            self._pool.give_back(self._connection)
