"""Bytes to elements: the forms of PS3.5 and PS3.10, and that nothing of a file is lost or read twice."""

import itertools
import os
import struct
import zlib

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.parsing import tokens
from tag_service.domain.parsing.tokenizer import Tokenizer
from tag_service.domain.standard.limits import MIB, Limits
from tag_service.domain.standard.problems import ProblemCode
from tests.unit.tag_service.building import (
    DEFLATED,
    ENCODINGS,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    NAMES,
    Writer,
    every_element,
    part10,
    plain,
    pydicom_files,
    read,
)
from tests.unit.tag_service.tokens import bytes_of, cut, every, outcome, written
from tests.unit.tag_service.tree import Fragments, Items, load

EXPLICIT = Writer(EXPLICIT_LITTLE)
IMPLICIT = Writer(IMPLICIT_LITTLE)
BIG = Writer(EXPLICIT_BIG)
TRUNCATED = {"MR_truncated.dcm", "rtplan_truncated.dcm"}
WHOLE_FILES = [path for path in pydicom_files() if path.name not in TRUNCATED]
# One of each form: explicit, implicit, big endian, deflated, nested, encapsulated, without preamble.
FORMS = (
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "image_dfl.dcm",
    "nested_priv_SQ.dcm",
    "UN_sequence.dcm",
    "JPEG2000.dcm",
    "ExplVR_BigEndNoMeta.dcm",
    "rtplan.dcm",
)


def reason_of(data: bytes, limits: Limits | None = None) -> Reason:
    """Why the file is refused."""
    with pytest.raises(ServiceError) as raised:
        load(data, limits or Limits())
    return raised.value.reason


def codes_of(data: bytes) -> list[str]:
    """What was noticed about the file."""
    return [problem.code.value for problem in load(data, Limits()).problems]


@pytest.mark.parametrize("path", WHOLE_FILES, ids=lambda path: path.name)
def test_the_tree_holds_every_byte_of_a_file(path):
    """The tree of each file, written back, is the file; of a deflated one, what it inflates to."""
    data = path.read_bytes()
    file = load(data, Limits())
    if not file.deflated:
        assert written(file) == data
    else:
        start = file.elements[0].offset
        inflated = zlib.decompressobj(-15).decompress(data[start:])
        assert written(file) == data[:start] + inflated + file.trailing


# Of one file pydicom keeps a private sequence as bytes.
@pytest.mark.parametrize(
    "path", [path for path in WHOLE_FILES if path.name != "priv_SQ.dcm"], ids=lambda path: path.name
)
def test_the_elements_are_those_that_pydicom_finds(path):
    """At every depth, the tags are those that pydicom reads, in its order where the file's is ascending."""
    data = path.read_bytes()
    ours = sorted(element.tag for element in every(load(data, Limits()).elements))
    theirs = sorted(int(element.tag) for element in every_element(read(data)))
    # A tag that stands twice is one to pydicom.
    assert sorted(set(ours)) == sorted(set(theirs))
    assert len(ours) - len(theirs) == codes_of(data).count("DUPLICATE_TAG")


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_tokens_do_not_depend_on_how_the_file_is_cut(name, size):
    """R1: Cut into single bytes, or oddly, a file gives the tokens that it gives whole."""
    data = bytes_of(name)[:6000]
    assert outcome(cut(data, size)) == outcome([data])


@pytest.mark.parametrize("writer", [EXPLICIT, IMPLICIT, BIG], ids=NAMES[:3])
def test_the_limits_do_not_depend_on_how_the_file_is_cut(writer):
    """R1, R8: Wherever a limit strikes, it strikes at the same element for all cuts."""
    empty = [writer.sequence(0x00081140), writer.sequence(0x00081199, b"", b"")]
    nested = [
        writer.sequence(0x00400275, *empty, b"", writer.number(0x00280010, 7), undefined=undefined)
        for undefined in (False, True)
    ]
    private = writer.element(0x00111001, "UN", IMPLICIT.tag(0xFFFEE000, 0))
    data = writer.file(*plain(writer)[:8], private, *nested, writer.text(0x00400280, "ST", "x"))
    everything = len(outcome([data]))
    seen = set()
    for limits in (
        *(Limits(elements=count) for count in range(60)),
        *(Limits(header_bytes=size) for size in range(300, len(data), 3)),
        *(Limits(depth=depth) for depth in range(4)),
    ):
        whole = outcome([data], limits)
        seen.add(len(whole))
        for size in (1, 13):
            assert outcome(cut(data, size), limits) == whole
    assert max(seen) == everything
    assert len(seen) > 20


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_tokens_do_not_depend_on_any_cuts(data):
    """R1: Wherever it is cut, a file gives the tokens that it gives whole."""
    whole = bytes_of(data.draw(st.sampled_from(FORMS)))
    at = sorted(data.draw(st.lists(st.integers(0, min(len(whole), 5000)), max_size=12)))
    pieces = [whole[start:end] for start, end in zip([0, *at], [*at, len(whole)], strict=True)]
    assert outcome(pieces) == outcome([whole])


def test_every_cut_is_an_error_that_says_where():
    """R9: CT_small.dcm cut anywhere is refused, save between two elements, where nothing tells that more follows."""
    data = bytes_of("CT_small.dcm")
    file = load(data, Limits())
    pixels = next(element for element in file.elements if element.tag == 0x7FE00010)
    boundaries = {element.offset for element in file.elements} - {file.elements[0].offset}
    cuts = {*range(pixels.offset + 64), *range(pixels.offset + 64, len(data), 331), *range(len(data) - 40, len(data))}
    for at in cuts - boundaries:
        with pytest.raises(ServiceError) as raised:
            load(data[:at], Limits())
        if at >= 132:
            assert raised.value.reason is Reason.TRUNCATED_FILE
            assert int(raised.value.metadata["offset"]) <= at


@pytest.mark.parametrize("name", ["image_dfl.dcm", "JPEG2000.dcm", "nested_priv_SQ.dcm"])
def test_a_cut_inside_what_is_nested_or_deflated_is_an_error(name):
    """R9: Deflated data sets, fragments and items that break off are refused."""
    data = bytes_of(name)
    file = load(data, Limits())
    boundaries = set() if file.deflated else {element.offset for element in file.elements}
    # What follows the deflated data set is a trailer of 8 bytes.
    for at in range(400, len(data) - 8, max(1, len(data) // 150)):
        if at not in boundaries:
            assert reason_of(data[:at]) is Reason.TRUNCATED_FILE


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"\0", Reason.NOT_DICOM),
        (b"\0" * 5000, Reason.NOT_DICOM),
        (b"Dear colleague,\n" * 500, Reason.NOT_DICOM),
        (b'{"StudyInstanceUID": "1.2.3"}', Reason.NOT_DICOM),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 8, Reason.NOT_DICOM),
        (b"%PDF-1.7\n" + b"x" * 2000, Reason.NOT_DICOM),
        (b"PK\x03\x04" + b"\x14\0" * 600, Reason.NOT_DICOM),
        (b"\0" * 128 + b"DICN" + b"\2\0\0\0UL\4\0", Reason.NOT_DICOM),
        (b"\0" * 128 + b"DICM", Reason.TRUNCATED_FILE),
        (EXPLICIT.text(0x00100010, "PN", "Roe^Richard"), Reason.NOT_DICOM),
    ],
    ids=["empty", "byte", "zeros", "text", "json", "png", "pdf", "zip", "wrong mark", "mark alone", "one element"],
)
def test_what_is_not_dicom_is_refused(data, reason):
    """R9: Files of other kinds are told from DICOM files."""
    assert reason_of(data) is reason


@pytest.mark.parametrize("writer", ENCODINGS[:3], ids=NAMES[:3])
def test_a_bare_data_set_is_read_when_it_makes_sense(writer):
    """R5: Without preamble and meta information the first elements tell the encoding, and the lack is noticed."""
    file = load(b"".join(plain(writer)), Limits())
    assert (file.explicit, file.little_endian) == (writer.explicit, writer.order == "<")
    assert file.transfer_syntax_uid == writer.transfer_syntax
    assert [problem.code for problem in file.problems] == [ProblemCode.PREAMBLE_MISSING, ProblemCode.META_MISSING]
    assert len(file.elements) == 9


def test_meta_information_may_stand_without_preamble():
    """R5: A file that begins with group 2 is read by what that says."""
    file = load(part10(b"".join(plain(BIG)), EXPLICIT_BIG)[132:], Limits())
    assert (file.transfer_syntax_uid, file.little_endian, len(file.meta)) == (EXPLICIT_BIG, False, 8)
    assert [problem.code for problem in file.problems] == [ProblemCode.PREAMBLE_MISSING]


@pytest.mark.parametrize("length", [0, 2, 80, 400, 0xFFFFFFFE])
def test_a_wrong_group_length_of_the_meta_information_does_no_harm(length):
    """R5: Where group 2 ends is seen by the tags."""
    data = bytearray(EXPLICIT.file(*plain(EXPLICIT)))
    data[140:144] = struct.pack("<I", length)
    assert len(load(bytes(data), Limits()).elements) == 9


def test_a_missing_transfer_syntax_is_guessed():
    """R5: Meta information without (0002,0010) is no obstacle, and is noticed."""
    meta = EXPLICIT.text(0x00020002, "UI", "1.2")
    file = load(bytes(128) + b"DICM" + meta + b"".join(plain(IMPLICIT)), Limits())
    assert (file.explicit, file.transfer_syntax_uid) == (False, IMPLICIT_LITTLE)
    assert [problem.code for problem in file.problems] == [ProblemCode.META_MISSING]


@pytest.mark.parametrize("said", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
@pytest.mark.parametrize("writer", ENCODINGS[:3], ids=NAMES[:3])
def test_a_data_set_is_read_as_it_is_whatever_the_transfer_syntax_says(said, writer):
    """R5: A wrong transfer syntax is noticed and overruled by the first element."""
    file = load(part10(b"".join(plain(writer)), said), Limits())
    assert (file.explicit, file.little_endian, len(file.elements)) == (writer.explicit, writer.order == "<", 9)
    assert file.transfer_syntax_uid == said
    assert [problem.code for problem in file.problems] == [Reason.MALFORMED_DICOM] * (writer.transfer_syntax != said)


def test_private_and_future_transfer_syntaxes_are_explicit_little_endian():
    """R5: An unknown UID, and the one that deflates frames only, are no obstacle."""
    for uid in ("1.2.276.0.99.1", "1.2.840.10008.1.2.8.1"):
        file = load(part10(b"".join(plain(EXPLICIT)), uid), Limits())
        assert (file.explicit, file.deflated, len(file.elements)) == (True, False, 9)


@pytest.mark.parametrize(("tail", "noticed"), [(b"", []), (b"\0", []), (b"\0\0\0", ["TRAILING_BYTES"])])
def test_a_deflated_data_set_may_be_padded(tail, noticed):
    """R5: One NUL behind it is right (PS3.5 A.5), more zeros are noticed."""
    stream = zlib.compressobj(wbits=-15)
    body = stream.compress(b"".join(plain(EXPLICIT))) + stream.flush()
    data = part10(body + tail, DEFLATED)
    assert codes_of(data) == noticed
    assert load(data, Limits()).trailing == tail


def test_the_trailer_of_gzip_may_follow_a_deflated_data_set():
    """R5: Writers that deflate with gzip and leave its trailer there are understood; longer garbage is not."""
    stream = zlib.compressobj(wbits=-15)
    body = stream.compress(b"".join(plain(EXPLICIT))) + stream.flush()
    assert codes_of(part10(body + b"\x4e\xd0\x58\x45\x1a\x02\4\0", DEFLATED)) == ["TRAILING_BYTES"]
    assert reason_of(part10(body + b"garbage" * 9, DEFLATED)) is Reason.MALFORMED_DICOM


@pytest.mark.parametrize("tail", [b"12345678" + bytes(9), b"12345678" + bytes(9) + b"x" + bytes(3)])
def test_what_follows_a_deflated_data_set_is_told_the_same_for_all_pieces(tail):
    """R1: a trailer of gzip with zeros behind it, or with more, is the same however the file is cut."""
    stream = zlib.compressobj(wbits=-15)
    data = part10(stream.compress(b"".join(plain(EXPLICIT))) + stream.flush() + tail, DEFLATED)
    whole = outcome([data])
    assert (Reason.MALFORMED_DICOM in whole) is (b"x" in tail)
    assert all(outcome(cut(data, size)) == whole for size in range(1, 40))


def test_broken_deflate_is_malformed():
    """R5: What cannot be inflated is refused without the library's words."""
    assert reason_of(part10(b"\xff" * 200, DEFLATED)) is Reason.MALFORMED_DICOM


def test_zeros_may_pad_a_file_and_nothing_else_may():
    """Zeros behind the data set are kept and noticed, other bytes are refused."""
    data = EXPLICIT.file(*plain(EXPLICIT))
    file = load(data + bytes(512), Limits())
    assert (file.trailing, [problem.code for problem in file.problems]) == (bytes(512), [ProblemCode.TRAILING_BYTES])
    assert reason_of(data + bytes(512) + b"x") is Reason.MALFORMED_DICOM
    assert reason_of(data + b"more bytes than a header has") in {Reason.MALFORMED_DICOM, Reason.TRUNCATED_FILE}


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)
def test_sequences_of_both_kinds_of_length_are_read(writer, undefined):
    """Items and delimiters are kept as they are, in every encoding."""
    inner = writer.sequence(0x00081199, writer.text(0x00081155, "UI", "1.2.3"), undefined=not undefined)
    outer = writer.sequence(0x00081140, inner, b"", undefined=undefined)
    file = load(writer.file(*plain(writer, outer)), Limits())
    (element,) = (element for element in file.elements if element.tag == 0x00081140)
    assert isinstance(element.value, Items)
    assert [bool(item.delimiter) for item in element.value.items] == [undefined, undefined]
    assert bool(element.value.delimiter) is undefined
    assert [nested.tag for nested in every([element])] == [0x00081140, 0x00081199, 0x00081155]


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("writer", [EXPLICIT, BIG], ids=["explicit", "big endian"])
def test_un_may_hold_items_in_implicit_little_endian(writer, undefined):
    """R6: Whatever the transfer syntax, a sequence whose VR is UN is read as implicit little endian (CP-246)."""
    items = IMPLICIT.sequence(0x00111001, IMPLICIT.text(0x00100020, "LO", "MRN7"), undefined=undefined)[8:]
    length = 0xFFFFFFFF if undefined else len(items)
    file = load(writer.file(*plain(writer, writer.header(0x00111001, "UN", length) + items)), Limits())
    (element,) = (element for element in file.elements if element.tag == 0x00111001)
    assert isinstance(element.value, Items)
    assert element.value.implicit_little
    assert [(nested.tag, nested.value) for nested in element.value.items[0].elements] == [(0x00100020, b"MRN7")]


@pytest.mark.parametrize(
    "value",
    [
        b"\xfe\xff\0\xe0\4\0\0\0\1\2\3\4",
        b"\xfe\xff\0\xe0",
        b"\xfe\xff\0\xe0\xff\xff\xff\xff" * 300,
        b"\xfe\xff\0\xe0" * 99,
    ],
)
def test_un_that_only_begins_like_an_item_is_a_value(value):
    """R6: Bytes that do not hold together as items to the last one stay the bytes they are."""
    file = load(EXPLICIT.file(*plain(EXPLICIT, EXPLICIT.element(0x00111001, "UN", value))), Limits())
    assert value in [element.value for element in file.elements]


@pytest.mark.parametrize("code", [b"??", b"  ", b"\0\0"])
def test_a_header_without_a_vr_is_unknown(code):
    """What writers put where they know no VR counts as UN."""
    odd = struct.pack("<HH2sH", 0x0011, 0x1001, code, 4) + b"abcd"
    file = load(EXPLICIT.file(*plain(EXPLICIT, odd)), Limits())
    assert [(element.vr, element.value) for element in file.elements if element.tag == 0x00111001] == [("UN", b"abcd")]


def test_a_vr_of_the_future_has_a_long_length():
    """A VR that is not known yet is read as PS3.5 6.2 foresees."""
    odd = struct.pack("<HH2sHI", 0x0011, 0x1001, b"ZZ", 0, 4) + b"abcd"
    file = load(EXPLICIT.file(*plain(EXPLICIT, odd)), Limits())
    assert [(element.vr, element.value) for element in file.elements if element.tag == 0x00111001] == [("ZZ", b"abcd")]


def test_fragments_are_kept_verbatim():
    """An encapsulated value is its items, offset table and delimiter, as in the file."""
    data = bytes_of("JPEG2000.dcm")
    (pixels,) = (element for element in load(data, Limits()).elements if element.tag == 0x7FE00010)
    assert isinstance(pixels.value, Fragments)
    assert data.endswith(pixels.header + pixels.value.data)
    frame = next(pydicom.encaps.generate_frames(pixels.value.data, number_of_frames=1))
    assert frame[:4] == b"\xff\x4f\xff\x51"


@pytest.mark.parametrize(
    "body",
    [
        EXPLICIT.header(0x00081140, "SQ", 100) + EXPLICIT.tag(0xFFFEE000, 200) + bytes(300),
        EXPLICIT.header(0x00081140, "SQ", 20) + EXPLICIT.tag(0x00080000, 4) + bytes(300),
        EXPLICIT.sequence(0x00081140, EXPLICIT.header(0x00081150, "UI", 90) + b"1.2"),
        EXPLICIT.header(0x00081150, "UI", 0)[:-2] + b"\0\0" + EXPLICIT.tag(0xFFFEE00D, 0),
        EXPLICIT.header(0x00189998, "UT", 0xFFFFFFFF) + bytes(20),
        EXPLICIT.header(0x7FE00010, "OB", 0xFFFFFFFF) + EXPLICIT.tag(0x00080000, 4) + bytes(20),
        EXPLICIT.header(0x7FE00010, "OB", 0xFFFFFFFF) + EXPLICIT.tag(0xFFFEE000, 0xFFFFFFFF) + bytes(20),
        b"\x10\x00\x30\x00a!" + bytes(30),
        EXPLICIT.header(0x00081140, "SQ", 0xFFFFFFFF)
        + EXPLICIT.tag(0xFFFEE000, 16)
        + EXPLICIT.header(0x00081199, "SQ", 0xFFFFFFFF)
        + EXPLICIT.tag(0xFFFEE0DD, 0) * 2,
    ],
    ids=[
        "item beyond its sequence",
        "no item",
        "element beyond its item",
        "stray delimiter",
        "text of undefined length",
        "no fragment",
        "open fragment",
        "no VR",
        "sequence beyond its item",
    ],
)
def test_a_broken_structure_is_refused(body):
    """What does not nest as it should is refused with its offset."""
    data = EXPLICIT.file(*plain(EXPLICIT)[:2], body)
    assert reason_of(data) is Reason.MALFORMED_DICOM
    with pytest.raises(ServiceError) as raised:
        load(data, Limits())
    assert 300 < int(raised.value.metadata["offset"]) <= len(data)


@pytest.mark.parametrize("vr", ["SQ", "UN"])
def test_a_hundred_thousand_nested_items_are_refused_at_once(vr):
    """R8: Depth is limited before it costs anything, for sequences of undefined and of defined length."""
    opening = EXPLICIT.header(0x00081140, vr, 0xFFFFFFFF) + EXPLICIT.tag(0xFFFEE000, 0xFFFFFFFF)
    if vr == "UN":
        inner = IMPLICIT.header(0x00081140, "SQ", 0xFFFFFFFF) + IMPLICIT.tag(0xFFFEE000, 0xFFFFFFFF)
        data = EXPLICIT.file(*plain(EXPLICIT)[:2], opening, inner * 100_000)
    else:
        data = EXPLICIT.file(*plain(EXPLICIT)[:2], opening * 100_000)
    pieces = outcome([data])
    assert Reason.STRUCTURE_LIMIT in pieces
    assert len(pieces) < 300


def test_depth_is_counted_in_sequences():
    """R8: As many nested sequences as the limit says are read, one more is not; UN stays bytes there."""

    def nested(depth):
        body = b""
        for _ in range(depth):
            body = EXPLICIT.sequence(0x00081140, body)
        return EXPLICIT.file(*plain(EXPLICIT)[:2], body)

    assert load(nested(7), Limits(depth=7))
    assert reason_of(nested(8), Limits(depth=7)) is Reason.STRUCTURE_LIMIT


def test_elements_and_header_bytes_are_limited():
    """R8: A file of countless elements, items or fragments, or of endless text, is refused; bulk does not count."""
    many = EXPLICIT.file(*plain(EXPLICIT)[:8], EXPLICIT.text(0x00200013, "IS", "1") * 1000)
    items = EXPLICIT.file(*plain(EXPLICIT)[:8], EXPLICIT.sequence(0x00209222, *[b""] * 1000))
    fragments = EXPLICIT.file(
        *plain(EXPLICIT)[:8],
        EXPLICIT.header(0x7FE00010, "OB", 0xFFFFFFFF)
        + EXPLICIT.tag(0xFFFEE000, 0) * 1000
        + EXPLICIT.tag(0xFFFEE0DD, 0),
    )
    for data in (many, items, fragments):
        assert reason_of(data, Limits(elements=900)) is Reason.STRUCTURE_LIMIT
        assert load(data, Limits(elements=1100))
    text = EXPLICIT.file(*plain(EXPLICIT)[:8], EXPLICIT.element(0x00204000, "LT", b"x" * 10_000) * 9)
    assert reason_of(text, Limits(header_bytes=80_000)) is Reason.STRUCTURE_LIMIT
    bulk = EXPLICIT.file(*plain(EXPLICIT)[:8], EXPLICIT.element(0x00420011, "OB", b"x" * 90_000))
    assert load(bulk, Limits(header_bytes=80_000))


@pytest.mark.parametrize(("value", "most"), [(b"", 1000), (bytes(50_000), 336)], ids=["elements", "bytes"])
@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_file_meta_information_is_limited(value, most, size):
    """R8: It may have 1,000 elements and 16 MiB, and one element more is refused, however the file is cut."""
    version = EXPLICIT.text(0x00020010, "UI", EXPLICIT_LITTLE)
    more = EXPLICIT.element(0x00020102, "OB", value)
    for count, is_refused in ((most - 1, False), (most, True)):
        data = bytes(128) + b"DICM" + version + more * count + b"".join(plain(EXPLICIT))
        assert (Reason.STRUCTURE_LIMIT in outcome(cut(data, size))) is is_refused


def test_a_deflate_bomb_is_refused_early():
    """R8: What inflates to more than its share is refused soon after the first MiB, however much would follow."""
    stream = zlib.compressobj(9, wbits=-15)
    start = b"".join(plain(EXPLICIT)[:8]) + EXPLICIT.header(0x7FE00010, "OW", 200 * MIB)
    body = stream.compress(start) + b"".join(stream.compress(bytes(MIB)) for _ in range(200)) + stream.flush()
    tokenizer = Tokenizer(Limits())
    inflated = 0
    with pytest.raises(ServiceError) as raised:  # noqa: PT012 - what comes before the error is counted
        for piece in cut(part10(body, DEFLATED), 4096):
            for event in tokenizer.feed(piece):
                inflated += len(event.buffer) if isinstance(event, tokens.Run) else len(event[4])
    assert raised.value.reason is Reason.STRUCTURE_LIMIT
    assert inflated < 8 * MIB
    assert reason_of(part10(body, DEFLATED), Limits(inflation_ratio=2000, inflated_bytes=MIB)) is Reason.STRUCTURE_LIMIT


def test_bulk_data_passes_without_being_held():
    """R3: The tags behind 64 MiB of pixel data are reached with memory for little more than one piece."""
    import tracemalloc  # noqa: PLC0415 - only here

    head = EXPLICIT.file(*plain(EXPLICIT)[:8]) + EXPLICIT.header(0x7FE00010, "OW", 64 * MIB)
    piece = bytes(MIB // 4)
    tokenizer = Tokenizer(Limits())
    tracemalloc.start()
    try:
        for fed in [head, *[piece] * 256, EXPLICIT.text(0xFFFCFFFC, "OB", "ab")]:
            seen = list(tokenizer.feed(fed))
        padding = seen[-1]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [element[0] for element in padding.elements] == [0xFFFCFFFC]
    assert peak < 3 * MIB


@pytest.mark.parametrize("encapsulated", [False, True])
def test_bulk_data_passes_uncopied(encapsulated):
    """M10: A piece within a bulk value comes out as the object that was fed, and how much is left is known."""
    length = 100_000
    head = EXPLICIT.file(*plain(EXPLICIT)[:8]) + EXPLICIT.header(
        0x7FE00010, "OB", 0xFFFFFFFF if encapsulated else length
    )
    if encapsulated:
        head += EXPLICIT.tag(0xFFFEE000, length)
    tokenizer = Tokenizer(Limits())
    assert tokenizer.bulk_left == 0
    list(tokenizer.feed(head + bytes(2000)))
    assert tokenizer.bulk_left == length - 2000
    piece = bytes(range(256)) * 100
    ((kind, _, _, _, value, offset),) = tokenizer.feed(piece)
    assert (kind, offset, tokenizer.bulk_left) == (tokens.CHUNK, len(head) + 2000, length - 2000 - len(piece))
    assert value is piece
    list(tokenizer.feed(bytes(tokenizer.bulk_left)))
    assert tokenizer.bulk_left == 0


def test_nobody_knows_how_much_is_left_of_deflated_bulk_data():
    """Of what is deflated, the bytes to come are not told: a piece of it may be any part of a value."""
    noise = os.urandom(90_000)
    data = Writer(DEFLATED).file(*plain(EXPLICIT)[:8], EXPLICIT.element(0x7FE00010, "OW", noise))
    tokenizer = Tokenizer(Limits())
    kinds = set()
    for piece in cut(data, 1000):
        kinds |= {event[0] for event in tokenizer.feed(piece) if not isinstance(event, tokens.Run)}
        assert tokenizer.bulk_left == 0
    assert tokens.CHUNK in kinds


def test_runs_hold_elements_of_one_place_side_by_side():
    """A run is contiguous and of limited length, and an item or sequence ends it."""
    many = EXPLICIT.element(0x00204000, "LT", b"ab") * 2500
    nested = EXPLICIT.sequence(0x00400275, EXPLICIT.text(0x00100020, "LO", "MRN7"))
    events = list(Tokenizer(Limits()).feed(EXPLICIT.file(*plain(EXPLICIT)[:8], many, nested)))
    events = events[events.index(next(event for event in events if isinstance(event, tokens.Run))) :]
    runs = [event for event in events if isinstance(event, tokens.Run)]
    assert sum(len(run.elements) for run in runs) == 2509
    for run in runs:
        assert 1 <= len(run.elements) <= tokens.MAX_RUN
        assert all(left[4] == right[2] for left, right in itertools.pairwise(run.elements))
    kinds = [None if isinstance(event, tokens.Run) else event[0] for event in events[-6:]]
    assert kinds == [
        None,
        tokens.SEQUENCE,
        tokens.ITEM_BEGIN,
        None,
        tokens.ITEM_END,
        tokens.SEQUENCE_END,
    ]


def test_duplicates_and_disorder_are_noticed_and_kept():
    """R2: A tag that stands twice, or behind a higher one, is no reason to refuse a file; the path says where it is."""
    item = EXPLICIT.text(0x00081155, "UI", "1.2") + EXPLICIT.text(0x00081150, "UI", "1.3")
    late = EXPLICIT.text(0x00100020, "LO", "MRN8")
    requests = EXPLICIT.sequence(0x00400275, b"", item)
    file = load(EXPLICIT.file(*plain(EXPLICIT)[:8], requests, requests, late), Limits())
    assert [(problem.code, problem.tag) for problem in file.problems] == [
        (ProblemCode.OUT_OF_ORDER, "(0040,0275)[1].(0008,1150)"),
        (ProblemCode.DUPLICATE_TAG, "(0040,0275)"),
        (ProblemCode.OUT_OF_ORDER, "(0040,0275)[1].(0008,1150)"),
        (ProblemCode.DUPLICATE_TAG, "(0010,0020)"),
    ]
    assert [element.value for element in file.elements if element.tag == 0x00100020] == [b"MRN7", b"MRN8"]


def test_errors_name_the_path_and_hold_no_value():
    """The place is the path of sequences and items; nothing of the file's text is repeated."""
    item = EXPLICIT.text(0x00100010, "PN", "Secret^Name") + EXPLICIT.header(0x00100020, "LO", 500) + b"Secret"
    with pytest.raises(ServiceError) as raised:
        load(
            EXPLICIT.file(*plain(EXPLICIT)[:8], EXPLICIT.sequence(0x00400275, b"", item, undefined=True)[:-16]),
            Limits(),
        )
    assert raised.value.metadata["tag"] == "(0040,0275)[1].(0010,0020)"
    assert "Secret" not in str(raised.value)
    assert "Secret" not in str(raised.value.metadata)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damage_gives_an_error_of_ours_or_a_file(data):
    """R1, R8: Bytes changed, removed or put in anywhere never surface as an exception of another kind."""
    damaged = bytearray(bytes_of(data.draw(st.sampled_from(FORMS)))[:6000])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        end = at + data.draw(st.sampled_from([0, 1, 2, 4]))
        damaged[at:end] = data.draw(
            st.sampled_from([b"", b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"SQ\0\0\xff\xff\xff\xff", b"UN"])
            | st.binary(max_size=4)
        )
    found = outcome([bytes(damaged)])
    assert outcome(cut(bytes(damaged), 97)) == found
