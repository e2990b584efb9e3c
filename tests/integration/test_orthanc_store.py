"""Storing files in a real Orthanc, and proving that they are there."""

import asyncio
import hashlib
import io
import tracemalloc
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.orthanc import OrthancServer
from deploy.local.stack import Stack
from pacs_gateway.adapters.orthanc import Orthanc
from service_runtime.errors import Reason, ServiceError
from tests.integration.orthanc_files import Backdoor, chunks_of, dataset, encoded

_MIB = 1024 * 1024


@pytest.fixture(scope="session")
async def pacs(orthanc_server: OrthancServer) -> AsyncIterator[Orthanc]:
    """The adapter under test."""
    adapter = _adapter(orthanc_server)
    yield adapter
    await adapter.close()


@pytest.fixture(scope="session")
async def backdoor(orthanc_server: OrthancServer) -> AsyncIterator[Backdoor]:
    """Orthanc without the adapter."""
    door = Backdoor(orthanc_server)
    yield door
    await door.client.aclose()


def _adapter(server: OrthancServer) -> Orthanc:
    return Orthanc(server.url, username=server.username, password=server.password, connections=32)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


async def test_the_version_is_told(pacs: Orthanc) -> None:
    """The check of a running Orthanc gives its version."""
    assert (await pacs.check()).startswith("1.")


async def test_a_file_may_come_slowly(pacs: Orthanc, backdoor: Backdoor) -> None:
    """A sender who takes longer for the first byte, or between two, than Orthanc keeps an idle connection is waited
    for.
    """
    made = dataset()
    data = encoded(made)

    async def slow() -> AsyncIterator[bytes]:
        await asyncio.sleep(4)
        yield data[:500]
        await asyncio.sleep(4)
        yield data[500:]

    stored = await pacs.store(slow())
    assert await backdoor.file(stored.orthanc_id) == data


@pytest.mark.parametrize("size", [1000, 64 * 1024, 10 * _MIB, None])
async def test_a_file_is_stored_as_it_is(pacs: Orthanc, backdoor: Backdoor, size: int | None) -> None:
    """Whatever the chunks, or as a whole, Orthanc holds the very bytes, and the fingerprint is theirs."""
    made = dataset()
    data = encoded(made)
    stored = await (pacs.store_whole(data) if size is None else pacs.store(chunks_of(data, size)))
    assert not stored.already_stored
    assert await backdoor.instances_of(made.StudyInstanceUID) == [stored.orthanc_id]
    assert await backdoor.file(stored.orthanc_id) == data
    fingerprint = await pacs.fingerprint(stored.orthanc_id)
    assert fingerprint is not None
    assert (fingerprint.size_bytes, fingerprint.md5) == (len(data), _md5(data))
    await pacs.delete_study(stored.orthanc_study_id)


async def test_a_file_that_is_there_stays_as_it_is(pacs: Orthanc, backdoor: Backdoor) -> None:
    """A second store of the same instance says so, and other content under the same UIDs changes nothing."""
    made = dataset(StudyDescription="first")
    data = encoded(made)
    first = await pacs.store(chunks_of(data))
    again = await pacs.store(chunks_of(data))
    made.StudyDescription = "other"
    other = await pacs.store(chunks_of(encoded(made)))
    assert (first.already_stored, again.already_stored, other.already_stored) == (False, True, True)
    assert first.orthanc_id == again.orthanc_id == other.orthanc_id
    assert first.orthanc_study_id == again.orthanc_study_id
    assert await backdoor.file(first.orthanc_id) == data
    fingerprint = await pacs.fingerprint(first.orthanc_id)
    assert fingerprint is not None
    assert fingerprint.md5 == _md5(data)
    await pacs.delete_study(first.orthanc_study_id)


def _without_identifiers() -> bytes:
    made = dataset()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        delattr(made, keyword)
    return encoded(made)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no DICOM file",
        b"\x00" * 5000,
        b"\x00" * 128 + b"DICM",
        b"<html></html>",
        encoded(dataset())[:20_000],
        _without_identifiers(),
    ],
    ids=["empty", "text", "zeros", "prefix only", "html", "cut off", "no identifiers"],
)
async def test_what_orthanc_cannot_store_is_refused(pacs: Orthanc, data: bytes) -> None:
    """Garbage, a file that is cut off and one without identifiers are STORE_REFUSED, and the next store works."""
    with pytest.raises(ServiceError) as error:
        await pacs.store(chunks_of(data))
    assert error.value.reason is Reason.STORE_REFUSED
    assert await pacs.check()


async def test_a_zip_archive_is_refused_unopened(pacs: Orthanc, backdoor: Backdoor) -> None:
    """Orthanc would unpack an archive and store what is in it; the adapter does not let it come to that."""
    made = dataset()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.dcm", encoded(made))
    with pytest.raises(ServiceError) as error:
        await pacs.store(chunks_of(buffer.getvalue()))
    assert error.value.reason is Reason.STORE_REFUSED
    assert await backdoor.instances_of(made.StudyInstanceUID) == []


def _complete_but_for_its_pixels(data: bytes) -> bytes:
    """A file that ends before (7FE0,0010), which Orthanc stores when it comes whole."""
    return data[: data.index(b"\xe0\x7f\x10\x00")]


async def test_a_cut_that_orthanc_would_not_notice_is_possible(pacs: Orthanc, backdoor: Backdoor) -> None:
    """The next tests can fail: Orthanc stores such a file where it is not told that it is cut."""
    made = dataset()
    stored = await pacs.store(chunks_of(_complete_but_for_its_pixels(encoded(made))))
    assert await backdoor.instances_of(made.StudyInstanceUID) == [stored.orthanc_id]
    await pacs.delete_study(stored.orthanc_study_id)


@pytest.mark.parametrize("failure", [ServiceError(Reason.TRUNCATED_FILE, "It ends early."), RuntimeError("defect")])
async def test_a_source_that_raises_stores_nothing(pacs: Orthanc, backdoor: Backdoor, failure: Exception) -> None:
    """The error of the source comes out as it is, and Orthanc keeps nothing of what it got before."""
    made = dataset()

    async def source() -> AsyncIterator[bytes]:
        async for chunk in chunks_of(_complete_but_for_its_pixels(encoded(made)), 1000):
            yield chunk
        await asyncio.sleep(0.05)
        raise failure

    with pytest.raises(type(failure)) as error:
        await pacs.store(source())
    assert error.value is failure
    await _settled(backdoor, made.StudyInstanceUID)


async def test_a_cancelled_store_stores_nothing(pacs: Orthanc, backdoor: Backdoor) -> None:
    """The caller goes away in the middle: the source is let go of, and Orthanc keeps nothing."""
    made = dataset()
    sent, released = asyncio.Event(), False

    async def source() -> AsyncIterator[bytes]:
        nonlocal released
        try:
            yield _complete_but_for_its_pixels(encoded(made))
            sent.set()
            await asyncio.Event().wait()
        finally:
            released = True

    store = asyncio.create_task(pacs.store(source()))
    await sent.wait()
    await asyncio.sleep(0.05)
    store.cancel()
    with pytest.raises(asyncio.CancelledError):
        await store
    assert released
    await _settled(backdoor, made.StudyInstanceUID)


async def _settled(backdoor: Backdoor, study_uid: str) -> None:
    """Nothing of the study is there, now and a while later."""
    for _ in range(3):
        assert await backdoor.instances_of(study_uid) == []
        await asyncio.sleep(0.1)


async def test_a_large_file_is_stored_in_bounded_memory(pacs: Orthanc) -> None:
    """60 MiB of pixels, made while they are sent, take a few MiB of the gateway's memory, and arrive whole."""
    made = dataset(Rows=5461, Columns=5760)
    pixels = 5461 * 5760 * 2
    made.PixelData = b"\x00" * pixels
    del made.DataSetTrailingPadding
    head = encoded(made)[: -len(made.PixelData)]
    piece = bytes(range(256)) * 1024

    async def source() -> AsyncIterator[bytes]:
        yield head
        for start in range(0, pixels, len(piece)):
            yield piece[: pixels - start]

    digest = hashlib.md5(usedforsecurity=False)
    async for chunk in source():
        digest.update(chunk)
    del made
    tracemalloc.start()
    try:
        stored = await pacs.store(source())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * _MIB
    fingerprint = await pacs.fingerprint(stored.orthanc_id)
    await pacs.delete_study(stored.orthanc_study_id)
    assert fingerprint is not None
    assert (fingerprint.size_bytes, fingerprint.md5) == (len(head) + pixels, digest.hexdigest())


async def test_many_files_at_once_all_arrive(pacs: Orthanc, backdoor: Backdoor) -> None:
    """More stores at once than there are connections: each waits for its turn, none is lost."""
    first = dataset()
    study = first.StudyInstanceUID
    files = [
        encoded(dataset(StudyInstanceUID=study, SeriesInstanceUID=first.SeriesInstanceUID, PatientID=first.PatientID))
        for _ in range(60)
    ]
    stored = await asyncio.gather(*(pacs.store(chunks_of(data, 5000)) for data in files))
    assert len({one.orthanc_id for one in stored}) == 60
    assert len(await backdoor.instances_of(study)) == 60
    await pacs.delete_study(stored[0].orthanc_study_id)


async def test_a_connection_that_was_idle_costs_no_file(orthanc_server: OrthancServer) -> None:
    """Orthanc closes connections after a second without work; a store just before, at and after it goes through."""

    async def store_twice(pause: float) -> None:
        pacs = _adapter(orthanc_server)
        stored = await pacs.store(chunks_of(encoded(dataset())))
        await asyncio.sleep(pause)
        again = await pacs.store(chunks_of(encoded(dataset())))
        await pacs.delete_study(stored.orthanc_study_id)
        await pacs.delete_study(again.orthanc_study_id)
        await pacs.close()

    await asyncio.gather(*(store_twice(pause) for pause in (0.4, 0.49, 0.5, 0.51, 0.9, 0.99, 1.0, 1.01, 1.1)))


async def test_an_orthanc_that_comes_back_is_used_again(tmp_path: Path) -> None:
    """While Orthanc is away calls are UNAVAILABLE; the same adapter works once it is back, without a restart."""
    async with Stack(tmp_path, parts=("orthanc",)) as stack:
        pacs = _adapter(stack.orthanc)
        stored = await pacs.store(chunks_of(encoded(dataset())))
        await stack.stop("orthanc")
        with pytest.raises(ServiceError) as error:
            await pacs.store(chunks_of(encoded(dataset())))
        assert error.value.reason is Reason.ORTHANC_UNAVAILABLE
        await stack.start("orthanc")
        assert await pacs.fingerprint(stored.orthanc_id) is not None
        assert not (await pacs.store(chunks_of(encoded(dataset())))).already_stored
        await pacs.close()


async def test_a_wrong_password_is_told_from_an_orthanc_that_is_away(tmp_path: Path) -> None:
    """The error names the credentials, also where a file is on its way."""
    async with Stack(tmp_path, parts=("orthanc",)) as stack:
        pacs = Orthanc(stack.orthanc.url, username=stack.orthanc.username, password="not this one", connections=32)
        for call in (pacs.check(), pacs.store(chunks_of(encoded(dataset())))):
            with pytest.raises(ServiceError) as error:
                await call
            assert error.value.reason is Reason.ORTHANC_ERROR
            assert "credentials" in error.value.message
        await pacs.close()


async def test_there_is_no_fingerprint_of_what_is_not_there(pacs: Orthanc) -> None:
    """An instance that is gone has none; what is no id of Orthanc's names nothing at all."""
    stored = await pacs.store(chunks_of(encoded(dataset())))
    await pacs.delete_instance(stored.orthanc_id)
    assert await pacs.fingerprint(stored.orthanc_id) is None
    for hostile in ("", "..", "a/../../studies", stored.orthanc_id + "/", stored.orthanc_id.upper() + "X"):
        with pytest.raises(ValueError, match="not an id"):
            await pacs.fingerprint(hostile)


async def test_a_deleted_instance_is_gone_and_a_second_deletion_is_no_error(pacs: Orthanc, backdoor: Backdoor) -> None:
    """Deleting what is not there any more succeeds, for an instance and for its study."""
    made = dataset()
    stored = await pacs.store(chunks_of(encoded(made)))
    await pacs.delete_instance(stored.orthanc_id)
    assert await backdoor.instances_of(made.StudyInstanceUID) == []
    await pacs.delete_instance(stored.orthanc_id)
    await pacs.delete_study(stored.orthanc_study_id)
    await pacs.delete_study(stored.orthanc_study_id)


@pytest.mark.parametrize("damage", ["changed", "shortened", "removed"])
async def test_a_file_that_is_damaged_on_the_disk_has_no_fingerprint(tmp_path: Path, damage: str) -> None:
    """The fingerprint is of what the disk holds: what the local stack's Orthanc noted when storing is not enough."""
    async with Stack(tmp_path, parts=("orthanc",)) as stack:
        pacs = _adapter(stack.orthanc)
        data = encoded(dataset())
        stored = await pacs.store(chunks_of(data))
        assert await pacs.fingerprint(stored.orthanc_id) is not None
        [file] = [path for path in (tmp_path / "orthanc").rglob("*") if path.is_file() and path.read_bytes() == data]
        if damage == "removed":
            file.unlink()
        else:
            file.write_bytes(data[:-500] if damage == "shortened" else data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(ServiceError) as error:
            await pacs.fingerprint(stored.orthanc_id)
        assert error.value.reason is Reason.STORE_UNVERIFIED
        await pacs.close()


async def test_an_orthanc_that_notes_no_md5_hands_out_the_file(tmp_path: Path) -> None:
    """Under StoreMD5ForAttachments=false the fingerprint is that of the file, read back."""
    settings = {"orthanc": {"StoreMD5ForAttachments": False}}
    async with Stack(tmp_path, parts=("orthanc",), settings=settings) as stack:
        pacs = _adapter(stack.orthanc)
        data = encoded(dataset())
        stored = await pacs.store(chunks_of(data))
        fingerprint = await pacs.fingerprint(stored.orthanc_id)
        assert fingerprint is not None
        assert (fingerprint.size_bytes, fingerprint.md5) == (len(data), _md5(data))
        await pacs.delete_instance(stored.orthanc_id)
        assert await pacs.fingerprint(stored.orthanc_id) is None
        await pacs.close()


async def test_storage_compression_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    """An Orthanc that compresses its storage still answers for the file as it came."""
    async with Stack(tmp_path, parts=("orthanc",), settings={"orthanc": {"StorageCompression": True}}) as stack:
        pacs = _adapter(stack.orthanc)
        data = encoded(dataset())
        stored = await pacs.store(chunks_of(data))
        fingerprint = await pacs.fingerprint(stored.orthanc_id)
        assert fingerprint is not None
        assert (fingerprint.size_bytes, fingerprint.md5) == (len(data), _md5(data))
        await pacs.close()
