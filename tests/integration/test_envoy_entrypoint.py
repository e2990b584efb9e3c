"""Envoy as its container starts it: the entrypoint with the real Envoy, on this machine."""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
import yaml
from grpc.aio import ServicerContext

from deploy.local.envoy import FILES, binary, render
from deploy.local.keys import AUDIENCE, ISSUER, DevelopmentKey, development_key
from deploy.local.people import user_with_role
from deploy.local.ports import Ports, free_ports
from deploy.local.process import ROOT, Child
from ris.pacs.v1 import study_service_pb2, study_service_pb2_grpc

STUDIES = "/api/v1/dicom/studies"


class SlowStudies(study_service_pb2_grpc.StudyServiceServicer):
    """A gateway that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def ListStudies(  # noqa: N802 - the name of the rpc
        self,
        request: study_service_pb2.ListStudiesRequest,  # noqa: ARG002
        context: ServicerContext,  # noqa: ARG002
    ) -> study_service_pb2.ListStudiesResponse:
        """Lists nothing, after a while."""
        self.asked.set()
        await self.may_answer.wait()
        return study_service_pb2.ListStudiesResponse(total_size=7)


@pytest.fixture
def ports() -> Ports:
    """Where Envoy and the gateway listen."""
    return free_ports()


@pytest.fixture
def key(tmp_path: Path) -> DevelopmentKey:
    """What signs the tokens."""
    return development_key(tmp_path / "keys")


@pytest.fixture
async def gateway(ports: Ports) -> AsyncIterator[SlowStudies]:
    """The gateway behind Envoy."""
    studies = SlowStudies()
    server = grpc.aio.server()
    study_service_pb2_grpc.add_StudyServiceServicer_to_server(studies, server)
    server.add_insecure_port(f"127.0.0.1:{ports.pacs_gateway}")
    await server.start()
    yield studies
    studies.may_answer.set()
    await server.stop(None)


@asynccontextmanager
async def envoy(folder: Path, ports: Ports, key: DevelopmentKey, **settings: str) -> AsyncIterator[Child]:
    """Envoy, started by the entrypoint from a folder laid out as the image's."""
    etc = folder / "etc"
    etc.mkdir()
    for source in (FILES / "envoy.yaml", FILES / "render.sh", ROOT / "deploy" / "docker" / "envoy-entrypoint.sh"):
        shutil.copy(source, etc)
    environment = {
        "PATH": f"{binary().parent}:{os.environ['PATH']}",
        "ENVOY_PORT": str(ports.envoy),
        "ENVOY_ADMIN_PORT": str(ports.envoy_admin),
        "ENVOY_CLUSTERS": str(etc / "clusters.yaml"),
        "ENVOY_DESCRIPTORS": str(ROOT / "generated" / "envoy.binpb"),
        "ENVOY_CONFIG": str(folder / "envoy.yaml"),
        "AUTH_JWKS": str(key.jwks),
        "AUTH_ISSUER": ISSUER,
        "AUTH_AUDIENCE": AUDIENCE,
        "TAG_SERVICE_PORT": str(ports.tag_service),
        "PACS_GATEWAY_PORT": str(ports.pacs_gateway),
    }
    (etc / "clusters.yaml").write_text(render(FILES / "clusters" / "local.yaml", environment))
    child = Child("envoy", folder / "envoy.log")
    await child.start(("bash", str(etc / "envoy-entrypoint.sh")), env=environment | settings)
    try:
        yield child
    finally:
        await child.stop()


async def status_of(url: str) -> int:
    """The HTTP status of a new request on a new connection; 0 where nobody answers."""
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            return (await client.get(url)).status_code
    except httpx.TransportError:
        return 0


async def test_envoy_lets_requests_end_before_it_stops(
    tmp_path: Path, ports: Ports, key: DevelopmentKey, gateway: SlowStudies
) -> None:
    """SIGTERM makes /healthz fail at once; a request that is under way is answered before Envoy ends, with status 0."""
    base_url = f"http://127.0.0.1:{ports.envoy}"
    token = key.sign(user_with_role("viewer").id)

    async def is_up() -> bool:
        return await status_of(f"{base_url}/healthz") == 200

    async def is_draining() -> bool:
        return await status_of(f"{base_url}/healthz") == 503

    async with (
        envoy(tmp_path, ports, key) as child,
        httpx.AsyncClient(base_url=base_url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client,
    ):
        await child.wait_until(is_up, seconds=20)
        request = asyncio.create_task(client.get(STUDIES))
        await asyncio.wait_for(gateway.asked.wait(), 10)
        child._process.send_signal(signal.SIGTERM)
        await child.wait_until(is_draining, seconds=10)
        await asyncio.sleep(1)
        assert child.running
        gateway.may_answer.set()
        answer = await request
        assert (answer.status_code, answer.json()["total_size"]) == (200, 7)
        assert await asyncio.wait_for(child.ended(), 10) == 0


async def test_envoy_does_not_wait_for_ever(
    tmp_path: Path, ports: Ports, key: DevelopmentKey, gateway: SlowStudies
) -> None:
    """A request that does not end is cut off when ENVOY_DRAIN_SECONDS are over."""
    base_url = f"http://127.0.0.1:{ports.envoy}"
    token = key.sign(user_with_role("viewer").id)

    async def is_up() -> bool:
        return await status_of(f"{base_url}/healthz") == 200

    async with (
        envoy(tmp_path, ports, key, ENVOY_DRAIN_SECONDS="1") as child,
        httpx.AsyncClient(base_url=base_url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client,
    ):
        await child.wait_until(is_up, seconds=20)
        request = asyncio.create_task(client.get(STUDIES))
        await asyncio.wait_for(gateway.asked.wait(), 10)
        child._process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(child.ended(), 10)
        with pytest.raises(httpx.TransportError):
            await request


async def test_a_setting_that_is_missing_ends_the_container(tmp_path: Path, ports: Ports, key: DevelopmentKey) -> None:
    """Without an issuer Envoy is never started, and the log says what is missing."""
    async with envoy(tmp_path, ports, key, AUTH_ISSUER="") as child:
        assert await asyncio.wait_for(child.ended(), 10) == 2
        assert "AUTH_ISSUER is not set" in child.tail()


async def test_the_health_check_of_compose_follows_envoy(tmp_path: Path, ports: Ports, key: DevelopmentKey) -> None:
    """The check is green when Envoy answers, and red when nobody does."""
    services = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yaml").read_text())["services"]
    _, *command = services["envoy"]["healthcheck"]["test"]
    command = [re.sub(r"\b8000\b", str(ports.envoy), word) for word in command]

    async def is_green() -> bool:
        check = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
        return await check.wait() == 0

    assert not await is_green()
    async with envoy(tmp_path, ports, key) as child:
        await child.wait_until(is_green, seconds=20)
    assert not await is_green()
