"""What is told of processes, and that pinning leaves nothing behind."""

import os
import subprocess
import sys
import threading
import time

from bench import machine

SPINS = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"


def test_the_time_of_children_counts() -> None:
    """What a child took of the processor is told of its parent, also when the child has ended."""
    before = machine.cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", SPINS], check=True)
    assert machine.cpu_seconds(os.getpid()) - before > 0.25


def test_a_peak_is_forgotten() -> None:
    """After forgetting, the peak of a process is about what it holds, whatever it held before."""
    held = bytearray(64 * 1024 * 1024)
    held[::4096] = b"x" * len(held[::4096])
    del held
    machine.forget_peak(os.getpid())
    resident, peak = machine.memory_kib(os.getpid())
    assert peak - resident < 32 * 1024


def test_pinning_is_undone() -> None:
    """While pinned, a process and its child run where they are told; afterwards where they could, new threads too."""
    before = os.sched_getaffinity(0)
    first, second = min(before), max(before)
    go = threading.Event()
    late = threading.Thread(target=go.wait)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        try:
            with machine.pinned({os.getpid(): second, child.pid: first}):
                assert os.sched_getaffinity(0) == {second}
                assert os.sched_getaffinity(child.pid) == {first}
                late.start()
                time.sleep(0.01)
                assert os.sched_getaffinity(late.native_id) == {second}
            assert os.sched_getaffinity(0) == os.sched_getaffinity(child.pid) == before
            assert os.sched_getaffinity(late.native_id) == before
        finally:
            go.set()
            late.join()
            child.communicate(b"\n")
