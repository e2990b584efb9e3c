"""The life of a service process: workers, readiness, health, a graceful end.

`run` starts WORKERS processes that share one port (SO_REUSEPORT); they are started before any gRPC object exists,
because gRPC does not survive a fork. A worker serves from its first moment, says NOT_SERVING until what it stands on is
there, and on SIGTERM or SIGINT says NOT_SERVING first, waits for balancers to notice, lets calls end, and closes.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service_runtime.identity import Gatekeeper, TokenVerifier
from service_runtime.interceptor import CallInterceptor
from service_runtime.logs import configure_logs, describe
from service_runtime.settings import RuntimeSettings

log = structlog.get_logger()

SettingsT = TypeVar("SettingsT", bound=RuntimeSettings)

# Room beyond the calls that may run at once: for health checks, and for telling the calls too many that they are.
_SPARE_CALLS = 100
_SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    # Envoy lets 32 KiB of headers in, which is where the query of an HTTP request travels. What is over the first
    # number may be refused, over the second it is. gRPC's own 8 KiB would refuse a list of edits, quoting its headers.
    ("grpc.max_metadata_size", 48 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    # How far a sender may be ahead of us, a call. Left alone, gRPC lets that grow to megabytes, which are of no use to
    # an answer that needs but the beginning of a file. It is as fast on one machine; with 10 ms between both ends a
    # call passes 25 MB/s.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 * 1024),
    # Half-open connections are found within a minute.
    ("grpc.keepalive_time_ms", 40_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)
# How long a thread that computes may keep the event loop from going on, each time it wakes up. Python's own 5 ms would
# add up to many times what a small call takes.
_SWITCH_SECONDS = 0.0005
_READY_TIMEOUT_SECONDS = 10
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Service:
    """What a bootstrap hands to the server.

    `register` adds the servicers; `names` are their full names, also those that reflection alone tells of are in
    `reflected`; `ready` tells whether everything that the service stands on is there.
    """

    names: tuple[str, ...]
    register: Callable[[grpc.aio.Server], None]
    gatekeeper: Gatekeeper
    ready: Callable[[], Awaitable[bool]]
    public_methods: frozenset[str] = frozenset()
    reflected: tuple[str, ...] = field(default=())


Build = Callable[[SettingsT], AbstractAsyncContextManager[Service]]


def run(name: str, listen: str, settings: SettingsT, build: Build[SettingsT]) -> None:
    """Serves on `listen` ("host:port") until SIGTERM or SIGINT. `build` makes the service inside its event loop and
    closes it at the end; it must be a function of a module, for it is handed to other processes.
    """
    if settings.workers == 1:
        _work(name, listen, settings, build, parent=None)
    else:
        sys.exit(_supervise(name, listen, settings, build))


def _supervise(name: str, listen: str, settings: SettingsT, build: Build[SettingsT]) -> int:
    """Runs the workers; ends them all, with status 1, when one ends that was not told to."""
    _collect_from_here_on()
    _expect_free(listen)
    spawn = multiprocessing.get_context("spawn")
    workers: list[BaseProcess] = [
        spawn.Process(target=_work, args=(name, listen, settings, build), kwargs={"parent": os.getpid()})
        for _ in range(settings.workers)
    ]
    told = False

    def tell_all(_signal: int, _frame: object) -> None:
        nonlocal told
        told = True
        for worker in workers:
            if worker.is_alive():
                worker.terminate()

    for worker in workers:
        worker.start()
    signal.signal(signal.SIGTERM, tell_all)
    signal.signal(signal.SIGINT, tell_all)
    wait([worker.sentinel for worker in workers])
    failed = not told
    # Once only: to a worker that is at its very end, a second signal is death.
    if failed:
        tell_all(signal.SIGTERM, None)
    for worker in workers:
        worker.join()
    return int(failed or any(worker.exitcode for worker in workers))


def _expect_free(listen: str) -> None:
    """Raises OSError where something listens already, which the workers' SO_REUSEPORT would not notice."""
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host.strip("[]"), int(port)), family=family):
        pass


def _work(name: str, listen: str, settings: SettingsT, build: Build[SettingsT], *, parent: int | None) -> None:
    if parent is not None:
        # A worker never outlives its supervisor, however that ended.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            return
    configure_logs(service=name, level=settings.log_level)
    sys.setswitchinterval(_SWITCH_SECONDS)
    uvloop.run(_serve_alone(listen, settings, build))


async def _serve_alone(listen: str, settings: SettingsT, build: Build[SettingsT]) -> None:
    # The loop's own way to tell of a task that failed unnoticed is to log the exception's text.
    asyncio.get_running_loop().set_exception_handler(_log_unnoticed)
    await serve(listen, settings, build, started=lambda _port: _collect_from_here_on())


def _collect_from_here_on() -> None:
    """What is here once the service listens stays: the garbage collector need not look through it again and again."""
    gc.freeze()
    gc.enable()


def _log_unnoticed(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.error("defect", **(describe(error) if isinstance(error, BaseException) else {}))


async def serve(
    listen: str,
    settings: SettingsT,
    build: Build[SettingsT],
    *,
    started: Callable[[int], None] = lambda _port: None,
) -> None:
    """Serves until the process is told to stop. `started` is called with the port once it is bound."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with build(settings) as service:
        verifier = TokenVerifier(issuer=settings.auth_issuer, audience=settings.auth_audience, jwks=settings.auth_jwks)
        server, servicer = await _server_of(service, settings, verifier)
        port = server.add_insecure_port(listen)
        await server.start()
        log.info("listening", address=listen, port=port)
        started(port)
        readiness = asyncio.create_task(
            _tell_readiness(service, verifier, servicer, settings.readiness_interval_seconds)
        )
        try:
            await stop.wait()
            log.info("stopping")
            readiness.cancel()
            await servicer.enter_graceful_shutdown()
            await asyncio.sleep(settings.drain_seconds)
            servicer.end_watches()
            await server.stop(settings.shutdown_grace_seconds)
        finally:
            readiness.cancel()
            await asyncio.wait([readiness])
            await server.stop(None)
    log.info("stopped")


async def _server_of(
    service: Service, settings: RuntimeSettings, verifier: TokenVerifier
) -> tuple[grpc.aio.Server, _Health]:
    """The server with everything on it, and the health that it tells, which is NOT_SERVING."""
    interceptor = CallInterceptor(
        verifier=verifier,
        gatekeeper=service.gatekeeper,
        public=service.public_methods,
        max_calls=settings.max_concurrent_rpcs,
        upload_limits=settings.upload_limits,
    )
    at_once = settings.max_concurrent_rpcs + _SPARE_CALLS
    server = grpc.aio.server(
        interceptors=[interceptor],
        options=(
            *_SERVER_OPTIONS,
            ("grpc.max_concurrent_streams", at_once),
            # Only for workers: without it a second service on the same port is refused, not served by turns.
            ("grpc.so_reuseport", int(settings.workers > 1)),
        ),
        maximum_concurrent_rpcs=at_once,
    )
    service.register(server)
    servicer = _Health()
    for name in ("", *service.names):
        await servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection(
        (*service.names, *service.reflected, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    return server, servicer


class _Health(health.aio.HealthServicer):  # type: ignore[misc]  # the library has no types
    """Health checking whose watchers, who would stay for ever, do not keep the server from stopping."""

    def __init__(self) -> None:
        super().__init__()
        self._watching: set[asyncio.Task[Any]] = set()
        self._ending = False

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - grpc's
        """Tells the status at each change, until the server stops."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - each call is a task
        self._watching.add(task)
        try:
            await super().Watch(request, context)
        except asyncio.CancelledError:
            # To return is to end the call as it should.
            if not self._ending:
                raise
        finally:
            self._watching.discard(task)

    def end_watches(self) -> None:
        """Ends the calls of those who watch."""
        self._ending = True
        for task in self._watching:
            task.cancel()


async def _tell_readiness(service: Service, verifier: TokenVerifier, servicer: _Health, interval: float) -> None:
    """Keeps the health of the process ("") and of its services as readiness has it, for ever: without keys to check
    tokens with, no service is ready.
    """
    known: bool | None = None
    while True:
        try:
            async with asyncio.timeout(_READY_TIMEOUT_SECONDS):
                await verifier.check()
                ready = await service.ready()
        except Exception as error:  # noqa: BLE001 - a probe that fails is an answer
            log.debug("readiness probe failed", **describe(error))
            ready = False
        if ready is not known:
            known = ready
            log.info("readiness", ready=ready)
            status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
            for name in ("", *service.names):
                await servicer.set(name, status)
        await asyncio.sleep(interval)
