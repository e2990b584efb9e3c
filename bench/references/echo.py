"""Bare gRPC of the same messages: an echo of ModifyTags', and a sink that reads Upload's and does nothing with them."""

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import uvloop

from deploy.local.ports import HOST
from ris.pacs.v1 import upload_service_pb2
from ris.tags.v1 import tag_service_pb2

_SERVICE: Final = "bench.Bare"
ECHO: Final = f"/{_SERVICE}/Echo"
SINK: Final = f"/{_SERVICE}/Sink"


async def _echo(requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
    async for request in requests:
        yield tag_service_pb2.ModifyTagsResponse(file=request.file)


async def _sink(requests: AsyncIterator[Any], _context: Any) -> Any:
    async for _ in requests:
        pass
    return upload_service_pb2.UploadResponse(status="stored")


async def _serve() -> None:
    echo = grpc.stream_stream_rpc_method_handler(
        _echo,
        request_deserializer=tag_service_pb2.ModifyTagsRequest.FromString,
        response_serializer=tag_service_pb2.ModifyTagsResponse.SerializeToString,
    )
    sink = grpc.stream_unary_rpc_method_handler(
        _sink,
        request_deserializer=upload_service_pb2.UploadRequest.FromString,
        response_serializer=upload_service_pb2.UploadResponse.SerializeToString,
    )
    handlers: dict[str, Any] = {"Echo": echo, "Sink": sink}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve())
