"""Other ways beside ours, to no bar: they tell where the time goes, and what else there is to send with."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from bench.case import Failure, Finding, Group, Row
from bench.clients.bare_grpc import BareGrpcLoad
from bench.clients.grpc_client import Call
from bench.clients.http import HttpLoad, Request
from bench.files import File, Whose, ct_slices, memory_folder
from bench.lab import Lab, dicom_address
from bench.references.echo import SINK
from bench.references.envoy import passing_on
from bench.references.process import reference
from bench.rounds import Turn, Way, in_turns, median_seconds, speed_ratio
from bench.uploading import CONNECTIONS, Study, Uploading
from deploy.local.people import CT_PATIENT
from deploy.local.stack import Stack
from ris.pacs.v1 import upload_service_pb2

FILES: Final = 400
ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class _Pair:
    """Our way to upload, and another that it stands beside."""

    case: str
    what: str
    ours: str
    against: str
    # The command that it needs.
    command: str | None = None


_PAIRS: Final = (
    _Pair("beside-dcmsend", "400 CT, gRPC", "grpc", "dcmsend into Orthanc", "dcmsend"),
    _Pair("beside-storescu", "400 CT, gRPC", "grpc", "storescu into Orthanc", "storescu"),
    _Pair("beside-modify", "400 CT, COERCE on each, gRPC", "coerce", "direct POST, then Orthanc's /modify"),
    _Pair("beside-sink", "400 CT, gRPC", "grpc", "bare gRPC that reads and forgets"),
    _Pair("beside-envoy", "400 CT, HTTP through Envoy", "http", "Envoy before a server that reads and forgets"),
)


async def _measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Finding]:
    pairs = []
    for pair in _PAIRS:
        if pair.case in wanted and pair.command is not None and shutil.which(pair.command) is None:
            yield Failure(pair.case, f"{pair.command} is not installed: Debian's package dcmtk has it", skipped=True)
        elif pair.case in wanted:
            pairs.append(pair)
    if not pairs:
        return
    async with AsyncExitStack() as resources:
        others = _Others(lab, await lab.stack())
        ways: dict[str, Way] = {pair.case: await others.way(pair.case, resources) for pair in pairs}
        ways |= {pair.ours: others.ours(pair.ours) for pair in pairs}
        turns = await in_turns(ways, rounds=lab.rounds(ROUNDS))
    for pair in pairs:
        yield _row(pair, turns)


def _row(pair: _Pair, turns: Mapping[str, Sequence[Turn]]) -> Row:
    ours, theirs = turns[pair.ours], turns[pair.case]
    rate, reference_rate = FILES / median_seconds(ours), FILES / median_seconds(theirs)
    ratio = speed_ratio(ours, theirs)
    return Row(pair.case, pair.what, rate, "files/s", reference=reference_rate, ratio=ratio, against=pair.against)


class _Others:
    """The other ways."""

    def __init__(self, lab: Lab, stack: Stack) -> None:
        self._lab = lab
        self._stack = stack
        self._uploading = Uploading(lab, stack)
        self._study = Study(ct_slices(), FILES, series=2)
        self._foreign = Study(self._study.sample, FILES, series=2, foreign=True)

    def ours(self, name: str) -> Way:
        """One of ours."""
        uploading = self._uploading
        return {
            "grpc": uploading.way(uploading.over_grpc, self._study),
            "coerce": uploading.way(uploading.over_grpc, self._foreign),
            "http": uploading.way(uploading.over_http, self._study),
        }[name]

    async def way(self, case: str, resources: AsyncExitStack) -> Way:
        """The other way of a case; what it needs goes with `resources`."""
        if case == "beside-sink":
            sink = await resources.enter_async_context(reference("bench.references.echo"))
            return lambda: self._sink(sink.port)
        if case == "beside-envoy":
            behind = await resources.enter_async_context(reference("bench.references.http_sink"))
            port = await resources.enter_async_context(passing_on(self._stack, behind.port))
            return lambda: self._forms(port)
        if case == "beside-modify":
            return self._modified
        folder = resources.enter_context(memory_folder())
        # A whole folder, in one association, as modalities send.
        command = ("dcmsend", "+sd") if case == "beside-dcmsend" else ("storescu", "+sd")
        return lambda: self._sent(command, folder)

    async def _sink(self, port: int) -> Turn:
        calls = tuple(Call((file,), upload_service_pb2.UploadRequest()) for file in self._files())
        turn, _ = await self._lab.timed(BareGrpcLoad(port, SINK, calls, self._stack.token(), CONNECTIONS))
        return turn

    async def _forms(self, port: int) -> Turn:
        requests = tuple(Request("/", (), (file,), field="file") for file in self._files())
        turn, answers = await self._lab.timed(HttpLoad(port, requests, CONNECTIONS))
        assert all(answer.status == 200 for answer in answers), "what was sent did not come through"
        return turn

    async def _modified(self) -> Turn:
        """Stores a study, and has Orthanc make it the patient's. Orthanc 1.10 does that for whole patients only."""
        seconds = 0.0

        async def modify(orthanc: httpx.AsyncClient, study: str) -> str:
            nonlocal seconds
            patient = (await orthanc.get(f"/studies/{study}")).raise_for_status().json()["ParentPatient"]
            change = {"Replace": {"PatientID": CT_PATIENT.mrn}, "Force": True, "KeepSource": False}
            began = time.perf_counter()
            answer = await orthanc.post(f"/patients/{patient}/modify", json=change, timeout=120)
            seconds = time.perf_counter() - began
            return str(answer.raise_for_status().json()["Path"])

        turn = await self._uploading.direct(self._foreign, then=modify)
        return Turn(turn.seconds + seconds)

    async def _sent(self, command: tuple[str, ...], folder: Path) -> Turn:
        """Sends the files with a command of DCMTK's."""
        files = self._files()
        for number, file in enumerate(files):
            (folder / f"{number}.dcm").write_bytes(b"".join(file.parts))
        words = [*command, *dicom_address(self._lab), str(folder)]
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(*words, env=os.environ)
        assert await process.wait() == 0, f"{command[0]} failed"
        turn = Turn(time.perf_counter() - began)
        await self._uploading.delete(files[0].study_uid)
        return turn

    def _files(self) -> list[File]:
        return self._study.sample.study(FILES, Whose(CT_PATIENT.mrn), series=2)


GROUPS: Final = (Group(tuple(pair.case for pair in _PAIRS), _measure),)
