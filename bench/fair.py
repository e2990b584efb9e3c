"""How long reading the tags of a small file takes while another client has worst-case headers read, over and over."""

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
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
    alone, beside = [], []
    for _ in range(ROUNDS):
        alone.append(_p99(_times(read, CALLS)))
        with _heavy_calls(stack, method, heavy):
            beside.append(_p99(_times(read, CALLS)))
    quiet, busy = statistics.median(alone), statistics.median(beside)
    report.show("p99 of a small ReadTags, alone", quiet * 1000, "ms")
    report.show(f"p99 beside {method} of {ELEMENTS} elements", busy * 1000, "ms")
    report.at_most("ratio", busy / quiet, 5)


def _times(call: Callable[[], None], count: int) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return times


def _p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


@contextmanager
def _heavy_calls(stack: Stack, method: str, path: Path) -> Iterator[None]:
    """Another client, a process of its own, that makes heavy calls one after the other."""
    context = multiprocessing.get_context("spawn")
    began = context.Event()
    arguments = (stack.tag_service_target, token_of(stack), method, path, began)
    client = context.Process(target=_call_for_ever, args=arguments, daemon=True)
    client.start()
    try:
        assert began.wait(60), f"{method} fails"
        yield
        assert client.is_alive(), f"{method} fails"
    finally:
        client.terminate()
        client.join()


def _call_for_ever(target: str, metadata: tuple[tuple[str, str], ...], method: str, path: Path, began: Event) -> None:
    call = getattr(tag_service_pb2_grpc.TagServiceStub(channel_to(target)), method)
    request = getattr(tag_service_pb2, f"{method}Request")
    while True:
        messages = to_modify(path, "BENCH-1") if method == "ModifyTags" else (request(file=p) for p in pieces_of(path))
        try:
            answer = call(messages, metadata=metadata)
            for _ in answer if method == "ModifyTags" else ():
                pass
        except grpc.RpcError as error:
            # All attributes of such a file make too large an answer, which takes as long to find out.
            if not (isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.INVALID_ARGUMENT):
                raise
        began.set()
