"""What the ledger costs: uploads through the gateway as it is, against one that keeps none."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from bench.case import Finding, Group, Row, at_least
from bench.files import ct_slices
from bench.lab import SIZES, Lab
from bench.rounds import cpu_of, in_turns, median_seconds, speed_ratio, spread
from bench.uploading import Study, Uploading
from deploy.local.ports import HOST, free_ports
from deploy.local.process import Child, python, python_environment
from deploy.local.services import answers
from deploy.local.stack import Stack

FILES: Final = 400
ROUNDS: Final = 5
_START_SECONDS: Final = 30
_WITHOUT: Final = "without_ledger"


async def _measure(lab: Lab, _wanted: frozenset[str]) -> AsyncIterator[Finding]:
    stack = await lab.stack()
    study = Study(ct_slices(), FILES, series=2)
    async with _without_ledger(lab, stack) as port:
        with_it, without = Uploading(lab, stack), Uploading(lab, stack, gateway_port=port)
        ways = {"with": with_it.way(with_it.over_grpc, study), "without": without.way(without.over_grpc, study)}
        turns = await in_turns(ways, rounds=lab.rounds(ROUNDS))
    ours, reference = turns["with"], turns["without"]
    least, most = spread(ours, reference)
    costs = (cpu_of(ours, "pacs_gateway", "postgres"), cpu_of(reference, _WITHOUT, "postgres"))
    costly, cheap = (cost / FILES * 1000 for cost in costs)
    yield Row(
        "ledger",
        "400 CT, gRPC, with the ledger",
        FILES / median_seconds(ours),
        "files/s",
        reference=FILES / median_seconds(reference),
        ratio=speed_ratio(ours, reference),
        bar=at_least(0.9),
        against="without it",
        note=f"{least:.2f} to {most:.2f}; gateway and PostgreSQL take {costly:.2f} ms a file, {cheap:.2f} without",
    )


@asynccontextmanager
async def _without_ledger(lab: Lab, stack: Stack) -> AsyncIterator[int]:
    """A second gateway on the same stack; its port."""
    port = free_ports().pacs_gateway
    listen = f"{HOST}:{port}"
    gateway = Child(_WITHOUT, stack.log(_WITHOUT))
    settings = {**stack.gateway_settings, **SIZES, "PACS_GATEWAY_LISTEN": listen}
    try:
        await gateway.start(python("-m", "bench.references.without_ledger"), env=python_environment(settings))
        await gateway.wait_until(lambda: answers(listen, serving=True), seconds=_START_SECONDS)
        lab.besides[_WITHOUT] = gateway.pid
        yield port
    finally:
        lab.besides.pop(_WITHOUT, None)
        await gateway.stop()


GROUPS: Final = (Group(("ledger",), _measure),)
