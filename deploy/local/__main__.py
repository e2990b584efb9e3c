"""The commands behind `make up`, `demo`, `token` and `user`: python -m deploy.local up | demo | token | user."""

import argparse
import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from dataclasses import fields
from pathlib import Path

from deploy.local.demo import DemoError, demonstrate, sample
from deploy.local.keys import development_key
from deploy.local.people import USERS, user_with_role
from deploy.local.ports import Ports, expect_free
from deploy.local.process import ROOT, PartError
from deploy.local.seed import add_user, seed
from deploy.local.stack import ALL_PARTS, Existing, Keep, Stack

STATE = ROOT / ".run"


def main() -> int:
    """Runs what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up_parser = commands.add_parser("up", help="run the stack in the foreground until Ctrl-C")
    commands.add_parser("demo", help="run a stack to throw away, show the main job on it, stop")
    token = commands.add_parser("token", help="print a token for a demo user")
    user = commands.add_parser("user", help="add a demo user to the database at DATABASE_URL")
    for command in (token, user):
        command.add_argument("--role", default="radiologist", choices=[each.role for each in USERS])
    for command in (up_parser, token, user):
        command.add_argument("--state", type=Path, default=STATE, help="the folder that is kept (default: .run)")
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "token":
                print(development_key(_keys(arguments.state)).sign(user_with_role(arguments.role).id))
                return 0
            case "user":
                return asyncio.run(add_demo_user(arguments.state, arguments.role))
            case "up":
                return asyncio.run(_until_signal(up(arguments.state), status=0))
            case _:
                # A demo that was broken off has shown nothing; 130 is what shells say of Ctrl-C.
                return asyncio.run(_until_signal(demo(), status=130))
    except (PartError, DemoError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


def _keys(state: Path) -> Path:
    return state / "keys"


async def up(state: Path) -> int:
    """Runs the stack with its state in a folder until it is told to stop, or a part dies."""
    ports = _ports_from_environment()
    existing = Existing.from_environment()
    with _only_one(state):
        for field in fields(ports):
            # An Orthanc that is there already has every right to its port.
            if field.name != "orthanc" or existing.orthanc is None:
                expect_free(field.name, getattr(ports, field.name), _port_setting(field.name))
        shutil.rmtree(state / "logs", ignore_errors=True)
        settings = {"envoy": {"CORS_ORIGINS": os.environ.get("CORS_ORIGINS", "http://localhost:3000")}}
        async with Stack(
            state,
            ports=ports,
            # The door opens last: who finds it open finds the demo's people there.
            parts=[part for part in ALL_PARTS if part != "envoy"],
            existing=existing,
            keep=Keep(_keys(state)),
            settings=settings,
            report=print,
        ) as stack:
            if existing.database_url is None:
                await seed(stack)
            await stack.start("envoy")
            print(_welcome(stack, seeded=existing.database_url is None), flush=True)
            raise PartError(await stack.death())


async def add_demo_user(state: Path, role: str) -> int:
    """Makes the tokens of `make token` with that role good for the database at DATABASE_URL. Raises PartError."""
    existing = Existing.from_environment()
    if existing.database_url is None:
        raise PartError("DATABASE_URL is not set. The database of `make up` itself has every demo user already.")
    stack = Stack(state, ports=_ports_from_environment(), existing=existing, keep=Keep(_keys(state)))
    await add_user(stack, role=role)
    print(f"{user_with_role(role).full_name} is a user now, with the role {role}.")
    return 0


async def demo() -> int:
    """Runs a stack to throw away, shows the main job on it, and stops it.

    It may use an Orthanc that exists, for there may be no other, and deletes there what it stored; but never a database
    that exists, where the demo's people have no business.
    """
    folder = Path(tempfile.mkdtemp(prefix="ris-dicom-demo-"))
    try:
        existing = Existing(orthanc=Existing.from_environment().orthanc)
        async with Stack(folder, existing=existing, report=print) as stack:
            await seed(stack)
            await demonstrate(stack)
    except asyncio.CancelledError:
        shutil.rmtree(folder)
        raise
    except Exception:
        print(f"\nThe logs are kept in {folder / 'logs'}.", file=sys.stderr)
        raise
    shutil.rmtree(folder)
    print("\nThe demo went as it should. The stack has stopped.")
    return 0


async def _until_signal(work: Coroutine[None, None, int], *, status: int) -> int:
    """Runs `work`, and cancels it at the first signal that asks to stop; later ones find the stopping under way.

    The exit status: that of `work`, or `status` when a signal stopped it.
    """
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop() -> None:
        for number in signals:
            loop.add_signal_handler(number, lambda: None)
        print("\nStopping ...", flush=True)
        task.cancel()

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        print("Stopped.")
        return status


@contextlib.contextmanager
def _only_one(state: Path) -> Iterator[None]:
    """Two runners must not share one database."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PartError("The stack of this checkout is up already: stop that `make up` first.") from None
        yield


def _port_setting(name: str) -> str:
    return f"{name.upper()}_PORT"


def _ports_from_environment() -> Ports:
    """The usual ports, or what ENVOY_PORT, ENVOY_ADMIN_PORT, TAG_SERVICE_PORT, PACS_GATEWAY_PORT, ORTHANC_PORT say."""
    chosen: dict[str, int] = {}
    for field in fields(Ports):
        value = os.environ.get(_port_setting(field.name))
        if value is None:
            continue
        if not value.isdecimal() or not 0 < int(value) < 65536:
            raise PartError(f"{_port_setting(field.name)} is no port: {value}")
        chosen[field.name] = int(value)
    ports = Ports(**chosen)
    names: dict[int, str] = {}
    for field in fields(ports):
        port, name = getattr(ports, field.name), _port_setting(field.name)
        if port in names:
            raise PartError(f"{names[port]} and {name} are both {port}: two parts cannot share a port.")
        names[port] = name
    return ports


def _welcome(stack: Stack, *, seeded: bool) -> str:
    hint = "" if seeded else "  make user ROLE=radiologist   # the database is yours: it may not know that user yet\n"
    return f"""
The gateway is up at {stack.base_url} (JSON, gRPC and gRPC-Web). Logs: {stack.folder / "logs"}
Try, in another terminal, in this folder:

{hint}  TOKEN=$(make -s token ROLE=radiologist)
  cp {sample("CT_small.dcm")} sample.dcm
  curl {stack.base_url}/api/v1/dicom/health
  curl -X POST {stack.base_url}/api/v1/dicom/upload -H "Authorization: Bearer $TOKEN" -F file=@sample.dcm
  curl {stack.base_url}/api/v1/dicom/studies -H "Authorization: Bearer $TOKEN"

Ctrl-C stops everything.
"""


if __name__ == "__main__":
    sys.exit(main())
