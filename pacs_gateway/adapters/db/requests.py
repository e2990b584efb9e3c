"""The requests that carry an id: which are under way, and what was answered."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import delete, select, update

from pacs_gateway.adapters.db.models import upload_requests as requests
from pacs_gateway.adapters.db.prepared import Prepared
from pacs_gateway.adapters.db.session import Session
from pacs_gateway.domain.upload import KnownRequest

_EXPIRE: Final = Prepared("DELETE FROM upload_requests WHERE expires_at < now()")
# One that is under way at a gateway that is dead is under way no more.
_FORGET_DEAD: Final = Prepared("""
DELETE FROM upload_requests WHERE user_id = :user AND request_id = :request AND answers IS NULL AND NOT EXISTS (
    SELECT 1 FROM gateways
     WHERE gateways.id = upload_requests.gateway_id AND seen_at > now() - make_interval(secs => :lease))
""")
_CLAIM: Final = Prepared("""
INSERT INTO upload_requests (user_id, request_id, gateway_id, asked_sha256, expires_at)
VALUES (:user, :request, :gateway, :asked, now() + make_interval(secs => :keep)) ON CONFLICT DO NOTHING
RETURNING request_id
""")


class PostgresRequests:
    """The port `UploadRequests`."""

    def __init__(self, session: Session, gateway_id: UUID) -> None:
        self._session = session
        self._gateway_id = gateway_id

    async def claim(
        self, user_id: UUID, request_id: str, asked_sha256: str, *, keep_seconds: float, lease_seconds: float
    ) -> KnownRequest | None:
        """Takes the id for a request; where it is taken, what is known of the one that has it."""
        key = {"user": user_id, "request": request_id}
        await self._session.run(_EXPIRE)
        await self._session.run(_FORGET_DEAD, **key, lease=lease_seconds)
        if await self._session.run(_CLAIM, **key, gateway=self._gateway_id, asked=asked_sha256, keep=keep_seconds):
            return None
        found = select(requests).where(requests.c.user_id == user_id, requests.c.request_id == request_id)
        row = (await self._session.execute(found)).one()
        return KnownRequest(row.asked_sha256, row.content_sha256, None if row.answers is None else tuple(row.answers))

    async def finish(self, user_id: UUID, request_id: str, content_sha256: str, answers: Sequence[bytes]) -> None:
        """Keeps the answers to the request."""
        values = {"content_sha256": content_sha256, "answers": list(answers)}
        mine = (requests.c.user_id == user_id, requests.c.request_id == request_id)
        await self._session.execute(update(requests).where(*mine).values(values))

    async def release(self, user_id: UUID, request_id: str) -> None:
        """Gives up the id of a request that is not to be replayed."""
        mine = (requests.c.user_id == user_id, requests.c.request_id == request_id, requests.c.answers.is_(None))
        await self._session.execute(delete(requests).where(*mine))
