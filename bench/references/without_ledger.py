"""The gateway without its ledger, as `python -m pacs_gateway` otherwise: what keeping one costs is the difference.

The log of a study counts its files all the same, many in one transaction, as it would have to without a ledger. Only
the first file of a study has entries, which its log is begun with. Nothing to run anywhere else: what becomes of an
upload whose gateway dies, nobody finds out here.
"""

import sys
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from pacs_gateway.__main__ import main
from pacs_gateway.adapters.db import database
from pacs_gateway.adapters.db.group_ledger import PostgresGroupLedger
from pacs_gateway.adapters.db.ledger import PostgresLedger
from pacs_gateway.adapters.db.prepared import Prepared
from pacs_gateway.domain.ledger import LedgerFile, Step

_COUNT: Final = Prepared("""
UPDATE dicom_upload_logs
   SET number_of_files = number_of_files + :number, total_size_bytes = total_size_bytes + :size,
       upload_duration_seconds = upload_duration_seconds + :seconds, upload_status = 'success'
 WHERE id = :log
""")


class NoLedger(PostgresGroupLedger):
    """The port `Ledger`, which keeps nothing."""

    async def write(self, step: Step) -> Sequence[LedgerFile]:  # noqa: ARG002 - the port's
        """Keeps nothing."""
        return ()


class LogsAlone(PostgresLedger):
    """The port `LedgerEntries`, which keeps the logs only, but for the entry that a log is begun with."""

    async def write(self, *steps: Step) -> None:
        """Counts files that are stored."""
        begun = [step for step in steps if step.file.is_open]
        if begun:
            await super().write(*begun)
        counts: dict[UUID, dict[str, Any]] = {}
        for step in steps:
            log = step.file.upload_log_id
            if not step.file.is_open and log is not None:
                count = counts.setdefault(log, {"log": log, "number": 0, "size": 0, "seconds": 0.0})
                count["number"] += 1
                count["size"] += step.file.stored.size_bytes
                count["seconds"] += step.seconds
        for count in counts.values():
            await self._session.run(_COUNT, **count)


if __name__ == "__main__":
    vars(database)["PostgresGroupLedger"] = NoLedger
    vars(database)["PostgresLedger"] = LogsAlone
    sys.exit(main())
