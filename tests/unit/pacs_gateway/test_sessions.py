"""Upload sessions: what they take, when they are complete, and what their receipts say."""

import asyncio
import hashlib
import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from pacs_gateway.domain.sessions import Arrival, ExpectedFile, SessionState
from pacs_gateway.domain.upload import FileStatus, OnConflict, UploadOptions
from pacs_gateway.domain.upload_log import UploadStatus
from pacs_gateway.use_cases.sessions import Sessions
from service_runtime.errors import Reason, ServiceError
from tests.unit.pacs_gateway.fakes import (
    RADIOLOGIST,
    SMITH,
    STUDY,
    TECHNOLOGIST,
    World,
    file_of,
    orthanc_away,
    refused,
    tags_of,
)
from tests.unit.pacs_gateway.hooks import Gate, raising


def slice_of(number: int, body: bytes = b"pixels") -> bytes:
    """A slice of Ms Smith's study."""
    return file_of(tags_of(sop_instance_uid=f"{STUDY}.9.{number}"), body)


def expected(*files: bytes) -> list[ExpectedFile]:
    """The files as a session lists them."""
    return [ExpectedFile(hashlib.sha256(file).hexdigest(), len(file), "slice") for file in files]


async def listing(world: World, *files: bytes, **options: Any) -> UUID:
    """A session that lists these files."""
    made = await world.sessions.create(
        UploadOptions(**options), files=expected(*files), number_of_files=0, by=TECHNOLOGIST.id
    )
    return made.session.id


async def counting(world: World, number: int) -> UUID:
    """A session for so many files."""
    made = await world.sessions.create(UploadOptions(), files=(), number_of_files=number, by=TECHNOLOGIST.id)
    return made.session.id


async def arrivals(world: World, session_id: UUID) -> list[Arrival]:
    """What has become of the files of a session."""
    return [one.arrival for one in (await world.sessions.get(session_id, by=TECHNOLOGIST.id)).files]


async def test_a_session_is_complete_when_all_of_its_files_are_stored(world: World) -> None:
    """Until then it says how many are missing; then its receipt lists each, and nothing that names the patient."""
    files = [slice_of(number) for number in range(3)]
    session_id = await listing(world, *files, patient_id=SMITH.id)
    for file in files[:2]:
        await world.send(file, session_id=session_id)
    with refused(Reason.SESSION_INCOMPLETE):
        await world.sessions.complete(session_id, by=TECHNOLOGIST.id)
    await world.send(files[2], session_id=session_id)
    done = await world.sessions.complete(session_id, by=TECHNOLOGIST.id)
    assert done.session.state is SessionState.COMPLETED
    (claims,) = world.signer.signed
    assert (claims["iss"], claims["jti"], claims["patient_id"]) == ("test", str(session_id), str(SMITH.id))
    assert sorted(line["sha256"] for line in claims["files"]) == sorted(one.sha256 for one in expected(*files))
    assert {line["orthanc_id"] for line in claims["files"]} == set(world.pacs.held)
    told = json.dumps(claims)
    assert SMITH.mrn not in told
    assert "Smith" not in told


async def test_two_who_complete_a_session_are_given_one_receipt(world: World) -> None:
    """At the same moment, and once more later."""
    file = slice_of(1)
    session_id = await listing(world, file)
    await world.send(file, session_id=session_id)
    both = await asyncio.gather(*(world.sessions.complete(session_id, by=TECHNOLOGIST.id) for _ in range(2)))
    again = await world.sessions.complete(session_id, by=TECHNOLOGIST.id)
    assert {one.session.receipt for one in (*both, again)} == {"receipt 1"}


async def test_a_file_that_is_not_expected_is_not_stored(world: World) -> None:
    """Another slice, and another content of one that is: neither reaches the PACS, and the log says so."""
    session_id = await listing(world, slice_of(1))
    for other in (slice_of(2), slice_of(1, b"other pixels")):
        with refused(Reason.FILE_NOT_EXPECTED):
            await world.send(other, session_id=session_id)
    assert not world.pacs.held
    assert world.log().upload_status is UploadStatus.FAILED
    assert "FILE_NOT_EXPECTED" in world.log().error_message


async def test_a_session_for_a_number_of_files_takes_no_more(world: World) -> None:
    """However many come at once, and however often each does."""
    session_id = await counting(world, 3)
    files = [slice_of(number) for number in range(6)]
    await world.send(files[0], session_id=session_id)
    await asyncio.gather(*(world.send(file, session_id=session_id) for file in files * 2), return_exceptions=True)
    assert len(world.pacs.held) <= 3
    for file in files:
        if len(world.pacs.held) == 3:
            break
        await world.send(file, session_id=session_id)
    with refused(Reason.FILE_NOT_EXPECTED):
        await world.send(slice_of(7), session_id=session_id)
    done = await world.sessions.complete(session_id, by=TECHNOLOGIST.id)
    assert len(done.stored) == 3


async def test_a_file_that_failed_can_be_sent_again(world: World) -> None:
    """It takes no place in a session that counts, and shows why it failed in one that lists."""
    file, other = slice_of(1), slice_of(2)
    counted, listed = await counting(world, 1), await listing(world, file, other)
    world.pacs.hooks.at("store", raising(orthanc_away, times=2))
    for session_id in (counted, listed):
        with refused(Reason.ORTHANC_UNAVAILABLE):
            await world.send(file, session_id=session_id)
    await world.send(other, session_id=counted)
    await world.send(other, session_id=listed)
    assert sorted(await arrivals(world, listed)) == [Arrival.FAILED, Arrival.STORED]
    assert (await world.send(file, session_id=listed)).status is FileStatus.STORED
    await world.sessions.complete(listed, by=TECHNOLOGIST.id)
    await world.sessions.complete(counted, by=TECHNOLOGIST.id)


async def test_what_was_stored_before_counts_when_it_is_sent_once_more(world: World) -> None:
    """And an upload outside of the session takes nothing away from it."""
    file = slice_of(1)
    await world.send(file)
    session_id = await listing(world, file)
    with refused(Reason.SESSION_INCOMPLETE):
        await world.sessions.complete(session_id, by=TECHNOLOGIST.id)
    assert (await world.send(file, session_id=session_id)).status is FileStatus.ALREADY_STORED
    await world.send(file)
    await world.sessions.complete(session_id, by=TECHNOLOGIST.id)
    assert len(world.signer.signed[0]["files"]) == 1


async def test_what_is_gone_is_missing_again(world: World) -> None:
    """Deleted by the gateway, overwritten with another content, or lost by Orthanc: no receipt claims it."""
    file, other = slice_of(1), slice_of(2)
    session_id = await listing(world, file, other)

    async def send_both() -> None:
        for one in (file, other):
            await world.send(one, session_id=session_id, on_conflict=OnConflict.OVERWRITE)

    await send_both()
    await world.delete()
    with refused(Reason.SESSION_INCOMPLETE):
        await world.sessions.complete(session_id, by=TECHNOLOGIST.id)
    assert await arrivals(world, session_id) == [Arrival.DELETED] * 2
    await send_both()
    await world.send(slice_of(1, b"other pixels"), on_conflict=OnConflict.OVERWRITE)
    assert sorted(await arrivals(world, session_id)) == [Arrival.DELETED, Arrival.STORED]
    await send_both()
    world.pacs.held.popitem()
    with refused(Reason.SESSION_INCOMPLETE):
        await world.sessions.complete(session_id, by=TECHNOLOGIST.id)
    assert sorted(await arrivals(world, session_id)) == [Arrival.DELETED, Arrival.STORED]
    assert not world.signer.signed
    await send_both()
    await world.sessions.complete(session_id, by=TECHNOLOGIST.id)


async def test_a_deletion_while_a_session_is_completed_leaves_no_receipt(world: World) -> None:
    """Orthanc was asked, and had it; the study is deleted before the receipt is signed."""
    file = slice_of(1)
    session_id = await listing(world, file)
    await world.send(file, session_id=session_id)
    gate = Gate()

    async def asked() -> None:
        world.database.hooks.at("begin", gate)

    world.pacs.hooks.at("noted", asked)
    completing = asyncio.create_task(world.sessions.complete(session_id, by=TECHNOLOGIST.id))
    await gate.reached.wait()
    world.database.hooks.clear()
    await world.delete()
    gate.opened.set()
    with refused(Reason.SESSION_INCOMPLETE):
        await completing
    assert not world.signer.signed


async def test_while_orthanc_is_away_nothing_is_completed(world: World) -> None:
    """It is told to retry, and the retry succeeds."""
    file = slice_of(1)
    session_id = await listing(world, file)
    await world.send(file, session_id=session_id)
    world.pacs.hooks.at("noted", raising(orthanc_away, times=1))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.sessions.complete(session_id, by=TECHNOLOGIST.id)
    await world.sessions.complete(session_id, by=TECHNOLOGIST.id)


async def test_a_file_that_is_late_is_not_stored(world: World) -> None:
    """It began to come while its session was open, and ended when the time was over, or the session completed."""
    late, file = slice_of(1), slice_of(2)
    session_id = await listing(world, late, file)
    gate = Gate()
    world.database.hooks.at("ledger", gate)
    sending = asyncio.create_task(world.send(late, session_id=session_id))
    await gate.reached.wait()
    world.clock.forward(hours=2)
    gate.opened.set()
    with refused(Reason.SESSION_EXPIRED):
        await sending
    assert not world.pacs.held


async def test_an_expired_session_makes_its_studies_partial(world: World) -> None:
    """Until a session is complete with which all has come. What was stored stays counted."""
    file, other = slice_of(1), slice_of(2)
    session_id = await listing(world, file, other)
    await world.send(file, session_id=session_id)
    await world.reconciler.reconcile()
    assert world.log().upload_status is UploadStatus.SUCCESS
    world.clock.forward(hours=2)
    report = await world.reconciler.reconcile()
    assert report is not None
    assert report.expired == 1
    log = world.log()
    assert (log.upload_status, log.number_of_files) == (UploadStatus.PARTIAL, 1)
    assert log.error_message == "1 of 2 files failed: SESSION_EXPIRED"
    again = await world.reconciler.reconcile()
    assert again is not None
    assert again.expired == 0
    for call in (
        world.sessions.open(session_id, by=TECHNOLOGIST.id),
        world.sessions.complete(session_id, by=TECHNOLOGIST.id),
    ):
        with refused(Reason.SESSION_EXPIRED):
            await call
    session_id = await listing(world, file, other)
    for one in (file, other):
        await world.send(one, session_id=session_id)
    await world.sessions.complete(session_id, by=TECHNOLOGIST.id)
    assert (world.log().upload_status, world.log().number_of_files) == (UploadStatus.SUCCESS, 2)


async def test_what_never_came_is_told_only_when_all_that_came_is_settled(world: World) -> None:
    """A file that is on its way when the time is over may be the one that was missing."""
    file, other = slice_of(1), slice_of(2)
    session_id = await listing(world, file, other)
    await world.send(other, session_id=session_id)
    gate = Gate()
    world.pacs.hooks.at("stored", gate)
    sending = asyncio.create_task(world.send(file, session_id=session_id))
    await gate.reached.wait()
    world.clock.forward(hours=2)
    for expired in (0, 1):
        report = await world.reconciler.reconcile()
        assert report is not None
        assert report.expired == expired
        gate.opened.set()
        await sending
    assert (world.log().upload_status, world.log().number_of_files) == (UploadStatus.SUCCESS, 2)


async def test_a_session_is_its_makers(world: World) -> None:
    """Others do not find it, unless they may read all; nor does anybody one that is not there."""
    session_id = await counting(world, 1)
    for call in (
        world.sessions.get(session_id, by=RADIOLOGIST.id),
        world.sessions.open(session_id, by=RADIOLOGIST.id),
        world.sessions.complete(session_id, by=RADIOLOGIST.id),
        world.sessions.get(uuid4(), by=TECHNOLOGIST.id),
    ):
        with refused(Reason.SESSION_NOT_FOUND):
            await call
    assert (await world.sessions.get(session_id, by=RADIOLOGIST.id, reads_all=True)).session.id == session_id


async def test_without_a_key_there_are_no_sessions(world: World) -> None:
    """They are refused with that reason, and uploads go on as ever."""
    sessions = Sessions(
        database=world.database,
        pacs=world.pacs,
        clock=world.clock,
        signer=None,
        issuer="test",
        keep_seconds=60,
        max_files=10,
    )
    with refused(Reason.RECEIPTS_NOT_CONFIGURED):
        await sessions.create(UploadOptions(), files=(), number_of_files=1, by=TECHNOLOGIST.id)
    assert json.loads(sessions.receipt_keys) == {"keys": []}
    assert (await world.send(slice_of(1))).status is FileStatus.STORED
    with pytest.raises(ServiceError):
        await sessions.get(uuid4(), by=TECHNOLOGIST.id)
