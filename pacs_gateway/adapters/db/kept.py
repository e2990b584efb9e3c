"""A connection that is kept for itself, past SQLAlchemy and its pool: to ask one thing there takes an exchange with the
server, where a transaction of the pool's takes four, and as much Python again.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import asyncpg

from pacs_gateway.adapters.db.failures import deadline, is_away, unavailable
from pacs_gateway.adapters.db.prepared import Prepared, Record

# For all of it, making the connection included.
_SECONDS: Final = 6
_CLOSE_SECONDS: Final = 2


class KeptConnection:
    """Runs statements that are each a transaction by itself, one at a time. It is made at the first one, and anew at
    the next one after it broke.
    """

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        """`connect` makes a connection of asyncpg's."""
        self._connect = connect
        self._driver: Any = None

    async def run(self, statement: Prepared, **values: Any) -> Sequence[Record]:
        """The rows that a statement gives. What it changes lasts when this returns. Raises DATABASE_UNAVAILABLE, after
        which it is unknown whether it does; the statement must be one that may be run twice, for where the connection
        had broken since it was used last, it is run again on a new one.
        """
        async with deadline(_SECONDS):
            if self._driver is not None:
                with suppress(_BrokenError):
                    return await self._fetch(statement, values)
            self._driver = await self._connect()
            try:
                return await self._fetch(statement, values)
            except _BrokenError as error:
                raise unavailable() from error

    async def close(self) -> None:
        """Closes it. Nothing may be under way."""
        driver, self._driver = self._driver, None
        if driver is not None:
            with suppress(Exception):  # a server that hangs, or is gone, does not say goodbye
                await driver.close(timeout=_CLOSE_SECONDS)

    async def _fetch(self, statement: Prepared, values: dict[str, Any]) -> Sequence[Record]:
        driver = self._driver
        try:
            rows: Sequence[Record] = await driver.fetch(statement.sql, *statement.arguments(values))
        except BaseException as error:
            broken = isinstance(error, asyncpg.InternalClientError) or driver.is_closed()
            # Cancelled, too, which is how a deadline ends it: the server's answer may still be under way.
            driver.terminate()
            self._driver = None
            if broken and isinstance(error, Exception) and is_away(error):
                raise _BrokenError from error
            raise
        return rows


class _BrokenError(Exception):
    """The server had closed the connection before the statement, or closed it in the midst of it."""
