"""Many files at the same moment: what is asked and said for all of them at once, and what stays each one's own."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody

from pacs_gateway.domain.registry import Order, PatientEntry
from pacs_gateway.domain.upload import FileStatus, OnConflict, StoredFile, UploadOptions
from pacs_gateway.use_cases.uploads import Upload
from ris.pacs.v1.upload_service_pb2 import UploadMultipleRequest, UploadMultipleResponse
from service_runtime.errors import Reason, ServiceError
from service_runtime.uploads import UploadLimits
from tests.unit.pacs_gateway.fake_context import FakeContext, called_by
from tests.unit.pacs_gateway.fakes import (
    JONES,
    ORDER_OF_SMITH,
    TECHNOLOGIST,
    World,
    chunks_of,
    file_of,
    orthanc_away,
    refused,
    tags_of,
)
from tests.unit.pacs_gateway.hooks import Gate, raising
from tests.unit.pacs_gateway.test_upload_service import servicer_of, slice_of

MIB = 1024 * 1024
MANY = UploadLimits(file_bytes=5_000, request_bytes=50_000, files=50, idle_seconds=5)


async def upload_of(world: World, **options: Any) -> Upload:
    """An upload by the technologist."""
    return await world.uploads().open(UploadOptions(**options), by=TECHNOLOGIST.id)


async def send(upload: Upload, content: bytes) -> StoredFile:
    """Uploads one file."""
    async with aclosing(chunks_of(content, max(50, len(content) // 100))) as chunks:
        return await upload.store("slice.dcm", chunks)


async def together(world: World, *contents: bytes, **options: Any) -> list[StoredFile | BaseException]:
    """What becomes of files that come to be confirmed at the same moment, of a study that holds one already."""
    await world.send(tags_of(sop_instance_uid="1.2.3.1.99"))
    gate = Gate()
    world.pacs.hooks.at("stored", gate)
    upload = await upload_of(world, **options)
    sending = [asyncio.create_task(send(upload, content)) for content in contents]
    await gate.reached.wait()
    for _ in range(200):
        await asyncio.sleep(0)
    gate.opened.set()
    world.database.hooks.passed.clear()
    world.pacs.hooks.passed.clear()
    return await asyncio.gather(*sending, return_exceptions=True)


async def test_files_are_confirmed_in_few_transactions_and_each_is_looked_at(world: World) -> None:
    """Twenty files that are stored at once are confirmed together, each by what the PACS holds of it."""
    outcomes = await together(world, *(slice_of(number) for number in range(20)))
    assert all(isinstance(one, StoredFile) and one.status is FileStatus.STORED for one in outcomes)
    assert world.pacs.hooks.passed["fingerprint"] == 20
    assert world.database.hooks.passed["begin"] <= 3
    assert world.log().number_of_files == 21


async def test_the_order_is_told_once_for_all(world: World) -> None:
    """Ten files of an order have the PACS counted once or twice, and the order ends with all of them."""
    outcomes = await together(world, *(slice_of(number) for number in range(10)), order_id=ORDER_OF_SMITH.id)
    assert all(isinstance(one, StoredFile) for one in outcomes)
    assert world.pacs.hooks.passed["counts"] <= 2
    study = world.order().study
    assert study is not None
    assert study.number_of_images == 11


async def test_a_file_that_the_pacs_lost_fails_alone(world: World) -> None:
    """Of files that are confirmed together, the one whose bytes changed is refused, and taken out again."""
    put, lost = world.pacs.put, slice_of(3)

    def corrupt(content: bytes) -> Any:
        return put(content[:-1] + b"?" if content == lost else content)

    world.pacs.put = corrupt  # type: ignore[method-assign]
    outcomes = await together(world, *(slice_of(number) for number in range(6)))
    (error,) = [one for one in outcomes if isinstance(one, ServiceError)]
    assert outcomes.index(error) == 3
    assert error.reason is Reason.STORE_UNVERIFIED
    assert world.log().number_of_files == len(world.pacs.held) == 6


async def test_a_file_that_the_pacs_cannot_tell_of_fails_alone(world: World) -> None:
    """Where Orthanc goes away for one of them, the others are confirmed; of this one, it is open what became of it."""
    away = raising(orthanc_away, on=3, times=1)
    world.pacs.hooks.at("fingerprint", away)
    outcomes = await together(world, *(slice_of(number) for number in range(5)))
    (error,) = [one for one in outcomes if isinstance(one, ServiceError)]
    assert error.reason is Reason.ORTHANC_UNAVAILABLE
    assert world.log().number_of_files == 5
    assert sum(one.is_open for one in world.database.tables.files.values()) == 1


async def test_a_study_that_changes_while_its_files_are_looked_at_is_seen_as_it_is(world: World) -> None:
    """Where the RIS gives the patient its id meanwhile, the files are stored for the patient with it, and the order."""
    theirs = UUID(int=77)
    unknown = {"patient_id": "N1", "patient_name": "New^Nina"}
    await world.send(tags_of(sop_instance_uid="1.2.3.1.99", **unknown))
    order = Order(UUID(int=78), world.log().patient_id, "N-1", "CT", "new")
    world.database.tables.orders[order.id] = order
    upload = await upload_of(world, order_id=order.id)
    gate = Gate()
    world.pacs.hooks.at("fingerprint", gate)
    sending = [
        asyncio.create_task(send(upload, file_of(tags_of(sop_instance_uid=f"1.2.3.1.{number}", **unknown))))
        for number in range(3)
    ]
    await gate.reached.wait()
    async with world.database.begin() as work:
        await work.patients.upsert([PatientEntry("N1", "New^Nina", None, "", theirs)])
        await work.commit()
    gate.opened.set()
    assert {(await one).patient_id for one in sending} == {theirs}
    assert (world.log().patient_id, world.log().number_of_files) == (theirs, 4)
    study = world.database.tables.orders[order.id].study
    assert study is not None
    assert study.number_of_images == 4


async def test_a_deletion_comes_before_or_after_all_of_them(world: World) -> None:
    """While a study is deleted, its files are not confirmed; after that, those that it took along are refused."""
    await world.send(tags_of(sop_instance_uid="1.2.3.1.99"))
    upload = await upload_of(world)
    at_the_end, deleting = Gate(), Gate()
    world.pacs.hooks.at("stored", at_the_end)
    world.pacs.hooks.at("study_deleted", deleting)
    sending = [asyncio.create_task(send(upload, slice_of(number))) for number in range(4)]
    await at_the_end.reached.wait()
    deletion = asyncio.create_task(world.delete())
    await deleting.reached.wait()
    at_the_end.opened.set()
    for _ in range(200):
        await asyncio.sleep(0)
    assert not any(one.done() for one in sending)
    deleting.opened.set()
    await deletion
    outcomes = await asyncio.gather(*sending, return_exceptions=True)
    assert world.log().number_of_files == len(world.pacs.held) == sum(isinstance(one, StoredFile) for one in outcomes)


async def test_files_wait_for_who_has_their_study_alone_and_go_together_then(world: World) -> None:
    """Ten files that find their study locked for a moment are confirmed in few transactions once it is free."""
    await world.send(tags_of(sop_instance_uid="1.2.3.1.99"))
    upload = await upload_of(world)
    async with world.database.begin() as other:
        await other.lock_study(tags_of().study_instance_uid)
        sending = [asyncio.create_task(send(upload, slice_of(number))) for number in range(10)]
        for _ in range(500):
            await asyncio.sleep(0)
        assert len(world.pacs.held) == 11
        world.database.hooks.passed.clear()
    assert not any(isinstance(one, BaseException) for one in await asyncio.gather(*sending, return_exceptions=True))
    assert world.database.hooks.passed["commit"] <= 3
    assert world.log().number_of_files == 11


async def test_of_the_first_files_of_a_study_one_is_confirmed_alone(world: World) -> None:
    """Ten files that come together as a study's first begin it one by one; after one, all are confirmed together."""
    upload = await upload_of(world)
    outcomes = await asyncio.gather(*(send(upload, slice_of(number)) for number in range(10)), return_exceptions=True)
    assert all(isinstance(one, StoredFile) for one in outcomes)
    assert world.database.hooks.passed["commit"] <= 10 + 5
    assert world.log().number_of_files == 10


async def test_of_one_instance_twice_in_an_upload_the_first_is_stored(world: World) -> None:
    """However the files overtake each other, what comes first is stored, and the next one finds it."""
    upload = await upload_of(world)
    first, second = file_of(tags_of(), b"one"), file_of(tags_of(), b"two")
    taken = [await upload.take("a", chunks_of(content)) for content in (first, second)]
    later = asyncio.create_task(taken[1].store())
    await asyncio.sleep(0.01)
    stored = await taken[0].store()
    await taken[0].aclose()
    with refused(Reason.INSTANCE_CONFLICT):
        await later
    await taken[1].aclose()
    assert stored.status is FileStatus.STORED
    assert [held.content for held in world.pacs.held.values()] == [first]


async def test_of_one_instance_twice_the_last_overwrites(world: World) -> None:
    """With on_conflict=OVERWRITE what stays is what came last, as if the files had come one by one."""
    upload = await upload_of(world, on_conflict=OnConflict.OVERWRITE)
    contents = [file_of(tags_of(), str(number).encode()) for number in range(4)]
    taken = [await upload.take("a", chunks_of(content)) for content in contents]

    async def store(place: int) -> StoredFile:
        async with aclosing(taken[place]):
            return await taken[place].store()

    await asyncio.gather(*(store(place) for place in reversed(range(4))))
    assert [held.content for held in world.pacs.held.values()] == [contents[3]]
    assert world.log().number_of_files == 1


async def test_who_fails_holds_up_nobody_behind(world: World) -> None:
    """A file that is no DICOM file, or another patient's, lets those behind it go on."""
    upload = await upload_of(world, order_id=ORDER_OF_SMITH.id)
    contents = [b"no DICOM file", file_of(tags_of(JONES)), slice_of(1)]
    outcomes = await asyncio.gather(*(send(upload, content) for content in contents), return_exceptions=True)
    assert [type(one) for one in outcomes] == [ServiceError, ServiceError, StoredFile]


async def test_a_file_is_held_as_a_whole_only_where_there_is_room(world: World) -> None:
    """A larger file than a MiB, and any where no room is left for it, is stored as it comes, as every other."""
    upload = await upload_of(world)
    uploads = upload.uploads
    small = await upload.take("a", chunks_of(slice_of(1)))
    assert small.has_come
    large = await upload.take("b", chunks_of(file_of(tags_of(sop_instance_uid="1.2.3.1.2"), bytes(MIB)), 10_000))
    assert not large.has_come
    taken = 16 * MIB - 2 * MIB
    uploads.keeping.take(taken)
    third = await upload.take("c", chunks_of(slice_of(3)))
    assert not third.has_come
    uploads.keeping.give_back(taken)
    for one in (small, large, third):
        async with aclosing(one):
            assert (await one.store()).status is FileStatus.STORED
    assert uploads.keeping.has_room(16 * MIB)
    assert len(world.pacs.held) == 3


class Sender:
    """The request stream of a client who sends one file after the other, when it is told to."""

    def __init__(self) -> None:
        self.files: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def __call__(self) -> AsyncGenerator[UploadMultipleRequest, None]:
        """The messages."""
        while (content := await self.files.get()) is not None:
            yield UploadMultipleRequest(file=HttpBody(data=content), end_of_file=True)


async def test_a_sender_who_waits_for_each_answer_gets_it(world: World) -> None:
    """An answer is given though nothing of the next file has come."""
    sender = Sender()
    with called_by(TECHNOLOGIST):
        answers = servicer_of(world).UploadMultiple(sender(), FakeContext())
        for number in range(3):
            sender.files.put_nowait(slice_of(number))
            async with asyncio.timeout(5):
                assert (await anext(answers)).sop_instance_uid == f"1.2.3.1.{number}"
        sender.files.put_nowait(None)
        assert await anext(answers, None) is None


async def test_files_of_an_upload_are_stored_side_by_side_and_answered_in_order(world: World) -> None:
    """While the first waits for Orthanc, others are stored, but no more than eight; the answers keep the order."""
    await world.send(tags_of(sop_instance_uid="1.2.3.1.99"))
    sender, gate = Sender(), Gate()
    world.pacs.hooks.at("stored", gate)
    for number in range(20):
        sender.files.put_nowait(slice_of(number))
    sender.files.put_nowait(None)
    with called_by(TECHNOLOGIST):
        answers = servicer_of(world, MANY).UploadMultiple(sender(), FakeContext())
        first = asyncio.ensure_future(anext(answers))
        await gate.reached.wait()
        await asyncio.sleep(0.2)
        assert len(world.pacs.held) == 1 + 8
        gate.opened.set()
        rest: list[UploadMultipleResponse] = [await first, *[one async for one in answers]]
    assert [one.sop_instance_uid for one in rest] == [f"1.2.3.1.{number}" for number in range(20)]
    assert all(one.success for one in rest)


async def test_a_sender_who_leaves_leaves_nothing_under_way(world: World) -> None:
    """A call that is cancelled while several files are on their way ends them, and what they hold is given back."""
    sender, gate = Sender(), Gate()
    world.tag_service.hooks.at("read", gate)
    for number in range(5):
        sender.files.put_nowait(slice_of(number))
    before = asyncio.all_tasks()
    with called_by(TECHNOLOGIST):
        answers = servicer_of(world).UploadMultiple(sender(), FakeContext())
        waiting = asyncio.ensure_future(anext(answers))
        await gate.reached.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
        await answers.aclose()
    assert asyncio.all_tasks() - before <= {waiting}
    assert not world.pacs.held
