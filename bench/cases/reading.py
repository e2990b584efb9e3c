"""Reading the tags of files of 0.5 MB: through Envoy against the endpoint that is often written, and over gRPC.

What the least service makes in place of ours, which does nothing but read, is what there is to be had.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from bench.case import Bar, Finding, Group, at_least
from bench.clients.bare_grpc import BareGrpcLoad
from bench.clients.grpc_client import PIECE_BYTES, Call
from bench.clients.http import HttpLoad, Request
from bench.files import File, Whose, ct_slices
from bench.lab import Lab
from bench.rates import rate
from bench.references.envoy import in_front
from bench.references.process import Reference, reference
from bench.rounds import Turn, Way, in_turns
from deploy.local.stack import Stack
from ris.tags.v1 import tag_service_pb2

FILES: Final = 400
PATIENT: Final = "BENCH-READ"
CONNECTIONS: Final = 8
ROUNDS: Final = 5
_WRONG: Final = "the tags are others than those of the file"
_LEAST: Final = "the least service"
# As much as most headers are, and so the size of messages for a client who wants no more of a file.
_HEADER_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Pair:
    """A line: a way, and the one that it is held against."""

    case: str
    what: str
    ours: str
    theirs: str
    against: str
    bar: Bar | None = None


_PAIRS: Final = (
    _Pair(
        "read-tags-http",
        "ReadTags of 0.53 MB, HTTP through Envoy",
        "http",
        "naive",
        "FastAPI, pydicom",
        at_least(2.5),
    ),
    _Pair(
        "read-tags-http",
        "the same, the client takes an early end",
        "http early",
        "naive",
        "FastAPI, pydicom",
        at_least(2.5),
    ),
    _Pair("read-tags-grpc", "ReadTags of 0.53 MB, gRPC, early stop", "grpc", "http", "ours over HTTP", at_least(2)),
    _Pair("read-tags-grpc", "the same in messages of 256 KiB", "grpc large", "http", "ours over HTTP", at_least(2)),
    _Pair("least-read-tags-http", f"the same over HTTP, {_LEAST}", "least http", "naive", "FastAPI, pydicom"),
    _Pair("least-read-tags-http", "the same over HTTP, ours", "http", "least http", _LEAST),
    _Pair("least-read-tags-grpc", f"the same over gRPC, {_LEAST}", "least grpc", "least http", f"{_LEAST} over HTTP"),
    _Pair("least-read-tags-grpc", "the same over gRPC, ours", "grpc", "least grpc", _LEAST),
)


async def _measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Finding]:
    stack = await lab.stack()
    files = ct_slices().study(FILES, Whose(PATIENT), series=2)
    pairs = [pair for pair in _PAIRS if pair.case in wanted]
    needed = {name for pair in pairs for name in (pair.ours, pair.theirs)}
    async with AsyncExitStack() as resources:
        ways = await _ways(lab, stack, files, resources)
        chosen = {name: way for name, way in ways.items() if name in needed}
        turns = await in_turns(chosen, rounds=lab.rounds(ROUNDS))
    for pair in pairs:
        ours, theirs = turns[pair.ours], turns[pair.theirs]
        yield rate(pair.case, pair.what, ours, theirs, files=FILES, against=pair.against, bar=pair.bar)


async def _ways(lab: Lab, stack: Stack, files: list[File], resources: AsyncExitStack) -> Mapping[str, Way]:
    """All ways; the servers that they need go with `resources`."""
    naive = await resources.enter_async_context(reference("bench.references.naive"))
    least = await resources.enter_async_context(reference("bench.references.least.reading"))
    envoy, envoy_pid = await resources.enter_async_context(in_front(stack, tag_service=least.port))
    for name, pid in (("naive", naive.pid), (_LEAST, least.pid), ("its envoy", envoy_pid)):
        lab.besides[name] = pid
        resources.callback(lab.besides.pop, name)
    token = stack.token()
    return {
        "naive": lambda: _naive(lab, naive, files),
        "http": lambda: _http(lab, stack.ports.envoy, token, files),
        "http early": lambda: _http(lab, stack.ports.envoy, token, files, "x-takes-early-end: 1"),
        "grpc": lambda: _grpc(lab, stack.ports.tag_service, token, files),
        "grpc large": lambda: _grpc(lab, stack.ports.tag_service, token, files, PIECE_BYTES),
        "least http": lambda: _http(lab, envoy, token, files),
        "least grpc": lambda: _grpc(lab, least.port, token, files),
    }


async def _naive(lab: Lab, naive: Reference, files: list[File]) -> Turn:
    requests = tuple(Request("/read-tags", (), (file,), field="file") for file in files)
    turn, answers = await lab.timed(HttpLoad(naive.port, requests, CONNECTIONS))
    assert all(json.loads(one.body)["PatientID"] == PATIENT for one in answers), _WRONG
    return turn


async def _http(lab: Lab, port: int, token: str, files: list[File], *more: str) -> Turn:
    headers = (f"Authorization: Bearer {token}", *more)
    requests = tuple(Request("/api/v1/dicom/read-tags", headers, (file,), field="file") for file in files)
    turn, answers = await lab.timed(HttpLoad(port, requests, CONNECTIONS))
    assert all(json.loads(one.body)["tags"]["PatientID"] == PATIENT for one in answers), _WRONG
    return turn


async def _grpc(lab: Lab, port: int, token: str, files: list[File], piece_bytes: int = _HEADER_BYTES) -> Turn:
    calls = tuple(Call((file,), tag_service_pb2.ReadTagsRequest(), piece_bytes) for file in files)
    method = "/ris.tags.v1.TagService/ReadTags"
    turn, answers = await lab.timed(BareGrpcLoad(port, method, calls, token, CONNECTIONS))
    tags = [tag_service_pb2.ReadTagsResponse.FromString(one.messages[0]).tags for one in answers]
    assert all(one.dicom_patient_id == PATIENT for one in tags), _WRONG
    return turn


GROUPS: Final = (Group(tuple(dict.fromkeys(pair.case for pair in _PAIRS)), _measure),)
