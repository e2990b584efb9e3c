"""The ledger as all uploads of a process write it: together."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID, uuid4

from pacs_gateway.adapters.db.ledger import write_begun, write_steps
from pacs_gateway.adapters.db.pool import Pool
from pacs_gateway.adapters.db.prepared import Prepared
from pacs_gateway.adapters.db.session import Session
from pacs_gateway.domain.ledger import ABANDONED, LedgerFile, Step
from pacs_gateway.use_cases.grouping import Grouping
from service_runtime.errors import ServiceError

# More than a process can have under way. Entries past it are found by their age.
_MOST_ABANDONED: Final = 100_000
_SIGN: Final = Prepared(
    "INSERT INTO gateways (id, seen_at) VALUES (:id, now()) ON CONFLICT (id) DO UPDATE SET seen_at = now()"
)
_ABANDON: Final = Prepared("""
UPDATE dicom_upload_files SET gateway_id = NULL, error = CASE WHEN error = '' THEN :error ELSE error END
 WHERE id = ANY(CAST(:ids AS uuid[])) AND state IN ('received', 'stored')
""")
_BURY: Final = Prepared("DELETE FROM gateways WHERE seen_at < now() - interval '1 day'")


class PostgresGroupLedger:
    """The port `Ledger`."""

    def __init__(self, pool: Pool) -> None:
        self.gateway_id = uuid4()
        self.abandoned: set[UUID] = set()
        self._pool = pool
        # Whether it has given a sign of life: before its first entry, at the latest.
        self._signed = False
        self._writer: Grouping[Step, Sequence[LedgerFile]] = Grouping(self._write_all)

    async def beat(self) -> None:
        """Gives a sign of life, and says which entries nobody here knows of any more."""
        given_up = list(self.abandoned)
        async with self._session() as session:
            await self._sign(session)
            if given_up:
                await session.run(_ABANDON, ids=given_up, error=ABANDONED)
            await session.run(_BURY)
            await session.commit()
        self._signed = True
        self.abandoned.difference_update(given_up)

    async def write(self, step: Step) -> Sequence[LedgerFile]:
        """Makes a step last. Raises DATABASE_UNAVAILABLE, OVERLOADED."""
        return await self._writer.do(step)

    def abandon(self, entry_id: UUID) -> None:
        """Says that nobody here will write what becomes of a file: with the next sign of life, the database knows."""
        if len(self.abandoned) < _MOST_ABANDONED:
            self.abandoned.add(entry_id)

    async def close(self) -> None:
        """Waits until nothing is waiting to be written."""
        await self._writer.close()

    async def _write_all(self, steps: Sequence[Step]) -> Sequence[Sequence[LedgerFile]]:
        """A step may be written twice: so a connection need not be looked at before it is used, nor a deadlock with
        another gateway be ruled out.
        """
        try:
            return await self._attempt(steps)
        except ServiceError:
            return await self._attempt(steps)

    async def _attempt(self, steps: Sequence[Step]) -> Sequence[Sequence[LedgerFile]]:
        if self._signed and all(step.file.is_open for step in steps):
            async with self._session(begins=False) as session:
                return await write_begun(session, steps, self.gateway_id)
        async with self._session() as session:
            if not self._signed:
                await self._sign(session)
            rivals = await write_steps(session, steps, self.gateway_id)
            await session.commit()
        self._signed = True
        return rivals

    async def _sign(self, session: Session) -> None:
        await session.run(_SIGN, id=self.gateway_id)

    @asynccontextmanager
    async def _session(self, *, begins: bool = True) -> AsyncIterator[Session]:
        session = await Session.open(self._pool, begins=begins)
        try:
            yield session
        finally:
            await session.close()
