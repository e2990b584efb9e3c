"""Faults in the middle of uploads: nobody is told that a file is stored which is not, nothing is logged that is not
there, and the same upload sent again ends well.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import httpx
import pytest

from deploy.local.seed import seed
from deploy.local.stack import Stack
from tests.e2e.client import API, Client, expect_error
from tests.faults import BRISK, Books, Misbehaving, Uploading, kill, study_of
from tests.files import fresh_file


@pytest.fixture(scope="module")
async def fragile(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack of which parts are killed, and whose gateways look soon after what others left."""
    async with Stack(Path(tmp_path_factory.mktemp("faults")), settings={"pacs_gateway": BRISK}) as running:
        await seed(running)
        yield running


@pytest.fixture(scope="module")
async def caller(fragile: Stack) -> AsyncIterator[Client]:
    """A radiologist at that stack."""
    async with httpx.AsyncClient(base_url=fragile.base_url, timeout=60) as http:
        yield Client(http, fragile.token(role="radiologist"))


@pytest.fixture
def books(fragile: Stack) -> Books:
    """The ledger and the logs, and Orthanc."""
    return Books(fragile)


@pytest.fixture
async def misbehaving(fragile: Stack) -> AsyncIterator[Misbehaving]:
    """An Orthanc that misbehaves when told to, which the gateway takes for Orthanc."""
    own = fragile.orthanc.url
    async with Misbehaving(fragile.orthanc).listening() as proxy:
        await fragile.restart("pacs_gateway", ORTHANC_URL=proxy.url)
        try:
            yield proxy
        finally:
            proxy.fault = ""
            await fragile.restart("pacs_gateway", ORTHANC_URL=own)


@pytest.mark.parametrize("moment", ["before", "during", "after"])
async def test_a_gateway_that_is_killed_loses_nothing(
    fragile: Stack, caller: Client, books: Books, misbehaving: Misbehaving, moment: str
) -> None:
    """Killed before, during and after Orthanc stores: the next one finds out, and the retry ends well."""
    first, second = study_of(2)
    long = fresh_file(like=first, EncapsulatedDocument=bytes(3_000_000))
    told = [await caller.stored(first)]
    misbehaving.fault = moment
    lost = asyncio.create_task(caller.upload((long if moment == "during" else second).content))
    await misbehaving.reached.wait()
    misbehaving.fault = ""
    await kill(fragile, "pacs_gateway")
    assert (await lost).status_code == 503
    await fragile.start("pacs_gateway")
    await books.settled()
    assert await books.check(first.study_uid, told) == (2 if moment == "after" else 1)
    again = await caller.stored(long if moment == "during" else second)
    assert again["status"] == ("already_stored" if moment == "after" else "stored")
    assert await books.check(first.study_uid, [*told, again]) == 2
    assert (await caller.log(first.study_uid))["upload_status"] == "success"


LIES = {"500": ("ORTHANC_ERROR", 0), "garbage": ("ORTHANC_ERROR", 1), "lost": ("STORE_UNVERIFIED", 0)}


@pytest.mark.parametrize("fault", LIES)
async def test_an_orthanc_that_lies_makes_no_false_entry(
    caller: Client, books: Books, misbehaving: Misbehaving, fault: str
) -> None:
    """500, nonsense after storing, and "stored" with nothing stored: an error, and books that agree with the PACS."""
    file = fresh_file()
    reason, stored = LIES[fault]
    misbehaving.fault = fault
    expect_error(await caller.upload(file.content), 500, reason)
    misbehaving.fault = ""
    await books.settled()
    assert await books.check(file.study_uid) == stored
    again = await caller.stored(file)
    assert await books.check(file.study_uid, [again]) == 1


@pytest.mark.parametrize("size", [1_000, 3_000_000])
async def test_what_cannot_take_the_place_of_another_leaves_it_there(
    caller: Client, books: Books, misbehaving: Misbehaving, size: int
) -> None:
    """Orthanc refuses what is to overwrite an instance when that is deleted: it holds the instance again, and the log
    counts it, as before.
    """
    file = fresh_file(EncapsulatedDocument=bytes(size))
    told = await caller.stored(file)
    before = await caller.log(file.study_uid)
    misbehaving.fault = "500"
    upload = asyncio.create_task(caller.upload(file.content, StudyDescription="Other", on_conflict="OVERWRITE"))
    await misbehaving.reached.wait()
    misbehaving.fault = ""
    expect_error(await upload, 500, "ORTHANC_ERROR")
    assert await books.check(file.study_uid, [told]) == 1
    after = await caller.log(file.study_uid)
    for name in ("number_of_files", "total_size_bytes", "upload_status"):
        assert after[name] == before[name]
    stored = await caller.stored(file, StudyDescription="Other", on_conflict="OVERWRITE")
    assert await books.check(file.study_uid, [stored]) == 1


async def test_an_orthanc_that_never_answers_is_no_stored_file(caller: Client, misbehaving: Misbehaving) -> None:
    """While Orthanc keeps silent, the log does not claim to know; its sender may give up."""
    file = fresh_file()
    misbehaving.fault = "after"
    with pytest.raises(httpx.ReadTimeout):
        await caller.send("POST", f"{API}/upload", files={"file": ("x.dcm", file.content)}, timeout=2)
    assert misbehaving.reached.is_set()
    log = await caller.log(file.study_uid)
    assert (log["upload_status"], log["number_of_files"]) == ("in_progress", 0)


async def test_what_an_orthanc_never_answered_is_found_out_later(caller: Client, books: Books) -> None:
    """When that gateway is gone, which waited for Orthanc, the next one settles it: no log stays in progress."""
    await books.settled()
    logs = await caller.get(f"{API}/upload-logs", params={"upload_status": "in_progress"})
    assert logs["total_size"] == 0


@pytest.mark.parametrize("edits", [{}, {"StudyDescription": "Other"}])
async def test_damage_that_is_found_after_orthanc_has_most_of_a_file_stores_nothing(
    caller: Client, books: Books, edits: dict[str, str]
) -> None:
    """M11: a file that ends early breaks off the way into Orthanc, which by then has megabytes of it."""
    first = fresh_file()
    file = fresh_file(like=first, EncapsulatedDocument=bytes(5_000_000))
    await caller.stored(first)
    expect_error(await caller.upload(file.content[:4_000_000], **edits), 400, "TRUNCATED_FILE")
    await books.settled()
    assert await books.check(first.study_uid) == 1
    assert (await caller.log(first.study_uid))["number_of_files"] == 1
    again = await caller.stored(file, **edits)
    assert await books.check(first.study_uid, [again]) == 2


async def broken_off(fragile: Stack, caller: Client, books: Books, part: str) -> None:
    """An upload of a study during which a part goes away and comes back."""
    files = study_of(40)
    uploading = Uploading(caller.upload)
    running = asyncio.create_task(uploading.upload(files))
    await asyncio.sleep(0.4)
    # The database of the tests, which keeps no commit through a crash, is stopped as an operator stops it.
    await (fragile.stop(part) if part == "postgres" else kill(fragile, part))
    await asyncio.sleep(0.3)
    await fragile.start(part)
    await running
    await books.settled()
    await books.check(files[0].study_uid, uploading.told)
    await uploading.again()
    await books.settled()
    assert await books.check(files[0].study_uid, uploading.told) == 40
    log = await caller.log(files[0].study_uid)
    assert (log["upload_status"], log["number_of_files"]) == ("success", 40)


async def test_an_orthanc_that_is_killed_and_comes_back_loses_nothing(
    fragile: Stack, caller: Client, books: Books
) -> None:
    """Files whose storing broke off are settled, and go in when they are sent again."""
    await broken_off(fragile, caller, books, "orthanc")


async def test_a_database_that_is_restarted_loses_nothing(fragile: Stack, caller: Client, books: Books) -> None:
    """What could not be noted is found out, and nobody was told that it is stored."""
    await broken_off(fragile, caller, books, "postgres")


async def test_senders_who_leave_at_any_point_leave_true_books(caller: Client, books: Books) -> None:
    """Whenever a sender hangs up, a file is stored and logged, or neither."""
    files = study_of(30)
    chance = random.Random(4)  # noqa: S311 - moments, no secrets

    async def leave(upload: Awaitable[httpx.Response]) -> None:
        task = asyncio.ensure_future(upload)
        await asyncio.sleep(chance.uniform(0, 0.15))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    await asyncio.gather(*(leave(caller.upload(file.content)) for file in files))
    await books.settled()
    await books.check(files[0].study_uid)
    uploading = Uploading(caller.upload)
    await uploading.upload(files)
    assert not uploading.failed
    assert await books.check(files[0].study_uid, uploading.told) == 30


async def test_one_study_from_eight_senders_is_stored_once(caller: Client, books: Books) -> None:
    """All of them are told that every file is there, and it is there once."""
    files = study_of(12)
    senders = [Uploading(caller.upload) for _ in range(8)]
    await asyncio.gather(*(sender.upload(files) for sender in senders))
    assert not any(sender.failed for sender in senders)
    told = [result for sender in senders for result in sender.told]
    assert sum(result["status"] == "stored" for result in told) == 12
    assert await books.check(files[0].study_uid, told) == 12


async def test_uploads_and_deletions_of_a_study_leave_true_books(caller: Client, books: Books) -> None:
    """Whatever comes first, the log counts what the PACS holds."""
    files = study_of(24)
    await caller.stored(files[0])
    uploading = Uploading(caller.upload)

    async def delete() -> None:
        for _ in range(4):
            await asyncio.sleep(0.1)
            await caller.send("DELETE", f"{API}/studies/{files[0].study_uid}", params={"reason": "race"})

    await asyncio.gather(uploading.upload(files), delete())
    await books.settled()
    await books.check(files[0].study_uid)
    await uploading.upload(files)
    await uploading.again()
    assert await books.check(files[0].study_uid, uploading.told[-24:]) == 24
