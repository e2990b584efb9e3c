"""How long reading the tags of a small file takes while another client has worst-case headers read, over and over."""

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final

import grpc

from bench.case import Finding, Group, Row, at_most
from bench.clients.sync_grpc import channel_to, pieces_of, to_modify, to_read, token_of
from bench.files import memory_folder, write_long_header
from bench.lab import Lab
from deploy.local.stack import Stack
from ris.tags.v1 import tag_service_pb2, tag_service_pb2_grpc
from tests.files import fresh_file

ELEMENTS = 990_000
ROUNDS = 5
CALLS = 300
_WARM_UP = 50
_HEAVY_METHODS = ("ReadTags", "ReadAllTags", "ValidateFile", "ModifyTags")


async def _measure(lab: Lab, _wanted: frozenset[str]) -> AsyncIterator[Finding]:
    """The 99th percentile of a small file's time, alone and beside each kind of heavy call."""
    stack = await lab.stack()
    with memory_folder() as folder:
        small, heavy = folder / "small.dcm", folder / "heavy.dcm"
        small.write_bytes(fresh_file().content)
        write_long_header(heavy, ELEMENTS)
        with channel_to(stack.tag_service_target) as channel:
            stub = tag_service_pb2_grpc.TagServiceStub(channel)
            metadata = token_of(stack)

            def read() -> None:
                stub.ReadTags(to_read(small), metadata=metadata, timeout=60)

            _times(read, _WARM_UP)
            for method in _HEAVY_METHODS:
                yield await asyncio.to_thread(_compare, stack, read, method, heavy, rounds=lab.rounds(ROUNDS))


def _compare(stack: Stack, read: Callable[[], None], method: str, heavy: Path, *, rounds: int) -> Row:
    alone, beside = [], []
    for _ in range(rounds):
        alone.append(_p99(_times(read, CALLS)))
        with _heavy_calls(stack, method, heavy):
            beside.append(_p99(_times(read, CALLS)))
    quiet, busy = (statistics.median(times) * 1000 for times in (alone, beside))
    what = f"p99 of a small ReadTags beside {method}"
    return Row("fair", what, busy, "ms", reference=quiet, bar=at_most(5), against="alone")


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


GROUPS: Final = (Group(("fair",), _measure),)
