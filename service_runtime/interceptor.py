"""Around every call of our own services: request id, identity, errors, access log, and draining what was not read.

One interceptor does it all, so that the order is plain to see: a request id, then who calls, then the servicer, then
the one table from errors to statuses, then one line of log. Response streams are wrapped around their iteration, not
just their start.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar, cast

import grpc
import structlog
from grpc.aio import AbortError, InternalError, ServicerContext

from service_runtime.errors import Reason, ServiceError
from service_runtime.identity import CALLER, Gatekeeper, TokenVerifier
from service_runtime.logs import describe
from service_runtime.metadata import Metadata, WithMetadata, came_by_http, value_of
from service_runtime.requests import Requests, parsed
from service_runtime.status import (
    CODE_OF,
    HTTP_STATUS_KEY,
    HTTP_STATUS_OF,
    RETRY_AFTER_KEY,
    STATUS_DETAILS_KEY,
    status_of,
)
from service_runtime.uploads import UploadLimits

ResultT = TypeVar("ResultT")

log = structlog.get_logger()

OWN_SERVICES = "/ris."
# Metadata of callers that need not be read out before a call may fail.
EARLY_END_KEY = "x-takes-early-end"
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
_REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._-]{1,64}")

# A client that is refused in the middle of its upload may lose the answer, unless the rest of the upload is read
# first; but only so much of it.
_DRAIN_BYTES = 256 * 1024 * 1024
_DRAIN_SECONDS = 10
_RETRY_SECONDS = 5
# The longest wait for a client to take one message of a response stream.
_WRITE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class _Call:
    """What one call is, as the wrappers below need it."""

    method: str
    context: ServicerContext[Any, Any]
    requests: Requests | None = None

    @property
    def takes_early_end(self) -> bool:
        """Whether the caller says that it sees the end of a call also while it writes, which grpc.aio by itself does
        not (grpc/grpc#36066), nor do all HTTP clients.
        """
        return bool(value_of(self.context.invocation_metadata(), EARLY_END_KEY))


@dataclass(frozen=True, slots=True)
class _Method:
    """A method of ours: its name ("/package.Service/Method"), the servicer's part of it, and what it is sent."""

    name: str
    behaviour: Callable[..., Any]
    request_streaming: bool
    parse: Callable[[bytes], Any]
    idle_seconds: float

    def call(self, request: Any, context: ServicerContext[Any, Any]) -> _Call:
        """A call of the method, `request` being what grpc gives: bytes, or their stream."""
        requests = None
        if self.request_streaming:
            requests = Requests(aiter(request), self.parse, idle_seconds=self.idle_seconds)
        return _Call(self.name, context, requests)

    def request(self, request: Any, call: _Call) -> Any:
        """The request for the servicer: a message, or their stream. Raises INVALID_FIELD for bytes that are none."""
        return parsed(request, self.parse) if call.requests is None else call.requests


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the calls of our own services; health checking and reflection pass as they are, without a token."""

    def __init__(
        self,
        *,
        verifier: TokenVerifier,
        gatekeeper: Gatekeeper,
        public: frozenset[str],
        max_calls: int,
        upload_limits: UploadLimits,
    ) -> None:
        """`public` are the methods of our own that ask for no token, `max_calls` how many calls may run at once."""
        self._verifier = verifier
        self._gatekeeper = gatekeeper
        self._public = public
        self._max_calls = max_calls
        self._upload_limits = upload_limits
        self._running = 0
        # By the name of the method.
        self._wrappers: dict[str, Callable[[Metadata], grpc.RpcMethodHandler[Any, Any]]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a call of the method: wrapped, with the call's metadata."""
        method = str(handler_call_details.method)
        if method not in self._wrappers:
            handler = await continuation(handler_call_details)
            if handler is None or not method.startswith(OWN_SERVICES):
                return handler
            self._wrappers[method] = self._wrapper(method, handler)
        return self._wrappers[method](handler_call_details.invocation_metadata or ())

    def _wrapper(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> Callable[[Metadata], grpc.RpcMethodHandler[Any, Any]]:
        """What makes the handler of a call of the method."""
        assert handler.request_deserializer is not None  # noqa: S101 - generated code gives one
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        behaviour = getattr(handler, make.__name__.removesuffix("_rpc_method_handler"))
        wrapped = (self._stream if handler.response_streaming else self._unary)(
            _Method(
                method,
                behaviour,
                handler.request_streaming,
                handler.request_deserializer,
                self._upload_limits.idle_seconds,
            )
        )

        def handler_with(metadata: Metadata) -> grpc.RpcMethodHandler[Any, Any]:
            async def call(request: Any, context: ServicerContext[Any, Any]) -> Any:
                return await wrapped(request, cast("ServicerContext[Any, Any]", WithMetadata(context, metadata)))

            # Without a deserializer: grpc would tell the client what protobuf's says of bytes that are no message.
            return make(call, response_serializer=handler.response_serializer)

        return handler_with

    def _unary(self, method: _Method) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: ServicerContext[Any, Any]) -> Any:
            one = method.call(request, context)

            async def work() -> Any:
                response = await method.behaviour(method.request(request, one), one.context)
                await self._drain_for_http(one)
                return response

            return await self._around(one, work)

        return call

    def _stream(self, method: _Method) -> Callable[..., Awaitable[None]]:
        assert inspect.isasyncgenfunction(method.behaviour)  # noqa: S101 - what our servicers are

        # Writes the responses itself: grpc would leave the generator of a call that is cancelled to the garbage
        # collector.
        async def call(request: Any, context: ServicerContext[Any, Any]) -> None:
            one = method.call(request, context)

            async def work() -> None:
                async with aclosing(method.behaviour(method.request(request, one), one.context)) as responses:
                    async for response in responses:
                        await _write(one.context, response)
                await self._drain_for_http(one)

            await self._around(one, work)

        return call

    async def _around(self, call: _Call, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """What the work of a call gives. What goes wrong ends the call, as the caller is to be told."""
        given = value_of(call.context.invocation_metadata(), "x-request-id")
        request_id = given if _REQUEST_ID_FORM.fullmatch(given) else secrets.token_hex(16)
        REQUEST_ID.set(request_id)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.monotonic()
        outcome = grpc.StatusCode.OK.name
        facts: dict[str, Any] = {}
        self._running += 1
        admitted = False
        try:
            await self._admit(call, facts)
            admitted = True
            return await work()
        except ServiceError as error:
            outcome, facts["reason"] = CODE_OF[error.reason].name, error.reason.value
            if error.reason is Reason.INTERNAL_ERROR or error.__cause__ is not None:
                facts |= describe(error)
            # To refuse a call for want of room must not take up room.
            await _abort(call, error, request_id, drain=admitted or error.reason is not Reason.OVERLOADED)
        except AbortError:
            # A servicer's own; ours raise ServiceErrors instead.
            outcome = grpc.StatusCode.UNKNOWN.name
            raise
        except asyncio.CancelledError:
            outcome = grpc.StatusCode.CANCELLED.name
            raise
        except Exception as error:  # noqa: BLE001 - the catch-all: no exception's text may reach a client
            outcome, facts["reason"] = grpc.StatusCode.INTERNAL.name, Reason.INTERNAL_ERROR.value
            log.error("defect", method=call.method, **describe(error))  # noqa: TRY400 - it would log the text
            await _abort(
                call,
                ServiceError(Reason.INTERNAL_ERROR, "A defect of the service. Report it with the request id."),
                request_id,
            )
        finally:
            self._running -= 1
            if call.requests is not None:
                call.requests.close()
            log.info(
                "call",
                method=call.method,
                outcome=outcome,
                seconds=round(time.monotonic() - started, 4),
                **facts,
            )

    async def _drain_for_http(self, call: _Call) -> None:
        """Reads the rest of an upload that is answered: many HTTP clients look for the answer only when they have sent
        everything, and lose it where Envoy closes their connection before.
        """
        if call.requests is not None and came_by_http(call.context) and not call.takes_early_end:
            limits = self._upload_limits
            await call.requests.drain(max_bytes=limits.request_bytes, idle_seconds=limits.idle_seconds)

    async def _admit(self, call: _Call, facts: dict[str, Any]) -> None:
        """Lets the call in, or raises why not; adds the user to the facts that are logged."""
        if self._running > self._max_calls:
            raise ServiceError(
                Reason.OVERLOADED,
                "Too many calls at once. Retry.",
                metadata={"limit": "MAX_CONCURRENT_RPCS"},
                retry_after=_RETRY_SECONDS,
            )
        if call.method not in self._public:
            user_id, token = await self._verifier.verify(call.context.invocation_metadata() or ())
            facts["user_id"] = str(user_id)
            CALLER.set(await self._gatekeeper.admit(call.method, user_id, token))


async def _write(context: ServicerContext[Any, Any], response: Any) -> None:
    try:
        async with asyncio.timeout(_WRITE_SECONDS):
            await context.write(response)
    except (InternalError, TimeoutError):
        # The client went away, and the cancellation that says so may come a moment later; or it does not read, and so
        # can be told nothing.
        raise asyncio.CancelledError from None


async def _abort(call: _Call, error: ServiceError, request_id: str, *, drain: bool = True) -> NoReturn:
    # Who sends nothing need not be read out.
    if drain and call.requests is not None and not (call.takes_early_end or call.requests.has_stalled):
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await call.requests.drain(max_bytes=_DRAIN_BYTES, idle_seconds=_DRAIN_SECONDS)
    status = status_of(error, request_id=request_id)
    trailing: list[tuple[str, str | bytes]] = [(STATUS_DETAILS_KEY, status.SerializeToString())]
    if error.reason in HTTP_STATUS_OF:
        trailing.append((HTTP_STATUS_KEY, str(HTTP_STATUS_OF[error.reason])))
    if error.retry_after is not None:
        trailing.append((RETRY_AFTER_KEY, str(math.ceil(error.retry_after))))
    await call.context.abort(CODE_OF[error.reason], error.message, tuple(trailing))


_MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
