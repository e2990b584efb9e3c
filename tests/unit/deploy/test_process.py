"""Children of the runner: they end when they are told to, and with the runner however it ends."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.local import process
from deploy.local.process import ROOT, Child, PartError, python, python_environment, run_to_end

SLEEP = ("sleep", "600")
# Tells its process ids, leaves a grandchild in its group, and waits.
FAMILY = ("sh", "-c", "sleep 600 & echo $$ $!; wait")
DEAF = ("sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.1; done")


def lives(pid: int) -> bool:
    """Whether the process is there and has not ended: a zombie that nobody waits for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def ended_soon(pid: int) -> bool:
    """Whether the process ends within a few seconds."""
    deadline = time.monotonic() + 10
    while lives(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


async def told_pids(child: Child) -> list[int]:
    """The process ids that the child prints first."""

    async def told() -> bool:
        return child.log.read_text().endswith("\n")

    await child.wait_until(told, seconds=10)
    return [int(word) for word in child.log.read_text().split()]


async def test_a_child_that_is_stopped_takes_its_group_along(tmp_path: Path) -> None:
    """Stopping a child ends also what it started."""
    child = Child("family", tmp_path / "log")
    await child.start(FAMILY, env=os.environ)
    pids = await told_pids(child)
    assert len(pids) == 2
    assert all(lives(pid) for pid in pids)
    await child.stop()
    assert all(ended_soon(pid) for pid in pids)
    assert not child.running


async def test_a_child_gets_its_own_signal_and_time_to_end(tmp_path: Path) -> None:
    """The signal that the child was made with comes first, and what it does then is waited for."""
    child = Child("tidy", tmp_path / "log", stop_signal=signal.SIGINT)
    await child.start(
        ("sh", "-c", "trap 'sleep 0.3; echo tidied; exit' INT; echo $$; while :; do sleep 0.05; done"), env=os.environ
    )
    await told_pids(child)
    await child.stop()
    assert child.log.read_text().endswith("tidied\n")


async def test_a_child_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that ignores its signal is gone after the grace, and stopping it is no error."""
    monkeypatch.setattr(process, "_GRACE_SECONDS", 0.2)
    child = Child("deaf", tmp_path / "log")
    await child.start(DEAF, env=os.environ)
    (pid,) = await told_pids(child)
    await child.stop()
    assert ended_soon(pid)


async def test_stopping_twice_and_before_the_start_does_nothing(tmp_path: Path) -> None:
    """A child that does not run can be stopped, and started later."""
    child = Child("sleeper", tmp_path / "log")
    await child.stop()
    await child.start(SLEEP, env=os.environ)
    assert child.running
    await child.stop()
    await child.stop()
    assert not child.running


def test_a_child_dies_with_a_runner_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL gives the runner no time to stop anything; the kernel ends the children for it."""
    runner = f"""
import asyncio, os
from pathlib import Path
from deploy.local.process import Child

async def run():
    child = Child("orphan", Path({str(tmp_path / "log")!r}))
    await child.start(("sh", "-c", "echo $$; exec sleep 600"), env=os.environ)
    await child.ended()

asyncio.run(run())
"""
    with subprocess.Popen([sys.executable, "-c", runner], cwd=ROOT) as parent:
        try:
            deadline = time.monotonic() + 20
            while not (tmp_path / "log").exists() or not (tmp_path / "log").read_text().endswith("\n"):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            pid = int((tmp_path / "log").read_text())
            assert lives(pid)
        finally:
            parent.kill()
    assert ended_soon(pid)


async def test_a_child_that_ends_while_it_starts_shows_its_log(tmp_path: Path) -> None:
    """The error holds the path of the log and its last lines, and no more than those."""

    async def never() -> bool:
        return False

    child = Child("chatty", tmp_path / "log")
    await child.start(("sh", "-c", "seq 1 1000; exit 3"), env=os.environ)
    with pytest.raises(PartError, match="chatty ended while it started") as caught:
        await child.wait_until(never, seconds=10)
    await child.stop()
    lines = str(caught.value).splitlines()
    assert lines[1] == f"--- the end of {tmp_path / 'log'}"
    assert lines[2:] == [str(number) for number in range(981, 1001)]


async def test_a_child_that_is_never_ready_is_not_waited_for_ever(tmp_path: Path) -> None:
    """The time is limited, and the error says how long it was."""

    async def never() -> bool:
        return False

    child = Child("slow", tmp_path / "log")
    await child.start(SLEEP, env=os.environ)
    with pytest.raises(PartError, match="slow was not ready after 0 s"):
        await child.wait_until(never, seconds=0.2)
    await child.stop()


async def test_a_command_that_fails_says_so_with_its_log(tmp_path: Path) -> None:
    """A step that ends with another status than 0 is an error with what it printed."""
    with pytest.raises(PartError, match=r"(?s)step failed with status 7.*it hurts"):
        await run_to_end("step", ("sh", "-c", "echo it hurts; exit 7"), log=tmp_path / "log", env=os.environ)


async def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """A step has a deadline, after which nothing of it is left."""
    with pytest.raises(PartError, match="step did not end within 0 s"):
        await run_to_end("step", FAMILY, log=tmp_path / "log", env=os.environ, seconds=0.4)
    assert all(ended_soon(int(pid)) for pid in (tmp_path / "log").read_text().split())


async def test_a_command_whose_runner_is_cancelled_is_ended(tmp_path: Path) -> None:
    """Ctrl-C during a step leaves nothing of it."""
    log = tmp_path / "log"
    step = asyncio.create_task(run_to_end("step", FAMILY, log=log, env=os.environ))
    async with asyncio.timeout(10):
        while not log.exists() or not log.read_text().endswith("\n"):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert all(ended_soon(int(pid)) for pid in log.read_text().split())


async def test_python_children_find_the_services_and_the_generated_code(tmp_path: Path) -> None:
    """A Python child imports this project and its generated code from any folder, with the runner's interpreter."""
    command = python(
        "-c", "import service_runtime, ris.errors.v1.error_reason_pb2; print(__import__('os').environ['MORE'])"
    )
    await run_to_end("python", command, log=tmp_path / "log", env=python_environment({"MORE": "than before"}))
    assert (tmp_path / "log").read_text() == "than before\n"
