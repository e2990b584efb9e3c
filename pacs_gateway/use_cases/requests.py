"""Requests that carry an id: sent again with the same content, they are given the first answer; with another, refused.

The content is known only when all of it has come, and so is whether a replay is one. Until then the options decide: the
same id with other options is refused at once. What failed in a way that another try may mend is not kept.
"""

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from uuid import UUID

import structlog

from pacs_gateway.domain.upload import KnownRequest
from pacs_gateway.use_cases.ports import Database
from pacs_gateway.use_cases.streams import to_the_end
from service_runtime.errors import Reason, ServiceError

log = structlog.get_logger()

_WAIT_SECONDS = 10.0
_POLL_SECONDS = 0.2
_RETRY_SECONDS = 5
# What is kept of one request's answers; more is answered anew, which changes nothing either.
_ANSWER_BYTES = 4 * 1024 * 1024


class Requests:
    """Opens requests."""

    def __init__(self, *, database: Database, keep_seconds: float, lease_seconds: float) -> None:
        """Answers are kept for `keep_seconds`; a gateway without a sign of life for `lease_seconds` is dead."""
        self._database = database
        self._keep = keep_seconds
        self._lease = lease_seconds

    async def open(self, request_id: str, asked_sha256: str, *, by: UUID) -> "Request":
        """The request of a user with this id and these options; "" is none, and nothing is kept.

        Waits a while for the same one that is under way. Raises REQUEST_ID_REUSED, REQUEST_IN_PROGRESS.
        """
        if not request_id:
            return Request(self._database, by, "", None)
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            async with self._database.begin() as work:
                known = await work.requests.claim(
                    by, request_id, asked_sha256, keep_seconds=self._keep, lease_seconds=self._lease
                )
                await work.commit()
            if known is None or known.answers is not None:
                break
            if known.asked_sha256 == asked_sha256 and time.monotonic() < until:
                await asyncio.sleep(_POLL_SECONDS)
                continue
            break
        if known is not None and known.asked_sha256 != asked_sha256:
            raise _reused()
        if known is not None and known.answers is None:
            raise ServiceError(
                Reason.REQUEST_IN_PROGRESS,
                "The request with this id is still under way. Retry.",
                retry_after=_RETRY_SECONDS,
            )
        return Request(self._database, by, request_id, known)


class Request:
    """One request, as an async context manager: left without `finish`, its id is free again."""

    def __init__(self, database: Database, by: UUID, request_id: str, known: KnownRequest | None) -> None:
        self._database = database
        self._by = by
        self._id = request_id
        self._known = known
        self._is_open = bool(request_id) and known is None

    async def __aenter__(self) -> Self:
        """The request."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Frees the id, unless the answers are kept."""
        if self._is_open:
            await to_the_end(self._release())

    @property
    def is_replay(self) -> bool:
        """Whether the request was answered before."""
        return self._known is not None

    def replayed(self, content_sha256: str) -> Sequence[bytes]:
        """The answers of before. Raises REQUEST_ID_REUSED where the content is another."""
        known = self._known
        if known is None or known.answers is None or known.content_sha256 != content_sha256:
            raise _reused()
        return known.answers

    async def finish(self, content_sha256: str, answers: Sequence[bytes]) -> None:
        """Keeps the answers. Where that cannot be done, the request has been answered all the same."""
        if not self._is_open or sum(map(len, answers)) > _ANSWER_BYTES:
            return
        try:
            async with self._database.begin() as work:
                await work.requests.finish(self._by, self._id, content_sha256, answers)
                await work.commit()
            self._is_open = False
        except ServiceError as error:
            log.warning("answer not kept", reason=error.reason)

    async def _release(self) -> None:
        try:
            async with self._database.begin() as work:
                await work.requests.release(self._by, self._id)
                await work.commit()
        except ServiceError as error:
            log.warning("answer not kept", reason=error.reason)


def _reused() -> ServiceError:
    return ServiceError(
        Reason.REQUEST_ID_REUSED,
        "The request id was used before, with other options or other files. Use an id once for each upload.",
    )
