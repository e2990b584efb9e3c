"""Finding the users that calls are made for: the one question that every call asks, so many at once share it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from uuid import UUID

from pacs_gateway.adapters.db.kept import KeptConnection
from pacs_gateway.adapters.db.prepared import Prepared
from pacs_gateway.domain.registry import Role, User
from pacs_gateway.use_cases.grouping import Grouping

_USERS: Final = Prepared(
    "SELECT id, username, full_name, role, is_active FROM users WHERE id = ANY(CAST(:ids AS uuid[]))"
)


class UserLookup:
    """Looks users up. Nothing is remembered: each question is put to the database after it was asked here."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        """`connect` makes a connection of asyncpg's."""
        self._connection = KeptConnection(connect)
        self._questions: Grouping[UUID, User | None] = Grouping(self._find_all)

    async def find(self, user_id: UUID) -> User | None:
        """The user with this id. Raises DATABASE_UNAVAILABLE, OVERLOADED."""
        return await self._questions.do(user_id)

    async def close(self) -> None:
        """Closes the connection, once what was asked is answered."""
        await self._questions.close()
        await self._connection.close()

    async def _find_all(self, user_ids: Sequence[UUID]) -> Sequence[User | None]:
        rows = await self._connection.run(_USERS, ids=list(set(user_ids)))
        users = {row.id: User(row.id, row.username, row.full_name, Role(row.role), row.is_active) for row in rows}
        return [users.get(user_id) for user_id in user_ids]
