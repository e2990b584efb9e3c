"""A client as a process: it makes its requests ready, then sends them all, timed."""

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol


class Load(Protocol):
    """What a client is to do; it is pickled on its way into the process."""

    def prepare(self) -> Callable[[], Sequence[Any]]:
        """Makes everything ready; what is given back does the work, and gives the answers, in order."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a load took, in seconds, and what came of it."""

    seconds: float
    cpu_seconds: float
    answers: Sequence[Any]


class Client:
    """A process that takes one load after the other."""

    def __init__(self, connection: Connection, pid: int) -> None:
        self.pid = pid
        self._connection = connection

    async def prepare(self, load: Load) -> None:
        """Has the client make the load ready. What fails in the client is raised here."""
        await self._ask(load)

    async def run(self) -> Done:
        """Has the client do what it was prepared for."""
        done = await self._ask(None)
        assert isinstance(done, Done)
        return done

    async def _ask(self, load: Load | None) -> object:
        def talk() -> object:
            self._connection.send(load)
            return self._connection.recv()

        answer = await asyncio.to_thread(talk)
        if isinstance(answer, BaseException):
            raise answer
        return answer


@asynccontextmanager
async def client() -> AsyncIterator[Client]:
    """A client, which ends with this context, and with this process however that ends."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Client(ours, process.pid or 0)
    finally:
        process.kill()  # it holds nothing that would have to be put away
        ours.close()
        await asyncio.to_thread(process.join)


def _serve(connection: Connection) -> None:
    work: Callable[[], Sequence[Any]] | None = None
    while True:
        try:
            load = connection.recv()
        except EOFError:
            return
        try:
            if load is not None:
                work = load.prepare()
                connection.send(None)
            elif work is not None:
                connection.send(_timed(work))
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who asked is to know
            connection.send(RuntimeError(f"a client failed: {error!r}"))


def _timed(work: Callable[[], Sequence[Any]]) -> Done:
    began, cpu_began = time.perf_counter(), time.process_time()
    answers = work()
    return Done(time.perf_counter() - began, time.process_time() - cpu_began, answers)
