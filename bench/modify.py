"""Editing a file of 500 MB over gRPC: against a bare echo of the same messages, dcmodify and pydicom."""

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from bench import report
from bench.calls import LARGE_FILES, channel_to, memory_of, to_modify, token_of
from bench.echo import METHOD, echo
from bench.samples import MIB, memory_folder, write_image
from bench.timing import in_turns
from deploy.local.stack import Stack
from ris.tags.v1 import tag_service_pb2, tag_service_pb2_grpc

PIXEL_BYTES = 500 * MIB
ROUNDS = 5
PATIENT_ID = "BENCH-1"
PYDICOM = f"import sys, pydicom; f = pydicom.dcmread(sys.argv[1]); f.PatientID = {PATIENT_ID!r}; f.save_as(sys.argv[2])"


async def run() -> None:
    """Prints each way's throughput, ours against theirs, and what memory each took."""
    with memory_folder() as folder:
        async with (
            Stack(folder / "stack", parts=("tag_service",), settings={"tag_service": LARGE_FILES}) as stack,
            echo() as echo_address,
        ):
            await _compare(stack, echo_address, folder)


async def _compare(stack: Stack, echo_address: str, folder: Path) -> None:
    source, edited, copy = folder / "in.dcm", folder / "out.dcm", folder / "copy.dcm"
    write_image(source, PIXEL_BYTES)
    shutil.copy(source, copy)
    megabytes = source.stat().st_size / 1e6
    idle, _ = memory_of(stack.pid("tag_service"))
    peaks: dict[str, int] = {}
    with channel_to(stack.tag_service_target) as channel, channel_to(echo_address) as echoes:
        stub = tag_service_pb2_grpc.TagServiceStub(channel)
        echo_call = echoes.stream_stream(
            METHOD,
            request_serializer=tag_service_pb2.ModifyTagsRequest.SerializeToString,
            response_deserializer=tag_service_pb2.ModifyTagsResponse.FromString,
        )

        def modify() -> Iterable[Any]:
            return stub.ModifyTags(to_modify(source, PATIENT_ID), metadata=token_of(stack))

        ways: dict[str, Callable[[], Awaitable[object]]] = {
            "ModifyTags": lambda: asyncio.to_thread(_save, modify, edited),
            "a bare echo": lambda: asyncio.to_thread(_save, lambda: echo_call(to_modify(source, PATIENT_ID)), edited),
        }
        # dcmodify edits in place.
        dcmodify = shutil.which("dcmodify")
        if dcmodify is not None:
            ways["dcmodify"] = lambda: _run(
                peaks, "dcmodify", dcmodify, "-nb", "-m", f"PatientID={PATIENT_ID}", str(copy)
            )
        taken = await in_turns(ways, rounds=ROUNDS)
    await _run(peaks, "pydicom", sys.executable, "-c", PYDICOM, str(source), str(edited))
    for name, seconds in taken.items():
        report.show(f"{name}, {megabytes:.0f} MB", megabytes / seconds, "MB/s")
    report.at_least("throughput of ModifyTags to that of the echo", taken["a bare echo"] / taken["ModifyTags"], 0.8)
    if dcmodify is not None:
        report.at_most("time of ModifyTags to that of dcmodify", taken["ModifyTags"] / taken["dcmodify"], 1)
        report.show("time of the echo to that of dcmodify", taken["a bare echo"] / taken["dcmodify"])
    else:
        print("dcmodify is not installed: Debian's package dcmtk has it")
    _, peak = memory_of(stack.pid("tag_service"))
    report.at_most("peak memory of tag_service above idle", (peak - idle) / 1024, 64, "MiB")
    for name, kib in peaks.items():
        report.show(f"peak memory of {name}", kib / 1024, "MiB")


def _save(call: Callable[[], Iterable[Any]], path: Path) -> None:
    with path.open("wb") as file:
        for message in call():
            file.write(message.file.data)


async def _run(peaks: dict[str, int], name: str, *command: str) -> None:
    """Runs a command to its end and notes its peak memory."""

    def work() -> int:
        pid = os.posix_spawn(command[0], command, os.environ)
        _, status, usage = os.wait4(pid, 0)
        assert status == 0, f"{name} failed"
        return usage.ru_maxrss

    peaks[name] = max(peaks.get(name, 0), await asyncio.to_thread(work))
