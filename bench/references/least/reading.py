"""The least ReadTags: takes in as much as the header takes, takes a form apart, reads the header with ours' parser, and
answers. It prints its port.

What it leaves out: who calls, log lines, deadlines, limits of an upload, and words for what goes wrong. What is left is
what gRPC, Envoy and reading take for such a call.
"""

import asyncio
import gc
from typing import Any, Final

import grpc
import uvloop
from grpc.aio import EOF
from python_multipart.multipart import MultipartParser, parse_options_header

from deploy.local.ports import HOST
from ris.tags.v1 import tag_service_pb2
from tag_service.api.mapping import header_to_proto
from tag_service.domain.reading.header_reader import HeaderReader
from tag_service.domain.standard.limits import Limits

_FORM: Final = "multipart/form-data"
_SERVICE: Final = "ris.tags.v1.TagService"
# Most headers are shorter.
_FIRST_BYTES: Final = 8 * 1024
_LIMITS: Final = Limits()


async def _read_tags(_requests: Any, context: Any) -> Any:
    reader = HeaderReader(_LIMITS)
    form: MultipartParser | None = None
    while not reader.done:
        message = await context.read()
        if message is EOF:
            reader.close()
            break
        body = message.file
        data = body.data
        if form is None and body.content_type.startswith(_FORM):
            form = _parser_of(body.content_type, reader)
        if form is not None:
            form.write(data)
        else:
            _feed(reader, data)
    # Many HTTP clients look for an answer only when they have sent everything.
    if any(name == "x-envoy-original-path" for name, _ in context.invocation_metadata()):
        while await context.read() is not EOF:
            pass
    return header_to_proto(reader.header())


def _parser_of(content_type: str, reader: HeaderReader) -> MultipartParser:
    _, options = parse_options_header(content_type)
    return MultipartParser(
        options[b"boundary"], {"on_part_data": lambda data, start, end: _feed(reader, data[start:end])}
    )


def _feed(reader: HeaderReader, data: bytes) -> None:
    if not reader.feed(data[:_FIRST_BYTES]):
        reader.feed(data[_FIRST_BYTES:])


async def _serve() -> None:
    methods: dict[str, Any] = {
        "ReadTags": grpc.stream_unary_rpc_method_handler(
            _read_tags,
            tag_service_pb2.ReadTagsRequest.FromString,
            tag_service_pb2.ReadTagsResponse.SerializeToString,
        )
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    gc.freeze()
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
