"""The client's side of a call that may be answered, or refused, while its requests are still being sent."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final

import grpc

# What grpc.aio raises where a call is over that something is to be sent for.
OVER: Final = (grpc.aio.AioRpcError, asyncio.InvalidStateError)


async def is_written(write: Awaitable[None]) -> bool:
    """Waits for a write; False where the call is over already, with the answer or an error: awaiting it tells which."""
    try:
        await write
    except OVER:
        return False
    return True


def keep_status(call: Any) -> None:
    """Has a call of grpc.aio tell what the server said of it, also where that came while a write was on its way.

    grpc.aio takes that write's failure for the outcome of the call, and an early answer or error for INTERNAL
    (grpc/grpc#36066). To be deleted with the release that mends it.
    """
    call._cython_call = _StatusKeeper(call._cython_call)  # noqa: SLF001 - there is no public way


class _StatusKeeper:
    """Leaves the outcome of a call to what the server says."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def set_internal_error(self, text: str) -> None:
        if not self._call.done():
            self._call.set_internal_error(text)
