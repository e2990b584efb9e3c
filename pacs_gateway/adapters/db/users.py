"""The users of the registry."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, or_, select

from pacs_gateway.adapters.db.models import users
from pacs_gateway.adapters.db.pages import EMPTY, page_by_id
from pacs_gateway.adapters.db.session import Session
from pacs_gateway.adapters.db.texts import refuse_unstorable, storable
from pacs_gateway.adapters.db.upserts import Known, Wanted, one_of, plan, write
from pacs_gateway.domain.paging import Page, PageRequest
from pacs_gateway.domain.registry import Role, User, UserEntry


class PostgresUsers:
    """The port `Users`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def upsert(self, entries: Sequence[UserEntry]) -> Sequence[User]:
        """Makes or changes users, in order. Raises REGISTRY_CONFLICT."""
        if not entries:
            return ()
        refuse_unstorable("users", entries, users)
        await self._session.own_users()
        wanted = [Wanted(entry.id, entry.username) for entry in entries]
        what = plan("users", wanted, await self._known(wanted))
        made = [
            User(i, entry.username, entry.full_name, entry.role, entry.is_active)
            for i, entry in zip(what.ids, entries, strict=True)
        ]
        await write(self._session, users.c.username, what.rekeyed, [_row(user) for user in made])
        return made

    async def page(self, request: PageRequest, *, username: str | None) -> Page[User]:
        """A page of users by id."""
        if not storable(username or ""):
            return EMPTY
        where = [] if username is None else [users.c.username == username]
        return await page_by_id(self._session, users, where, request, _user)

    async def _known(self, wanted: Sequence[Wanted]) -> list[Known]:
        named = or_(
            one_of(users.c.id, (entry.id for entry in wanted if entry.id is not None)),
            one_of(users.c.username, (entry.key for entry in wanted)),
        )
        rows = (await self._session.execute(select(users.c.id, users.c.username).where(named))).all()
        return [Known(row.id, row.username) for row in rows]


def _row(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "username": user.username,
        "full_name": user.full_name,
        "role": user.role.value,
        "is_active": user.is_active,
    }


def _user(row: Row[Any]) -> User:
    return User(row.id, row.username, row.full_name, Role(row.role), row.is_active)
