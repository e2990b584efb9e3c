"""The gateway's client of tag_service, against the real one."""

import asyncio
import os
import signal
import uuid
from contextlib import aclosing
from pathlib import Path

import pytest

from deploy.local.stack import Stack
from pacs_gateway.adapters.tag_client import TagClient
from pacs_gateway.domain.tags import Edits
from service_runtime.errors import Reason, ServiceError
from service_runtime.identity import CALLER, Caller
from tag_service.domain.editing.edits import Edits as TagEdits
from tag_service.domain.standard.limits import MIB, Limits
from tag_service.use_cases.modifying import Modifying
from tests.files import sample_bytes
from tests.unit.tag_service.building import DEFLATED, EXPLICIT_LITTLE, Writer, plain

CT = sample_bytes("CT_small.dcm")
EDITS = Edits(patient_id="NEW", set=("StudyID=7",))
HEADER_BYTES = 8192


@pytest.fixture(scope="module")
async def stack(tmp_path_factory):
    """tag_service alone."""
    settings = {"MAX_DICOM_FILE_SIZE_MB": "8"}
    folder = Path(tmp_path_factory.mktemp("tag_client"))
    async with Stack(folder, parts=("tag_service",), settings={"tag_service": settings}) as running:
        yield running


@pytest.fixture
async def client(stack):
    """The client, for a user."""
    CALLER.set(Caller(uuid.uuid4(), stack.token()))
    opened = TagClient(stack.tag_service_target)
    yield opened
    await opened.close()


async def pieces(data, size=5000):
    """The data as it comes in."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def modified(client, data, edits):
    """The file that comes back."""
    return b"".join([chunk async for chunk in client.modify(pieces(data), edits)])


@pytest.mark.parametrize("edits", [Edits(), EDITS], ids=["none", "some"])
async def test_the_ends_of_a_file_are_edited_as_the_file_is(client, edits):
    """Header and rest are what comes of the file as a whole, and the attributes are those of both files."""
    found = await client.modify_header(CT[:HEADER_BYTES], len(CT), edits, ending=CT[-1024:])
    whole = await modified(client, CT, edits)
    assert found.header + CT[found.header_size :] == whole
    assert not found.needs_whole_file
    assert found.original == await client.read_tags(pieces(CT))
    assert found.tags == await client.read_tags(pieces(whole))


async def test_what_the_ends_do_not_tell_is_said(client):
    """Without the padding behind the pixels, or without the rest of the header, only the attributes are told."""
    for size in (HEADER_BYTES, 5000):
        found = await client.modify_header(CT[:size], len(CT), EDITS)
        assert (found.needs_whole_file, found.tags, found.header, found.header_size) == (True, None, b"", 0)
        assert found.original.patient_id == "1CT1"


PIXELS = bytes(range(256)) * 4096 * 3 + b"x"
SECOND = bytes(range(255, -1, -1)) * 4096 * 2
EXPLICIT = Writer(EXPLICIT_LITTLE)
LARGE = {
    "pixels": EXPLICIT.file(*plain(EXPLICIT)[:8], EXPLICIT.element(0x7FE00010, "OW", PIXELS)),
    "two values, and one behind": EXPLICIT.file(
        EXPLICIT.element(0x7FE00010, "OW", PIXELS),
        EXPLICIT.text(0x00100020, "LO", "MRN7"),
        EXPLICIT.element(0x7FE10010, "OB", SECOND),
        EXPLICIT.text(0xFFFC0010, "LO", "x"),
    ),
    "fragments": EXPLICIT.file(
        *plain(EXPLICIT)[:8],
        EXPLICIT.header(0x7FE00010, "OB", 0xFFFFFFFF) + EXPLICIT.tag(0xFFFEE000, 0),
        EXPLICIT.tag(0xFFFEE000, len(PIXELS)) + PIXELS,
        EXPLICIT.tag(0xFFFEE000, len(SECOND)) + SECOND,
        EXPLICIT.tag(0xFFFEE0DD, 0),
    ),
    "deflated": Writer(DEFLATED).file(*plain(EXPLICIT)[:8], EXPLICIT.element(0x7FE00010, "OW", os.urandom(2 * MIB))),
}


def outcome(data, edits):
    """What comes of the file where all of it is edited in one place."""
    rewriter = Modifying(Limits()).begin(TagEdits(patient_id=edits.patient_id, set=edits.set))
    try:
        return b"".join((*rewriter.feed(data), *rewriter.close()))
    except ServiceError as error:
        return error.reason


@pytest.mark.parametrize("size", [5000, 300_000, 2 * MIB], ids=["small chunks", "chunks", "large chunks"])
@pytest.mark.parametrize("name", LARGE)
async def test_bulk_that_stays_here_stands_where_it_belongs(client, name, size):
    """M14: whatever the bulk is, and wherever the file is cut off, what comes of it is as if all of it went there."""
    data = LARGE[name]
    for end in (len(data), len(data) - 1, len(data) - len(SECOND), len(data) // 2):
        try:
            found = b"".join([chunk async for chunk in client.modify(pieces(data[:end], size), EDITS)])
        except ServiceError as error:
            found = error.reason
        assert found == outcome(data[:end], EDITS), end


HEADER = EXPLICIT.file(*plain(EXPLICIT)[:8]) + EXPLICIT.header(0x7FE00010, "OW", 7 * MIB)
BLOCKS = [bytes([number]) * MIB for number in range(7)]


class Source:
    """A file with long pixels, as it comes over a network: with time for tag_service to say what it does not need."""

    def __init__(self, *, fails_at=None, stands_at=None):
        self.asked = 0
        self.fails_at = fails_at
        self.stands_at = stands_at
        self.stands = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def __aiter__(self):
        yield HEADER
        for block in BLOCKS:
            await asyncio.sleep(0.05)
            if self.asked == self.fails_at:
                raise ServiceError(Reason.UPLOAD_STALLED, "The sender went away.")
            if self.asked == self.stands_at:
                self.stands.set()
                await self.goes_on.wait()
            self.asked += 1
            yield block


async def all_over(tasks):
    """Whether what began since there were only these tasks ends by itself."""
    begun = asyncio.all_tasks() - tasks
    return not begun or not (await asyncio.wait(begun, timeout=1))[1]


async def test_bulk_does_not_go_to_tag_service(client):
    """Of long pixels all but the first pieces come out as the very objects that went in."""
    kept = 0
    async for piece in client.modify(Source(), EDITS):
        kept += any(piece is block for block in BLOCKS)
    assert kept >= 5


async def test_bulk_is_asked_for_as_fast_as_it_is_taken(client):
    """Whoever takes the edited file slowly does not make it pile up here."""
    source, tasks = Source(), asyncio.all_tasks()
    async with aclosing(client.modify(source, EDITS)) as chunks:
        async for piece in chunks:
            if piece is BLOCKS[2]:
                break
        await asyncio.sleep(0.4)
        assert source.asked <= 3 + 3
    assert await all_over(tasks)


async def test_what_breaks_the_file_off_amid_its_bulk_is_raised(client):
    """The sender's error comes in place of the rest of the file, and nothing goes on behind it."""
    tasks = asyncio.all_tasks()
    with pytest.raises(ServiceError) as caught:
        [piece async for piece in client.modify(Source(fails_at=5), EDITS)]
    assert caught.value.reason is Reason.UPLOAD_STALLED
    assert await all_over(tasks)


async def test_whoever_is_cancelled_amid_bulk_leaves_nothing_behind(client):
    """A caller that goes away while the sender stands still is let go at once."""
    source, tasks = Source(stands_at=5), asyncio.all_tasks()

    async def take():
        return [piece async for piece in client.modify(source, EDITS)]

    taking = asyncio.create_task(take())
    await source.stands.wait()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert await all_over(tasks)


async def test_a_tag_service_that_goes_away_amid_bulk_is_told_of(tmp_path):
    """What it did not see to the end does not pass for an edited file."""
    async with Stack(tmp_path, parts=("tag_service",)) as stack:
        CALLER.set(Caller(uuid.uuid4(), stack.token()))
        client, source = TagClient(stack.tag_service_target), Source(stands_at=5)

        async def take():
            return [piece async for piece in client.modify(source, EDITS)]

        taking = asyncio.create_task(take())
        await source.stands.wait()
        os.kill(stack.pid("tag_service"), signal.SIGKILL)
        source.goes_on.set()
        with pytest.raises(ServiceError) as caught:
            await taking
        assert caught.value.reason is Reason.TAG_SERVICE_UNAVAILABLE
        await client.close()


@pytest.mark.parametrize(
    ("size", "edits", "reason"),
    [
        (20_000, EDITS, Reason.TRUNCATED_FILE),
        (len(CT), Edits(study_date="yesterday"), Reason.INVALID_FIELD),
        (len(CT), Edits(remove=("StudyInstanceUID",)), Reason.EDIT_REFUSED),
        (9 * MIB, EDITS, Reason.FILE_TOO_LARGE),
        (100, EDITS, Reason.INVALID_FIELD),
    ],
)
async def test_errors_are_those_of_the_whole_file(client, size, edits, reason):
    """What is wrong comes with the reason that it has."""
    with pytest.raises(ServiceError) as caught:
        await client.modify_header(CT[:HEADER_BYTES], size, edits)
    assert caught.value.reason is reason


async def test_without_tag_service_nothing_is_told():
    """Where nobody answers, the error says to try again."""
    CALLER.set(Caller(uuid.uuid4(), "token"))
    client = TagClient("127.0.0.1:1")
    with pytest.raises(ServiceError) as caught:
        await client.modify_header(CT, len(CT), EDITS)
    assert caught.value.reason is Reason.TAG_SERVICE_UNAVAILABLE
    await client.close()
