"""Taking the place of an instance that the PACS holds: it cannot put one content in the place of another, so the old
one is deleted first. A copy of it is set aside until the new one is seen to be there, and put back where it never is.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing

import structlog

from pacs_gateway.domain.ledger import FileState, LedgerFile, Step
from pacs_gateway.domain.study import Fingerprint
from pacs_gateway.use_cases.confirming import conflict, unverified
from pacs_gateway.use_cases.ports import Database, Pacs, SetAside, Spool
from service_runtime.errors import Reason, ServiceError

log = structlog.get_logger()

# How long it is tried to put a copy back: Orthanc may be starting again.
_SECONDS = 60.0
_PAUSE_SECONDS = 0.5


class Replacing:
    """Makes room for one file. To be closed, with `aclose`."""

    def __init__(self, *, database: Database, pacs: Pacs, spool: Spool) -> None:
        # Whether anything was, or may have been, deleted.
        self.room_made = False
        self._database = database
        self._pacs = pacs
        self._spool = spool
        self._copy: SetAside | None = None
        # The entry that a log counted the old content by, if any.
        self._counted: LedgerFile | None = None

    async def aclose(self) -> None:
        """Keeps no copy any more."""
        if self._copy is not None:
            await self._copy.aclose()
            self._copy = None

    async def set_aside(self, orthanc_id: str) -> None:
        """Copies what the PACS holds of the instance, if anything. Raises OVERLOADED where there is no room for it.

        What the PACS cannot read is not worth keeping: that is what it is replaced for.
        """
        await self.aclose()
        try:
            async with aclosing(self._pacs.file(orthanc_id)) as chunks:
                self._copy = await self._spool.set_aside(chunks)
        except ServiceError as error:
            if error.reason is not Reason.ORTHANC_ERROR:
                raise

    async def make_room(self, entry: LedgerFile, held: Fingerprint) -> None:
        """Deletes what the PACS holds, while nobody else changes the study. Raises INSTANCE_CONFLICT."""
        if self._copy is None or self._copy.fingerprint != held:
            await self.set_aside(entry.orthanc_id)
        if self._copy is not None and self._copy.fingerprint != held:
            # Damaged, or another content by now, which is found out below.
            await self.aclose()
        async with self._database.begin() as work:
            await work.lock_study(entry.study_instance_uid)
            now = await self._pacs.fingerprint(entry.orthanc_id, read_again=False)
            if now not in {None, held}:
                raise conflict()
            if await work.ledger.counts(entry.orthanc_id):
                self._counted = _counted(await work.ledger.of_instance(entry.orthanc_id), held)
            self.room_made = True
            await self._pacs.delete_instance(entry.orthanc_id)
            await work.ledger.forget_instance(entry.orthanc_id)
            await work.commit()
        log.warning("instance overwritten", ledger_entry_id=str(entry.id))

    async def put_back(self, entry: LedgerFile) -> bool:
        """Whether the PACS holds, and the ledger counts, what it did before; tries for a while to have it so."""
        if not self.room_made or self._copy is None:
            return False
        until, pause = time.monotonic() + _SECONDS, _PAUSE_SECONDS
        while True:
            try:
                is_back = await self._put_back(entry, self._copy)
            except ServiceError as error:
                if time.monotonic() + pause > until:
                    log.error("instance not put back", ledger_entry_id=str(entry.id), reason=error.reason)  # noqa: TRY400
                    return False
                await asyncio.sleep(pause)
                pause *= 2
            else:
                if is_back:
                    log.warning("instance put back", ledger_entry_id=str(entry.id))
                return is_back

    async def _put_back(self, entry: LedgerFile, copy: SetAside) -> bool:
        async with self._database.begin() as work:
            await work.lock_study(entry.study_instance_uid)
            held = await self._pacs.fingerprint(entry.orthanc_id, read_again=False)
            if held is None:
                async with aclosing(copy.chunks()) as chunks:
                    stored = await self._pacs.store(chunks)
                held = await self._pacs.fingerprint(entry.orthanc_id)
                if held != copy.fingerprint and not stored.already_stored:
                    await self._pacs.delete_instance(entry.orthanc_id)
                    raise unverified()
            if held != copy.fingerprint:
                # The new content after all, or somebody else's: the reconciler finds out which.
                return False
            if self._counted is not None:
                await work.ledger.write(Step(self._counted))
                await work.commit()
        return True


def _counted(entries: Sequence[LedgerFile], held: Fingerprint) -> LedgerFile | None:
    verified = (one for one in entries if one.state is FileState.VERIFIED and one.stored.fingerprint == held)
    return next(verified, None)
