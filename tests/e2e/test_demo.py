"""The two commands of the README, run as a newcomer runs them: they end well and leave no process behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from deploy.local.ports import Ports, free_ports
from deploy.local.process import ROOT
from deploy.local.stack import Stack


def command(*words: str) -> list[str]:
    """What the Makefile runs."""
    return [sys.executable, "-m", "deploy.local", *words]


def environment(**extra: str) -> dict[str, str]:
    """The environment of the Makefile, without what would point the stack at existing servers."""
    kept = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "ORTHANC_URL"}}
    return {**kept, "PYTHONPATH": f"{ROOT}:{ROOT / 'generated'}", "PYTHONUNBUFFERED": "1", **extra}


def processes_with(mark: str) -> list[str]:
    """The command lines of the processes whose environment holds the mark."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def test_the_demo_shows_the_main_job_and_leaves_nothing_behind() -> None:
    """`make demo` ends with success, shows every endpoint, and none of its processes is left."""
    mark = f"DEMO_TEST_{os.getpid()}_{time.monotonic_ns()}"
    done = subprocess.run(
        command("demo"), env=environment(MARK=mark), capture_output=True, text=True, check=False, timeout=110, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for shown in (
        "upload",
        "studies?",
        "read-tags",
        "modify-tags",
        "deidentify",
        "thumbnail/",
        "patient/",
        "upload-logs",
        "DELETE",
        "health",
    ):
        assert shown in done.stdout, shown
    assert processes_with(mark) == []


async def test_the_demo_leaves_servers_that_exist_as_they_were(tmp_path: Path) -> None:
    """`make demo` in an Orthanc that exists deletes all it stored there, and does without the database that exists."""
    async with Stack(tmp_path, parts=("orthanc",)) as stack:
        env = environment(
            ORTHANC_URL=stack.orthanc.url,
            ORTHANC_USERNAME=stack.orthanc.username,
            ORTHANC_PASSWORD=stack.orthanc.password,
            DATABASE_URL="postgresql://ris@127.0.0.1:1/nothing-here",
        )
        process = await asyncio.create_subprocess_exec(*command("demo"), env=env, stdout=-1, stderr=-2, cwd=ROOT)
        output, _ = await asyncio.wait_for(process.communicate(), 110)
        assert process.returncode == 0, output.decode()[-3000:]
        async with httpx.AsyncClient(auth=(stack.orthanc.username, stack.orthanc.password)) as orthanc:
            statistics = (await orthanc.get(f"{stack.orthanc.url}/statistics")).json()
    assert statistics["CountInstances"] == 0
    assert b"/api/v1/dicom/upload" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["up", "starting"])
def test_a_stack_that_is_told_to_stop_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, when: str) -> None:
    """Ctrl-C and SIGTERM end `make up`, in the middle of its start too, and no process of it is left."""
    mark = f"UP_TEST_{os.getpid()}_{time.monotonic_ns()}"
    ports: Ports = free_ports()
    settings = {
        "ENVOY_PORT": ports.envoy,
        "ENVOY_ADMIN_PORT": ports.envoy_admin,
        "TAG_SERVICE_PORT": ports.tag_service,
        "PACS_GATEWAY_PORT": ports.pacs_gateway,
        "ORTHANC_PORT": ports.orthanc,
    }
    env = environment(MARK=mark, **{name: str(port) for name, port in settings.items()})
    state = ("--state", str(tmp_path / "run"))
    words = command("up", *state)
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(words, env=env, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            if when == "up":
                url = f"http://127.0.0.1:{ports.envoy}/api/v1/dicom"
                wait_for_answer(f"{url}/health", process, seconds=60)
                # Whoever finds the door open is a user already.
                token = subprocess.check_output(command("token", *state), env=env, text=True, cwd=ROOT).strip()
                assert httpx.get(f"{url}/studies", headers={"Authorization": f"Bearer {token}"}).is_success
            else:
                time.sleep(1.5)
            assert process.poll() is None, (tmp_path / "out").read_text()
            process.send_signal(number)
            assert process.wait(timeout=60) == 0, (tmp_path / "out").read_text()
        finally:
            process.kill()
    assert processes_with(mark) == []


def wait_for_answer(url: str, process: subprocess.Popen[bytes], *, seconds: float) -> None:
    """Waits until the URL answers with success."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=2).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"no answer at {url}")
