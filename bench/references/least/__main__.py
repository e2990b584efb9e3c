"""The process: python -m bench.references.least, with the environment of a gateway. It prints its port."""

import asyncio
import gc
import os
import signal
import sys
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import jwt
import uvloop

from bench.references.least.incoming import Incoming
from bench.references.least.ledger import Ledger, RefusedError, ledger
from bench.references.least.orthanc import Orthanc
from bench.references.least.storing import HELD_BYTES, Caller, Coming, Storing
from deploy.local.ports import HOST
from ris.pacs.v1 import upload_service_pb2
from ris.tags.v1 import tag_service_pb2_grpc

_SERVICE = "ris.pacs.v1.UploadService"
# How long the event loop may keep a thread that hashes from going on, and the other way round.
_SWITCH_SECONDS = 0.0005
# How many files of one call are stored side by side.
_AT_ONCE = 8


class _Callers:
    """Finds out who calls: a token is checked once, its user is asked for at every call."""

    def __init__(self, settings: Mapping[str, str], users: Any) -> None:
        self._settings = settings
        self._keys = {key.key_id: key for key in jwt.PyJWKSet.from_json(Path(settings["AUTH_JWKS"]).read_text()).keys}
        self._users = users
        self._good: dict[str, tuple[Caller, float]] = {}

    async def of(self, context: Any) -> Caller:
        """The caller. Raises RefusedError, or what is wrong with the token."""
        (word,) = (str(value) for name, value in context.invocation_metadata() if name == "authorization")
        caller, until = self._good.get(word) or self._checked(word)
        if time.time() > until or not await self._users.ask(caller.user_id):
            raise RefusedError("may not")
        return caller

    def _checked(self, word: str) -> tuple[Caller, float]:
        token = word.removeprefix("Bearer ")
        claims = jwt.decode(
            token,
            self._keys[jwt.get_unverified_header(token)["kid"]],
            algorithms=["ES256"],
            issuer=self._settings["AUTH_ISSUER"],
            audience=self._settings["AUTH_AUDIENCE"],
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        good = self._good[word] = Caller(uuid.UUID(claims["sub"]), (("authorization", word),)), float(claims["exp"])
        return good


class _Servicer:
    """The two methods."""

    def __init__(self, callers: _Callers, storing: Storing) -> None:
        self._callers = callers
        self._storing = storing

    async def upload(self, _requests: Any, context: Any) -> Any:
        """Stores one file."""
        caller = await self._callers.of(context)
        incoming = Incoming(context)
        pieces, is_whole = await incoming.pieces(HELD_BYTES)
        store = self._storing.whole if is_whole else self._storing.long
        coming = Coming(caller, uuid.uuid4(), incoming.filename, pieces, incoming)
        return upload_service_pb2.UploadResponse(**await store(coming))

    async def upload_multiple(self, _requests: Any, context: Any) -> AsyncIterator[Any]:
        """Stores many files, small ones side by side."""
        caller = await self._callers.of(context)
        incoming, upload_id = Incoming(context), uuid.uuid4()
        under_way: deque[asyncio.Task[Any]] = deque()
        while True:
            pieces, is_whole = await incoming.pieces(HELD_BYTES)
            if not pieces:
                break
            store = self._storing.whole if is_whole else self._storing.long
            coming = Coming(caller, upload_id, incoming.filename, pieces, incoming)
            under_way.append(asyncio.create_task(store(coming)))
            if not is_whole:
                await asyncio.wait([under_way[-1]])
            while under_way and (len(under_way) == _AT_ONCE or under_way[0].done()):
                yield upload_service_pb2.UploadMultipleResponse(**await under_way.popleft())
        for task in under_way:
            yield upload_service_pb2.UploadMultipleResponse(**await task)

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server takes."""
        kinds = upload_service_pb2
        methods: dict[str, Any] = {
            "Upload": grpc.stream_unary_rpc_method_handler(
                self.upload, kinds.UploadRequest.FromString, kinds.UploadResponse.SerializeToString
            ),
            "UploadMultiple": grpc.stream_stream_rpc_method_handler(
                self.upload_multiple,
                kinds.UploadMultipleRequest.FromString,
                kinds.UploadMultipleResponse.SerializeToString,
            ),
        }
        return grpc.method_handlers_generic_handler(_SERVICE, methods)


async def _serve(settings: Mapping[str, str]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    login = (settings["ORTHANC_USERNAME"], settings["ORTHANC_PASSWORD"])
    orthanc = Orthanc(settings["ORTHANC_URL"], *login)
    target = settings["TAG_SERVICE_TARGET"]
    async with ledger(settings["DATABASE_URL"]) as book, grpc.aio.insecure_channel(target) as tags:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_servicer(settings, book, orthanc, tags).handler(),))
        port = server.add_insecure_port(f"{HOST}:0")
        await server.start()
        gc.collect()
        gc.freeze()
        print(port, flush=True)
        await stop.wait()
        await server.stop(None)
    orthanc.close()


def _servicer(settings: Mapping[str, str], book: Ledger, orthanc: Orthanc, tags: grpc.aio.Channel) -> _Servicer:
    modify_header = tag_service_pb2_grpc.TagServiceStub(tags).ModifyHeader
    return _Servicer(_Callers(settings, book.users), Storing(modify_header, book, orthanc))


if __name__ == "__main__":
    sys.setswitchinterval(_SWITCH_SECONDS)
    uvloop.run(_serve(os.environ))
