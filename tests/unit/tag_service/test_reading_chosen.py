"""Chosen attributes: how they are named, what comes of each, and how far the file is read for them."""

import struct
import tracemalloc
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.multival import MultiValue

from service_runtime.errors import InvalidFieldError, Reason, ServiceError
from tag_service.domain.reading.chosen import MAX_CHOSEN, ChosenAttribute, choose
from tag_service.domain.reading.chosen_reading import VALUE_BYTES, ChosenReader
from tag_service.domain.reading.header_reader import HeaderReader
from tag_service.domain.standard.limits import Limits
from tag_service.domain.standard.problems import ProblemCode
from tests.unit.tag_service.building import (
    ENCODINGS,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    NAMES,
    Writer,
    plain,
    pydicom_files,
    read,
)
from tests.unit.tag_service.tokens import bytes_of, cut

EXPLICIT = Writer(EXPLICIT_LITTLE)
IMPLICIT = Writer(IMPLICIT_LITTLE)
PIXELS = 0x7FE00010
# pydicom reads it without noticing that it ends early.
CUT = {"rtplan_truncated.dcm"}
SOFTWARE = '(0029,"ACME",10)'


def reader_of(pieces, *texts):
    """A reader that was fed these pieces as far as it wanted them, and how many those were."""
    reader = ChosenReader(choose(texts), Limits())
    for number, piece in enumerate(pieces, 1):
        if reader.feed(piece):
            return reader, number
    reader.close()
    return reader, len(pieces) + 1


def chosen(data, *texts):
    """What comes of these paths."""
    return reader_of([data], *texts)[0].answer()[1]


def one(data, text):
    """What comes of one path."""
    (attribute,) = chosen(data, text)
    return attribute


def value(data, text):
    """The text of an attribute that the file has."""
    attribute = one(data, text)
    assert attribute.is_present
    return attribute.value


def nested(writer):
    """A file with an attribute of each kind to name."""
    item = writer.text(0x00081155, "UI", "1.2.9") + writer.sequence(0x00400275, writer.text(0x00400009, "SH", "STEP 2"))
    private = writer.text(0x00290012, "LO", "ACME") + writer.text(0x00291210, "LO", "V7")
    return writer.file(
        *plain(
            writer,
            writer.sequence(0x00081140, b"", item, undefined=True),
            private,
            writer.number(0x00280010, 512),
            writer.element(0x00280009, "AT", struct.pack(f"{writer.order}HH", 0x0018, 0x1063)),
            writer.element(0x00720074, "FD", struct.pack(f"{writer.order}2d", 0.5, -3)),
        )
    )


@pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_every_spelling_leads_to_its_attribute(writer, size):
    """R1: in every encoding and for every chunking, what is asked for comes as text, in the order in which it was."""
    asked = {
        "(0020,000D)": ChosenAttribute("(0020,000D)", "(0020,000D)", "UI", "1.2.3", is_present=True),
        "Rows": ChosenAttribute("Rows", "(0028,0010)", "US", "512", is_present=True),
        SOFTWARE: ChosenAttribute(SOFTWARE, "(0029,1210)", "LO" if writer.explicit else "UN", "V7", is_present=True),
        "FrameIncrementPointer": ChosenAttribute(
            "FrameIncrementPointer", "(0028,0009)", "AT", "(0018,1063)", is_present=True
        ),
        "SelectorFDValue": ChosenAttribute("SelectorFDValue", "(0072,0074)", "FD", "0.5\\-3.0", is_present=True),
        "ReferencedImageSequence": ChosenAttribute(
            "ReferencedImageSequence", "(0008,1140)", "SQ", is_present=True, item_count=2
        ),
        "ReferencedImageSequence[1].(0040,0275)[0].ScheduledProcedureStepID": ChosenAttribute(
            "ReferencedImageSequence[1].(0040,0275)[0].ScheduledProcedureStepID",
            "(0040,0009)",
            "SH",
            "STEP 2",
            is_present=True,
        ),
        "ReferencedImageSequence[0].(0008,1155)": ChosenAttribute("ReferencedImageSequence[0].(0008,1155)"),
        "PatientName": ChosenAttribute("PatientName", "(0010,0010)", "PN", "Roe^Richard", is_present=True),
        "StudyID": ChosenAttribute("StudyID"),
    }
    if not writer.explicit:
        # Nobody knows the VR of this creator's attributes.
        asked[SOFTWARE] = ChosenAttribute(SOFTWARE, "(0029,1210)", "UN", is_present=True, size_bytes=2)
    reader, _ = reader_of(cut(nested(writer), size), *asked)
    header, attributes = reader.answer()
    assert attributes == tuple(asked.values())
    assert header.tags.patient_id == "MRN7"


@pytest.mark.parametrize("path", pydicom_files(), ids=lambda path: path.name)
def test_chosen_values_are_those_that_pydicom_reads(path):
    """Each attribute of each test file, nested ones in the first item too, is pydicom's value as text."""
    data = path.read_bytes()
    if path.name in CUT:
        with pytest.raises(ServiceError):
            chosen(data, "(FFFA,FFFA)")
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = dict(list(texts_of(read(data)))[:MAX_CHOSEN])
    found = chosen(data, *expected)
    assert {attribute.path: comparable(attribute.value) for attribute in found} == {
        path: comparable(text) for path, text in expected.items()
    }
    assert all(attribute.is_present for attribute in found)


def texts_of(dataset, prefix=""):
    """Path and text of the elements whose value pydicom tells as text or numbers."""
    charsets = dataset.get("SpecificCharacterSet")
    for element in dataset:
        path = f"{prefix}({element.tag.group:04X},{element.tag.element:04X})"
        if element.VR == "SQ":
            if element.value:
                yield from texts_of(element.value[0], f"{path}[0].")
        elif element.VR not in {"OB", "OW", "OF", "OB or OW", "UN"} and not element.tag.is_private and charsets != "":
            values = element.value if isinstance(element.value, MultiValue | list) else [element.value]
            yield path, "\\".join(text_of(element.VR, value) for value in values)


def text_of(vr, value):
    """A single value as the reader writes it."""
    if vr == "AT" and value is not None:
        return f"({value >> 16:04X},{value & 0xFFFF:04X})"
    if vr in {"FL", "FD"} and value is not None:
        return repr(float(value))
    if vr in {"DS", "IS"} and isinstance(getattr(value, "original_string", None), str):
        return value.original_string
    return "" if value is None else str(value)


def comparable(text):
    """Without padding, which pydicom leaves in places."""
    return "\\".join(part.strip(" \0").rstrip("=") for part in text.split("\\"))


@pytest.mark.parametrize("path", pydicom_files(), ids=lambda path: path.name)
def test_the_20_come_as_without_a_choice(path):
    """Whatever is chosen besides, the 20 attributes are those that HeaderReader gives."""
    data = path.read_bytes()
    plain_reader = HeaderReader(Limits())
    if not plain_reader.feed(data):
        plain_reader.close()
    reader, _ = reader_of([data], "StudyID")
    assert reader.answer()[0] == plain_reader.header()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Nonsense", "dictionary"),
        ("(0000,0002)", "command"),
        ("(FFFE,E000)", "delimiter"),
        ("Rows[0].Columns", "not a sequence"),
        ("ReferencedImageSequence[0]", "go on"),
        ('(0028,"ACME",10)', "private"),
        ("Rows=5", "go on"),
        ("", "no path"),
        ("(0020,0010)" * 500, "1024"),
    ],
)
def test_a_wrong_path_is_told_by_its_place(text, problem):
    """Each wrong path has a violation that says why."""
    with pytest.raises(InvalidFieldError) as raised:
        choose(["Rows", text])
    ((field, description),) = [(one.field, one.description) for one in raised.value.violations]
    assert field == "tags[1]"
    assert problem in description


def test_a_path_is_asked_for_once_and_not_too_many_are():
    """The same attribute in two spellings, and more than 200 paths, are violations."""
    with pytest.raises(InvalidFieldError) as raised:
        choose(["PatientID", "(0010,0020)", "Nonsense"])
    assert [violation.field for violation in raised.value.violations] == ["tags[1]", "tags[2]"]
    many = [f"(0029,{number:04X})" for number in range(MAX_CHOSEN + 1)]
    with pytest.raises(InvalidFieldError):
        choose(many)
    assert len(choose(many[1:]).paths) == MAX_CHOSEN


def test_what_no_edit_may_name_can_be_read():
    """File meta information, group lengths and private tags by number have no need of a guard."""
    big = Writer(EXPLICIT_BIG)
    length = big.element(0x00080000, "UL", struct.pack(">I", 77))
    creator = big.text(0x00290010, "LO", "ACME")
    data = big.file(*plain(big, length, creator, big.element(0x00291001, "SL", struct.pack(">i", -5))))
    assert value(data, "TransferSyntaxUID") == EXPLICIT_BIG
    assert int(value(data, "(0002,0000)")) > 50
    assert value(data, "(0008,0000)") == "77"
    assert value(data, "(0029,0010)") == "ACME"
    assert value(data, "(0029,1001)") == "-5"


def test_a_private_attribute_is_found_in_whatever_block_its_creator_has():
    """Blocks are those of the item itself, and a creator may have several."""
    other = EXPLICIT.text(0x00290010, "LO", "OTHER") + EXPLICIT.text(0x00291010, "LO", "wrong")
    first, second = EXPLICIT.text(0x00290020, "LO", "ACME"), EXPLICIT.text(0x00290021, "LO", "ACME")
    late = EXPLICIT.text(0x00292110, "LO", "right")
    inside = EXPLICIT.sequence(
        0x00400275, EXPLICIT.text(0x00290011, "LO", "ACME") + EXPLICIT.text(0x00291110, "LO", "in")
    )
    data = EXPLICIT.file(*plain(EXPLICIT)[:8], other, first, second, late, inside)
    assert value(data, SOFTWARE) == "right"
    assert value(data, f"(0040,0275)[0].{SOFTWARE}") == "in"
    assert not one(data, '(0029,"ACME",11)').is_present


def test_known_private_attributes_have_their_vr():
    """Where the file says no VR, the dictionary of private creators does."""
    private = IMPLICIT.text(0x00290010, "LO", "SIEMENS CSA HEADER") + IMPLICIT.text(0x00291008, "CS", "IMAGE NUM 4")
    found = one(IMPLICIT.file(*plain(IMPLICIT)[:8], private), '(0029,"SIEMENS CSA HEADER",08)')
    assert (found.vr, found.value, found.tag) == ("CS", "IMAGE NUM 4", "(0029,1008)")


def test_bulk_comes_as_a_length():
    """Binary, long and impossible values come without a value and with their length; empty ones with neither."""
    fragments = EXPLICIT.header(PIXELS, "OB", 0xFFFFFFFF) + EXPLICIT.tag(0xFFFEE000, 0) + EXPLICIT.tag(0xFFFEE000, 6)
    fragments += b"abcdef" + EXPLICIT.tag(0xFFFEE0DD, 0)
    data = EXPLICIT.file(
        *plain(EXPLICIT)[:8],
        EXPLICIT.element(0x00281201, "OW", bytes(600)),
        EXPLICIT.element(0x00281202, "OW", b""),
        EXPLICIT.element(0x00287FE0, "UR", b"x" * (VALUE_BYTES + 2)),
        EXPLICIT.element(0x00720070, "UT", b"y" * VALUE_BYTES),
        EXPLICIT.element(0x00720078, "UL", bytes(6)),
        EXPLICIT.element(0x00880200, "OB", bytes(100_000)),
        fragments,
    )
    found = chosen(
        data, "(0028,1201)", "(0028,1202)", "(0028,7FE0)", "(0072,0070)", "(0072,0078)", "(0088,0200)", "PixelData"
    )
    assert [(attribute.size_bytes, len(attribute.value)) for attribute in found] == [
        (600, 0),
        (0, 0),
        (VALUE_BYTES + 2, 0),
        (0, VALUE_BYTES),
        (6, 0),
        (100_000, 0),
        (8 + 8 + 6 + 8, 0),
    ]
    assert all(attribute.is_present for attribute in found)


def test_un_and_us_are_read_as_what_they_are():
    """UN of a standard attribute has its dictionary's VR, and what US or SS is follows from the pixels of its item."""
    data = EXPLICIT.file(*plain(EXPLICIT)[:8], EXPLICIT.element(0x00400009, "UN", b"ID 7"))
    assert one(data, "(0040,0009)") == ChosenAttribute("(0040,0009)", "(0040,0009)", "SH", "ID 7", is_present=True)
    smallest = IMPLICIT.element(0x00280106, "US", b"\xfe\xff")
    signed, unsigned = IMPLICIT.number(0x00280103, 1), IMPLICIT.number(0x00280103, 0)
    data = IMPLICIT.file(
        *plain(IMPLICIT)[:8], signed, smallest, IMPLICIT.sequence(0x00880200, unsigned + smallest, smallest)
    )
    found = chosen(data, "(0028,0106)", "(0088,0200)[0].(0028,0106)", "(0088,0200)[1].(0028,0106)")
    assert [(attribute.vr, attribute.value) for attribute in found] == [("SS", "-2"), ("US", "65534"), ("SS", "-2")]


def test_items_are_in_their_own_character_set_or_their_parents():
    """R7: an item's own (0008,0005) counts in it, also when it comes late; an item without one has its parent's."""
    name = 0x00100010
    own = EXPLICIT.element(name, "PN", "Люкc".encode("iso8859-5")) + EXPLICIT.text(0x00080005, "CS", "ISO_IR 144")
    inherited = EXPLICIT.element(name, "PN", "Jérôme".encode("latin-1"))
    deeper = EXPLICIT.text(0x00080005, "CS", "ISO_IR 144") + EXPLICIT.sequence(
        0x00400275, EXPLICIT.element(name, "PN", "Люкc".encode("iso8859-5"))
    )
    charset = EXPLICIT.text(0x00080005, "CS", "ISO_IR 100")
    data = EXPLICIT.file(charset, *plain(EXPLICIT)[:8], EXPLICIT.sequence(0x00400275, own, inherited, deeper))
    paths = ["(0040,0275)[0].PatientName", "(0040,0275)[1].PatientName", "(0040,0275)[2].(0040,0275)[0].PatientName"]
    assert [attribute.value for attribute in chosen(data, *paths)] == ["Люкc", "Jérôme", "Люкc"]


def test_undeclared_characters_are_told_with_their_path():
    """R7: text beyond ASCII without a character set is the best guess, and a warning says where."""
    item = EXPLICIT.element(0x00400009, "SH", "Schädel ".encode("latin-1"))
    reader, _ = reader_of(
        [EXPLICIT.file(*plain(EXPLICIT)[:8], EXPLICIT.sequence(0x00400275, item))], "(0040,0275)[0].(0040,0009)"
    )
    header, (attribute,) = reader.answer()
    assert attribute.value == "Schädel"
    (problem,) = header.problems
    assert (problem.code, problem.tag) == (ProblemCode.UNDECLARED_CHARSET, "(0040,0275)[0].(0040,0009)")
    assert "Sch" not in problem.message


def test_of_what_stands_twice_the_first_counts():
    """A second element, sequence or character set of the same tag changes nothing."""
    twice = [EXPLICIT.number(0x00280010, 1), EXPLICIT.number(0x00280010, 2)]
    items = [EXPLICIT.sequence(0x00400275, EXPLICIT.text(0x00400009, "SH", name)) for name in ("A", "B")]
    data = EXPLICIT.file(*plain(EXPLICIT)[:8], *twice, items[0], EXPLICIT.sequence(0x00400275), items[1])
    found = chosen(data, "Rows", "(0040,0275)", "(0040,0275)[0].(0040,0009)")
    assert [(attribute.value, attribute.item_count) for attribute in found] == [("1", 0), ("", 1), ("A", 0)]


# How far the file is read.


def pieces_read(pieces, *texts):
    """How many of the pieces were taken before the answer was known; one more where the end was waited for."""
    return reader_of(pieces, *texts)[1]


def image(*behind, bulk=10_000_000):
    """The pieces of a large image: its header in one, its pixels in megabytes, what stands behind."""
    comments = EXPLICIT.text(0x00204000, "LT", "as long as a header " * 60)
    header = b"".join(plain(EXPLICIT, comments, EXPLICIT.number(0x00280010, 9))[:10])
    start = EXPLICIT.file(header) + EXPLICIT.header(PIXELS, "OW", bulk)
    megabyte = bytes(1_000_000)
    return [start, *[megabyte] * (bulk // len(megabyte)), b"".join(behind) or b""]


@pytest.mark.parametrize("text", ["StudyID", "Rows", "(7FDF,0001)", "PixelData", "FloatPixelData"])
def test_reading_ends_at_the_pixel_data(text):
    """R2: what stands before the pixel data, and the length of native pixel data itself, is told without any of it."""
    assert pieces_read(image(), text) == 1
    assert one(image()[0], "PixelData").size_bytes == 10_000_000


def test_reading_ends_past_the_highest_tag():
    """R2: where all is in order, nothing behind the highest tag asked for is waited for."""
    bulk = EXPLICIT.element(0x00420011, "OB", bytes(3_000_000))
    pieces = cut(EXPLICIT.file(*plain(EXPLICIT)[:8], EXPLICIT.number(0x00280010, 9), bulk), 2000)
    assert pieces_read(pieces, "Rows", "StudyID") == 1
    assert pieces_read(pieces, "(0042,0012)") == len(pieces) + 1


def test_what_stands_out_of_order_is_still_found():
    """R2: tag order is not relied on: a file in disorder is read on to its pixel data."""
    disorder, late = EXPLICIT.text(0x00100040, "CS", "F "), EXPLICIT.text(0x00180050, "DS", "1.5 ")
    data = EXPLICIT.file(*plain(EXPLICIT)[:8], disorder, EXPLICIT.number(0x00280010, 9), late)
    assert value(data, "SliceThickness") == "1.5"


@pytest.mark.parametrize("text", ["(7FE1,1001)", "DigitalSignaturesSequence[0].MACIDNumber"])
def test_a_tag_behind_the_pixel_data_is_reached_without_keeping_it(text):
    """R3: pixel data is read past, a megabyte at a time, and not held."""
    signature = EXPLICIT.sequence(0xFFFAFFFA, EXPLICIT.number(0x04000005, 7))
    private = EXPLICIT.text(0x7FE10010, "LO", "ACME") + EXPLICIT.element(0x7FE11001, "US", b"\7\0")
    pieces = image(private, signature, bulk=64_000_000)
    tracemalloc.start()
    try:
        reader, _ = reader_of(pieces, text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.answer()[1][0].value == "7"
    assert peak < 4_000_000


def test_pixel_data_of_an_icon_neither_ends_the_header_nor_counts_as_the_files():
    """R4: a nested (7FE0,0010) is what its path says."""
    icon = EXPLICIT.sequence(0x00082112, EXPLICIT.element(PIXELS, "OW", bytes(4096)), undefined=True)
    data = EXPLICIT.file(*plain(EXPLICIT, icon, EXPLICIT.number(0x00280010, 9)))
    found = chosen(data, "(0008,2112)[0].PixelData", "PixelData", "Rows")
    assert [(attribute.size_bytes, attribute.value) for attribute in found] == [(4096, ""), (64, ""), (0, "9")]


@pytest.mark.parametrize("end", range(200, 1400, 97))
def test_a_file_cut_before_what_is_asked_for_is_an_error(end):
    """R9: what the file does not hold any more is never told to be absent."""
    data = bytes_of("CT_small.dcm")
    with pytest.raises(ServiceError) as raised:
        chosen(data[:end], "Rows")
    assert raised.value.reason is Reason.TRUNCATED_FILE


def test_a_creator_that_is_repeated_costs_nothing():
    """R8: blocks that are reserved over and over do not add up."""
    creators = EXPLICIT.text(0x00290010, "LO", "ACME") * 50_000
    reader, _ = reader_of(
        [EXPLICIT.file(*plain(EXPLICIT)[:8], creators)], *[f'(0029,"ACME",{n:02X})' for n in range(200)]
    )
    assert not any(attribute.is_present for attribute in reader.answer()[1])
    assert len(reader._root.by_tag) < 500


DAMAGED = ["CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "nested_priv_SQ.dcm"]


@given(data=st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_damaged_files_give_an_answer_or_an_error_of_ours(data):
    """R1: whatever a file holds, its answer, or its error of ours, is the same however it is cut."""
    damaged = bytearray(bytes_of(data.draw(st.sampled_from(DAMAGED)))[:6000])
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(132, len(damaged) - 1))
        damaged[at : at + 2] = data.draw(st.binary(max_size=3))
    paths = ["Rows", "PixelData", "(0002,0010)", "OtherPatientIDsSequence[0].PatientID", '(0009,"GEMS_IDEN_01",02)']

    def outcome(size):
        try:
            return reader_of(cut(bytes(damaged), size), *paths)[0].answer()
        except ServiceError as error:
            return error.reason

    assert outcome(10_000) == outcome(data.draw(st.sampled_from([1, 97, 1000])))
