"""The health check of the containers says what the service says of itself."""

import asyncio
import os
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from deploy.local.ports import HOST, free_ports
from deploy.local.process import ROOT, python

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def service() -> AsyncIterator[tuple[str, health.aio.HealthServicer]]:
    """The port of a gRPC server, and what tells how it is."""
    servicer = health.aio.HealthServicer()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    yield str(port), servicer
    await server.stop(None)


async def check(port: str) -> tuple[int, str]:
    """The exit status and the output of the check, where the environment names a proxy that there is not."""
    command = python(str(ROOT / "deploy" / "docker" / "check_health.py"), port)
    environment = os.environ | {"http_proxy": f"http://{HOST}:1", "https_proxy": f"http://{HOST}:1", "no_proxy": ""}
    child = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(child.communicate(), 20)
    return child.returncode or 0, output.decode().strip()


async def test_a_service_that_serves_is_healthy(service: tuple[str, health.aio.HealthServicer]) -> None:
    """SERVING is status 0, and a change to NOT_SERVING is status 1."""
    port, servicer = service
    await servicer.set("", SERVING)
    assert await check(port) == (0, "SERVING")
    await servicer.set("", NOT_SERVING)
    assert await check(port) == (1, "NOT_SERVING")


async def test_a_service_that_does_not_answer_is_not_healthy() -> None:
    """Nobody at the port is status 1, soon."""
    assert await check(str(free_ports().tag_service)) == (1, "UNAVAILABLE")
