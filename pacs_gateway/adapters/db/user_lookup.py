"""Finding the users that calls are made for: the one question that every call asks, so many at once share it.

It has a connection of its own, past SQLAlchemy: a transaction of the pool's takes four exchanges with the server, and
this takes one.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

import asyncpg

from pacs_gateway.adapters.db.failures import deadline, unavailable
from pacs_gateway.domain.registry import Role, User
from pacs_gateway.use_cases.grouping import Grouping

_USERS: Final = "SELECT id, username, full_name, role, is_active FROM users WHERE id = ANY($1::uuid[])"
# For all of it, making the connection included.
_SECONDS: Final = 6
_CLOSE_SECONDS: Final = 2


class UserLookup:
    """Looks users up. Nothing is remembered: each question is put to the database after it was asked here."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        """`connect` makes a connection of asyncpg's; it is called at the first question, and when one broke."""
        self._connect = connect
        self._connection: Any = None
        self._questions: Grouping[UUID, User | None] = Grouping(self._find_all)

    async def find(self, user_id: UUID) -> User | None:
        """The user with this id. Raises DATABASE_UNAVAILABLE, OVERLOADED."""
        return await self._questions.do(user_id)

    async def close(self) -> None:
        """Closes the connection, once what was asked is answered."""
        await self._questions.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # a server that hangs, or is gone, does not say goodbye
                await connection.close(timeout=_CLOSE_SECONDS)

    async def _find_all(self, user_ids: Sequence[UUID]) -> Sequence[User | None]:
        async with deadline(_SECONDS):
            rows = await self._rows(list(set(user_ids)))
        users = {
            row["id"]: User(row["id"], row["username"], row["full_name"], Role(row["role"]), row["is_active"])
            for row in rows
        }
        return [users.get(user_id) for user_id in user_ids]

    async def _rows(self, user_ids: list[UUID]) -> Sequence[Any]:
        """The users' rows. A connection that broke since it was used last is made anew."""
        if self._connection is not None:
            with suppress(Exception):  # what is not the connection's fault comes again
                return await self._fetch(user_ids)
        self._connection = await self._connect()
        return await self._fetch(user_ids)

    async def _fetch(self, user_ids: list[UUID]) -> Sequence[Any]:
        try:
            rows: Sequence[Any] = await self._connection.fetch(_USERS, user_ids)
        except BaseException as error:
            # Cancelled, too, which is how a deadline ends it: the server's answer may still be under way.
            self._connection.terminate()
            self._connection = None
            if isinstance(error, asyncpg.InterfaceError):  # closed before it was used
                raise unavailable() from error
            raise
        return rows
