"""The stack: what is there already is not started, and whatever happens, nothing is left behind."""

import asyncio
import os
from pathlib import Path

import pytest

from deploy.local.orthanc import OrthancServer
from deploy.local.process import Child, PartError
from deploy.local.stack import Existing, Keep, Stack


class Part:
    """A part of the stack that is a mere process: one that gets ready, never gets ready, or fails at first."""

    address = "nowhere"

    def __init__(self, name: str, folder: Path, *, ready: bool = True, failures: int = 0) -> None:
        self.name = name
        self.child = Child(name, folder / name)
        self.process: asyncio.subprocess.Process | None = None
        self.began = asyncio.Event()
        self._ready = ready
        self._failures = failures

    async def start(self) -> None:
        """Starts the process."""
        await self.child.start(("sleep", "600"), env=os.environ)
        self.process = self.child._process
        self.began.set()
        if self._failures:
            self._failures -= 1
            raise PartError(f"{self.name} failed")
        if not self._ready:
            await asyncio.Event().wait()

    async def stop(self) -> None:
        """Stops it."""
        await self.child.stop()

    @property
    def is_gone(self) -> bool:
        """Whether its process was started and has ended."""
        return self.process is not None and self.process.returncode is not None


def stack_of(folder: Path, *parts: Part) -> Stack:
    """A stack that starts these parts."""
    stack = Stack(folder / "stack", parts=[part.name for part in parts])
    stack._parts = {part.name: part for part in parts}
    return stack


async def test_everything_is_stopped_at_the_end(tmp_path: Path) -> None:
    """Leaving the stack ends every part."""
    parts = [Part("one", tmp_path), Part("two", tmp_path)]
    async with stack_of(tmp_path, *parts):
        assert not any(part.is_gone for part in parts)
    assert all(part.is_gone for part in parts)


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C while a part starts ends that part and those before it."""
    parts = [Part("one", tmp_path), Part("two", tmp_path, ready=False), Part("three", tmp_path)]
    entering = asyncio.create_task(stack_of(tmp_path, *parts).__aenter__())
    await asyncio.wait_for(parts[1].began.wait(), 10)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert [part.is_gone for part in parts] == [True, True, False]
    assert parts[2].process is None


async def test_a_part_that_fails_ends_the_start_and_the_others(tmp_path: Path) -> None:
    """A part that cannot be started is the error, and the parts before it are stopped."""
    parts = [Part("one", tmp_path), Part("two", tmp_path, failures=1)]
    with pytest.raises(PartError, match="two failed"):
        await stack_of(tmp_path, *parts).__aenter__()
    assert all(part.is_gone for part in parts)


async def test_a_part_that_failed_can_be_started_again(tmp_path: Path) -> None:
    """After a failure the next start is a real one."""
    part = Part("one", tmp_path, failures=1)
    stack = stack_of(tmp_path)
    stack._parts = {"one": part}
    async with stack:
        with pytest.raises(PartError, match="one failed"):
            await stack.start("one")
        assert part.is_gone
        await stack.start("one")
        assert part.child.running
    assert part.is_gone


async def test_a_part_that_will_not_stop_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error while one part is stopped is told after all the others were stopped too."""
    parts = [Part("one", tmp_path), Part("two", tmp_path), Part("three", tmp_path)]
    stop = parts[1].stop

    async def stop_badly() -> None:
        await stop()
        raise PartError("two would not stop")

    monkeypatch.setattr(parts[1], "stop", stop_badly)
    with pytest.raises(PartError, match="two would not stop"):
        async with stack_of(tmp_path, *parts):
            pass
    assert all(part.is_gone for part in parts)


async def test_a_part_that_dies_is_told_of_and_one_that_is_stopped_is_not(tmp_path: Path) -> None:
    """The runner learns which part ended by itself, with the end of its log."""
    parts = [Part("one", tmp_path), Part("two", tmp_path)]
    async with stack_of(tmp_path, *parts) as stack:
        await stack.stop("one")
        parts[1].process.kill()
        assert (await asyncio.wait_for(stack.death(), 10)).startswith("two ended with status -9.\n--- the end of")


async def test_a_stack_to_throw_away_leaves_its_logs_only(tmp_path: Path) -> None:
    """State and keys go, the logs stay; with `keep`, the keys stay too."""
    async with Stack(tmp_path / "thrown", parts=()) as stack:
        stack.log("x").parent.mkdir()
        stack.log("x").touch()
        assert (tmp_path / "thrown" / "keys").exists()
    assert [path.name for path in (tmp_path / "thrown").iterdir()] == ["logs"]
    async with Stack(tmp_path / "kept", parts=(), keep=Keep(tmp_path / "kept" / "keys")):
        pass
    assert (tmp_path / "kept" / "keys" / "development.pem").exists()


NOTHING = dict.fromkeys(("DATABASE_URL", "ORTHANC_URL", "ORTHANC_USERNAME", "ORTHANC_PASSWORD"))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Existing()),
        ({"DATABASE_URL": "", "ORTHANC_URL": ""}, Existing()),
        ({"DATABASE_URL": "postgresql://host/db"}, Existing(database_url="postgresql://host/db")),
        ({"ORTHANC_URL": "http://o:8042"}, Existing(orthanc=OrthancServer("http://o:8042", "", ""))),
        (
            {"ORTHANC_URL": "http://o:8042", "ORTHANC_USERNAME": "u", "ORTHANC_PASSWORD": "p"},
            Existing(orthanc=OrthancServer("http://o:8042", "u", "p")),
        ),
        ({"ORTHANC_USERNAME": "u", "ORTHANC_PASSWORD": "p"}, Existing()),
    ],
)
def test_existing_servers_come_from_the_environment(
    environment: dict[str, str], expected: Existing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the environment points at is used, and an empty variable points at nothing."""
    for name, value in (NOTHING | environment).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert Existing.from_environment() == expected


async def test_existing_servers_are_not_started(tmp_path: Path) -> None:
    """An existing database and Orthanc take the place of the stack's own, and their password is never printed."""
    existing = Existing("postgresql://host/db", OrthancServer("http://o:8042", "u", "secret"))
    async with Stack(tmp_path, parts=("postgres", "orthanc"), existing=existing) as stack:
        assert stack.database_url == "postgresql://host/db"
        assert stack.gateway_settings["ORTHANC_URL"] == "http://o:8042"
        assert stack.gateway_settings["ORTHANC_PASSWORD"] == "secret"
    assert not stack.log("postgres").exists()
    assert not stack.log("orthanc").exists()
    assert "secret" not in repr(existing)
