"""Rewriting without edits: what must stay, and the little that changes in every file."""

import struct

import pytest

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.editing.edits import Edits
from tag_service.domain.editing.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tag_service.domain.editing.rewrite import rewriter_of
from tag_service.domain.standard.limits import Limits
from tests.unit.tag_service.building import (
    AT,
    DEFLATED,
    ENCODINGS,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    NAMES,
    Writer,
    body,
    edit,
    every_element,
    part10,
    plain,
    pydicom_files,
    read,
    same,
)

EXPLICIT = Writer(EXPLICIT_LITTLE)
IMPLICIT = Writer(IMPLICIT_LITTLE)
# Files of pydicom that are cut off on purpose.
TRUNCATED = {"MR_truncated.dcm", "rtplan_truncated.dcm"}


def group_lengths(dataset):
    """Whether pydicom finds a group length in the data set or in an item."""
    return any(element.tag.element == 0 for element in every_element(dataset))


def whole_files():
    """The files that can be rewritten, with their names."""
    return [pytest.param(path.read_bytes(), id=path.name) for path in pydicom_files() if path.name not in TRUNCATED]


@pytest.mark.parametrize("data", whole_files())
def test_a_real_file_keeps_its_data_set(data):
    """M1, M13: Without edits the data set of a real file stays byte for byte, but for group lengths."""
    result = edit(data)
    before, after = read(data), read(result)
    assert same(before, after)
    if before.file_meta.get("TransferSyntaxUID") == DEFLATED:
        assert body(result) == body(data)
    elif not group_lengths(before):
        assert body(result)
        assert data.endswith(body(result))


@pytest.mark.parametrize("data", whole_files())
def test_rewriting_twice_changes_nothing_more(data):
    """The outcome of rewriting is left as it is by rewriting it again, and is the same each time."""
    result = edit(data)
    assert edit(result) == result
    assert edit(data) == result


def test_the_real_files_are_many():
    """The tests above run over pydicom's files, not over none."""
    assert len(whole_files()) > 60


@pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)
def test_nothing_changes_in_any_encoding(writer):
    """M1, M13: Sequences of either form, odd lengths, duplicates, disorder and padding stay byte for byte."""
    nested = writer.sequence(0x00081140, writer.text(0x00081155, "UI", "1.2.3"), b"", undefined=True)
    elements = [
        *plain(writer),
        writer.sequence(0x00081115, nested + writer.text(0x0020000E, "UI", "1.2"), nested),
        writer.sequence(0x00081115),
        writer.sequence(0x00081111, undefined=True),
        writer.element(0x00100020, "LO", b"odd"),
        writer.element(0x00100020, "LO", b"twice "),
        writer.element(0x00080005, "CS", b"ISO_IR 100"),
        writer.element(0xFFFCFFFC, "OB", bytes(30)),
    ]
    data = writer.file(*elements)
    assert body(edit(data)) == body(data) == b"".join(elements)


def test_encapsulated_pixel_data_stays_verbatim():
    """M2: Offset table, fragments and delimiter of encapsulated pixel data stay, and so does what follows them."""
    pixels = (
        EXPLICIT.header(0x7FE00010, "OB", 0xFFFFFFFF)
        + EXPLICIT.tag(0xFFFEE000, 4)
        + bytes(4)
        + EXPLICIT.tag(0xFFFEE000, 6)
        + b"\xff\xd8\xfe\xff\x00\xe0"
        + EXPLICIT.tag(0xFFFEE0DD, 0)
    )
    elements = b"".join(plain(EXPLICIT)[:-1]) + pixels + EXPLICIT.element(0xFFFCFFFC, "OB", bytes(2))
    data = part10(elements, "1.2.840.10008.1.2.4.50")
    assert body(edit(data)) == elements
    assert pixels in edit(data, patient_id="NEW", remove_private_tags=True)


def test_an_unknown_transfer_syntax_passes_as_explicit_little_endian():
    """M12: A private transfer syntax is kept, and its data set read as explicit VR little endian."""
    elements = b"".join(plain(EXPLICIT))
    result = edit(part10(elements, "1.2.999.1"), patient_id="NEW")
    assert read(result).file_meta.TransferSyntaxUID == "1.2.999.1"
    assert body(result) == elements.replace(b"LO\x04\0MRN7", b"LO\x04\0NEW ")


@pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)
@pytest.mark.parametrize("undefined", [False, True])
def test_group_lengths_go_at_every_depth(writer, undefined):
    """M3, M6: Group lengths are dropped from the data set and from items, and the lengths around them fit."""

    def elements(length):
        inner = writer.sequence(0x00081115, length + writer.text(0x00081155, "UI", "1.2"), undefined=undefined)
        outer = writer.sequence(0x00081140, length + inner, undefined=undefined)
        return plain(writer, *([length] if length else []), outer)

    length = writer.element(0x00080000, "UL", struct.pack(f"{writer.order}I", 42))
    result = edit(writer.file(*elements(length)))
    assert body(result) == b"".join(elements(b""))


def test_what_the_file_wrote_before_is_replaced():
    """M4: Preamble, implementation and group length of the file meta information are new; its other elements stay."""
    data = EXPLICIT.file(*plain(EXPLICIT))
    result = edit(data)
    meta = read(result).file_meta
    assert result[:128] == bytes(128)
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == "SENDER"
    assert result[132:].index(body(result)) == 12 + meta.FileMetaInformationGroupLength
    assert body(result) == b"".join(plain(EXPLICIT))


@pytest.mark.parametrize("uid", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
def test_a_bare_data_set_comes_out_as_a_proper_file(uid):
    """M4: A data set without preamble and file meta information gets both, with the transfer syntax it has."""
    writer = Writer(uid)
    result = edit(b"".join(plain(writer)))
    meta = read(result).file_meta
    assert result[:132] == bytes(128) + b"DICM"
    assert meta.TransferSyntaxUID == uid
    assert meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert body(result) == b"".join(plain(writer))


def test_file_meta_without_preamble_gets_one():
    """M4: A file that begins with group 2 gets a preamble and keeps its data set."""
    data = EXPLICIT.file(*plain(EXPLICIT))
    assert edit(data[132:]) == edit(data)


def test_file_meta_of_the_wrong_encoding_is_put_right():
    """File meta information in implicit VR comes out in explicit VR, and what that cannot hold is malformed."""
    meta = IMPLICIT.element(0x00020001, "OB", b"\0\1") + IMPLICIT.text(0x00020010, "UI", EXPLICIT_LITTLE)
    elements = b"".join(plain(EXPLICIT))
    prefix = bytes(128) + b"DICM"
    result = edit(prefix + meta + IMPLICIT.text(0x00020016, "AE", "SENDER") + elements)
    assert body(result) == elements
    assert EXPLICIT.text(0x00020016, "AE", "SENDER") in result
    with pytest.raises(ServiceError) as caught:
        edit(prefix + meta + IMPLICIT.text(0x00020016, "AE", "S" * 70_000) + elements)
    assert caught.value.reason is Reason.MALFORMED_DICOM
    assert caught.value.metadata == {"tag": "(0002,0016)"}


def test_a_uid_beyond_all_bounds_stays_out_of_the_meta():
    """A SOPInstanceUID that is none stays where it is and is not repeated in the file meta information."""
    elements = IMPLICIT.text(0x00080016, "UI", "1.2") + IMPLICIT.text(0x00080018, "UI", "1" * 70_000)
    result = edit(elements + IMPLICIT.text(0x00100020, "LO", "1"))
    assert body(result).startswith(elements)
    assert "MediaStorageSOPInstanceUID" not in read(result).file_meta


@pytest.mark.parametrize("value", [b"\xc3\xa9", b"1" * 70, b"1.2.840.10008.1.2.1\xff"])
def test_a_transfer_syntax_that_is_no_uid_stays(value):
    """What the file declares as its transfer syntax is kept as it is."""
    elements = b"".join(plain(EXPLICIT))
    declared = EXPLICIT.element(0x00020010, "UI", value)
    result = edit(bytes(128) + b"DICM" + declared + elements)
    assert declared in result
    assert body(result) == elements


@pytest.mark.parametrize("declared", [b"", EXPLICIT.element(0x00020010, "UI", b"")])
def test_a_missing_transfer_syntax_is_added(declared):
    """M4: Where the file does not say its transfer syntax, the one it was read by is written, once."""
    elements = b"".join(plain(EXPLICIT))
    result = edit(bytes(128) + b"DICM" + EXPLICIT.text(0x00020016, "AE", "SENDER") + declared + elements)
    assert result.count(b"\x02\0\x10\0UI") == 1
    assert read(result).file_meta.TransferSyntaxUID == EXPLICIT_LITTLE
    assert body(result) == elements


def test_the_meta_follows_a_changed_uid_and_nothing_else():
    """M4: MediaStorageSOPInstanceUID is the new SOPInstanceUID after an edit; one that differed before stays."""
    data = part10(b"".join(plain(EXPLICIT)), EXPLICIT_LITTLE, instance_uid="9.9")
    assert read(edit(data)).file_meta.MediaStorageSOPInstanceUID == "9.9"
    result = edit(data, set=("SOPInstanceUID=1.2.3.5", "SOPClassUID=1.2.840.10008.5.1.4.1.1.2"), force=True)
    meta = read(result).file_meta
    assert (meta.MediaStorageSOPInstanceUID, meta.MediaStorageSOPClassUID) == ("1.2.3.5", "1.2.840.10008.5.1.4.1.1.2")
    assert read(result).SOPInstanceUID == "1.2.3.5"


def test_a_deflated_data_set_is_deflated_again_to_even_length():
    """M2: A deflated file stays deflated (raw RFC 1951), and an odd stream is padded with NUL."""
    writer = Writer(DEFLATED)
    for filler in range(8):
        data = writer.file(*plain(writer, writer.text(0x00104000, "LT", "x" * filler)))
        result = edit(data, patient_id="NEW")
        assert len(result) % 2 == 0
        assert body(result).count(b"NEW ") == 1
        assert read(result).PatientID == "NEW"


def test_zeros_behind_the_data_set_stay():
    """What is allowed behind the last element stays there."""
    data = EXPLICIT.file(*plain(EXPLICIT)) + bytes(64)
    assert body(edit(data)) == body(data)


def test_a_deep_file_is_rewritten():
    """Nesting up to the limit is written back level by level."""
    nested = EXPLICIT.text(0x00081155, "UI", "1.2")
    for level in range(99):
        nested = EXPLICIT.sequence(0x00081140, nested, undefined=bool(level % 2))
    data = EXPLICIT.file(*plain(EXPLICIT, nested))
    assert body(edit(data)) == body(data)
    path = "ReferencedImageSequence[0]." * 30
    assert edit(data, set=(path + "StudyID=" + "1" * 10,)).count(b"1" * 10) == 1


def test_bulk_data_passes_uncopied():
    """A piece that lies in the pixel data comes out as the very object it came in as."""
    data = EXPLICIT.file(*plain(EXPLICIT))
    pixels = EXPLICIT.element(0x7FE00010, "OW", bytes(600_000))
    start = data.index(EXPLICIT.header(0x7FE00010, "OW", 64))
    rewriter = rewriter_of(Edits(patient_id="NEW"), Limits(), at=AT, system="TEST")
    rewriter.feed(data[:start] + pixels[:1000])
    piece = pixels[1000:300_000]
    assert rewriter.passes_on(len(piece))
    assert [out is piece for out in rewriter.feed(piece)] == [True]


def test_a_dicomdir_is_refused():
    """A DICOMDIR, whose records hold offsets, is not edited."""
    record = EXPLICIT.element(0x00041400, "UL", bytes(4))
    data = part10(EXPLICIT.sequence(0x00041220, record), EXPLICIT_LITTLE, class_uid="1.2.840.10008.1.3.10")
    with pytest.raises(ServiceError) as caught:
        edit(data)
    assert caught.value.reason is Reason.EDIT_REFUSED


def test_file_meta_that_strayed_into_the_data_set_is_malformed():
    """Elements of group 2 that an edit would bring to the front of the data set are not passed off as file meta."""
    private = EXPLICIT.text(0x00090010, "LO", "ACME")
    data = EXPLICIT.file(private, EXPLICIT.text(0x00020010, "UI", IMPLICIT_LITTLE), *plain(EXPLICIT))
    assert body(edit(data)) == body(data)
    with pytest.raises(ServiceError) as caught:
        edit(data, remove_private_tags=True)
    assert caught.value.reason is Reason.MALFORMED_DICOM


def test_a_file_never_loses_its_last_element():
    """Edits that leave no element are refused, for what comes out would be no file."""
    data = EXPLICIT.file(EXPLICIT.element(0x00080000, "UL", bytes(4)), EXPLICIT.text(0x00200010, "SH", "1"))
    assert body(edit(data)) == EXPLICIT.text(0x00200010, "SH", "1")
    with pytest.raises(ServiceError) as caught:
        edit(data, remove=("StudyID",))
    assert caught.value.reason is Reason.EDIT_REFUSED


def test_a_file_that_cannot_be_read_is_not_edit():
    """What reading refuses, editing refuses for the same reason."""
    data = EXPLICIT.file(*plain(EXPLICIT))
    for broken, reason in (
        (b"", Reason.EMPTY_FILE),
        (b"no DICOM" * 100, Reason.NOT_DICOM),
        (data[:-1], Reason.TRUNCATED_FILE),
    ):
        with pytest.raises(ServiceError) as caught:
            edit(broken, patient_id="NEW")
        assert caught.value.reason is reason


def test_file_meta_information_may_be_longer_than_what_is_held():
    """M1, M4: the encoding of the data set is known before anything is written, however much stands before it."""
    long = b"".join(EXPLICIT.element(0x00020102 + number, "OB", bytes(1 << 20)) for number in range(9))
    data = part10(long + b"".join(plain(IMPLICIT)), IMPLICIT_LITTLE)
    result = edit(data, patient_id="NEW")
    assert result.endswith(b"".join(plain(IMPLICIT)).replace(b"\x04\0\0\0MRN7", b"\x04\0\0\0NEW "))
    assert long in result


@pytest.mark.parametrize("cut", [1, 64, 1 << 20])
def test_what_is_wrong_in_the_header_is_told_before_what_is_wrong_behind_it(cut):
    """R1, M5: text that stands in the way is the error for every chunking, though the end of the file is broken too."""
    undeclared = EXPLICIT.element(0x00104000, "LT", b"\xe9\xe9")
    data = EXPLICIT.file(*plain(EXPLICIT, undeclared)) + b"no element, this"
    with pytest.raises(ServiceError) as caught:
        edit(data, cut=cut, patient_name="\u0416")
    assert caught.value.reason is Reason.CHARSET_CONFLICT
