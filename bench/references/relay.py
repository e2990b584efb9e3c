"""A TCP relay that counts: what a client sends towards a server, without asking either of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from deploy.local.ports import HOST

_READ_BYTES = 256 * 1024


class Relay:
    """Passes everything on, both ways. `sent_bytes` is what went towards the server so far."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.port = 0
        self.sent_bytes = 0

    @property
    def address(self) -> str:
        """Where clients connect to."""
        return f"{HOST}:{self.port}"

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection until both sides have ended theirs."""
        host, _, port = self._target.rpartition(":")
        upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(
            self._pass(reader, upstream_writer, counted=True), self._pass(upstream_reader, writer, counted=False)
        )

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_READ_BYTES):
                self.sent_bytes += len(data) * counted
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def relay(target: str) -> AsyncIterator[Relay]:
    """A relay to `target` ("host:port") on a free port."""
    one = Relay(target)
    async with await asyncio.start_server(one.accept, HOST, 0) as server:
        one.port = server.sockets[0].getsockname()[1]
        yield one
