"""The files in the quarantine in memory, for the fake database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from pacs_gateway.domain.paging import Page, PageRequest
from pacs_gateway.domain.quarantine import (
    QuarantineAction,
    QuarantinedFile,
    QuarantineEntry,
    QuarantineEvent,
    QuarantineFilter,
    QuarantineState,
    quarantine_full,
)

if TYPE_CHECKING:
    from tests.unit.pacs_gateway.fake_database import FakeUnitOfWork


class FakeQuarantine:
    """What is committed: the files, what was done with each, and who has which."""

    def __init__(self) -> None:
        self.files: dict[UUID, QuarantinedFile] = {}
        self.events: defaultdict[UUID, list[QuarantineEvent]] = defaultdict(list)
        # Those that another gateway has.
        self.taken: set[UUID] = set()


class FakeQuarantineEntries:
    """The port `QuarantineEntries`; what it changes is there once the unit of work is committed."""

    def __init__(self, work: FakeUnitOfWork) -> None:
        self._work = work
        self._kept = work.database.quarantine

    async def total_bytes(self) -> int:
        """The size of all open files together."""
        await self._work.database.hooks.reach("statement")
        return sum(one.source.size_bytes for one in self._kept.files.values() if one.is_open)

    async def add(self, file: QuarantinedFile, *, max_bytes: int) -> UUID:
        """Adds a file, or counts another refusal of it."""
        await self._work.database.hooks.reach("statement")
        open_files = [one for one in self._kept.files.values() if one.is_open]
        known = next((one for one in open_files if one.source == file.source), None)
        if known is not None:
            again = replace(file, id=known.id, quarantined_at=known.quarantined_at, refusals=known.refusals + 1)
            self._put(again)
            return known.id
        if sum(one.source.size_bytes for one in open_files) + file.source.size_bytes > max_bytes:
            raise quarantine_full()
        self._put(file, QuarantineEvent(QuarantineAction.QUARANTINED, file.quarantined_at))
        return file.id

    async def entry(self, file_id: UUID) -> QuarantineEntry | None:
        """The file with this id."""
        file = self._kept.files.get(file_id)
        return await self._entry(file, self._kept.events[file_id]) if file is not None else None

    async def page(self, request: PageRequest, wanted: QuarantineFilter) -> Page[QuarantineEntry]:
        """A page of files; the database's own order and filters are its own tests' matter."""
        found = [
            one
            for one in self._kept.files.values()
            if (one.is_open if wanted.state is None else one.state is wanted.state)
            and wanted.reason in {None, one.reason}
        ]
        shown = found[: request.limit]
        return Page(tuple([await self._entry(one, ()) for one in shown]), len(found))

    async def claim(self, file_id: UUID, *, lease_seconds: float) -> QuarantinedFile | None:  # noqa: ARG002 - the port's
        """Takes an open file, unless another gateway has it."""
        await self._work.database.hooks.reach("statement")
        file = self._kept.files.get(file_id)
        return file if file is not None and file.is_open and file_id not in self._kept.taken else None

    async def settle(self, file: QuarantinedFile, event: QuarantineEvent | None = None) -> None:
        """Says how a file stands."""
        await self._work.database.hooks.reach("statement")
        now = self._kept.files[file.id]
        self._put(replace(now, state=file.state, reason=file.reason), *([event] if event else []))

    async def expire(self, *, before: datetime, at: datetime, lease_seconds: float, limit: int) -> Sequence[UUID]:  # noqa: ARG002 - the port's
        """Closes open files that are too old."""
        old = [one for one in self._kept.files.values() if one.is_open and one.refused_at < before][:limit]
        for one in old:
            self._put(replace(one, state=QuarantineState.EXPIRED), QuarantineEvent(QuarantineAction.EXPIRED, at))
        return [one.id for one in old]

    async def states(self, file_ids: Collection[UUID]) -> Mapping[UUID, QuarantineState]:
        """How files stand."""
        return {one: self._kept.files[one].state for one in file_ids if one in self._kept.files}

    async def open_files(self, *, after: UUID | None, limit: int) -> Sequence[QuarantinedFile]:
        """Open files by id."""
        found = sorted((one for one in self._kept.files.values() if one.is_open), key=lambda one: one.id)
        return [one for one in found if after is None or one.id > after][:limit]

    async def mark(self, file_ids: Collection[UUID], state: QuarantineState, event: QuarantineEvent) -> None:
        """Says that files are lost, or are not."""
        for file_id in file_ids:
            self._put(replace(self._kept.files[file_id], state=state), event)

    def _put(self, file: QuarantinedFile, *events: QuarantineEvent) -> None:
        def put() -> None:
            self._kept.files[file.id] = file
            self._kept.events[file.id].extend(events)

        self._work.steps.append(put)

    async def _entry(self, file: QuarantinedFile, events: Sequence[QuarantineEvent]) -> QuarantineEntry:
        users = await self._work.rows("users")
        named = tuple((one, users[one.by_id].full_name if one.by_id else "") for one in events)
        return QuarantineEntry(file, users[file.uploaded_by_id].full_name, named)
