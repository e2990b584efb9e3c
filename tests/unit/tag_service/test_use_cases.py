"""Files that arrive in chunks: how far they are read, and how many are edited at a time."""

import asyncio
import gc
import hashlib
import json
import threading
import time
from contextlib import aclosing

import pytest

from service_runtime.errors import InvalidFieldError, Reason, ServiceError
from tag_service.domain.editing import rewrite as rewrite_module
from tag_service.domain.editing.edits import Edits
from tag_service.domain.editing.rewrite import Rewriter
from tag_service.domain.reading.chosen import choose
from tag_service.domain.standard.limits import Limits
from tag_service.use_cases import reading as reading_module
from tag_service.use_cases import rewriting as rewriting_module
from tag_service.use_cases.feeding import INLINE_BYTES, WORKERS, feed, in_worker, parts_of, workers
from tag_service.use_cases.modifying import Modifying
from tag_service.use_cases.reading import read_all_tags, read_chosen_tags, read_tags, validate
from tag_service.use_cases.rewriting import Rewriting
from tests.unit.tag_service.building import EXPLICIT_LITTLE, Writer, plain, read
from tests.unit.tag_service.tokens import bytes_of, cut

EXPLICIT = Writer(EXPLICIT_LITTLE)
LIMITS = Limits()


class Upload:
    """Chunks that arrive one by one; counts how many were asked for, and whether the reader let go of them."""

    def __init__(self, pieces, *, fails=None):
        self.pieces = pieces
        self.fails = fails
        self.asked = 0
        self.closed = False

    async def __aiter__(self):
        try:
            for piece in self.pieces:
                self.asked += 1
                await asyncio.sleep(0)
                yield piece
            if self.fails:
                raise self.fails
        finally:
            self.closed = True


class Stalled(Upload):
    """An upload that stands still after its first piece."""

    def __init__(self, piece):
        super().__init__([piece])

    async def __aiter__(self):
        async for piece in super().__aiter__():
            yield piece
        await asyncio.sleep(3600)


def begin(**edits):
    """The rewriter for these edits."""
    return Modifying(LIMITS).begin(Edits(**edits))


async def size_of(rewriting, upload):
    """Has a file edited; the size of what comes back."""
    async with rewriting.written(upload, begin()) as edited:
        await asyncio.sleep(0)
        return edited.size_bytes


@pytest.mark.parametrize("size", [500, 5000, 100_000])
async def test_tags_are_read_without_waiting_for_the_pixel_data(size):
    """Once the header is in, no further chunk is asked for, and the upload is let go of."""
    header = EXPLICIT.file(*plain(EXPLICIT)[:8]) + EXPLICIT.header(0x7FE00010, "OW", 50_000_000)
    upload = Upload([*cut(header, size), bytes(1000), bytes(1000), bytes(1000)])
    assert (await read_tags(upload, LIMITS)).tags.patient_id == "MRN7"
    assert upload.asked <= len(cut(header, size)) + 2
    assert upload.closed


class Noting:
    """Notes in which thread it was fed."""

    def __init__(self, bulk_left):
        self.bulk_left = bulk_left

    def passes_on(self, size):
        """Whether that much lies in the bulk value."""
        return size <= self.bulk_left

    def feed(self, _data):
        """The thread."""
        return threading.current_thread()


async def test_only_what_may_take_long_is_read_in_a_worker():
    """Little data is read at once, and bulk data however much, all else in a worker."""
    here = threading.current_thread()
    assert await feed(Noting(0), bytes(INLINE_BYTES)) is here
    assert await feed(Noting(0), bytes(INLINE_BYTES + 1)) is not here
    assert await feed(Noting(10**6), bytes(10**6)) is here
    assert await feed(Noting(10**6 - 1), bytes(10**6)) is not here


def test_no_more_files_are_parsed_at_a_time_than_there_are_workers():
    """However many files come at once, so many are parsed at a time as there are workers; the others wait."""
    running = most = 0
    lock = threading.Lock()

    class Slow(Noting):
        def feed(self, _data):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.02)
            with lock:
                running -= 1

    async def many():
        asyncio.get_running_loop().set_default_executor(workers())
        await asyncio.gather(*(feed(Slow(0), bytes(INLINE_BYTES + 1)) for _ in range(20)))

    asyncio.run(many())
    assert most == WORKERS


def test_large_chunk_goes_in_parts_but_for_bulk_data():
    """A chunk is cut so that others may have their turn between, and left whole from where it is bulk data."""
    chunk = bytes(range(256)) * 4096
    parts = list(parts_of(chunk, Noting(0)))
    assert b"".join(parts) == chunk
    assert {len(part) for part in parts} == {256 * 1024}
    assert next(parts_of(chunk, Noting(len(chunk)))) is chunk
    reader = Noting(0)
    parts = parts_of(chunk, reader)
    assert len(next(parts)) == 256 * 1024
    reader.bulk_left = len(chunk)
    assert next(parts) == chunk[256 * 1024 :]
    assert next(parts, None) is None


@pytest.mark.parametrize("size", [500, 5000, 100_000])
async def test_chosen_tags_are_read_without_waiting_for_the_pixel_data(size):
    """R2: once what was chosen is in, the length of the pixel data too, the upload is let go of."""
    header = EXPLICIT.file(*plain(EXPLICIT)[:8]) + EXPLICIT.header(0x7FE00010, "OW", 50_000_000)
    upload = Upload([*cut(header, size), bytes(1000), bytes(1000), bytes(1000)])
    header_read, (name, pixels) = await read_chosen_tags(upload, choose(["PatientName", "PixelData"]), LIMITS)
    assert header_read.tags.patient_id == "MRN7"
    assert (name.value, pixels.size_bytes) == ("Roe^Richard", 50_000_000)
    assert upload.asked <= len(cut(header, size)) + 2
    assert upload.closed


async def test_chosen_tags_that_make_too_long_an_answer_are_refused(monkeypatch):
    """R8: what many long values come to is bounded, and the refusal says what to do."""
    monkeypatch.setattr(reading_module, "ANSWER_BYTES", 30_000)
    tags = [0x00204000, 0x00324000, 0x00404000]
    comments = [EXPLICIT.text(tag, "LT", "x" * 5000) for tag in tags]
    paths = [f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in tags]
    data = EXPLICIT.file(*plain(EXPLICIT)[:8], *comments)
    _, found = await read_chosen_tags(Upload([data]), choose(paths[:2]), LIMITS)
    assert [len(attribute.value) for attribute in found] == [5000, 5000]
    with pytest.raises(ServiceError) as raised:
        await read_chosen_tags(Upload([data]), choose(paths), LIMITS)
    assert raised.value.reason is Reason.STRUCTURE_LIMIT
    assert raised.value.metadata["limit"] == "answer bytes"


async def test_all_tags_are_json_in_utf8():
    """Every attribute comes as bytes of JSON."""
    data = await read_all_tags(Upload(cut(bytes_of("CT_small.dcm"), 10_000)), LIMITS)
    assert json.loads(data)["00100020"] == {"vr": "LO", "Value": ["1CT1"]}


@pytest.mark.parametrize("rpc", [read_tags, read_all_tags, validate])
async def test_what_breaks_an_upload_goes_through(rpc):
    """An error of the upload is the error of the call, also for a file that would be an answer by itself."""
    stalled = ServiceError(Reason.UPLOAD_STALLED, "No byte came.")
    upload = Upload([bytes_of("CT_small.dcm")[:600]], fails=stalled)
    with pytest.raises(ServiceError) as raised:
        await rpc(upload, LIMITS)
    assert raised.value is stalled


async def test_a_file_is_read_to_its_end_to_be_checked():
    """Validation asks for everything."""
    upload = Upload(cut(bytes_of("CT_small.dcm"), 10_000))
    verdict = await validate(upload, LIMITS)
    assert (verdict.is_valid, verdict.size_bytes, upload.asked) == (True, len(bytes_of("CT_small.dcm")), 4)


async def test_an_edited_file_comes_with_size_and_digest():
    """The parts are the edited file, and its size and SHA-256 are known before the first of them is given."""
    rewriting = Rewriting(max_bytes=1_000_000, wait_seconds=1)
    upload = Upload(cut(EXPLICIT.file(*plain(EXPLICIT)[:8], EXPLICIT.element(0x7FE00010, "OW", bytes(600_000))), 9000))
    async with rewriting.written(upload, begin(patient_id="MRN9")) as edited:
        pieces = list(edited.parts)
    data = b"".join(pieces)
    assert read(data).PatientID == "MRN9"
    assert (edited.size_bytes, edited.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert max(map(len, pieces)) <= 256 * 1024


async def test_a_file_is_given_while_it_comes_in():
    """Once the header is in, what is read is given, and little of the file is held."""
    header = EXPLICIT.file(*plain(EXPLICIT)[:8]) + EXPLICIT.header(0x7FE00010, "OW", 9_000_000)
    upload = Upload([*cut(header, 500), *[bytes(200_000)] * 45])
    rewriting = Rewriting(max_bytes=100_000, wait_seconds=0.1)
    asked = []
    pieces = []
    async with aclosing(rewriting.streamed(upload, begin(patient_id="MRN9"))) as stream:
        async for piece in stream:
            pieces.append(piece)
            asked.append(upload.asked)
    assert asked[0] <= len(cut(header, 500)) + 1
    assert set(range(asked[0], upload.asked)) <= set(asked)
    assert read(b"".join(pieces)).PatientID == "MRN9"


async def test_a_file_that_breaks_off_amid_its_pixels_ends_in_an_error():
    """What was given of it is not followed by a clean end."""
    header = EXPLICIT.file(*plain(EXPLICIT)[:8]) + EXPLICIT.header(0x7FE00010, "OW", 9_000_000)
    rewriting = Rewriting(max_bytes=1_000_000, wait_seconds=1)
    given = 0

    async def take_all():
        nonlocal given
        async with aclosing(rewriting.streamed(Upload([header, bytes(1_000_000)]), begin())) as stream:
            async for piece in stream:
                given += len(piece)

    with pytest.raises(ServiceError) as raised:
        await take_all()
    assert given > 1_000_000
    assert raised.value.reason is Reason.TRUNCATED_FILE


async def test_headers_that_are_held_take_up_room():
    """A header that comes in slowly is counted; when there is no room for it, it is told to come again."""
    header = EXPLICIT.file(*plain(EXPLICIT)[:8])
    rewriting = Rewriting(max_bytes=len(header) + 50, wait_seconds=0.05)
    first = asyncio.create_task(size_of(rewriting, Stalled(header)))
    await asyncio.sleep(0.01)
    with pytest.raises(ServiceError) as raised:
        async with aclosing(rewriting.streamed(Upload(cut(header, 100)), begin())) as stream:
            assert [piece async for piece in stream] == []
    assert raised.value.reason is Reason.OVERLOADED
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


def test_wrong_edits_are_told_before_there_is_a_file():
    """Edits that are wrong already get no rewriter."""
    with pytest.raises(InvalidFieldError):
        begin(study_date="yesterday")


async def test_files_that_are_edited_take_up_room_until_they_are_taken():
    """One too many waits, then is told to come again; room that is given back is taken."""
    data = EXPLICIT.file(*plain(EXPLICIT))
    rewriting = Rewriting(max_bytes=len(data) + 100, wait_seconds=0.05)
    async with rewriting.written(Upload([data]), begin()):
        with pytest.raises(ServiceError) as raised:
            async with rewriting.written(Upload(cut(data, 90)), begin()):
                pass
        assert (raised.value.reason, raised.value.retry_after) == (Reason.OVERLOADED, 5)
        waiting = asyncio.create_task(size_of(rewriting, Upload(cut(data, 90))))
        await asyncio.sleep(0.01)
        assert not waiting.done()
    assert await waiting > 0


async def test_senders_who_stand_still_keep_nobody_out():
    """Files that have begun to come take up what came of them, and no place."""
    data = EXPLICIT.file(*plain(EXPLICIT))
    rewriting = Rewriting(max_bytes=2 * len(data), wait_seconds=0.05)
    still = [asyncio.create_task(size_of(rewriting, Stalled(data[:20]))) for _ in range(10)]
    await asyncio.sleep(0.01)
    assert await size_of(rewriting, Upload([data])) > 0
    for task in still:
        task.cancel()
    await asyncio.gather(*still, return_exceptions=True)


async def test_of_files_that_have_no_room_together_the_first_comes_to_its_end():
    """However many come in at once and fill the room with their beginnings, none keeps all from being edited."""
    data = EXPLICIT.file(*plain(EXPLICIT))
    rewriting = Rewriting(max_bytes=len(data) + 100, wait_seconds=5)
    sizes = await asyncio.gather(*(size_of(rewriting, Upload(cut(data, 50))) for _ in range(10)))
    assert all(sizes)


@pytest.mark.parametrize("broken", [b"no DICOM at all " * 99, b""])
async def test_a_failed_edit_gives_its_place_back(broken):
    """A file that cannot be edited, or an upload that breaks, does not take up its place for ever."""
    rewriting = Rewriting(max_bytes=2000, wait_seconds=0.05)
    for _ in range(3):
        with pytest.raises(ServiceError) as raised:
            async with rewriting.written(Upload([broken] if broken else []), begin()):
                pass
        assert raised.value.reason is (Reason.NOT_DICOM if broken else Reason.EMPTY_FILE)


async def test_a_cancelled_caller_waits_for_its_worker():
    """What a worker works on does not count as let go before the worker is done."""
    begun, go, done = threading.Event(), threading.Event(), threading.Event()

    def work():
        begun.set()
        go.wait(5)
        done.set()

    task = asyncio.create_task(in_worker(work))
    await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_what_a_worker_raises_for_a_cancelled_caller_is_no_defect():
    """A file that turns out to be broken when nobody waits for it any more is nothing to report."""
    begun, go, unnoticed = threading.Event(), threading.Event(), []

    def work():
        begun.set()
        go.wait(5)
        raise ServiceError(Reason.MALFORMED_DICOM, "Broken.")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: unnoticed.append(context))
    try:
        task = asyncio.create_task(in_worker(work))
        await asyncio.to_thread(begun.wait, 5)
        task.cancel()
        await asyncio.sleep(0.05)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        gc.collect()
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(None)
    assert unnoticed == []


@pytest.mark.parametrize("has_pixels", [True, False])
async def test_a_long_header_is_written_by_parts(has_pixels, monkeypatch):
    """However much of a header is held, and however small the piece that ends it, a worker writes it step by step."""
    monkeypatch.setattr(rewrite_module, "_PART_BYTES", 10_000)
    monkeypatch.setattr(rewriting_module, "PART_BYTES", 10_000)
    steps = []
    catch_up = Rewriter.catch_up

    def counted(self):
        steps.append(threading.current_thread())
        return catch_up(self)

    monkeypatch.setattr(Rewriter, "catch_up", counted)
    header = EXPLICIT.file(*plain(EXPLICIT)[:8], *[EXPLICIT.text(0x00204000, "LT", "x" * 5000)] * 40)
    data = header + (EXPLICIT.element(0x7FE00010, "OW", bytes(64)) if has_pixels else b"")
    rewriting = Rewriting(max_bytes=1_000_000, wait_seconds=1)
    async with rewriting.written(Upload(cut(data, 700)), begin(patient_id="MRN9")) as written:
        result = b"".join(written.parts)
    assert read(result).PatientID == "MRN9"
    assert len(result) > 200_000
    assert len(steps) >= 20
    assert threading.main_thread() not in steps
