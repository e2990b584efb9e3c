"""Around every call of our own services: request id, identity, errors, access log, and draining what was not read.

One interceptor does it all, so that the order is plain to see: a request id, then who calls, then the servicer, then
the one table from errors to statuses, then one line of log. Response streams are wrapped around their iteration, not
just their start.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from grpc.aio import AbortError, ServicerContext

from service_runtime.errors import Reason, ServiceError
from service_runtime.identity import CALLER, Gatekeeper, TokenVerifier
from service_runtime.logs import describe
from service_runtime.metadata import value_of
from service_runtime.status import CODE_OF, HTTP_STATUS_KEY, HTTP_STATUS_OF, STATUS_DETAILS_KEY, status_of

log = structlog.get_logger()

OWN_SERVICES = "/ris."
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
_REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._-]{1,64}")

# An HTTP client that is answered in the middle of its upload may lose the answer, unless the rest of the upload is
# read first; but only so much of it.
_DRAIN_BYTES = 256 * 1024 * 1024
_DRAIN_SECONDS = 10


@dataclass(frozen=True, slots=True)
class _Call:
    """What one call is, as the wrappers below need it."""

    method: str
    context: ServicerContext[Any, Any]
    requests: _Requests | None = None

    @property
    def came_by_http(self) -> bool:
        """Whether Envoy made this call out of an HTTP request."""
        return bool(value_of(self.context.invocation_metadata(), "x-envoy-original-path"))

    @property
    def came_by_http2(self) -> bool:
        """Whether that was HTTP/2, where an answer before the end of the upload is a stream error to the client."""
        return self.came_by_http and value_of(self.context.invocation_metadata(), "x-client-protocol") == "HTTP/2"


class _Requests:
    """A request stream that can be read to its end when nobody wants it any more."""

    def __init__(self, messages: AsyncIterator[Any]) -> None:
        self._messages = aiter(messages)
        self._ended = False

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self._messages)
        except BaseException:
            self._ended = True
            raise

    async def drain(self) -> None:
        """Reads and forgets the rest, up to a limit in bytes and time."""
        size = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._ended and size <= _DRAIN_BYTES:
                    message = await anext(self, None)
                    size += len(message.file.data) if message is not None else 0
        except TimeoutError:
            pass


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the calls of our own services; health checking and reflection pass as they are, without a token."""

    def __init__(self, *, verifier: TokenVerifier, gatekeeper: Gatekeeper, public: frozenset[str]) -> None:
        """`public` are the methods of our own that ask for no token."""
        self._verifier = verifier
        self._gatekeeper = gatekeeper
        self._public = public

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of the method, wrapped."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or not method.startswith(OWN_SERVICES):
            return handler
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        behaviour = getattr(handler, make.__name__.removesuffix("_rpc_method_handler"))
        wrapped = (self._stream if handler.response_streaming else self._unary)(
            method, behaviour, request_streaming=handler.request_streaming
        )
        return make(
            wrapped,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(
        self, method: str, behaviour: Callable[..., Awaitable[Any]], *, request_streaming: bool
    ) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: ServicerContext[Any, Any]) -> Any:
            requests = _Requests(request) if request_streaming else None
            one = _Call(method, context, requests)
            async with self._around(one):
                response = await behaviour(requests or request, context)
                if requests is not None and one.came_by_http2:
                    await requests.drain()
                return response

        return call

    def _stream(
        self, method: str, behaviour: Callable[..., AsyncIterator[Any]], *, request_streaming: bool
    ) -> Callable[..., AsyncIterator[Any]]:
        assert inspect.isasyncgenfunction(behaviour)  # noqa: S101 - what our servicers are

        async def call(request: Any, context: ServicerContext[Any, Any]) -> AsyncGenerator[Any, None]:
            requests = _Requests(request) if request_streaming else None
            async with self._around(_Call(method, context, requests)):
                async for response in behaviour(requests or request, context):
                    yield response

        return call

    @asynccontextmanager
    async def _around(self, call: _Call) -> AsyncIterator[None]:
        metadata = call.context.invocation_metadata()
        given = value_of(metadata, "x-request-id")
        request_id = given if _REQUEST_ID_FORM.fullmatch(given) else str(uuid.uuid4())
        REQUEST_ID.set(request_id)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.monotonic()
        outcome = grpc.StatusCode.OK.name
        facts: dict[str, Any] = {}
        try:
            if call.method not in self._public:
                user_id, token = await self._verifier.verify(metadata or ())
                CALLER.set(await self._gatekeeper.admit(call.method, user_id, token))
                facts["user_id"] = str(user_id)
            yield
        except ServiceError as error:
            outcome, facts["reason"] = CODE_OF[error.reason].name, error.reason.value
            if error.reason is Reason.INTERNAL_ERROR or error.__cause__ is not None:
                facts |= describe(error)
            await _abort(call, error, request_id)
        except AbortError:
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
            log.info(
                "call",
                method=call.method,
                outcome=outcome,
                seconds=round(time.monotonic() - started, 4),
                **facts,
            )


async def _abort(call: _Call, error: ServiceError, request_id: str) -> None:
    if call.requests is not None and call.came_by_http:
        await call.requests.drain()
    status = status_of(error, request_id=request_id)
    trailing: list[tuple[str, str | bytes]] = [(STATUS_DETAILS_KEY, status.SerializeToString())]
    if error.reason in HTTP_STATUS_OF:
        trailing.append((HTTP_STATUS_KEY, str(HTTP_STATUS_OF[error.reason])))
    await call.context.abort(CODE_OF[error.reason], error.message, tuple(trailing))


_MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
