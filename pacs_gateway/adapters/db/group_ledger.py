"""The ledger as all uploads of a process write it: together."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncEngine

from pacs_gateway.adapters.db.group_writer import GroupWriter
from pacs_gateway.adapters.db.ledger import write_steps
from pacs_gateway.adapters.db.session import Session
from pacs_gateway.domain.ledger import LedgerFile, Step
from service_runtime.errors import ServiceError

# More than a process can have under way. Entries past it are found by their age.
_MOST_ABANDONED: Final = 100_000


class PostgresGroupLedger:
    """The port `Ledger`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.gateway_id = uuid4()
        self.abandoned: set[UUID] = set()
        self._engine = engine
        self._writer: GroupWriter[Step, Sequence[LedgerFile]] = GroupWriter(self._write_all)

    async def write(self, step: Step) -> Sequence[LedgerFile]:
        """Makes a step last. Raises DATABASE_UNAVAILABLE, OVERLOADED."""
        return await self._writer.write(step)

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
        session = await Session.open(self._engine)
        try:
            rivals = await write_steps(session, steps, self.gateway_id)
            await session.commit()
        finally:
            await session.close()
        return rivals
