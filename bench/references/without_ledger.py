"""The gateway without its ledger, as `python -m pacs_gateway` otherwise: what keeping one costs is the difference.

The log of a study counts its files all the same, many in one transaction, as it would have to without a ledger. Only
the first file of a study has entries, which its log is begun with. Nothing to run anywhere else: what becomes of an
upload whose gateway dies, nobody finds out here.
"""

import sys
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from pacs_gateway.__main__ import main
from pacs_gateway.adapters.db import database
from pacs_gateway.adapters.db.group_ledger import PostgresGroupLedger
from pacs_gateway.adapters.db.group_writer import GroupWriter
from pacs_gateway.domain.ledger import LedgerFile, Step

_COUNT: Final = text("""
UPDATE dicom_upload_logs
   SET number_of_files = number_of_files + :number, total_size_bytes = total_size_bytes + :size,
       upload_duration_seconds = upload_duration_seconds + :seconds, upload_status = 'success'
 WHERE id = :log
""")


class LogsAlone(PostgresGroupLedger):
    """The port `Ledger`, which keeps the logs only."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self._logs_engine = engine
        self._logs: GroupWriter[Step, Sequence[LedgerFile]] = GroupWriter(self._count)

    async def write(self, step: Step) -> Sequence[LedgerFile]:
        """Counts a file that is stored; nothing else is kept."""
        return () if step.file.is_open else await self._logs.write(step)

    async def close(self) -> None:
        """Waits until nothing is waiting to be written."""
        await self._logs.close()
        await super().close()

    async def _count(self, steps: Sequence[Step]) -> Sequence[Sequence[LedgerFile]]:
        counts: dict[UUID, dict[str, Any]] = {}
        for step in steps:
            if step.file.upload_log_id is not None:
                log = step.file.upload_log_id
                count = counts.setdefault(log, {"log": log, "number": 0, "size": 0, "seconds": 0.0})
                count["number"] += 1
                count["size"] += step.file.stored.size_bytes
                count["seconds"] += step.seconds
        async with self._logs_engine.begin() as connection:
            await connection.execute(_COUNT, list(counts.values()))
        return [()] * len(steps)


if __name__ == "__main__":
    vars(database)["PostgresGroupLedger"] = LogsAlone
    sys.exit(main())
