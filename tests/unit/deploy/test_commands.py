"""The commands behind make: what is wrong with a call is said in words, with status 1 or 2, before anything starts."""

import asyncio
import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import jwt
import pytest

from deploy.local import __main__ as cli
from deploy.local.keys import AUDIENCE
from deploy.local.people import USERS
from deploy.local.ports import free_ports
from deploy.local.process import PartError

PORT_SETTINGS = ("ENVOY_PORT", "ENVOY_ADMIN_PORT", "TAG_SERVICE_PORT", "PACS_GATEWAY_PORT", "ORTHANC_PORT")


class NoStack:
    """Stands where a stack would be started."""

    def __init__(self, *_args: object, **_settings: object) -> None:
        pass

    async def __aenter__(self) -> Self:
        """Says that everything before the start was right."""
        raise PartError("this is where the stack starts")

    async def __aexit__(self, *_error: object) -> None:
        """Does nothing."""


@pytest.fixture(autouse=True)
def _away_from_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State goes to a folder of the test's, ports are free ones, and no stack is started."""
    monkeypatch.setattr(cli, "STATE", tmp_path / ".run")
    monkeypatch.setattr(cli, "Stack", NoStack)
    ports = free_ports()
    for setting in PORT_SETTINGS:
        monkeypatch.setenv(setting, str(getattr(ports, setting.removesuffix("_PORT").lower())))
    for name in ("DATABASE_URL", "ORTHANC_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def port_in_use() -> Iterator[str]:
    """A port that another process listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield str(other.getsockname()[1])


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of the command."""
    monkeypatch.setattr("sys.argv", ["deploy.local", *arguments])
    return cli.main()


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.role)
def test_token_prints_the_token_alone(
    user: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """TOKEN=$(make -s token ROLE=...) holds a token for the user with that role, and nothing else."""
    assert run(monkeypatch, "token", "--role", user.role) == 0
    printed = capsys.readouterr().out
    assert printed == f"{printed.strip()}\n"
    assert jwt.decode(printed.strip(), options={"verify_signature": False})["sub"] == user.id


def test_a_broken_key_is_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A development key that cannot be read gives status 1 and no token."""
    (tmp_path / ".run" / "keys").mkdir(parents=True)
    (tmp_path / ".run" / "keys" / "development.pem").write_text("no key")
    assert run(monkeypatch, "token") == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert "delete the file" in printed.err


def test_a_user_is_added_to_no_database_but_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make user` without DATABASE_URL gives status 1 and says so."""
    assert run(monkeypatch, "user", "--role", "admin") == 1
    assert "DATABASE_URL is not set" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [(), ("fly",), ("token", "--role", "nurse"), ("up", "--fast")])
def test_a_command_line_that_makes_no_sense_is_refused(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown commands, options and roles give status 2 and the usage."""
    with pytest.raises(SystemExit) as exit_:
        run(monkeypatch, *arguments)
    assert exit_.value.code == 2
    assert "usage: python -m deploy.local" in capsys.readouterr().err


@pytest.mark.parametrize("setting", PORT_SETTINGS)
@pytest.mark.parametrize("value", ["", "0", "65536", "-1", "http", "80.5"])
def test_a_port_that_is_none_is_refused(
    setting: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting that is no port number gives status 1 and its name."""
    monkeypatch.setenv(setting, value)
    assert run(monkeypatch, "up") == 1
    assert f"{setting} is no port: {value}" in capsys.readouterr().err


def test_two_parts_on_one_port_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two settings with the same port give status 1 and both their names."""
    monkeypatch.setenv("ORTHANC_PORT", os.environ["ENVOY_PORT"])
    assert run(monkeypatch, "up") == 1
    assert "ENVOY_PORT and ORTHANC_PORT are both" in capsys.readouterr().err


@pytest.mark.parametrize("setting", PORT_SETTINGS)
def test_a_port_in_use_is_refused(
    setting: str, port_in_use: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port that another process has gives status 1, the port, and the setting that changes it."""
    monkeypatch.setenv(setting, port_in_use)
    assert run(monkeypatch, "up") == 1
    told = capsys.readouterr().err
    assert f"needs port {port_in_use}" in told
    assert f"set {setting} to another port" in told


def test_the_port_of_an_orthanc_that_exists_may_be_in_use(
    port_in_use: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ORTHANC_URL no Orthanc is started, so its port does not matter."""
    monkeypatch.setenv("ORTHANC_PORT", port_in_use)
    monkeypatch.setenv("ORTHANC_URL", f"http://127.0.0.1:{port_in_use}")
    assert run(monkeypatch, "up") == 1
    assert capsys.readouterr().err == "\nthis is where the stack starts\n"


def test_a_second_stack_on_the_same_state_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While one `make up` runs, another one says so; once it has ended, the next one goes on."""
    (tmp_path / ".run").mkdir()
    with (tmp_path / ".run" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(monkeypatch, "up") == 1
        assert "is up already" in capsys.readouterr().err
    assert run(monkeypatch, "up") == 1
    assert "this is where the stack starts" in capsys.readouterr().err


def test_another_state_is_another_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --state, `up` runs beside the stack in .run/, and `token` signs with the key that lies there."""
    (tmp_path / ".run").mkdir()
    with (tmp_path / ".run" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(monkeypatch, "up", "--state", str(tmp_path / "other")) == 1
    assert "this is where the stack starts" in capsys.readouterr().err
    assert run(monkeypatch, "token", "--state", str(tmp_path / "other")) == 0
    token = capsys.readouterr().out.strip()
    (jwk,) = jwt.PyJWKSet.from_json((tmp_path / "other" / "keys" / "jwks.json").read_text()).keys
    assert jwt.decode(token, jwk, algorithms=["ES256"], audience=AUDIENCE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_what_runs_and_waits_for_its_end(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first signal starts the stopping, a second one does not break it off."""
    steps = []

    async def work() -> int:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(30)
        finally:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.1)
            steps.append("stopped in order")
        return 1

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        assert asyncio.run(cli._until_signal(work(), status=130)) == 130
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert steps == ["stopped in order"]
    assert capsys.readouterr().out == "\nStopping ...\nStopped.\n"


@pytest.mark.parametrize("number", ["0", "1"])
def test_what_ends_by_itself_keeps_its_status(number: str) -> None:
    """Without a signal the status is that of the work."""

    async def work() -> int:
        return int(number)

    assert asyncio.run(cli._until_signal(work(), status=130)) == int(number)
