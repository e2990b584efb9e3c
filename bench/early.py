"""Reading the tags of a file of 500 MB against one of 1 MB, which is to take as long: gRPC, and JSON over HTTP/1.1.

How much the server takes in is counted on its connection: bytes that a client, or Envoy, got rid of until it had the
answer. With what is still in the sockets' buffers that is more than the server read, never less.
"""

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench import report
from bench.calls import LARGE_FILES, channel_to, to_read, token_of
from bench.relay import Relay, relay
from bench.samples import MIB, memory_folder, write_image
from bench.timing import in_turns
from deploy.local.stack import Stack
from ris.tags.v1 import tag_service_pb2_grpc

SIZES = {"1 MB": MIB, "500 MB": 500 * MIB}
ROUNDS = 41
COUNTED = 30
# Bytes that are neither the file nor a matter of its size: HTTP/2, gRPC, the token.
_OVERHEAD_BYTES = 16 * 1024


async def run() -> None:
    """Prints the times, their ratios, and what the server took in behind the header."""
    with memory_folder() as folder:
        files = {name: folder / f"{size}.dcm" for name, size in SIZES.items()}
        header_bytes = max(write_image(path, SIZES[name]) for name, path in files.items())
        settings = {"tag_service": LARGE_FILES}
        async with Stack(folder / "stack", parts=("tag_service", "envoy"), settings=settings) as stack:
            await _time("gRPC", files, _grpc(stack, stack.tag_service_target), bar=1.3)
            await _time("gRPC through Envoy", files, _grpc(stack, stack.envoy_target), bar=1.3)
            await _time("HTTP through Envoy, x-takes-early-end", files, _http(stack, takes_early_end=True), bar=1.3)
            await _time("HTTP through Envoy, without", files, _http(stack, takes_early_end=False), bar=None)
            await _count(stack, files["500 MB"], header_bytes)


async def _time(what: str, files: dict[str, Path], read: Callable[[Path], None], *, bar: float | None) -> None:
    def way(path: Path) -> Callable[[], Awaitable[None]]:
        async def once() -> None:
            read(path)  # blocks: nothing else is to run here meanwhile

        return once

    taken = await in_turns({name: way(path) for name, path in files.items()}, rounds=ROUNDS if bar else 5)
    for name, seconds in taken.items():
        report.show(f"{what}: {name}", seconds * 1000, "ms")
    ratio = taken["500 MB"] / taken["1 MB"]
    if bar is None:
        report.show(f"{what}: ratio", ratio)
    else:
        report.at_most(f"{what}: ratio", ratio, bar)


def _grpc(stack: Stack, target: str) -> Callable[[Path], None]:
    stub = tag_service_pb2_grpc.TagServiceStub(channel_to(target))
    metadata = token_of(stack)

    def read(path: Path) -> None:
        assert stub.ReadTags(to_read(path), metadata=metadata, timeout=60).tags.sop_instance_uid

    return read


def _http(stack: Stack, *, takes_early_end: bool) -> Callable[[Path], None]:
    headers = [f"Authorization: Bearer {stack.token()}", "Content-Type: application/dicom", "Expect:"]
    if takes_early_end:
        headers.append("x-takes-early-end: 1")
    url = f"{stack.base_url}/api/v1/dicom/read-tags"
    command = ["curl", "-sS", "-X", "POST", *(part for header in headers for part in ("-H", header)), url]

    def read(path: Path) -> None:
        done = subprocess.run([*command, "-T", str(path)], capture_output=True, check=True)  # noqa: S603 - our own
        assert json.loads(done.stdout)["tags"]["SOPInstanceUID"], done.stdout

    return read


async def _count(stack: Stack, path: Path, header_bytes: int) -> None:
    async with relay(stack.tag_service_target) as counting:
        most = await _most_sent(counting, _grpc(stack, counting.address), path)
        report.at_most("gRPC: taken in behind the header", (most - header_bytes) / MIB, 1, "MiB")
        await stack.restart("envoy", TAG_SERVICE_PORT=str(counting.port))
        for what, read in (
            ("gRPC through Envoy", _grpc(stack, stack.envoy_target)),
            ("HTTP through Envoy", _http(stack, takes_early_end=True)),
        ):
            most = await _most_sent(counting, read, path)
            report.at_most(f"{what}: taken in behind the header", (most - header_bytes) / MIB, 1, "MiB")


async def _most_sent(counting: Relay, read: Callable[[Path], None], path: Path) -> int:
    """The most that one of several calls sent."""
    most = 0
    for _ in range(COUNTED):
        before = counting.sent_bytes
        await asyncio.to_thread(read, path)
        await asyncio.sleep(0.05)
        most = max(most, counting.sent_bytes - before - _OVERHEAD_BYTES)
    return most
