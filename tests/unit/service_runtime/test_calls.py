"""Calls that are answered while something is still being sent for them."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from service_runtime.calls import is_written, keep_status

_PIECE = bytes(256 * 1024)


class CythonCall:
    """What grpc.aio has below a call."""

    def __init__(self) -> None:
        self.ended = False
        self.internal = ""

    def done(self) -> bool:
        """Whether the server's status is here."""
        return self.ended

    def set_internal_error(self, text: str) -> None:
        """Makes this the outcome."""
        self.internal = text


def test_a_write_that_fails_is_no_outcome_of_a_call_that_has_one() -> None:
    """What the server said stays; where it said nothing, the write's failure is all that is known."""
    below = CythonCall()
    call = SimpleNamespace(_cython_call=below)
    keep_status(call)
    below.ended = True
    call._cython_call.set_internal_error("failed 'send_message'")
    assert below.internal == ""
    below.ended = False
    call._cython_call.set_internal_error("failed 'send_message'")
    assert below.internal == "failed 'send_message'"


async def test_a_refusal_in_the_middle_is_told_as_it_is() -> None:
    """However the writes and the refusal meet, the caller learns the server's code, and no write raises."""

    async def refuse(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        await anext(aiter(requests))
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        raise AssertionError

    server = grpc.aio.server()
    handler = grpc.stream_unary_rpc_method_handler(refuse)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", {"Put": handler}),))
    port = server.add_insecure_port("localhost:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"localhost:{port}") as channel:
            codes = await asyncio.gather(*(_code_of(channel) for _ in range(50)))
    finally:
        await server.stop(None)
    assert set(codes) == {grpc.StatusCode.PERMISSION_DENIED}


async def _code_of(channel: grpc.aio.Channel) -> grpc.StatusCode:
    call = channel.stream_unary("/test.Service/Put")()
    keep_status(call)
    while await is_written(call.write(_PIECE)):
        pass
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code()
