"""Uploads against the same files posted to the same Orthanc: the rates, and the time of the processors for a file."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench import machine
from bench.case import Bar, Failure, Finding, Group, Row, at_least, at_most
from bench.files import ct_slices, small_mr
from bench.lab import SERVICES, Lab
from bench.rates import rate
from bench.rounds import Turn, Way, cpu_of, in_turns
from bench.uploading import Study, Uploading

CT_FILES: Final = 400
MR_FILES: Final = 2000
ROUNDS: Final = 3
_DIRECT: Final = "direct POST, 8 connections"


@dataclass(frozen=True, slots=True)
class _Rate:
    """A case that is a rate of files."""

    case: str
    what: str
    bar: Bar | None


@dataclass(frozen=True, slots=True)
class _Cost:
    """A case that is the time of processors that parts take for a file, to what Orthanc takes for one posted to it."""

    case: str
    what: str
    # The rate that it is of.
    of: str
    parts: Sequence[str]
    bar: Bar


_CT: Final = (
    _Rate("upload-grpc", "400 CT, gRPC, 8 Uploads at a time", at_least(0.65)),
    _Rate("upload-grpc-library", "the same, the client with grpc.aio", None),
    _Rate("upload-grpc-streams", "400 CT, gRPC, 8 UploadMultiple", at_least(0.65)),
    _Rate("upload-order", "400 CT for an order, gRPC", at_least(0.65)),
    _Rate("upload-coerce", "400 CT, COERCE on each, gRPC", at_least(0.50)),
    _Rate("upload-http", "400 CT, HTTP through Envoy, 8 forms at a time", at_least(0.60)),
    _Rate("upload-http-multiple", "400 CT, HTTP through Envoy, one form", at_least(0.60)),
    # The reference is to be the fastest.
    _Rate("direct-4", "400 CT, direct POST, 4 connections", None),
    _Rate("direct-16", "400 CT, direct POST, 16 connections", None),
)
_COSTS: Final = (
    _Cost("cpu-grpc", "CPU of the services for a CT, gRPC", "upload-grpc", SERVICES, at_most(0.50)),
    _Cost("cpu-http", "CPU of services and Envoy, HTTP", "upload-http", (*SERVICES, "envoy"), at_most(0.65)),
)
_APART: Final = (_Rate("upload-apart", "400 CT, gRPC, Orthanc on a core of its own", at_least(0.85)),)
_MR: Final = (
    _Rate("upload-mr", "2,000 MR of 10 kB, gRPC, 8 Uploads at a time", at_least(0.50)),
    _Rate("upload-mr-streams", "2,000 MR of 10 kB, gRPC, 8 UploadMultiple", at_least(0.50)),
)


async def _measure_ct(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Finding]:
    uploading = Uploading(lab, await lab.stack())
    plain = Study(ct_slices(), CT_FILES, series=2)
    ordered, foreign = (Study(plain.sample, CT_FILES, series=2, ordered=one, foreign=not one) for one in (True, False))
    ways = {
        "upload-grpc": uploading.way(uploading.over_grpc, plain),
        "upload-grpc-library": uploading.way(uploading.over_grpc, plain, library=True),
        "upload-grpc-streams": uploading.way(uploading.over_grpc_streams, plain),
        "upload-order": uploading.way(uploading.over_grpc, ordered),
        "upload-coerce": uploading.way(uploading.over_grpc, foreign),
        "upload-http": uploading.way(uploading.over_http, plain),
        "upload-http-multiple": uploading.way(uploading.over_http_at_once, plain),
        "direct-4": uploading.way(uploading.direct, plain, connections=4),
        "direct-16": uploading.way(uploading.direct, plain, connections=16),
    }
    needed = wanted | {cost.of for cost in _COSTS if cost.case in wanted}
    direct = uploading.way(uploading.direct, plain)
    turns = await _turns(lab, {name: way for name, way in ways.items() if name in needed}, direct)
    for one in _CT:
        if one.case in wanted:
            yield _rate(one, CT_FILES, turns)
    for cost in _COSTS:
        if cost.case in wanted:
            yield _cost(cost, CT_FILES, turns)


async def _measure_apart(lab: Lab, _wanted: frozenset[str]) -> AsyncIterator[Finding]:
    if machine.cores() < 2:
        yield Failure(_APART[0].case, "there is one core only", skipped=True)
        return
    uploading = Uploading(lab, await lab.stack())
    study = Study(ct_slices(), CT_FILES, series=2)
    await lab.client()
    with lab.orthanc_apart():
        ways = {_APART[0].case: uploading.way(uploading.over_grpc, study)}
        turns = await _turns(lab, ways, uploading.way(uploading.direct, study))
    yield _rate(_APART[0], CT_FILES, turns)


async def _measure_mr(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Finding]:
    uploading = Uploading(lab, await lab.stack())
    study = Study(small_mr(), MR_FILES, series=4)
    ways = {
        "upload-mr": uploading.way(uploading.over_grpc, study),
        "upload-mr-streams": uploading.way(uploading.over_grpc_streams, study),
    }
    chosen = {name: way for name, way in ways.items() if name in wanted}
    turns = await _turns(lab, chosen, uploading.way(uploading.direct, study))
    for one in _MR:
        if one.case in wanted:
            yield _rate(one, MR_FILES, turns)


async def _turns(lab: Lab, ways: Mapping[str, Way], direct: Way) -> Mapping[str, Sequence[Turn]]:
    return await in_turns({_DIRECT: direct, **ways}, rounds=lab.rounds(ROUNDS))


def _rate(one: _Rate, files: int, turns: Mapping[str, Sequence[Turn]]) -> Row:
    return rate(one.case, one.what, turns[one.case], turns[_DIRECT], files=files, against=_DIRECT, bar=one.bar)


def _cost(cost: _Cost, files: int, turns: Mapping[str, Sequence[Turn]]) -> Row:
    ours, direct = turns[cost.of], turns[_DIRECT]
    taken = cpu_of(ours, *cost.parts)
    return Row(
        cost.case,
        cost.what,
        taken / files * 1000,
        "ms",
        reference=cpu_of(direct, "orthanc") / files * 1000,
        bar=cost.bar,
        against="Orthanc, direct POST",
        # The gateway has Orthanc check what it stored, which it need not where nobody asks.
        note=f"{taken / cpu_of(ours, 'orthanc'):.2f} of what Orthanc took meanwhile",
    )


GROUPS: Final = (
    Group((*(one.case for one in _CT), *(cost.case for cost in _COSTS)), _measure_ct),
    Group((_APART[0].case,), _measure_apart),
    Group(tuple(one.case for one in _MR), _measure_mr),
)
