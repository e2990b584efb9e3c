"""Connections that are made once and kept. SQLAlchemy's own pools take as long to hand one out and take it back as two
exchanges with the server last.
"""

import asyncio

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class Pool:
    """Hands out connections, at most `size` at a time: the one that was used last is used first."""

    def __init__(self, engine: AsyncEngine, *, size: int) -> None:
        """`engine` makes them, and keeps none itself."""
        self._engine = engine
        self._idle: list[AsyncConnection] = []
        self._free = asyncio.Semaphore(size)

    async def take(self) -> AsyncConnection:
        """A connection, once there is one, to be given back or dropped. The server may have closed it meanwhile."""
        await self._free.acquire()
        try:
            return self._idle.pop() if self._idle else await self._engine.connect()
        except BaseException:
            self._free.release()
            raise

    def give_back(self, connection: AsyncConnection) -> None:
        """Takes back a connection that is in no transaction."""
        self._idle.append(connection)
        self._free.release()

    async def drop(self, connection: AsyncConnection) -> None:
        """Takes back a connection that nobody is to use any more."""
        self._free.release()
        try:
            await connection.invalidate()
        finally:
            await connection.close()

    async def close(self) -> None:
        """Closes the connections that are here."""
        while self._idle:
            await self._idle.pop().close()
        await self._engine.dispose()
