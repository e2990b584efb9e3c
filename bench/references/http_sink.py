"""An HTTP server that takes bodies and does nothing with them: what carrying them there costs by itself."""

import asyncio
from typing import Final, cast

import uvloop

from deploy.local.ports import HOST

_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
_END: Final = b"\r\n\r\n"


class _Sink(asyncio.Protocol):
    """One connection. Bodies have a length, as Envoy passes on what had one."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is none by its class

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if not self._left:
            self._head += data
            if _END not in self._head:
                return
            head, _, data = self._head.partition(_END)
            self._head = b""
            fields = dict(line.split(b":", 1) for line in head.lower().split(b"\r\n")[1:])
            self._left = int(fields[b"content-length"])
        self._left -= len(data)
        if self._left <= 0:
            self._transport.write(_ANSWER)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Sink, HOST, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
