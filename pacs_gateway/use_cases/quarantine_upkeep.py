"""Keeping the quarantine's folder and its entries in step, and its files no longer than they may be kept.

Done by the gateway that reconciles, on its schedule. Doing it twice changes nothing.
"""

import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog

from pacs_gateway.domain.quarantine import (
    OPEN_STATES,
    FoundFile,
    QuarantineAction,
    QuarantinedFile,
    QuarantineEvent,
    QuarantineState,
)
from pacs_gateway.use_cases.ports import Clock, Database
from pacs_gateway.use_cases.quarantine_ports import QuarantineFolder
from service_runtime.errors import Reason, ServiceError

log = structlog.get_logger()

_EXPIRED_AT_A_TIME = 500
_CHECKED_AT_A_TIME = 1000
# No file takes so long to come, or from the folder into the database.
_PART_SECONDS = 3600
# Longer, for a database that was put back to what it was may not know of a file yet.
_ORPHAN_SECONDS = 86_400


class QuarantineUpkeep:
    """Discards what is too old, sweeps what belongs to no entry, and tells which files are lost."""

    def __init__(
        self,
        *,
        database: Database,
        folder: QuarantineFolder,
        clock: Clock,
        days: float,
        lease_seconds: float,
        compare_seconds: float,
    ) -> None:
        """A file is kept for so many `days`; folder and entries are compared every `compare_seconds`. A gateway without
        a sign of life for `lease_seconds` is dead.
        """
        self._database = database
        self._folder = folder
        self._clock = clock
        self._age = timedelta(days=days)
        self._lease = lease_seconds
        self._compare_seconds = compare_seconds
        self._compared_at: float | None = None

    async def run(self) -> None:
        """One pass. Raises DATABASE_UNAVAILABLE."""
        try:
            await self._expire()
            if self._compared_at is None or time.monotonic() - self._compared_at >= self._compare_seconds:
                await self._sweep()
                await self._look_for_lost()
                self._compared_at = time.monotonic()
        except ServiceError as error:
            # The rest of reconciling needs no folder.
            if error.reason is Reason.DATABASE_UNAVAILABLE:
                raise
            log.warning("quarantine not looked after", reason=error.reason)

    async def _expire(self) -> None:
        now = self._clock()
        while True:
            async with self._database.begin() as work:
                expired = await work.quarantine.expire(
                    before=now - self._age, at=now, lease_seconds=self._lease, limit=_EXPIRED_AT_A_TIME
                )
                await work.commit()
            if not expired:
                return
            log.info("quarantined files expired", files=len(expired))
            await self._folder.remove(expired)

    async def _sweep(self) -> None:
        """Removes what has come of files that never came whole, and files that no open entry has."""
        async for some in self._folder.found():
            parts = [one.id for one in some if one.is_part and one.age_seconds > _PART_SECONDS]
            orphans = await self._orphans([one for one in some if not one.is_part])
            if parts or orphans:
                await self._folder.remove_parts(parts)
                await self._folder.remove(orphans)
                log.warning("quarantine swept", parts=len(parts), files=len(orphans))

    async def _orphans(self, files: Sequence[FoundFile]) -> list[UUID]:
        async with self._database.begin() as work:
            states = await work.quarantine.states([one.id for one in files])
        return [
            one.id
            for one in files
            if (states[one.id] not in OPEN_STATES if one.id in states else one.age_seconds > _ORPHAN_SECONDS)
        ]

    async def _look_for_lost(self) -> None:
        """Says of each open entry whether its file is there."""
        after: UUID | None = None
        while True:
            async with self._database.begin() as work:
                files = await work.quarantine.open_files(after=after, limit=_CHECKED_AT_A_TIME)
            if not files:
                return
            sizes = await self._folder.sizes([file.id for file in files])
            there = {file.id for file in files if sizes.get(file.id) == file.source.size_bytes}
            await self._mark([file for file in files if file.id not in there], QuarantineState.LOST)
            await self._mark([file for file in files if file.id in there], QuarantineState.QUARANTINED)
            after = files[-1].id

    async def _mark(self, files: Sequence[QuarantinedFile], state: QuarantineState) -> None:
        other = [file.id for file in files if file.state is not state]
        if not other:
            return
        action = QuarantineAction.LOST if state is QuarantineState.LOST else QuarantineAction.FOUND
        async with self._database.begin() as work:
            await work.quarantine.mark(other, state, QuarantineEvent(action, self._clock()))
            await work.commit()
        log.warning("quarantined files lost or found", state=state.value, files=len(other))
