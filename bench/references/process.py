"""A reference that is a program of ours: a process that prints its port as soon as it serves."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from deploy.local.ports import HOST
from deploy.local.process import ROOT, launcher, python, python_environment


@dataclass(frozen=True, slots=True)
class Reference:
    """Where it serves."""

    pid: int
    port: int

    @property
    def address(self) -> str:
        """For gRPC."""
        return f"{HOST}:{self.port}"


@asynccontextmanager
async def reference(module: str, settings: Mapping[str, str] | None = None) -> AsyncIterator[Reference]:
    """Runs `python -m module`, with these settings in its environment. It ends with this context, and with this process
    however that ends.
    """
    process = await asyncio.create_subprocess_exec(
        *launcher(signal.SIGTERM),
        *python("-m", module),
        stdout=asyncio.subprocess.PIPE,
        env=python_environment(settings or {}),
        cwd=ROOT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield Reference(process.pid, int(await process.stdout.readline()))
    finally:
        process.terminate()
        await process.wait()
