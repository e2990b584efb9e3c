"""The 20 attributes: what they are, where reading ends, and what is noticed."""

import pytest

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.reading.dicom_tags import FIELDS
from tag_service.domain.reading.header_reader import HeaderReader
from tag_service.domain.standard.limits import Limits
from tag_service.domain.standard.problems import ProblemCode
from tests.unit.tag_service.building import ENCODINGS, EXPLICIT_LITTLE, NAMES, Writer, plain, pydicom_files, read
from tests.unit.tag_service.tokens import bytes_of, cut

EXPLICIT = Writer(EXPLICIT_LITTLE)
# pydicom reads them without noticing that they end early.
CUT_IN_THE_HEADER = {"rtplan_truncated.dcm"}


def header_of(data):
    """What a whole file says."""
    reader = HeaderReader(Limits())
    if not reader.feed(data):
        reader.close()
    return reader.header()


def bytes_needed(data, *, size=1):
    """How many bytes come in before the reader is done; one more than there are where it asks for the end."""
    reader = HeaderReader(Limits())
    for index, piece in enumerate(cut(data, size)):
        if reader.feed(piece):
            return (index + 1) * size
    return len(data) + 1


@pytest.mark.parametrize("path", pydicom_files(), ids=lambda path: path.name)
def test_the_attributes_are_those_that_pydicom_reads(path):
    """Each attribute of each test file is pydicom's value as text, without padding."""
    tags = header_of(path.read_bytes()).tags
    dataset = read(path.read_bytes())
    for tag, name in FIELDS.items():
        value = dataset[tag].value if tag in dataset else ""
        text = "" if value is None else str(value)
        assert getattr(tags, name).rstrip("=") == text.strip().rstrip("="), name


@pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)
def test_reading_ends_before_the_pixel_data(writer):
    """R2: In every encoding the reader is done once a header of pixel data, or a tag past the last one, is in."""
    instance = writer.text(0x00200013, "IS", "7 ")
    bulk = writer.element(0x7FE00010, "OW", bytes(200_000))
    data = writer.file(*plain(writer, instance)[:-1], bulk)
    assert header_of(data).tags.instance_number == "7"
    assert bytes_needed(data, size=64) < 3000


def test_reading_ends_past_the_highest_attribute():
    """R2: Where all is in order and the identifiers have come, nothing behind (0020,0013) is waited for."""
    data = EXPLICIT.file(*plain(EXPLICIT)[:8], EXPLICIT.element(0x00420011, "OB", bytes(90_000)))
    assert bytes_needed(data) < 2000


def test_what_stands_out_of_order_is_still_found():
    """R2: A file whose order is broken, or that lacks an identifier so far, is read on to its pixel data."""
    late = EXPLICIT.text(0x00100020, "LO", "MRN8")
    elements = [element for element in plain(EXPLICIT)[:8] if b"MRN7" not in element]
    described = EXPLICIT.text(0x00280004, "CS", "RGB")
    header = header_of(EXPLICIT.file(*elements, described, late, EXPLICIT.element(0x7FE00010, "OW", bytes(90_000))))
    assert header.tags.patient_id == "MRN8"
    assert [(problem.code, problem.tag) for problem in header.problems] == [(ProblemCode.OUT_OF_ORDER, "(0010,0020)")]


def test_of_a_tag_that_stands_twice_the_first_counts():
    """R2: A duplicate is noticed and changes nothing."""
    first, *rest = plain(EXPLICIT)
    header = header_of(EXPLICIT.file(first, rest[0], EXPLICIT.text(0x00080018, "UI", "9.9"), *rest[1:]))
    assert header.tags.sop_instance_uid == "1.2.3.4"
    assert [problem.code for problem in header.problems] == [ProblemCode.DUPLICATE_TAG]


def test_pixel_data_of_an_icon_does_not_end_the_header():
    """R4: Nested attributes count neither as the file's own nor as its end."""
    item = EXPLICIT.text(0x00100020, "LO", "WRONG") + EXPLICIT.element(0x7FE00010, "OW", bytes(4096))
    icon = EXPLICIT.sequence(0x00082112, item, undefined=True)
    tags = header_of(EXPLICIT.file(*plain(EXPLICIT, icon))).tags
    assert (tags.patient_id, tags.series_instance_uid) == ("MRN7", "1.2.3.1")


def test_undeclared_characters_are_returned_and_noticed():
    """R7: Text beyond ASCII without a character set is the best guess, with a warning that does not repeat it."""
    elements = plain(EXPLICIT, EXPLICIT.element(0x00081030, "LO", "Schädel ".encode("latin-1")))
    header = header_of(EXPLICIT.file(*elements))
    assert header.tags.study_description == "Schädel"
    (problem,) = header.problems
    assert (problem.code, problem.tag) == (ProblemCode.UNDECLARED_CHARSET, "(0008,1030)")
    assert "Sch" not in problem.message


def test_un_does_not_hide_an_attribute():
    """R6: An attribute whose VR the writer did not know is read by the dictionary's."""
    elements = [element for element in plain(EXPLICIT) if b"MRN7" not in element]
    header = header_of(EXPLICIT.file(*elements[:5], EXPLICIT.element(0x00100020, "UN", b"MRN9"), *elements[5:]))
    assert header.tags.patient_id == "MRN9"


def test_a_cut_behind_the_header_is_not_seen_and_one_in_it_is():
    """R2, R9: ReadTags vouches for the header only."""
    data = bytes_of("CT_small.dcm")
    assert header_of(data[:20_000]).tags == header_of(data).tags
    with pytest.raises(ServiceError) as raised:
        header_of(data[:900])
    assert raised.value.reason is Reason.TRUNCATED_FILE
