"""What is to be had: the least gateway beside direct POST, and ours beside the least gateway, all by turns."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from bench import machine
from bench.case import Failure, Finding, Group, Row
from bench.files import ct_slices, multi_frame, small_mr
from bench.lab import Lab
from bench.rates import rate
from bench.references.envoy import in_front
from bench.references.process import reference
from bench.rounds import Turn, Way, in_turns
from bench.uploading import Study, Uploading
from deploy.local.stack import Stack

ROUNDS: Final = 3
CT_FILES: Final = 400
MR_FILES: Final = 2000
_LARGE_MB: Final = 500
_DIRECT: Final = "direct POST, 8 connections"
_LEAST: Final = "the least gateway"
_OURS: Final = "ours"
_MODULE: Final = "bench.references.least"


@dataclass(frozen=True, slots=True)
class _Limit:
    """A case: a way of `Uploading`'s through either gateway; without a way, past both, each file then checked."""

    case: str
    what: str
    way: str | None
    # Of one turn, where that is told in place of the files.
    megabytes: int | None = None
    # As of a `Study`.
    ordered: bool = False
    foreign: bool = False


_CT: Final = (
    _Limit("checked-ct", "400 CT, direct POST, each read again", None),
    _Limit("least-grpc", "400 CT, gRPC, 8 Uploads at a time", "over_grpc"),
    _Limit("least-grpc-streams", "400 CT, gRPC, 8 UploadMultiple", "over_grpc_streams"),
    _Limit("least-order", "400 CT for an order, gRPC", "over_grpc", ordered=True),
    _Limit("least-coerce", "400 CT, COERCE on each, gRPC", "over_grpc", foreign=True),
    _Limit("least-http", "400 CT, HTTP through Envoy, 8 forms at a time", "over_http"),
    _Limit("least-http-multiple", "400 CT, HTTP through Envoy, one form", "over_http_at_once"),
)
_APART: Final = (_Limit("least-apart", "400 CT, gRPC, Orthanc on a core of its own", "over_grpc"),)
_MR: Final = (
    _Limit("checked-mr", "2,000 MR of 10 kB, direct POST, each read again", None),
    _Limit("least-mr", "2,000 MR of 10 kB, gRPC, 8 Uploads at a time", "over_grpc"),
    _Limit("least-mr-streams", "2,000 MR of 10 kB, gRPC, 8 UploadMultiple", "over_grpc_streams"),
)
_LARGE: Final = (
    _Limit("checked-500mb", "one file of 500 MB, direct POST, read again", None, _LARGE_MB),
    _Limit("least-500mb", "one file of 500 MB, gRPC", "over_grpc", _LARGE_MB),
)


async def _measure_ct(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Finding]:
    for finding in await _measure(lab, _CT, wanted, Study(ct_slices(), CT_FILES, series=2)):
        yield finding


async def _measure_apart(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Finding]:
    if machine.cores() < 2:
        yield Failure(_APART[0].case, "there is one core only", skipped=True)
        return
    for finding in await _measure(lab, _APART, wanted, Study(ct_slices(), CT_FILES, series=2), apart=True):
        yield finding


async def _measure_mr(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Finding]:
    for finding in await _measure(lab, _MR, wanted, Study(small_mr(), MR_FILES, series=4)):
        yield finding


async def _measure_large(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Finding]:
    for finding in await _measure(lab, _LARGE, wanted, Study(multi_frame(_LARGE_MB), 1)):
        yield finding


async def _measure(
    lab: Lab, limits: Sequence[_Limit], wanted: frozenset[str], study: Study, *, apart: bool = False
) -> Sequence[Finding]:
    stack = await lab.stack()
    limits = [limit for limit in limits if limit.case in wanted]
    async with _least_gateway(lab, stack) as least:
        await lab.client()
        with lab.orthanc_apart() if apart else nullcontext():
            turns = await in_turns(_ways(limits, study, Uploading(lab, stack), least), rounds=lab.rounds(ROUNDS))
    return [finding for limit in limits for finding in _rows(limit, study, turns)]


@asynccontextmanager
async def _least_gateway(lab: Lab, stack: Stack) -> AsyncIterator[Uploading]:
    """Uploading through the least gateway on the same stack, with an Envoy of its own."""
    async with AsyncExitStack() as resources:
        gateway = await resources.enter_async_context(reference(_MODULE, stack.gateway_settings))
        port, envoy = await resources.enter_async_context(in_front(stack, pacs_gateway=gateway.port))
        for name, pid in ((_LEAST, gateway.pid), ("its envoy", envoy)):
            lab.besides[name] = pid
            resources.callback(lab.besides.pop, name)
        yield Uploading(lab, stack, gateway_port=gateway.port, envoy_port=port)


def _ways(limits: Sequence[_Limit], study: Study, ours: Uploading, least: Uploading) -> Mapping[str, Way]:
    ways = {_DIRECT: ours.way(ours.direct, study)}
    for limit in limits:
        if limit.way is None:
            ways[limit.case] = ours.way(ours.direct, study, checked=True)
        else:
            of_it = replace(study, ordered=limit.ordered, foreign=limit.foreign)
            ways[limit.case] = least.way(getattr(least, limit.way), of_it)
            ways[f"{limit.case} {_OURS}"] = ours.way(getattr(ours, limit.way), of_it)
    return ways


def _rows(limit: _Limit, study: Study, turns: Mapping[str, Sequence[Turn]]) -> Iterator[Row]:
    row = partial(rate, limit.case, files=study.files, megabytes=limit.megabytes)
    limited, direct = turns[limit.case], turns[_DIRECT]
    if limit.way is None:
        yield row(limit.what, limited, direct, against=_DIRECT)
        return
    yield row(f"{limit.what}, {_LEAST}", limited, direct, against=_DIRECT)
    yield row(f"{limit.what}, {_OURS}", turns[f"{limit.case} {_OURS}"], limited, against=_LEAST)


GROUPS: Final = tuple(
    Group(tuple(limit.case for limit in limits), measure)
    for limits, measure in (
        (_CT, _measure_ct),
        (_APART, _measure_apart),
        (_MR, _measure_mr),
        (_LARGE, _measure_large),
    )
)
