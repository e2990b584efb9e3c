"""Child processes that cannot outlive the runner, however it ends.

Each child leads a process group of its own, so a Ctrl-C at the terminal reaches only the runner, which then stops its
children one by one. Should the runner be killed outright, the kernel tells the children (PR_SET_PDEATHSIG). `setpriv`
of util-linux, which every Debian has, sets that up: it needs no code of ours between fork and exec.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
TAIL_LINES = 20
_POLL_SECONDS = 0.05
_GRACE_SECONDS = 40


class PartError(Exception):
    """A part of the stack could not be started, or died; the message says which, why, and what to do."""


def launcher(stop_signal: signal.Signals, *options: str) -> list[str]:
    """The words to put before a command so that it gets `stop_signal` when the runner dies."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    return [setpriv, *options, "--pdeathsig", stop_signal.name.removeprefix("SIG"), "--"]


def python_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The runner's environment with `extra`, in which the services and the generated code can be imported."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "generated")))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **extra}


class Child:
    """One long-running process, what it prints going to `log`."""

    def __init__(self, name: str, log: Path, *, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        if self._process is None:
            raise PartError(f"{self.name} does not run.")
        return self._process.pid

    async def start(
        self, command: Sequence[str], *, env: Mapping[str, str], launch_options: Sequence[str] = ()
    ) -> None:
        """Starts the process; `launch_options` go to setpriv."""
        with self._open_log() as log:
            self._process = await asyncio.create_subprocess_exec(
                *launcher(self._stop_signal, *launch_options),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                env=dict(env),
                cwd=ROOT,
            )

    async def wait_until(self, ready: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
        """Returns once `ready` says so. Raises PartError when the process ends first or the time is over."""
        deadline = time.monotonic() + seconds
        while not await ready():
            if not self.running:
                raise PartError(f"{self.name} ended while it started.\n{self.tail()}")
            if time.monotonic() > deadline:
                raise PartError(f"{self.name} was not ready after {seconds:.0f} s.\n{self.tail()}")
            await asyncio.sleep(_POLL_SECONDS)

    async def ended(self) -> int:
        """Waits for the end; the exit status, negative for a signal."""
        return 0 if self._process is None else await self._process.wait()

    async def stop(self) -> None:
        """Asks the process to end, and at last ends what is left of its group. Does nothing where nothing runs."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(self._stop_signal)
        try:
            await asyncio.wait_for(process.wait(), _GRACE_SECONDS)
        except TimeoutError:
            pass  # it does not listen, and is ended below
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def tail(self) -> str:
        """The last lines of the log, under the log's path."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"--- the end of {self.log}", *lines[-TAIL_LINES:]])

    def _open_log(self) -> IO[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        return self.log.open("ab")


async def run_to_end(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    launch_options: Sequence[str] = (),
    seconds: float = 120,
) -> None:
    """Runs a command to its end. Raises PartError with the end of its log where it fails or takes too long."""
    child = Child(name, log)
    await child.start(command, env=env, launch_options=launch_options)
    try:
        status = await asyncio.wait_for(child.ended(), seconds)
    except TimeoutError:
        raise PartError(f"{name} did not end within {seconds:.0f} s.\n{child.tail()}") from None
    finally:
        await child.stop()
    if status != 0:
        raise PartError(f"{name} failed with status {status}.\n{child.tail()}")


def python(*arguments: str) -> list[str]:
    """The command line of a Python program of this project."""
    return [sys.executable, *arguments]
