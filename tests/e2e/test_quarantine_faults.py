"""Faults in the middle of what the quarantine does: what it says it has is there, and nothing else stays for good."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from deploy.local.seed import seed
from deploy.local.stack import Stack
from tests.e2e.client import API, Client, expect_error
from tests.e2e.test_quarantine import QUARANTINE, entry, mixed_up, refused, retried, told
from tests.faults import BRISK, Books, Misbehaving, kill
from tests.files import fresh_file

# The lock that a file is added under: who holds it stops the gateway between the file and its entry.
_STOP = "SELECT pg_advisory_lock(1, 4)"
_DAY_SECONDS = 86_400


@pytest.fixture(scope="module")
async def fragile(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack of which the gateway is killed, and which looks soon after what it left. It has no quarantine yet."""
    async with Stack(Path(tmp_path_factory.mktemp("quarantine")), settings={"pacs_gateway": BRISK}) as running:
        await seed(running)
        yield running


@pytest.fixture(scope="module")
async def caller(fragile: Stack) -> AsyncIterator[Client]:
    """An admin at that stack."""
    async with httpx.AsyncClient(base_url=fragile.base_url, timeout=60) as http:
        yield Client(http, fragile.token(role="admin"))


async def test_by_default_there_is_no_quarantine(fragile: Stack, caller: Client) -> None:
    """Nothing is kept, a refusal says nothing of it, and nobody can ask for it."""
    file, params = await mixed_up(caller)
    assert told(expect_error(await caller.upload(file.content, **params), 400, "PATIENT_MISMATCH")) == {}
    path = f"{QUARANTINE}/00000000-0000-4000-8000-000000000001"
    for method, where in (
        ("GET", QUARANTINE),
        ("GET", path),
        ("POST", f"{path}:retry"),
        ("DELETE", f"{path}?reason=x"),
    ):
        expect_error(await caller.send(method, where), 400, "QUARANTINE_OFF")
    connection = await asyncpg.connect(fragile.database_url, timeout=5)
    try:
        assert await connection.fetchval("SELECT count(*) FROM dicom_quarantine") == 0
        assert await connection.fetchval("SELECT count(*) FROM dicom_upload_files") == 0
    finally:
        await connection.close(timeout=5)


@pytest.fixture
async def folder(fragile: Stack) -> Path:
    """The folder of the quarantine, which the stack has from now on."""
    folder = fragile.folder / "kept"
    await fragile.restart("pacs_gateway", QUARANTINE_DIR=str(folder))
    return folder


def names(folder: Path) -> list[str]:
    """What lies in the folder."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def age(folder: Path, seconds: float) -> None:
    """Has all that lies in the folder be so old."""
    for path in folder.iterdir():
        os.utime(path, times=(time.time() - seconds,) * 2)


async def until(folder: Path, wanted: list[str]) -> None:
    """Waits until this lies in the folder and nothing else."""
    async with asyncio.timeout(20):
        while names(folder) != wanted:  # noqa: ASYNC110 - another process' work
            await asyncio.sleep(0.1)


async def test_a_gateway_that_is_killed_between_a_file_and_its_entry_leaves_nothing_for_good(
    fragile: Stack, caller: Client, folder: Path
) -> None:
    """The file that no entry has is swept, and so is one that had not come whole; the sender's next try is kept."""
    file, params = await mixed_up(caller)
    connection = await asyncpg.connect(fragile.database_url, timeout=5)
    await connection.execute(_STOP)
    lost = asyncio.create_task(caller.upload(file.content, **params))
    async with asyncio.timeout(20):
        while not names(folder) or names(folder)[0].endswith(".part"):  # noqa: ASYNC110 - another process' work
            await asyncio.sleep(0.01)
    await kill(fragile, "pacs_gateway")
    assert (await lost).status_code == 503
    await connection.close(timeout=5)
    (orphan,) = names(folder)
    (folder / f"{orphan}.part").write_bytes(b"x")
    age(folder, _DAY_SECONDS - 600)
    await fragile.start("pacs_gateway")
    assert (await caller.get(QUARANTINE))["total_size"] == 0
    # The part is too old by then, the file is not.
    await until(folder, [orphan])
    age(folder, _DAY_SECONDS + 600)
    await until(folder, [])
    file_id = await refused(caller, file.content, **params)
    assert names(folder) == [file_id]
    assert (await entry(caller, file_id))["refusals"] == 1


async def test_a_gateway_that_is_killed_in_a_retry_leaves_the_file_to_the_next_one(
    fragile: Stack, caller: Client, folder: Path
) -> None:
    """Killed when Orthanc has the file: the entry is open still, nobody else's for a moment, and then released."""
    own = fragile.orthanc.url
    async with Misbehaving(fragile.orthanc).listening() as proxy:
        await fragile.restart("pacs_gateway", ORTHANC_URL=proxy.url)
        try:
            file, params = await mixed_up(caller)
            file_id = await refused(caller, file.content, **params)
            proxy.fault = "after"
            lost = asyncio.create_task(retried(caller, file_id))
            await proxy.reached.wait()
            proxy.fault = ""
            expect_error(await retried(caller, file_id), 409, "QUARANTINED_FILE_BUSY")
            await kill(fragile, "pacs_gateway")
            assert (await lost).status_code == 503
            await fragile.start("pacs_gateway")
        finally:
            proxy.fault = ""
            await fragile.restart("pacs_gateway", ORTHANC_URL=own)
    assert (await entry(caller, file_id))["state"] == "quarantined"
    assert file_id in names(folder)
    async with asyncio.timeout(20):
        while (answer := await retried(caller, file_id)).status_code == 409:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)
    assert answer.status_code == 200, answer.text
    assert answer.json()["quarantined_file"]["state"] == "released"
    assert file_id not in names(folder)
    await Books(fragile).settled()
    assert await Books(fragile).check(file.study_uid, [answer.json()["upload"]]) == 1


async def test_senders_who_leave_at_any_point_leave_entries_with_files(caller: Client, folder: Path) -> None:
    """Whenever a sender hangs up, its file is kept, with an entry, or nothing of it is there."""
    _, params = await mixed_up(caller)

    async def leave(after: float) -> None:
        content = fresh_file(EncapsulatedDocument=bytes(500_000)).content
        task = asyncio.create_task(caller.send("POST", f"{API}/upload", params=params, content=content))
        await asyncio.sleep(after)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    await asyncio.gather(*(leave(0.02 * number) for number in range(20)))
    async with asyncio.timeout(20):
        while True:
            listed = await caller.get(QUARANTINE, params={"limit": "1000"})
            if sorted(one["id"] for one in listed["quarantined_files"]) == names(folder):
                break
            await asyncio.sleep(0.1)
    assert all(one["state"] == "quarantined" for one in listed["quarantined_files"])


async def test_a_folder_that_is_emptied_is_told_and_healed(fragile: Stack, caller: Client, folder: Path) -> None:
    """Files that are gone are lost, which a list says; sent again, they are there again, and can be released."""
    file, params = await mixed_up(caller)
    file_id = await refused(caller, file.content, **params)
    (folder / file_id).unlink()
    async with asyncio.timeout(20):
        while (await entry(caller, file_id))["state"] != "lost":  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)
    listed = await caller.get(QUARANTINE, params={"state": "lost"})
    assert [one["id"] for one in listed["quarantined_files"]] == [file_id]
    expect_error(await retried(caller, file_id), 500, "QUARANTINED_FILE_LOST")
    assert not await caller.in_pacs(file.study_uid)
    assert await refused(caller, file.content, **params) == file_id
    assert (await retried(caller, file_id)).status_code == 200
    assert "lost" in fragile.log("pacs_gateway").read_text()
