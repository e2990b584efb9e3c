"""Showing the logs of what was uploaded."""

from uuid import UUID

from pacs_gateway.domain.paging import Page, PageRequest
from pacs_gateway.domain.upload_log import UploadLogEntry, UploadLogFilter
from pacs_gateway.use_cases.ports import Database
from service_runtime.errors import Reason, not_found


class UploadLogBook:
    """Gets and lists upload logs."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def get(self, log_id: UUID) -> UploadLogEntry:
        """The log. Raises UPLOAD_LOG_NOT_FOUND."""
        async with self._database.begin() as work:
            entry = await work.upload_logs.entry(log_id)
        if entry is None:
            raise not_found(Reason.UPLOAD_LOG_NOT_FOUND, "upload log", str(log_id))
        return entry

    async def page(self, wanted: UploadLogFilter, request: PageRequest) -> Page[UploadLogEntry]:
        """A page of logs, newest first."""
        async with self._database.begin() as work:
            return await work.upload_logs.page(request, wanted)
