"""Editing while a file streams: what is held of it (M10), and what becomes of lengths that stand before content."""

import struct
import tracemalloc

import pytest

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.editing.edits import Edits
from tag_service.domain.editing.rewrite import rewriter_of
from tag_service.domain.standard.limits import MIB, Limits
from tests.unit.tag_service.building import AT, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Writer, body, edit, plain, read

EXPLICIT = Writer(EXPLICIT_LITTLE)
IMPLICIT = Writer(IMPLICIT_LITTLE)
CYRILLIC = "Иванов^Иван"
BIG = 32 * MIB
NOISE = bytes(range(256)) * 4096
# More than is ever held, and less than the bulk.
ALLOWED = 26 * MIB


def rewritten(pieces, **edits):
    """The size of the edited file, and how many bytes were in use at most while it passed; nothing of it is kept."""
    rewriter = rewriter_of(Edits(**edits), Limits(), at=AT, system="TEST")
    tracemalloc.start()
    try:
        size = sum(len(out) for piece in pieces for out in rewriter.feed(piece))
        size += sum(map(len, rewriter.close()))
        return size, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def around(writer, header, *, tail=b""):
    """A file with BIG bytes behind this header and before this tail, in pieces, nearly all of them the same object."""
    return [writer.file(*plain(writer)[:8]) + header, *[NOISE] * (BIG // len(NOISE)), tail]


WAVEFORM = EXPLICIT.header(0x54001010, "OW", BIG)
CASES = {
    "pixels": around(EXPLICIT, EXPLICIT.header(0x7FE00010, "OW", BIG)),
    "document": around(EXPLICIT, EXPLICIT.header(0x00420011, "OB", BIG), tail=EXPLICIT.text(0x00420012, "LO", "x")),
    "overlay": around(EXPLICIT, EXPLICIT.header(0x60003000, "OW", BIG)),
    "private": around(EXPLICIT, EXPLICIT.text(0x00290010, "LO", "A") + EXPLICIT.header(0x00291010, "OB", BIG)),
    "implicit private": around(IMPLICIT, IMPLICIT.header(0x00291010, "UN", BIG)),
    "fragments": around(
        EXPLICIT,
        EXPLICIT.header(0x7FE00010, "OB", 0xFFFFFFFF) + EXPLICIT.tag(0xFFFEE000, 0) + EXPLICIT.tag(0xFFFEE000, BIG),
        tail=EXPLICIT.tag(0xFFFEE0DD, 0),
    ),
    "waveform": around(
        EXPLICIT,
        EXPLICIT.header(0x54000100, "SQ", 8 + len(WAVEFORM) + BIG)
        + EXPLICIT.tag(0xFFFEE000, len(WAVEFORM) + BIG)
        + WAVEFORM,
    ),
}


@pytest.mark.parametrize("edits", [{"patient_id": "NEW"}, {"patient_name": CYRILLIC}], ids=["plain", "to UTF-8"])
@pytest.mark.parametrize("name", CASES)
def test_bulk_data_is_not_held(name, edits):
    """M10: whatever the bulk data is and wherever it stands, what is held is of the order of a header."""
    size, peak = rewritten(CASES[name], **edits)
    assert size > BIG
    assert peak < ALLOWED


def large_sequence(*, inside=b"", behind=b"", undefined=False):
    """A sequence whose item holds 10 MiB, which is more than is held."""
    waveform = EXPLICIT.element(0x54001010, "OW", NOISE * 10)
    return EXPLICIT.sequence(0x54000100, inside + waveform + behind, undefined=undefined)


@pytest.mark.parametrize("undefined", [False, True])
def test_a_large_sequence_without_changes_keeps_its_bytes(undefined):
    """M1, M13: what nothing changes in stays as it is, defined lengths too, also where it is too large to hold."""
    data = EXPLICIT.file(*plain(EXPLICIT, large_sequence(undefined=undefined)))
    assert body(edit(data)) == body(data)
    assert large_sequence(undefined=undefined) in edit(data, patient_id="NEW")


def test_group_lengths_behind_bulk_that_was_let_go_stay():
    """M1 before M3: where an item has been written with its length, what stands in it must stay, and is right so."""
    group_length = EXPLICIT.element(0x54020000, "UL", struct.pack("<I", 10)) + EXPLICIT.number(0x54020010, 7)
    data = EXPLICIT.file(*plain(EXPLICIT, large_sequence(behind=group_length)))
    assert body(edit(data)) == body(data)


def test_a_large_sequence_that_changes_gets_undefined_lengths():
    """M6: a change in a sequence that is too large to hold makes its length, and its item's, undefined."""
    data = EXPLICIT.file(*plain(EXPLICIT, large_sequence(behind=EXPLICIT.text(0x54001012, "LO", "old"))))
    path = "WaveformSequence[0]."
    result = edit(data, set=(path + "(0010,4000)=new",), remove=(path + "(5400,1012)",))
    (item,) = read(result).WaveformSequence
    assert (item.PatientComments, item.WaveformData, len(item)) == ("new", NOISE * 10, 2)
    assert read(result)["WaveformSequence"].is_undefined_length
    assert read(result).PixelData == read(data).PixelData
    # Two delimitation items; the two elements take the same.
    assert len(result) == len(edit(data)) + 16


def test_group_lengths_before_bulk_are_dropped_all_the_same():
    """M3: an item that lost its group length and is too large to hold ends at a delimiter."""
    group_length = EXPLICIT.element(0x54000000, "UL", struct.pack("<I", 10))
    data = EXPLICIT.file(*plain(EXPLICIT, large_sequence(inside=group_length)))
    (item,) = read(edit(data)).WaveformSequence
    assert [element.keyword for element in item] == ["WaveformData"]
    assert group_length not in edit(data)


def test_text_behind_the_pixels_is_carried_over():
    """M5: text that stands behind the pixel data becomes UTF-8 with the rest."""
    declared = EXPLICIT.text(0x00080005, "CS", "ISO_IR 100")
    late = EXPLICIT.element(0x7FE10010, "LO", "Gerät".encode("latin-1"))
    result = edit(EXPLICIT.file(declared, *plain(EXPLICIT), late), patient_name=CYRILLIC)
    assert result.endswith(EXPLICIT.element(0x7FE10010, "LO", "Gerät".encode()))


def test_text_behind_the_pixels_that_is_none_ends_the_stream():
    """M5, M11: bytes that are no text are found after output began, and end it with an error."""
    late = EXPLICIT.element(0x7FE10010, "LO", b"\xff\xfe")
    data = EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.text(0x00204000, "LT", "x" * 2000)), late)
    rewriter = rewriter_of(Edits(patient_name=CYRILLIC), Limits(), at=AT, system="TEST")
    assert b"".join(rewriter.feed(data[:-10])).count(bytes(range(64))) == 1
    with pytest.raises(ServiceError) as caught:
        [*rewriter.feed(data[-10:]), *rewriter.close()]
    assert caught.value.reason is Reason.CHARSET_CONFLICT


def test_an_attribute_that_comes_again_behind_the_pixels_is_changed_there_too():
    """M1: of an attribute that the header holds and that comes again, both are changed, for readers differ."""
    data = EXPLICIT.file(*plain(EXPLICIT), EXPLICIT.text(0x00100020, "LO", "LATE"))
    result = edit(data, patient_id="NEW")
    assert b"LATE" not in result
    assert b"MRN7" not in result


def test_an_attribute_only_behind_the_pixels_moves_to_its_place():
    """M1: an edited attribute that turns up behind the pixels was added where it belongs, and is left out there."""
    elements = [element for element in plain(EXPLICIT) if element[:4] != b"\x10\x00\x20\x00"]
    data = EXPLICIT.file(*elements, EXPLICIT.text(0x00100020, "LO", "LATE"))
    result = edit(data, patient_id="NEW")
    assert body(result) == b"".join(
        EXPLICIT.text(0x00100020, "LO", "NEW") if one is None else one for one in (*elements[:5], None, *elements[5:])
    )


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_the_result_is_the_same_however_the_file_is_cut(size):
    """R1: pieces of any size give the same bytes, with edits at every depth."""
    sequence = EXPLICIT.sequence(0x00400275, EXPLICIT.text(0x00080050, "SH", "A1"))
    data = EXPLICIT.file(*plain(EXPLICIT, sequence))
    edits = {"patient_name": CYRILLIC, "set": ("RequestAttributesSequence[0].AccessionNumber=B1", "StudyID=7")}
    assert edit(data, cut=size, **edits) == edit(data, **edits)


def test_no_cut_file_ends_cleanly():
    """R9, M11: at whatever byte a file ends early, editing it ends in an error."""
    data = EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.sequence(0x00400275, EXPLICIT.text(0x00080050, "SH", "A1"))))
    whole = {len(EXPLICIT.file(*plain(EXPLICIT)[:count])) for count in range(1, 9)}
    clean = []
    for end in range(len(data)):
        try:
            edit(data[:end], patient_id="NEW")
        except ServiceError:
            continue
        clean.append(end)
    # A cut between two elements of the data set cannot be told from its end.
    assert len(clean) <= len(whole) + 1
    assert all(edit(data[:end]) for end in clean)
