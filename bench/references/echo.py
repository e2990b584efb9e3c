"""A bare echo over gRPC, in a process of its own: what carrying the messages of ModifyTags costs by itself."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import uvloop

from deploy.local.ports import HOST
from ris.tags.v1 import tag_service_pb2

METHOD = "/bench.Echo/Echo"


@asynccontextmanager
async def echo() -> AsyncIterator[str]:
    """The echo; its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.references.echo", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield f"{HOST}:{int(await process.stdout.readline())}"
    finally:
        process.terminate()
        await process.wait()


async def _echo(requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
    async for request in requests:
        yield tag_service_pb2.ModifyTagsResponse(file=request.file)


async def _serve() -> None:
    handler = grpc.stream_stream_rpc_method_handler(
        _echo,
        request_deserializer=tag_service_pb2.ModifyTagsRequest.FromString,
        response_serializer=tag_service_pb2.ModifyTagsResponse.SerializeToString,
    )
    _, service, method = METHOD.split("/")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve())
