"""Files judged by one process a core, each file within a time: what hangs is ended, what dies is started again."""

import multiprocessing
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final

from conformance.differences import Difference, Kind
from conformance.judging import Judgement, judge

# As a fork of a process that has threads is not safe, each begins anew.
_CONTEXT: Final = multiprocessing.get_context("spawn")
_POLL_SECONDS: Final = 0.5


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    connection: Connection
    is_ready: bool = False
    path: Path | None = None
    deadline: float = 0.0


def judge_all(paths: Iterable[Path], *, processes: int, seconds: float) -> Iterator[tuple[Path, Judgement]]:
    """Each file with what was found about it, in the order in which they are done."""
    waiting = iter(paths)
    workers = [_start() for _ in range(processes)]
    try:
        for worker in workers:
            _give(worker, waiting, seconds)
        while any(worker.path for worker in workers):
            ready = wait([worker.connection for worker in workers if worker.path], timeout=_POLL_SECONDS)
            for number, worker in enumerate(workers):
                if worker.path is None:
                    continue
                if worker.connection in ready:
                    judgement, is_alive = _taken(worker)
                elif time.monotonic() > worker.deadline:
                    judgement, is_alive = Judgement(differences=[Difference(Kind.TIMEOUT)]), False
                else:
                    continue
                yield worker.path, judgement
                if not is_alive:
                    _end(worker)
                    worker = workers[number] = _start()  # noqa: PLW2901 - it takes the other's place
                _give(worker, waiting, seconds)
    finally:
        for worker in workers:
            _end(worker)


def _start() -> _Worker:
    ours, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_work, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _give(worker: _Worker, waiting: Iterator[Path], seconds: float) -> None:
    worker.path = next(waiting, None)
    if worker.path is not None:
        if not worker.is_ready:
            # Starting is no part of a file's time.
            worker.is_ready = bool(worker.connection.recv())
        worker.deadline = time.monotonic() + seconds
        worker.connection.send(worker.path)


def _taken(worker: _Worker) -> tuple[Judgement, bool]:
    """What the process found, and whether it lives."""
    try:
        judgement = worker.connection.recv()
    except (EOFError, OSError):
        return Judgement(differences=[Difference(Kind.CRASH)]), False
    assert isinstance(judgement, Judgement)
    return judgement, True


def _end(worker: _Worker) -> None:
    worker.connection.close()
    worker.process.kill()
    worker.process.join()
    worker.process.close()


def _work(connection: Connection) -> None:
    """What a process does: says that it is ready, and judges what it is given, until nobody gives anything."""
    connection.send(True)  # noqa: FBT003 - a message
    while True:
        try:
            path = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            judgement = judge(path)
        except OSError:
            judgement = Judgement(outcomes={"file": "cannot be opened"})
        except Exception as error:  # noqa: BLE001 - the comparison's own defects must not pass for anything else
            judgement = Judgement(differences=[Difference(Kind.COMPARER, type(error).__name__)])
        connection.send(judgement)
