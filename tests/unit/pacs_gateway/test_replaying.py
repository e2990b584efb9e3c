"""Uploads that carry a request id: replayed, refused, or another try."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pacs_gateway.api.upload_service import UploadServicer
from pacs_gateway.use_cases.upload_logs import UploadLogBook
from service_runtime.errors import Reason, ServiceError
from tests.unit.pacs_gateway.fake_context import FakeContext, called_by, stream_of
from tests.unit.pacs_gateway.fakes import RADIOLOGIST, World, orthanc_away, refused
from tests.unit.pacs_gateway.hooks import Gate, raising
from tests.unit.pacs_gateway.test_upload_service import ARCHIVES, LIMITS, many_of, pieces_of, slice_of, upload


@pytest.fixture
def servicer(world: World) -> UploadServicer:
    """The servicer under test."""
    book = UploadLogBook(database=world.database)
    return UploadServicer(
        uploads=world.uploads(),
        log_book=book,
        requests=world.requests,
        sessions=world.sessions,
        limits=LIMITS,
        archives=ARCHIVES,
    )


async def send(servicer: UploadServicer, content: bytes, request_id: str = "r-1", **options: Any) -> Any:
    """The answer to an upload of one file with a request id."""
    return await upload(servicer, *pieces_of(content, request_id=request_id, **options))


async def test_the_same_request_is_given_the_same_answer(world: World, servicer: UploadServicer) -> None:
    """The second one stores nothing and looks nothing up, and says `stored` as the first did."""
    first = await send(servicer, slice_of(1))
    assert await send(servicer, slice_of(1)) == first
    assert first.status == "stored"
    assert world.pacs.hooks.passed["store"] == 1
    assert (await send(servicer, slice_of(1), "r-2")).status == "already_stored"


async def test_the_id_may_come_in_a_header(world: World, servicer: UploadServicer) -> None:
    """Idempotency-Key of HTTP is the same as the field; two ids that differ are refused."""
    first = await send(servicer, slice_of(1))
    with called_by():
        context = FakeContext(idempotency_key='"r-1"')
        assert await servicer.Upload(stream_of(*pieces_of(slice_of(1))), context) == first
        with refused(Reason.INVALID_FIELD):
            await servicer.Upload(stream_of(*pieces_of(slice_of(1), request_id="r-2")), context)
    assert world.pacs.hooks.passed["store"] == 1


@pytest.mark.parametrize("request_id", ["x" * 129, "a\n", " a", "*"])
async def test_an_id_that_is_none_is_refused(servicer: UploadServicer, request_id: str) -> None:
    """It is looked up exactly, so it must mean exactly itself."""
    with refused(Reason.INVALID_FIELD):
        await send(servicer, slice_of(1), request_id)


async def test_another_content_or_other_options_are_not_the_request(world: World, servicer: UploadServicer) -> None:
    """An id that is used for something else is refused, and nothing of that is stored."""
    await send(servicer, slice_of(1))
    with refused(Reason.REQUEST_ID_REUSED):
        await send(servicer, slice_of(2))
    with refused(Reason.REQUEST_ID_REUSED):
        await send(servicer, slice_of(1), study_description="other")
    with refused(Reason.REQUEST_ID_REUSED), called_by():
        messages = many_of(slice_of(1), request_id="r-1")
        [one async for one in servicer.UploadMultiple(stream_of(*messages), FakeContext())]
    assert len(world.pacs.held) == 1


async def test_an_id_is_its_users_own(servicer: UploadServicer) -> None:
    """Another user may use the same id for something else."""
    await send(servicer, slice_of(1))
    with called_by(RADIOLOGIST):
        messages = pieces_of(slice_of(2), request_id="r-1")
        assert (await servicer.Upload(stream_of(*messages), FakeContext())).status == "stored"


async def test_what_failed_is_another_try(world: World, servicer: UploadServicer) -> None:
    """An error is not kept, nor what it was about."""
    world.pacs.hooks.at("store", raising(orthanc_away, times=1))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await send(servicer, slice_of(1))
    assert (await send(servicer, slice_of(1))).status == "stored"


async def many(servicer: UploadServicer, *files: bytes) -> list[Any]:
    """The answers to an upload of many files with a request id."""
    with called_by():
        messages = many_of(*files, request_id="r-1")
        return [one async for one in servicer.UploadMultiple(stream_of(*messages), FakeContext())]


async def test_many_files_are_replayed_with_those_that_were_refused(world: World, servicer: UploadServicer) -> None:
    """All answers come again, in order, also of what is no DICOM file; other files are refused."""
    files = (slice_of(1), b"a text, no DICOM file", slice_of(2))
    first = await many(servicer, *files)
    assert [answer.status for answer in first] == ["stored", "failed", "stored"]
    assert await many(servicer, *files) == first
    with refused(Reason.REQUEST_ID_REUSED):
        await many(servicer, files[0], files[2])
    assert world.pacs.hooks.passed["store"] == 2


def orthanc_overloaded() -> ServiceError:
    """What the real one raises when too many files wait for Orthanc."""
    return ServiceError(Reason.OVERLOADED, "Orthanc has much to do. Retry.", retry_after=5)


@pytest.mark.parametrize("error", [orthanc_away, orthanc_overloaded])
async def test_many_files_of_which_one_may_come_to_something_else_are_another_try(
    world: World, servicer: UploadServicer, error: Callable[[], ServiceError]
) -> None:
    """Where a part was away for one of the files, or had too much to do, the next try is one for all of them."""
    world.pacs.hooks.at("store", raising(error, times=1))
    assert [answer.status for answer in await many(servicer, slice_of(1), slice_of(2))] == ["failed", "stored"]
    assert [answer.status for answer in await many(servicer, slice_of(1), slice_of(2))] == ["stored", "already_stored"]


async def test_a_request_that_is_under_way_is_waited_for(world: World, servicer: UploadServicer) -> None:
    """The second of two at the same moment is given the answer of the first."""
    gate = Gate()
    world.pacs.hooks.at("store", gate)
    first = asyncio.create_task(send(servicer, slice_of(1)))
    await gate.reached.wait()
    second = asyncio.create_task(send(servicer, slice_of(1)))
    await asyncio.sleep(0.05)
    assert not second.done()
    gate.opened.set()
    assert await first == await second
    assert world.pacs.hooks.passed["store"] == 1


async def test_a_request_that_is_under_way_for_too_long_is_told(
    world: World, servicer: UploadServicer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait has an end; then the sender is told to come again."""
    monkeypatch.setattr("pacs_gateway.use_cases.requests._WAIT_SECONDS", 0.05)
    gate = Gate()
    world.pacs.hooks.at("store", gate)
    first = asyncio.create_task(send(servicer, slice_of(1)))
    await gate.reached.wait()
    with refused(Reason.REQUEST_IN_PROGRESS):
        await send(servicer, slice_of(1))
    gate.opened.set()
    await first


async def test_a_sender_who_leaves_frees_the_id(world: World, servicer: UploadServicer) -> None:
    """What was cancelled before it was answered is another try."""
    gate = Gate()
    world.tag_service.hooks.at("read", gate)
    sending = asyncio.create_task(send(servicer, slice_of(1)))
    await gate.reached.wait()
    sending.cancel()
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert not world.database.requests
