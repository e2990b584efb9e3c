"""Reading the tags of files of 0.5 MB: through Envoy against the endpoint that is often written, and over gRPC."""

import json
from collections.abc import AsyncIterator
from typing import Final

from bench.case import Finding, Group, Row, at_least
from bench.clients.bare_grpc import BareGrpcLoad
from bench.clients.grpc_client import Call
from bench.clients.http import HttpLoad, Request
from bench.files import File, Whose, ct_slices
from bench.lab import Lab
from bench.references.process import Reference, reference
from bench.rounds import Turn, in_turns, median_seconds, speed_ratio
from deploy.local.stack import Stack
from ris.tags.v1 import tag_service_pb2

FILES: Final = 400
CONNECTIONS: Final = 8
ROUNDS: Final = 5
_PATIENT: Final = "BENCH-READ"
_WRONG: Final = "the tags are others than those of the file"


async def _measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Finding]:
    stack = await lab.stack()
    files = ct_slices().study(FILES, Whose(_PATIENT), series=2)
    async with reference("bench.references.naive") as naive:
        ways = {
            "naive": lambda: _naive(lab, naive, files),
            "http": lambda: _http(lab, stack, files),
            "grpc": lambda: _grpc(lab, stack, files),
        }
        turns = await in_turns(ways, rounds=lab.rounds(ROUNDS))
    rate = {name: FILES / median_seconds(taken) for name, taken in turns.items()}
    for case, what, ours, theirs, bar, against in (
        (
            "read-tags-http",
            "ReadTags of 0.53 MB, HTTP through Envoy",
            "http",
            "naive",
            at_least(2.5),
            "FastAPI, pydicom",
        ),
        ("read-tags-grpc", "ReadTags of 0.53 MB, gRPC, early stop", "grpc", "http", at_least(2), "ours over HTTP"),
    ):
        if case in wanted:
            ratio = speed_ratio(turns[ours], turns[theirs])
            yield Row(case, what, rate[ours], "files/s", reference=rate[theirs], ratio=ratio, bar=bar, against=against)


async def _naive(lab: Lab, naive: Reference, files: list[File]) -> Turn:
    requests = tuple(Request("/read-tags", (), (file,), field="file") for file in files)
    turn, answers = await lab.timed(HttpLoad(naive.port, requests, CONNECTIONS))
    assert all(json.loads(one.body)["PatientID"] == _PATIENT for one in answers), _WRONG
    return turn


async def _http(lab: Lab, stack: Stack, files: list[File]) -> Turn:
    headers = (f"Authorization: Bearer {stack.token()}",)
    requests = tuple(Request("/api/v1/dicom/read-tags", headers, (file,), field="file") for file in files)
    turn, answers = await lab.timed(HttpLoad(stack.ports.envoy, requests, CONNECTIONS))
    assert all(json.loads(one.body)["tags"]["PatientID"] == _PATIENT for one in answers), _WRONG
    return turn


async def _grpc(lab: Lab, stack: Stack, files: list[File]) -> Turn:
    calls = tuple(Call((file,), tag_service_pb2.ReadTagsRequest()) for file in files)
    method = "/ris.tags.v1.TagService/ReadTags"
    turn, answers = await lab.timed(BareGrpcLoad(stack.ports.tag_service, method, calls, stack.token(), CONNECTIONS))
    tags = [tag_service_pb2.ReadTagsResponse.FromString(one.messages[0]).tags for one in answers]
    assert all(one.dicom_patient_id == _PATIENT for one in tags), _WRONG
    return turn


GROUPS: Final = (Group(("read-tags-http", "read-tags-grpc"), _measure),)
