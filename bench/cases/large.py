"""One large file: how fast it comes into the PACS beside posting it to Orthanc, and what memory the services take."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final

from bench import machine
from bench.case import Finding, Group, Row, at_least, at_most
from bench.files import multi_frame
from bench.lab import SERVICES, Lab
from bench.rounds import in_turns, median_seconds, speed_ratio
from bench.uploading import Study, Uploading
from deploy.local.stack import Stack

ROUNDS: Final = 3
_LARGE_MB: Final = 500
_HUGE_MB: Final = 2000
_MEMORY_BAR: Final = at_most(64)


async def _measure_large(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Finding]:
    stack = await lab.stack()
    uploading, study = Uploading(lab, stack), Study(multi_frame(_LARGE_MB), 1)
    idle = await _idle(stack)
    ways = {
        "direct": uploading.way(uploading.direct, study),
        "grpc": uploading.way(uploading.over_grpc, study),
        "http": uploading.way(uploading.over_http, study),
    }
    turns = await in_turns(ways, rounds=lab.rounds(ROUNDS))
    peaks = _peaks(stack)
    speed = {name: _LARGE_MB / median_seconds(taken) for name, taken in turns.items()}
    if "upload-500mb" in wanted:
        for name, what, bar in (("grpc", "gRPC", at_least(0.9)), ("http", "HTTP through Envoy", None)):
            yield Row(
                "upload-500mb",
                f"one file of 500 MB, {what}",
                speed[name],
                "MB/s",
                reference=speed["direct"],
                ratio=speed_ratio(turns[name], turns["direct"]),
                bar=bar,
                against="direct POST",
            )
    if "memory-500mb" in wanted:
        for row in _memory("memory-500mb", "500 MB", idle, peaks):
            yield row


async def _measure_huge(lab: Lab, _wanted: frozenset[str]) -> AsyncIterator[Finding]:
    stack = await lab.stack()
    uploading = Uploading(lab, stack)
    idle = await _idle(stack)
    turn = await uploading.over_grpc(Study(multi_frame(_HUGE_MB), 1), library=True)
    for row in _memory("memory-2gb", f"2 GB, gRPC, {_HUGE_MB / turn.seconds:.0f} MB/s", idle, _peaks(stack)):
        yield row


async def _idle(stack: Stack) -> Mapping[str, int]:
    """What services hold that have just begun, in KiB."""
    idle = {}
    for name in reversed(SERVICES):  # the gateway last, which else would wait before it tries tag_service again
        await stack.restart(name)
    for name in SERVICES:
        machine.forget_peak(stack.pid(name))  # beginning, they may have held more
        idle[name], _ = machine.memory_kib(stack.pid(name))
    return idle


def _peaks(stack: Stack) -> Mapping[str, int]:
    return {name: machine.memory_kib(stack.pid(name))[1] for name in SERVICES}


def _memory(case: str, what: str, idle: Mapping[str, int], peaks: Mapping[str, int]) -> Iterator[Row]:
    for name in SERVICES:
        above = (peaks[name] - idle[name]) / 1024
        yield Row(case, f"memory of {name} above idle, {what}", above, "MiB", bar=_MEMORY_BAR)


GROUPS: Final = (
    Group(("upload-500mb", "memory-500mb"), _measure_large),
    Group(("memory-2gb",), _measure_huge),
)
