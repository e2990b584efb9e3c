"""The client's sessions as a command: connections that are lost, gateways that are killed, and what it resumes."""

import asyncio
import hashlib
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.process import ROOT
from deploy.local.seed import seed
from deploy.local.stack import Stack
from tests.e2e.client import Client
from tests.e2e.test_sessions import SESSIONS, checked, expected, held_by, new_session
from tests.faults import BRISK, kill, study_of
from tests.files import SampleFile, fresh_file
from tests.integration.databases import connected


@pytest.fixture(scope="module")
async def fragile(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack of which the gateway is killed, and looks soon after what it left."""
    async with Stack(Path(tmp_path_factory.mktemp("sessions")), settings={"pacs_gateway": BRISK}) as running:
        await seed(running)
        yield running


@pytest.fixture(scope="module")
async def caller(fragile: Stack) -> AsyncIterator[Client]:
    """A radiologist at that stack."""
    async with httpx.AsyncClient(base_url=fragile.base_url, timeout=60) as http:
        yield Client(http, fragile.token(role="radiologist"))


class Running:
    """The client, as a process in a folder of its own."""

    def __init__(self, folder: Path, token: str, target: str) -> None:
        self._folder = folder
        self._token = token
        self._target = target

    async def start(self, *arguments: str | Path, target: str = "") -> asyncio.subprocess.Process:
        """Starts it."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pacs_gateway.cli", "upload", *map(str, arguments)),
            *("--target", target or self._target, "--parallel", "2"),
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/generated", "COLUMNS": "200", "RIS_TOKEN": self._token},
            cwd=self._folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str | Path, target: str = "") -> tuple[int | None, str, str]:
        """Runs it to its end: status, stdout, stderr."""
        return await ended(await self.start(*arguments, target=target))


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    """The end of a process: status, stdout, stderr."""
    out, err = await asyncio.wait_for(process.communicate(), 90)
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def cli(fragile: Stack, caller: Client, tmp_path: Path) -> Running:
    """The client, as a radiologist."""
    return Running(tmp_path, caller.token, fragile.envoy_target)


def put(folder: Path, files: list[SampleFile]) -> Path:
    """A folder with these files."""
    folder.mkdir()
    for number, file in enumerate(files):
        (folder / f"IM{number:02}").write_bytes(file.content)
    return folder


def session_in(text: str) -> str:
    """The id of the session that the client told of."""
    found = re.search(r"[Ss]ession ([0-9a-f-]{36})", text)
    assert found is not None, text
    return found[1]


async def proven(caller: Client, stack: Stack, receipt: Path, files: list[SampleFile]) -> dict[str, Any]:
    """The claims of a receipt that names these files and no others, each of which Orthanc holds."""
    text = await asyncio.to_thread(receipt.read_text)
    claims = await checked(caller, text.strip())
    assert {line["sha256"] for line in claims["files"]} == {hashlib.sha256(one.content).hexdigest() for one in files}
    assert len(claims["files"]) == len(files)
    await held_by(stack.orthanc, claims["files"])
    return claims


@asynccontextmanager
async def cable(stack: Stack, *, cut_after: int) -> AsyncIterator[str]:
    """A way to Envoy that is cut once so many bytes went through, and stays cut; its address."""
    host, port = stack.envoy_target.split(":")
    left = cut_after
    writers: set[asyncio.StreamWriter] = set()

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counts: bool) -> None:
        nonlocal left
        with suppress(OSError):
            while (piece := await source.read(65536)) and left > 0:
                left -= len(piece) if counts else 0
                sink.write(piece)
                await sink.drain()
        for writer in writers:
            writer.transport.abort()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if left <= 0:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(host, int(port))
        writers.update({writer, back})
        await asyncio.gather(copy(reader, back, counts=True), copy(there, writer, counts=False))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def test_a_folder_is_sent_in_a_session_and_its_receipt_written(
    cli: Running, caller: Client, fragile: Stack, tmp_path: Path
) -> None:
    """All files, one of them twice in the folder; the receipt can be had again with the session's id."""
    files = study_of(4)
    folder = put(tmp_path / "study", [*files, files[0]])
    status, out, err = await cli.run(folder, "--session", "--receipt", "proof.jws")
    assert status == 0, (out, err)
    assert "4 stored, 1 skipped" in out
    claims = await proven(caller, fragile, tmp_path / "proof.jws", files)
    assert claims["jti"] == session_in(err) == session_in(out)
    first = (tmp_path / "proof.jws").read_text()
    status, out, err = await cli.run(folder, "--resume", claims["jti"])
    assert status == 0, (out, err)
    assert (tmp_path / f"receipt-{claims['jti']}.jws").read_text() == first


async def test_an_upload_whose_connection_is_lost_goes_on_where_it_was(
    cli: Running, caller: Client, fragile: Stack, tmp_path: Path
) -> None:
    """It tells how to go on, and with that sends what is missing and no more."""
    files = study_of(20)
    folder = put(tmp_path / "study", files)
    async with cable(fragile, cut_after=8 * len(files[0].content)) as target:
        process = await cli.start(folder, "--session", "--retries", "0", target=target)
        session_id = session_in((await process.stderr.readline()).decode())  # type: ignore[union-attr]
        status, out, err = await ended(process)
    assert status == 1, (out, err)
    assert f"--resume {session_id}" in err
    before = (await caller.get(f"{SESSIONS}/{session_id}"))["session"]
    assert 0 < before["files_stored"] < 20
    status, out, err = await cli.run(folder, "--resume", session_id)
    assert status == 0, (out, err)
    assert "20 stored" in out
    await proven(caller, fragile, tmp_path / f"receipt-{session_id}.jws", files)
    assert (await caller.log(files[0].study_uid))["number_of_files"] == 20


async def test_a_gateway_that_is_killed_and_comes_back_loses_nothing_of_a_session(
    cli: Running, caller: Client, fragile: Stack, tmp_path: Path
) -> None:
    """The client waits for it, asks what it has, sends the rest, and everything is verified."""
    files = study_of(30)
    folder = put(tmp_path / "study", files)
    process = await cli.start(folder, "--session", "--receipt", "proof.jws")
    session_id = session_in((await process.stderr.readline()).decode())  # type: ignore[union-attr]
    while (await caller.get(f"{SESSIONS}/{session_id}"))["session"]["files_stored"] < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await kill(fragile, "pacs_gateway")
    await fragile.start("pacs_gateway")
    status, out, err = await ended(process)
    assert status == 0, (out, err)
    await proven(caller, fragile, tmp_path / "proof.jws", files)


async def test_what_cannot_be_completed_is_told(cli: Running, caller: Client, tmp_path: Path) -> None:
    """Files that the session does not expect, and files of it that are not here; it can be gone on with afterwards."""
    files = study_of(2)
    stranger = fresh_file()
    session_id = await new_session(caller, files=expected(*files))
    (tmp_path / "x.dcm").write_bytes(stranger.content)
    (tmp_path / "0.dcm").write_bytes(files[0].content)
    status, out, err = await cli.run("x.dcm", "0.dcm", "--resume", session_id)
    assert status == 1, (out, err)
    for told in ("FILE_NOT_EXPECTED", "NOT_HERE", "1 stored, 2 failed"):
        assert told in out
    assert not await caller.in_pacs(stranger.study_uid)
    (tmp_path / "1.dcm").write_bytes(files[1].content)
    status, out, err = await cli.run("0.dcm", "1.dcm", "--resume", session_id)
    assert status == 0, (out, err)
    status, out, err = await cli.run("0.dcm", "--resume", "00000000-0000-4000-8000-00000000dead")
    assert status == 2, (out, err)
    assert "SESSION_NOT_FOUND" in err


async def test_an_expired_session_takes_nothing_and_loses_nothing(
    cli: Running, caller: Client, fragile: Stack, tmp_path: Path
) -> None:
    """The rest is refused; what it stored stays, and is partial until a session with all of it is complete."""
    files = study_of(2)
    session_id = await new_session(caller, files=expected(*files))
    stored = await caller.stored(files[0], session_id=session_id)
    assert (await caller.log(files[0].study_uid))["upload_status"] == "success"
    async with connected(fragile.database_url) as database:
        await database.execute("UPDATE upload_sessions SET expires_at = now() WHERE id = $1", session_id)
        assert "SESSION_EXPIRED" in (await caller.upload(files[1].content, session_id=session_id)).text
        assert "SESSION_EXPIRED" in (await caller.send("POST", f"{SESSIONS}/{session_id}:complete")).text
        known = "SELECT state FROM upload_sessions WHERE id = $1"
        async with asyncio.timeout(20):
            while await database.fetchval(known, session_id) != "expired":  # noqa: ASYNC110 - the gateway's work
                await asyncio.sleep(0.1)
    standing = await caller.get(f"{SESSIONS}/{session_id}")
    assert (standing["session"]["state"], standing["session"]["files_stored"]) == ("expired", 1)
    assert stored["orthanc_id"] in [one["orthanc_id"] for one in standing["files"]]
    log = await caller.log(files[0].study_uid)
    assert (log["upload_status"], log["number_of_files"]) == ("partial", 1)
    assert log["error_message"] == "1 of 2 files failed: SESSION_EXPIRED"

    folder = put(tmp_path / "study", files)
    status, out, err = await cli.run(folder, "--resume", session_id)
    assert (status, "SESSION_EXPIRED" in err) == (2, True), (out, err)
    status, out, err = await cli.run(folder, "--session", "--receipt", "proof.jws")
    assert status == 0, (out, err)
    await proven(caller, fragile, tmp_path / "proof.jws", files)
    log = await caller.log(files[0].study_uid)
    assert (log["upload_status"], log["number_of_files"], log["error_message"]) == ("success", 2, "")
