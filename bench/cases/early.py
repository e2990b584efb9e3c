"""Reading the tags of a file of 500 MB against one of 1 MB, which is to take as long: gRPC, and JSON over HTTP/1.1.

How much the server takes in is counted on its connection: bytes that a client, or Envoy, got rid of until it had the
answer. With what is still in the sockets' buffers that is more than the server read, never less.
"""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from bench.case import Bar, Finding, Group, Row, at_most
from bench.clients.sync_grpc import LARGE_FILES, channel_to, to_read, token_of
from bench.files import MIB, memory_folder, write_image
from bench.lab import Lab
from bench.references.relay import Relay, relay
from bench.rounds import in_turns, median_seconds, seconds_of
from deploy.local.stack import Stack
from ris.tags.v1 import tag_service_pb2_grpc

SIZES = {"1 MB": MIB, "500 MB": 500 * MIB}
ROUNDS = 41
COUNTED = 30
# Bytes that are neither the file nor a matter of its size: HTTP/2, gRPC, the token.
_OVERHEAD_BYTES = 16 * 1024
_TIME_BAR: Final = at_most(1.3)


async def _measure(lab: Lab, _wanted: frozenset[str]) -> AsyncIterator[Finding]:
    """The times, and what the server took in behind the header. The stack is one of its own, for Envoy's is turned
    elsewhere in the middle.
    """
    with memory_folder() as folder:
        files = {name: folder / f"{size}.dcm" for name, size in SIZES.items()}
        header_bytes = max(write_image(path, SIZES[name]) for name, path in files.items())
        settings = {"tag_service": LARGE_FILES}
        async with Stack(folder / "stack", parts=("tag_service", "envoy"), settings=settings) as stack:
            rounds, early, plain = lab.rounds(ROUNDS), _http(stack, takes_early_end=True), _http(stack)
            yield await _time("gRPC", files, _grpc(stack, stack.tag_service_target), rounds=rounds)
            yield await _time("gRPC through Envoy", files, _grpc(stack, stack.envoy_target), rounds=rounds)
            yield await _time("HTTP through Envoy, x-takes-early-end", files, early, rounds=rounds)
            yield await _time("HTTP through Envoy, without", files, plain, rounds=min(rounds, 5), bar=None)
            for what, most in (await _most_taken_in(stack, files["500 MB"])).items():
                yield Row(
                    "early", f"taken in behind the header, {what}", (most - header_bytes) / MIB, "MiB", bar=at_most(1)
                )


async def _time(
    what: str, files: Mapping[str, Path], read: Callable[[Path], None], *, rounds: int, bar: Bar | None = _TIME_BAR
) -> Row:
    def way(path: Path) -> Callable[[], Awaitable[None]]:
        async def once() -> None:
            read(path)  # blocks: nothing else is to run here meanwhile

        return once

    turns = await in_turns({name: seconds_of(way(path)) for name, path in files.items()}, rounds=rounds)
    ours, theirs = (median_seconds(turns[name]) * 1000 for name in ("500 MB", "1 MB"))
    return Row("early", f"ReadTags of 500 MB, {what}", ours, "ms", reference=theirs, bar=bar, against="of 1 MB")


def _grpc(stack: Stack, target: str) -> Callable[[Path], None]:
    stub = tag_service_pb2_grpc.TagServiceStub(channel_to(target))
    metadata = token_of(stack)

    def read(path: Path) -> None:
        assert stub.ReadTags(to_read(path), metadata=metadata, timeout=60).tags.sop_instance_uid

    return read


def _http(stack: Stack, *, takes_early_end: bool = False) -> Callable[[Path], None]:
    headers = [f"Authorization: Bearer {stack.token()}", "Content-Type: application/dicom", "Expect:"]
    if takes_early_end:
        headers.append("x-takes-early-end: 1")
    url = f"{stack.base_url}/api/v1/dicom/read-tags"
    command = ["curl", "-sS", "-X", "POST", *(part for header in headers for part in ("-H", header)), url]

    def read(path: Path) -> None:
        done = subprocess.run([*command, "-T", str(path)], capture_output=True, check=True)  # noqa: S603 - our own
        assert json.loads(done.stdout)["tags"]["SOPInstanceUID"], done.stdout

    return read


async def _most_taken_in(stack: Stack, path: Path) -> Mapping[str, int]:
    """The most bytes that the server was sent of the file, the header among them."""
    async with relay(stack.tag_service_target) as counting:
        most = {"gRPC": await _most_sent(counting, _grpc(stack, counting.address), path)}
        await stack.restart("envoy", TAG_SERVICE_PORT=str(counting.port))
        most["gRPC through Envoy"] = await _most_sent(counting, _grpc(stack, stack.envoy_target), path)
        most["HTTP through Envoy"] = await _most_sent(counting, _http(stack, takes_early_end=True), path)
    return most


async def _most_sent(counting: Relay, read: Callable[[Path], None], path: Path) -> int:
    """The most that one of several calls sent."""
    most = 0
    for _ in range(COUNTED):
        before = counting.sent_bytes
        await asyncio.to_thread(read, path)
        await asyncio.sleep(0.05)
        most = max(most, counting.sent_bytes - before - _OVERHEAD_BYTES)
    return most


GROUPS: Final = (Group(("early",), _measure),)
