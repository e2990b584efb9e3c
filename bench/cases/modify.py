"""Editing a file of 500 MB over gRPC: against a bare echo of the same messages, dcmodify and pydicom."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

from bench import machine
from bench.case import Failure, Finding, Group, Row, at_least, at_most
from bench.clients.sync_grpc import channel_to, to_modify, token_of
from bench.files import MIB, memory_folder, write_image
from bench.lab import Lab
from bench.references.echo import ECHO
from bench.references.process import reference
from bench.rounds import in_turns, median_seconds, seconds_of
from deploy.local.stack import Stack
from ris.tags.v1 import tag_service_pb2, tag_service_pb2_grpc

PIXEL_BYTES: Final = 500 * MIB
ROUNDS: Final = 5
PATIENT_ID: Final = "BENCH-1"
PYDICOM: Final = (
    f"import sys, pydicom; f = pydicom.dcmread(sys.argv[1]); f.PatientID = {PATIENT_ID!r}; f.save_as(sys.argv[2])"
)


async def _measure(lab: Lab, _wanted: frozenset[str]) -> AsyncIterator[Finding]:
    """Each way's throughput, and what memory each took."""
    stack = await lab.stack()
    await stack.restart("tag_service")  # which is idle then, and nothing else
    idle, _ = machine.memory_kib(stack.pid("tag_service"))
    with memory_folder() as folder:
        source, edited, copy = folder / "in.dcm", folder / "out.dcm", folder / "copy.dcm"
        write_image(source, PIXEL_BYTES)
        shutil.copy(source, copy)
        megabytes = source.stat().st_size / 1e6
        peaks: dict[str, int] = {}
        async with reference("bench.references.echo") as echo:
            ways = _ways(stack, echo.address, source, edited)
            # dcmodify edits in place.
            dcmodify = shutil.which("dcmodify")
            if dcmodify is not None:
                command = (dcmodify, "-nb", "-m", f"PatientID={PATIENT_ID}", str(copy))
                ways["dcmodify"] = lambda: _run(peaks, "dcmodify", *command)
            turns = await in_turns({name: seconds_of(way) for name, way in ways.items()}, rounds=lab.rounds(ROUNDS))
        await _run(peaks, "pydicom", sys.executable, "-c", PYDICOM, str(source), str(edited))
    speeds = {name: megabytes / median_seconds(taken) for name, taken in turns.items()}
    what, ours, bare = "ModifyTags of 500 MB", speeds["ours"], speeds["echo"]
    yield Row("modify", what, ours, "MB/s", reference=bare, bar=at_least(0.8), against="a bare echo")
    if dcmodify is not None:
        theirs = speeds["dcmodify"]
        yield Row("modify", what, ours, "MB/s", reference=theirs, bar=at_least(1), against="dcmodify")
        yield Row("modify", "a bare echo of 500 MB", bare, "MB/s", reference=theirs, against="dcmodify")
    else:
        yield Failure("modify", "dcmodify is not installed: Debian's package dcmtk has it", skipped=True)
    _, peak = machine.memory_kib(stack.pid("tag_service"))
    note = ", ".join(f"{name} takes {kib / 1024:.0f} MiB" for name, kib in peaks.items())
    yield Row("modify", "memory of tag_service above idle", (peak - idle) / 1024, "MiB", bar=at_most(64), note=note)


def _ways(stack: Stack, echo_address: str, source: Path, edited: Path) -> dict[str, Callable[[], Awaitable[object]]]:
    """Ours and the echo, by the same client."""

    def modify() -> None:
        with channel_to(stack.tag_service_target) as channel:
            stub = tag_service_pb2_grpc.TagServiceStub(channel)
            _save(stub.ModifyTags(to_modify(source, PATIENT_ID), metadata=token_of(stack)), edited)

    def bare() -> None:
        with channel_to(echo_address) as channel:
            call = channel.stream_stream(
                ECHO,
                request_serializer=tag_service_pb2.ModifyTagsRequest.SerializeToString,
                response_deserializer=tag_service_pb2.ModifyTagsResponse.FromString,
            )
            _save(call(to_modify(source, PATIENT_ID)), edited)

    return {"ours": lambda: asyncio.to_thread(modify), "echo": lambda: asyncio.to_thread(bare)}


def _save(answer: Iterable[Any], path: Path) -> None:
    with path.open("wb") as file:
        for message in answer:
            file.write(message.file.data)


async def _run(peaks: dict[str, int], name: str, *command: str) -> None:
    """Runs a command to its end and notes its peak memory."""

    def work() -> int:
        pid = os.posix_spawn(command[0], command, os.environ)
        _, status, usage = os.wait4(pid, 0)
        assert status == 0, f"{name} failed"
        return usage.ru_maxrss

    peaks[name] = max(peaks.get(name, 0), await asyncio.to_thread(work))


GROUPS: Final = (Group(("modify",), _measure),)
