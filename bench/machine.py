"""What the kernel tells of processes, and on which cores they run."""

import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0))


def cpu_model() -> str:
    """What the processor calls itself."""
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def cpu_seconds(pid: int) -> float:
    """The time of the processors that a process and its children took so far; it is told in hundredths of a second."""
    stats = _stats()
    return sum(stats[one].ticks for one in _tree(pid, stats)) / _TICKS


def memory_kib(pid: int) -> tuple[int, int]:
    """The resident memory of a process and its children, and the sum of their peaks, in KiB."""
    resident = peak = 0
    for one in _tree(pid, _stats()):
        with suppress(OSError, KeyError):
            lines = dict(line.split(":", 1) for line in (_PROC / str(one) / "status").read_text().splitlines())
            resident += int(lines["VmRSS"].split()[0])
            peak += int(lines["VmHWM"].split()[0])
    return resident, peak


def forget_peak(pid: int) -> None:
    """Has the peak of a process and its children begin anew at what they hold now (proc(5), clear_refs)."""
    for one in _tree(pid, _stats()):
        with suppress(OSError):
            (_PROC / str(one) / "clear_refs").write_text("5")


def listeners(port: int) -> int:
    """How many sockets listen on the port: one a worker (proc(5), /proc/net/tcp; 0A is LISTEN)."""
    lines = [line.split() for table in ("tcp", "tcp6") for line in (_PROC / "net" / table).read_text().splitlines()]
    return sum(line[3] == "0A" and line[1].endswith(f":{port:04X}") for line in lines)


@contextmanager
def pinned(cores_of: Mapping[int, int]) -> Iterator[None]:
    """Keeps processes (pid), with their children and all their threads, on one core each (a number), for a while. Of a
    process and a child of it that are both named, the child comes last.
    """
    stats = _stats()
    before: dict[int, set[int]] = {}
    try:
        for pid, core in cores_of.items():
            for thread in _threads(_tree(pid, stats)):
                with suppress(ProcessLookupError):
                    before.setdefault(thread, os.sched_getaffinity(thread))
                    os.sched_setaffinity(thread, {core})
        yield
    finally:
        for thread, allowed in before.items():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, allowed)
        # Threads and children that came to be meanwhile have it from those that made them.
        everywhere = set.union(*before.values()) if before else set()
        stats = _stats()
        for thread in _threads(one for pid in cores_of if pid in stats for one in _tree(pid, stats)):
            if thread not in before:
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(thread, everywhere)


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    ticks: int


def _stats() -> Mapping[int, _Stat]:
    """Every process. proc(5): behind the name come the state, the parent, and as 12th to 15th field from there the time
    in user and kernel mode, its own and that of children that it waited for.
    """
    stats = {}
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                stats[int(folder.name)] = _Stat(int(fields[1]), sum(map(int, fields[11:15])))
    return stats


def _tree(pid: int, stats: Mapping[int, _Stat]) -> Iterable[int]:
    found = [pid]
    for one in found:
        found += [child for child, stat in stats.items() if stat.parent == one]
    return found


def _threads(pids: Iterable[int]) -> Iterator[int]:
    for pid in pids:
        with suppress(OSError):
            yield from [int(task.name) for task in (_PROC / str(pid) / "task").iterdir()]
