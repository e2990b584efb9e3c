"""What is to be had: the least gateway beside direct POST, and ours beside the least gateway, all by turns."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from bench.case import Finding, Group
from bench.files import ct_slices, small_mr
from bench.lab import SIZES, Lab
from bench.rates import rate
from bench.references.process import reference
from bench.rounds import Turn, Way, in_turns
from bench.uploading import Study, Uploading
from deploy.local.stack import Stack

ROUNDS: Final = 3
CT_FILES: Final = 400
MR_FILES: Final = 2000
_DIRECT: Final = "direct POST, 8 connections"
_LEAST: Final = "the least gateway"
_MODULE: Final = "bench.references.least"


@dataclass(frozen=True, slots=True)
class _Limit:
    """A case: a way of `Uploading`'s to go through either gateway."""

    case: str
    what: str
    way: str


_CT: Final = (
    _Limit("least-grpc", "400 CT, gRPC, 8 Uploads at a time", "over_grpc"),
    _Limit("least-grpc-streams", "400 CT, gRPC, 8 UploadMultiple", "over_grpc_streams"),
)
_MR: Final = (
    _Limit("least-mr", "2,000 MR of 10 kB, gRPC, 8 Uploads at a time", "over_grpc"),
    _Limit("least-mr-streams", "2,000 MR of 10 kB, gRPC, 8 UploadMultiple", "over_grpc_streams"),
)


async def _measure_ct(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Finding]:
    for finding in await _measure(lab, [limit for limit in _CT if limit.case in wanted], _ct()):
        yield finding


async def _measure_mr(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Finding]:
    study = Study(small_mr(), MR_FILES, series=4)
    for finding in await _measure(lab, [limit for limit in _MR if limit.case in wanted], study):
        yield finding


def _ct() -> Study:
    return Study(ct_slices(), CT_FILES, series=2)


async def _measure(lab: Lab, limits: Sequence[_Limit], study: Study) -> Sequence[Finding]:
    stack = await lab.stack()
    async with _least_gateway(lab, stack) as least:
        turns = await in_turns(_ways(limits, study, Uploading(lab, stack), least), rounds=lab.rounds(ROUNDS))
    return [finding for limit in limits for finding in _rows(limit, study.files, turns)]


@asynccontextmanager
async def _least_gateway(lab: Lab, stack: Stack) -> AsyncIterator[Uploading]:
    """Uploading through the least gateway, on the same stack."""
    async with reference(_MODULE, {**stack.gateway_settings, **SIZES}) as gateway:
        lab.besides[_LEAST] = gateway.pid
        try:
            yield Uploading(lab, stack, gateway_port=gateway.port)
        finally:
            del lab.besides[_LEAST]


def _ways(limits: Sequence[_Limit], study: Study, ours: Uploading, least: Uploading) -> Mapping[str, Way]:
    ways = {_DIRECT: ours.way(ours.direct, study)}
    for limit in limits:
        ways[limit.case] = least.way(getattr(least, limit.way), study)
        ways[f"{limit.case} ours"] = ours.way(getattr(ours, limit.way), study)
    return ways


def _rows(limit: _Limit, files: int, turns: Mapping[str, Sequence[Turn]]) -> Sequence[Finding]:
    least, ours = turns[limit.case], turns[f"{limit.case} ours"]
    return (
        rate(limit.case, f"{limit.what}, {_LEAST}", least, turns[_DIRECT], files=files, against=_DIRECT),
        rate(limit.case, f"{limit.what}, ours", ours, least, files=files, against=_LEAST),
    )


GROUPS: Final = (
    Group(tuple(limit.case for limit in _CT), _measure_ct),
    Group(tuple(limit.case for limit in _MR), _measure_mr),
)
