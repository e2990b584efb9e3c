"""The DICOM JSON model: what each VR becomes, and that it is JSON whatever the file holds."""

import contextlib
import hashlib
import json
import re
import struct
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service_runtime.errors import Reason, ServiceError
from tag_service.domain.reading.dicom_json import INLINE_BYTES, JsonWriter
from tag_service.domain.standard.limits import Limits
from tests.unit.tag_service.building import (
    DEFLATED,
    ENCODINGS,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    NAMES,
    Writer,
    body,
    plain,
    read,
)
from tests.unit.tag_service.test_reading_structure import WHOLE_FILES
from tests.unit.tag_service.tokens import bytes_of, cut

EXPLICIT = Writer(EXPLICIT_LITTLE)
IMPLICIT = Writer(IMPLICIT_LITTLE)
# pydicom cannot make JSON of it: it holds text where a number should be.
NOT_FOR_PYDICOM = {"badVR.dcm"}
# Its private attributes' VRs pydicom takes from a dictionary of its own.
BINARY = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}


def no_constant(name):
    """What Python's reader takes although it is no JSON."""
    raise AssertionError(name)


def json_of(pieces):
    """The JSON of a file."""
    writer = JsonWriter(Limits())
    for piece in pieces:
        writer.feed(piece)
    writer.close()
    return json.loads(writer.data(), parse_constant=no_constant)


def one(tag, vr, value, *, writer=EXPLICIT, before=()):
    """The JSON of a single attribute."""
    return json_of([writer.file(*plain(writer)[:8], *before, writer.element(tag, vr, value))])[f"{tag:08X}"]


def comparable(dataset):
    """JSON without what may differ: bulk data, empty values, padding, group lengths, and private VRs."""
    stripped = {}
    for name, attribute in dataset.items():
        if name.endswith("0000") or name == "00080005" or int(name[:4], 16) % 2 or attribute["vr"] in BINARY:
            continue
        values = [_comparable(value) for value in attribute.get("Value", [])]
        stripped[name] = (str(attribute["vr"]), [] if values in ([None], [""]) else values)
    return stripped


def _comparable(value):
    if isinstance(value, dict):
        if value.keys() <= {"Alphabetic", "Ideographic", "Phonetic"}:
            return {name: text.rstrip("=") for name, text in value.items() if text.strip("=")}
        return comparable(value)
    return value.strip() or None if isinstance(value, str) else value


@pytest.mark.parametrize("path", WHOLE_FILES, ids=lambda path: path.name)
def test_the_json_is_that_of_pydicom(path):
    """Standard attributes, nested ones too, are what pydicom writes, save for bulk data and padding."""
    if path.name in NOT_FOR_PYDICOM:
        return
    data = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = read(data).to_json_dict()
    assert comparable(json_of([data])) == comparable(theirs)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "JPEG2000.dcm"])
def test_the_json_does_not_depend_on_how_the_file_is_cut(name):
    """R1: Cut oddly, a file gives the JSON that it gives whole."""
    data = bytes_of(name)
    assert json_of(cut(data, 37)) == json_of([data])


@pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)
def test_numbers_are_numbers_in_every_encoding(writer):
    """Binary numbers are read in the byte order of the file."""
    value = struct.pack(f"{writer.order}2H", 1, 65535)
    assert one(0x00280010, "US", value[:2], writer=writer) == {"vr": "US", "Value": [1]}
    assert one(0x00281101, "US", value, writer=writer)["Value"] == [1, 65535]


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        ("AT", struct.pack("<2H", 0x0018, 0x00FF), ["001800FF"]),
        (
            "FD",
            struct.pack("<4d", 1.5, float("nan"), float("inf"), -float("inf")),
            [1.5, "NaN", "Infinity", "-Infinity"],
        ),
        ("FL", struct.pack("<f", 0.5), [0.5]),
        ("SS", struct.pack("<h", -2), [-2]),
        ("SV", struct.pack("<2q", -5, -(2**60)), [-5, str(-(2**60))]),
        ("UV", struct.pack("<Q", 2**64 - 1), [str(2**64 - 1)]),
        ("US", b"\1\2\3", None),
        ("DS", b"1.50\\-2e3\\ 7 \\1e999\\abc\\", [1.5, -2000.0, 7, "1e999", "abc", None]),
        ("IS", b"12\\+3\\1.5\\-0", [12, 3, "1.5", 0]),
        ("DS", b"NaN ", ["NaN"]),
        ("PN", b"Roe^R=\\=X", [{"Alphabetic": "Roe^R"}, {"Ideographic": "X"}]),
        ("LO", b'a"b\\\\c\x07', ['a"b', None, "c\x07"]),
        ("LT", b" a\\b ", [" a\\b"]),
        ("UI", b"1.2\0", ["1.2"]),
        ("CS", b"", None),
        ("CS", b"  ", None),
    ],
)
def test_each_vr_becomes_what_the_annex_says(vr, value, expected):
    """Text, numbers and names, also those that JSON or the VR has no room for, have a form that is JSON."""
    attribute = one(0x00211099, vr, value)
    assert attribute["vr"] == vr
    assert attribute.get("Value") == expected


def test_bulk_data_is_left_out_and_short_binary_is_inline():
    """Pixel data and long binary values have no value, short ones are base64."""
    assert one(0x00211099, "OB", b"ab") == {"vr": "OB", "InlineBinary": "YWI="}
    assert one(0x00211099, "OB", b"") == {"vr": "OB"}
    assert one(0x7FE00010, "OW", b"") == {"vr": "OW"}
    assert "InlineBinary" not in one(0x00211099, "OB", bytes(INLINE_BYTES + 2))
    assert "InlineBinary" not in one(0x7FE00010, "OW", b"ab")


def referred_to(data, attribute):
    """The bytes that an attribute's BulkDataURI refers to."""
    offset, length = re.fullmatch(r"\?offset=(\d+)&length=(\d+)", attribute["BulkDataURI"]).groups()
    assert attribute.keys() == {"vr", "BulkDataURI"}
    return data[int(offset) :][: int(length)]


@pytest.mark.parametrize("writer", ENCODINGS, ids=NAMES)
@pytest.mark.parametrize("size", [999, 100_000])
def test_what_is_left_out_is_referred_to(writer, size):
    """R1: for every chunking, offset and length lead to the value: in the file, or in what its data set inflates to."""
    long, pixels, odd = bytes(range(256)) * 300, bytes(range(64)) * 50, b"seven  "
    text = hashlib.shake_128(b"").hexdigest(600_000).encode()
    item = writer.element(0x00211099, "OB", long)
    elements = [
        writer.element(0x00280106, "UL", odd),
        writer.sequence(0x00400275, item),
        writer.element(0x0040A160, "UT", text),
        writer.element(0x7FE00010, "OW", pixels),
    ]
    data = writer.file(*plain(writer)[:8], *elements)
    found = json_of(cut(data, size))
    if writer.transfer_syntax == DEFLATED:
        (length,) = struct.unpack("<I", data[140:144])
        data = data[: 144 + length] + body(data)
    # Of implicit VR, the tag tells that it is US.
    assert referred_to(data, found["00280106"]) == odd
    assert referred_to(data, found["00400275"]["Value"][0]["00211099"]) == long
    assert referred_to(data, found["0040A160"]) == text
    assert referred_to(data, found["7FE00010"]) == pixels


def test_an_encapsulated_value_is_referred_to_with_its_items():
    """From the first item's header to the delimiter of the sequence."""
    data = bytes_of("JPEG2000.dcm")
    value = referred_to(data, json_of(cut(data, 5000))["7FE00010"])
    assert value.startswith(b"\xfe\xff\0\xe0")
    assert value.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0")
    assert data[: data.index(value)].endswith(b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff")


def test_text_is_in_unicode_and_says_so():
    """Each item is decoded in its own character set or its parent's, and (0008,0005) says what the JSON is in."""
    name = 0x00100010
    own = EXPLICIT.text(0x00080005, "CS", "ISO_IR 144") + EXPLICIT.element(name, "PN", "Люкc".encode("iso8859-5"))
    inherited = EXPLICIT.element(name, "PN", "Jérôme".encode("latin-1"))
    charset = EXPLICIT.text(0x00080005, "CS", "ISO_IR 100")
    data = EXPLICIT.file(charset, *plain(EXPLICIT)[:8], EXPLICIT.sequence(0x00400275, own, inherited))
    found = json_of([data])
    assert found["00080005"]["Value"] == ["ISO_IR 192"]
    items = found["00400275"]["Value"]
    assert [item["00100010"]["Value"][0]["Alphabetic"] for item in items] == ["Люкc", "Jérôme"]


def test_un_of_a_standard_attribute_has_its_vr():
    """An attribute whose VR the writer did not know has the dictionary's, one that holds items is a sequence."""
    assert one(0x00400009, "UN", b"ID 7") == {"vr": "SH", "Value": ["ID 7"]}
    assert one(0x00211099, "UN", b"ID 7") == {"vr": "UN", "InlineBinary": "SUQgNw=="}
    items = IMPLICIT.sequence(0x00211099, IMPLICIT.text(0x00100020, "LO", "MRN7"))[8:]
    assert one(0x00211099, "UN", items)["Value"] == [{"00100020": {"vr": "LO", "Value": ["MRN7"]}}]


def test_signed_pixels_make_their_extremes_signed():
    """With implicit VR, US or SS is told by (0028,0103)."""
    signed = IMPLICIT.number(0x00280103, 1)
    value = struct.pack("<h", -3)
    assert one(0x00280106, "SS", value, writer=IMPLICIT, before=[signed]) == {"vr": "SS", "Value": [-3]}
    assert one(0x00280106, "US", value, writer=IMPLICIT) == {"vr": "US", "Value": [65533]}


def test_names_are_ordered_and_unique():
    """Attributes come in ascending order, each once, the first of two; meta information and group lengths do not."""
    writer = JsonWriter(Limits())
    twice = EXPLICIT.text(0x00080050, "SH", "B18")
    length = EXPLICIT.element(0x00080000, "UL", struct.pack("<I", 99))
    writer.feed(EXPLICIT.file(length, *plain(EXPLICIT)[:8], twice))
    writer.close()
    pairs = json.loads(writer.data(), object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert names == sorted(set(names))
    assert names[0] == "00080016"
    assert dict(dict(pairs)["00080050"])["Value"] == ["A17"]


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_damaged_files_give_json_or_an_error_of_ours(data):
    """Whatever a file holds, the result can be read as JSON."""
    damaged = bytearray(
        bytes_of(data.draw(st.sampled_from(["CT_small.dcm", "badVR.dcm", "MR_small_implicit.dcm"])))[:5000]
    )
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(132, len(damaged) - 1))
        damaged[at : at + 2] = data.draw(st.binary(min_size=2, max_size=2))
    with contextlib.suppress(ServiceError):
        json_of([bytes(damaged)])


@pytest.mark.parametrize("undefined", [False, True])
def test_what_stands_out_of_order_is_put_in_order(undefined):
    """Late values, sequences and bulk data stand at their tags, in items too; of what comes twice the first does."""
    late = EXPLICIT.text(0x00100020, "LO", "MRN8")
    item = [EXPLICIT.text(0x00081155, "UI", "1.2"), EXPLICIT.text(0x00081150, "UI", "1.3"), late]
    sequence = EXPLICIT.sequence(0x00081140, b"", b"".join(item), undefined=undefined)
    bulk = EXPLICIT.element(0x00080021, "OB", b"x" * 70_000)
    second = EXPLICIT.sequence(0x00081140, EXPLICIT.sequence(0x00081140, late), undefined=undefined)
    name = EXPLICIT.element(0x00080090, "PN", "Grün^Ä".encode())
    charset = EXPLICIT.text(0x00080005, "CS", "ISO_IR 192")
    first = EXPLICIT.text(0x00200013, "IS", "7")
    data = EXPLICIT.file(charset, first, sequence, bulk, name, second, late, first)
    for size in (len(data), 11):
        writer = JsonWriter(Limits())
        for piece in cut(data, size):
            writer.feed(piece)
        writer.close()
        pairs = json.loads(writer.data(), object_pairs_hook=list)
        assert [tag for tag, _ in pairs] == ["00080005", "00080021", "00080090", "00081140", "00100020", "00200013"]
        items = dict(dict(pairs)["00081140"])["Value"]
        assert [[tag for tag, _ in item] for item in items] == [[], ["00081150", "00081155", "00100020"]]
        assert dict(dict(pairs)["00080090"])["Value"][0] == [("Alphabetic", "Grün^Ä")]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_order_gives_the_same_json(data):
    """However its elements, and those of its items, are ordered, a file gives the JSON of the one in order."""
    tags = data.draw(st.lists(st.integers(0x00300001, 0x00300020), min_size=1, max_size=12, unique=True))
    item = b"".join(EXPLICIT.text(tag, "LO", f"é{tag}".encode("latin-1").decode("latin-1")[1:]) for tag in tags)
    ordered = b"".join(EXPLICIT.text(tag, "LO", f"{tag}") for tag in sorted(tags))
    nested = [EXPLICIT.sequence(0x00400275, content, content) for content in (item, ordered)]
    assert json_of([EXPLICIT.file(*plain(EXPLICIT)[:8], nested[0], item)]) == json_of(
        [EXPLICIT.file(*plain(EXPLICIT)[:8], ordered, nested[1])]
    )


@pytest.mark.parametrize(
    "elements",
    [
        EXPLICIT.element(0x00300010, "LT", b'"' * 60_000) * 3,
        b"".join(EXPLICIT.text(0x00300000 + tag, "LO", "") for tag in range(1, 5000)),
        b"".join(EXPLICIT.text(0x00300000 + tag, "LO", "") for tag in range(5000, 1, -1)),
        EXPLICIT.sequence(0x00400275, *[b""] * 60_000),
        EXPLICIT.sequence(0x00400275, EXPLICIT.text(0x00100020, "LO", "MRN7") * 2) * 3000,
    ],
    ids=["long text", "many", "many backwards", "many items", "many sequences that do not count"],
)
def test_the_size_of_json_is_limited_while_it_is_written(elements):
    """R8: JSON beyond its limit is refused at once, before the file has ended; what does not count needs no room."""
    data = EXPLICIT.file(*plain(EXPLICIT)[:8], elements)
    whole = JsonWriter(Limits())
    whole.feed(data)
    whole.close()
    size = len(whole.data())
    writer = JsonWriter(Limits(), max_bytes=100_000)
    if size <= 100_000:
        writer.feed(data)
        writer.close()
        assert len(writer.data()) == size
        return
    with pytest.raises(ServiceError) as raised:
        writer.feed(data)
    assert raised.value.reason is Reason.STRUCTURE_LIMIT
    assert raised.value.metadata == {"limit": "answer bytes", "limit_bytes": "100000"}
