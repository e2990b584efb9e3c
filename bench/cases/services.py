"""The services as processes: how soon they are ready, and whether two of each are faster than one."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Final

from bench import machine
from bench.case import Finding, Group, Row, at_least, at_most
from bench.files import ct_slices
from bench.lab import SERVICES, Lab
from bench.rounds import Turn, Way, in_turns, median_seconds, speed_ratio, spread
from bench.uploading import Study, Uploading
from deploy.local.stack import Stack

FILES: Final = 400
ROUNDS: Final = 3
_LOOKS: Final = 600
_PAUSE_SECONDS: Final = 0.05


async def _measure_start(lab: Lab, _wanted: frozenset[str]) -> AsyncIterator[Finding]:
    stack = await lab.stack()
    # As in the image.
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(Path(stack.folder) / "bytecode")}
    for name in SERVICES:
        await stack.restart(name, **bytecode)
        taken = [await _start(stack, name) for _ in range(lab.rounds(ROUNDS))]
        yield Row("start", f"start of {name} to ready, its bytecode there", median(taken), "s", bar=at_most(2))


async def _start(stack: Stack, name: str) -> float:
    await stack.stop(name)
    began = time.perf_counter()
    await stack.start(name)
    return time.perf_counter() - began


async def _measure_workers(lab: Lab, _wanted: frozenset[str]) -> AsyncIterator[Finding]:
    stack = await lab.stack()
    uploading, study = Uploading(lab, stack), Study(ct_slices(), FILES, series=2)

    def way(workers: int) -> Way:
        async def turn() -> Turn:
            await _restart(stack, workers)
            # Workers share their port by connections.
            return await uploading.over_grpc(study)

        return turn

    try:
        turns = await in_turns({"one": way(1), "two": way(2)}, rounds=lab.rounds(ROUNDS))
    finally:
        await _restart(stack, 1)
    one, two = turns["one"], turns["two"]
    least, most = spread(two, one)
    yield Row(
        "workers",
        "400 CT, gRPC, two workers a service",
        FILES / median_seconds(two),
        "files/s",
        reference=FILES / median_seconds(one),
        ratio=speed_ratio(two, one),
        bar=at_least(1),
        against="one worker",
        note=f"{least:.2f} to {most:.2f}",
    )


async def _restart(stack: Stack, workers: int) -> None:
    """Starts both services anew, and waits for every one of their workers: the first that is ready speaks for all."""
    for name, port in (("tag_service", stack.ports.tag_service), ("pacs_gateway", stack.ports.pacs_gateway)):
        await stack.restart(name, WORKERS=str(workers))
        for _ in range(_LOOKS):
            if machine.listeners(port) == workers:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
        assert machine.listeners(port) == workers, f"{name} has too few workers"


GROUPS: Final = (Group(("start",), _measure_start), Group(("workers",), _measure_workers))
