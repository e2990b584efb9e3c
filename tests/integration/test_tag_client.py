"""The gateway's client of tag_service, against the real one."""

import uuid
from pathlib import Path

import pytest

from deploy.local.stack import Stack
from pacs_gateway.adapters.tag_client import TagClient
from pacs_gateway.domain.tags import Edits
from service_runtime.errors import Reason, ServiceError
from service_runtime.identity import CALLER, Caller
from tests.files import sample_bytes

CT = sample_bytes("CT_small.dcm")
EDITS = Edits(patient_id="NEW", set=("StudyID=7",))
HEADER_BYTES = 8192


@pytest.fixture(scope="module")
async def stack(tmp_path_factory):
    """tag_service alone."""
    settings = {"MAX_DICOM_FILE_SIZE_MB": "2"}
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


@pytest.mark.parametrize(
    ("size", "edits", "reason"),
    [
        (20_000, EDITS, Reason.TRUNCATED_FILE),
        (len(CT), Edits(study_date="yesterday"), Reason.INVALID_FIELD),
        (len(CT), Edits(remove=("StudyInstanceUID",)), Reason.EDIT_REFUSED),
        (3 * 1024 * 1024, EDITS, Reason.FILE_TOO_LARGE),
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
