"""How long reading the tags of a small file takes while another client has worst-case headers read, over and over."""

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import grpc

from bench import report
from bench.calls import channel_to, pieces_of, to_modify, to_read, token_of
from bench.samples import memory_folder, write_long_header
from deploy.local.stack import Stack
from ris.tags.v1 import tag_service_pb2, tag_service_pb2_grpc
from tests.files import fresh_file

ELEMENTS = 990_000
ROUNDS = 5
CALLS = 300
_WARM_UP = 50
_HEAVY_METHODS = ("ReadTags", "ReadAllTags", "ValidateFile", "ModifyTags")


async def run() -> None:
    """Prints the 99th percentile of a small file's time, alone and beside each kind of heavy call."""
    with memory_folder() as folder:
        small, heavy = folder / "small.dcm", folder / "heavy.dcm"
        small.write_bytes(fresh_file().content)
        write_long_header(heavy, ELEMENTS)
        async with Stack(folder / "stack", parts=("tag_service",)) as stack:
            stub = tag_service_pb2_grpc.TagServiceStub(channel_to(stack.tag_service_target))
            metadata = token_of(stack)

            def read() -> None:
                stub.ReadTags(to_read(small), metadata=metadata, timeout=60)

            _times(read, _WARM_UP)
            for method in _HEAVY_METHODS:
                await asyncio.to_thread(_compare, stack, read, method, heavy)


def _compare(stack: Stack, read: Callable[[], None], method: str, heavy: Path) -> None:
    quiet, busy, rates = [], [], []
    for _ in range(ROUNDS):
        quiet.append(_p99(_times(read, CALLS)))
        with _heavy_calls(stack, method, heavy) as count:
            began, before = time.perf_counter(), count()
            busy.append(_p99(_times(read, CALLS)))
            rates.append((count() - before) / (time.perf_counter() - began))
    alone, beside = _median(quiet), _median(busy)
    report.show("p99 of a small ReadTags, alone", alone * 1000, "ms")
    report.show(f"p99 beside {method} of {ELEMENTS} elements", beside * 1000, "ms")
    report.show(f"such {method} a second", _median(rates), "/s")
    report.at_most("ratio", beside / alone, 5)


def _times(call: Callable[[], None], count: int) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return times


def _p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


@contextmanager
def _heavy_calls(stack: Stack, method: str, path: Path) -> Iterator[Callable[[], int]]:
    """Another client, a process of its own, that makes heavy calls one after the other; how many it has made."""
    context = multiprocessing.get_context("spawn")
    count = context.Value("q", 0)
    arguments = (stack.tag_service_target, token_of(stack), method, path, count)
    client = context.Process(target=_call_for_ever, args=arguments, daemon=True)
    client.start()
    try:
        while not count.value:
            time.sleep(0.05)
            assert client.is_alive(), f"{method} fails"
        yield lambda: int(count.value)
    finally:
        client.terminate()
        client.join()


def _call_for_ever(
    target: str, metadata: tuple[tuple[str, str], ...], method: str, path: Path, count: "Synchronized[int]"
) -> None:
    call = getattr(tag_service_pb2_grpc.TagServiceStub(channel_to(target)), method)
    request = getattr(tag_service_pb2, f"{method}Request")
    while True:
        messages = to_modify(path, "BENCH-1") if method == "ModifyTags" else (request(file=p) for p in pieces_of(path))
        try:
            answer = call(messages, metadata=metadata)
            if method == "ModifyTags":
                for _ in answer:
                    pass
        except grpc.RpcError as error:
            # All attributes of such a file make too large an answer, which takes as long to find out.
            if not (isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.INVALID_ARGUMENT):
                raise
        with count.get_lock():
            count.value += 1
