"""M14: files edited by their ends: which of them tell, and that they tell what the whole file would."""

import threading

import pytest

from service_runtime.errors import InvalidFieldError, Reason, ServiceError
from tag_service.domain.editing.edits import Edits
from tag_service.domain.editing.provenance import ModificationReason
from tag_service.domain.standard.limits import MIB, Limits
from tag_service.use_cases import heading as heading_module
from tag_service.use_cases.feeding import INLINE_BYTES
from tag_service.use_cases.heading import Ends, Heading
from tag_service.use_cases.modifying import Modifying
from tests.files import sample_bytes
from tests.unit.tag_service.building import DEFLATED, EXPLICIT_LITTLE, Writer, edit, plain, pydicom_files
from tests.unit.tag_service.checks import check_header

EXPLICIT = Writer(EXPLICIT_LITTLE)
LIMITS = Limits()
COERCED = Edits(
    patient_id="NEW",
    patient_name="Doe^Jane",
    patient_birth_date="19700101",
    patient_sex="F",
    record_original=ModificationReason.COERCE,
)
EDITS = [Edits(), COERCED, Edits(patient_name="Ж^é", remove_private_tags=True, remove=("StudyID",))]


async def edited(file, beginning, edits=COERCED, *, ending=0, file_size=None, max_file_bytes=100 * MIB):
    """What comes of a file of which so many bytes at both ends are known."""
    size = len(file) if file_size is None else file_size
    ends = Ends(file[:beginning], file[len(file) - ending :], size)
    return await Heading(Modifying(LIMITS), LIMITS, max_file_bytes=max_file_bytes).edit(ends, edits)


def image(writer=EXPLICIT, *, comment=2000, size=MIB):
    """A file with a pixel value of so many bytes, and the size of its header, which has a comment of so many."""
    elements = plain(writer, writer.text(0x00204000, "LT", "x" * comment))[:-1]
    file = writer.file(*elements, writer.element(0x7FE00010, "OW", bytes(size)))
    return file, len(file) - size


@pytest.mark.parametrize("path", pydicom_files(), ids=lambda path: path.name)
def test_real_files_are_edited_by_their_ends_as_by_all_of_them(path):
    """M14: whatever a real file is, wherever it ends, and however much of it is sent, nothing else comes of it."""
    data = path.read_bytes()
    for edits in EDITS:
        for end in (len(data), len(data) - 1, len(data) // 2):
            for size in {min(end, size) for size in (150, 400, 2000, INLINE_BYTES, 64 * 1024, end)}:
                told = check_header(data[:end], size, edits, ending=min(end, 1024))
                assert told or size < end


@pytest.mark.parametrize("edits", EDITS, ids=["none", "coerced", "to UTF-8"])
@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("CT_small.dcm", b"\xe0\x7f\x10\x00OW\0\0"),  # with padding behind the pixels
        ("MR_small.dcm", b"\xe0\x7f\x10\x00OW\0\0"),
        ("MR_small_implicit.dcm", b"\xe0\x7f\x10\x00"),
        ("MR_small_bigendian.dcm", b"\x7f\xe0\x00\x10OW\0\0"),
        ("examples_rgb_color.dcm", b"\xe0\x7f\x10\x00OB\0\0"),
    ],
)
async def test_the_header_of_an_image_is_enough(name, pixels, edits):
    """Of an uncompressed image the header and a few bytes at the end tell."""
    data = sample_bytes(name)
    header = data.rindex(pixels) + len(pixels) + 4
    # How a file is encoded is looked for in the first KiB of its data set.
    found = await edited(data, max(header + 4, 2000), edits, ending=1024)
    assert not found.needs_whole_file
    assert found.header_size <= header


async def test_the_pixels_are_not_sent_back():
    """The header ends where the pixels begin, however many of them came with it, or how few."""
    data, header = image()
    for size in (header, header + 1, 64 * 1024, len(data)):
        found = await edited(data, size, Edits(patient_id="NEW"))
        assert len(found.header) < header + 200
        assert found.header_size <= header
        assert found.header + data[found.header_size :] == edit(data, patient_id="NEW")


@pytest.mark.parametrize(
    "behind",
    [EXPLICIT.element(0xFFFCFFFC, "OB", b"\0\0"), bytes(16), EXPLICIT.text(0x00204000, "LT", "out of order")],
    ids=["padding element", "zeros", "out of order"],
)
async def test_what_stands_behind_the_pixels_has_to_be_seen(behind):
    """Where something follows the pixels, that is to be there as a whole."""
    data, header = image()
    data += behind
    assert not (await edited(data, header, ending=len(behind))).needs_whole_file
    found = await edited(data, header, ending=len(behind) - 1)
    assert (found.needs_whole_file, found.tags, found.original.patient_id) == (True, None, "MRN7")


@pytest.mark.parametrize(
    "edits",
    [Edits(set=("DigitalSignaturesSequence[0].MACIDNumber=1",)), Edits(remove=("(FFFC,FFFC)",))],
    ids=["added", "removed"],
)
async def test_what_changes_behind_the_pixels_needs_the_whole_file(edits):
    """A header cannot stand for what edits add or remove behind the pixels."""
    data, header = image()
    data += EXPLICIT.element(0xFFFCFFFC, "OB", b"\0\0")
    assert (await edited(data, header, edits, ending=100)).needs_whole_file
    whole = await edited(data, len(data), edits)
    assert whole.header + data[whole.header_size :] == edit(data, set=edits.set, remove=edits.remove)


async def test_a_header_that_is_not_over_needs_the_whole_file():
    """The attributes of the file are told as soon as they are in, be the header over or not."""
    data, header = image()
    early, later = await edited(data, 300), await edited(data, header - 1)
    assert (early.needs_whole_file, early.original) == (True, None)
    assert (later.needs_whole_file, later.original.patient_id) == (True, "MRN7")


async def test_a_deflated_file_has_to_be_there_as_a_whole():
    """What is deflated anew has nothing in common with what it was."""
    data, _ = image(Writer(DEFLATED), size=100_000)
    assert (await edited(data, len(data) - 10)).needs_whole_file
    whole = await edited(data, len(data), Edits(patient_id="NEW"))
    assert whole.header + data[whole.header_size :] == edit(data, patient_id="NEW")


async def test_a_file_that_is_cut_short_is_an_error():
    """A file that is too short for the pixels that its header tells of is TRUNCATED_FILE, as if all of it had come."""
    data, header = image()
    with pytest.raises(ServiceError) as caught:
        await edited(data[:-1], header)
    assert caught.value.reason is Reason.TRUNCATED_FILE
    assert caught.value.metadata == {"tag": "(7FE0,0010)", "offset": str(len(data) - 1)}


async def test_sizes_that_cannot_be_are_refused():
    """A file has at least the bytes that came, and no more than the setting allows."""
    data, header = image()
    for sizes in ({"beginning": header}, {"beginning": 0, "ending": header}):
        with pytest.raises(InvalidFieldError) as caught:
            await edited(data, **sizes, file_size=header - 1)
        assert [violation.field for violation in caught.value.violations] == ["file_size"]
    with pytest.raises(ServiceError) as refused:
        await edited(data, header, max_file_bytes=MIB)
    assert refused.value.reason is Reason.FILE_TOO_LARGE


async def test_a_long_header_is_read_in_a_worker(monkeypatch):
    """What takes longer than a moment leaves the event loop free."""
    data, header = image(comment=30_000)
    threads = set()

    class Noting(heading_module.HeaderReader):
        def watch(self, event):
            threads.add(threading.current_thread())
            super().watch(event)

    monkeypatch.setattr(heading_module, "HeaderReader", Noting)
    assert (await edited(data, header)).tags.patient_id == "NEW"
    assert len(threads) > 1
