"""tag_service and pacs_gateway, and the migrations, as `python -m ...` on this machine."""

from collections.abc import Callable, Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local.ports import HOST
from deploy.local.process import ROOT, Child, python, python_environment, run_to_end

_START_SECONDS = 60


class Migrations:
    """Brings the database to the newest revision. A step: nothing of it stays running."""

    name = "migrations"
    address = ""
    child = None

    def __init__(self, log: Path, database_url: str) -> None:
        self._log = log
        self._database_url = database_url

    async def start(self) -> None:
        """Runs every revision that the database lacks."""
        await run_to_end(
            self.name,
            python("-m", "alembic", "-c", str(ROOT / "migrations" / "alembic.ini"), "upgrade", "head"),
            log=self._log,
            env=python_environment({"DATABASE_URL": self._database_url}),
        )

    async def stop(self) -> None:
        """Has nothing to stop."""


class Service:
    """A gRPC service. `settings` are its environment; `complete` tells, at its start, whether what it needs is there.

    Where it is not, the service is up once it answers at all; else once it says SERVING.
    """

    def __init__(
        self, name: str, log: Path, port: int, *, settings: Mapping[str, str], complete: Callable[[], bool]
    ) -> None:
        self.name = name
        self.address = f"{HOST}:{port}"
        self.settings = dict(settings)
        self._complete = complete
        self.child = Child(name, log)

    async def start(self) -> None:
        """Starts the service and waits until it is up."""
        environment = python_environment({f"{self.name.upper()}_LISTEN": self.address, **self.settings})
        await self.child.start(python("-m", self.name), env=environment)
        await self.child.wait_until(self._is_up, seconds=_START_SECONDS)

    async def stop(self) -> None:
        """Lets the service drain and end."""
        await self.child.stop()

    async def _is_up(self) -> bool:
        return await answers(self.address, serving=self._complete())


async def answers(address: str, *, serving: bool) -> bool:
    """Whether a service answers about its health, and if it is to be `serving`, that it is."""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.aio.AioRpcError:
            return False
    return not serving or answer.status == health_pb2.HealthCheckResponse.SERVING
