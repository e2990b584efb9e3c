"""Uploads of ZIP archives: what comes out of them, and what hostile ones are told."""

import io
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service_runtime.bodies import Piece
from service_runtime.errors import Reason, ServiceError
from service_runtime.uploads import MIB, ArchiveLimits, UploadLimits, UploadReader
from tests.unit.service_runtime.test_uploads import END, cut, part, stream
from tests.unit.service_runtime.zips import DEFLATED, ENCRYPTED, STORED, UTF8, Entry, deflated, zip_of

LIMITS = UploadLimits(file_bytes=100_000, request_bytes=1_000_000, files=3, idle_seconds=5)
ARCHIVES = ArchiveLimits(entries=10, ratio=200)
ZIP = "application/zip"
NOISE = random.Random(7).randbytes(60_000)  # noqa: S311 - no secret
# Something that packs, something that does not, and something that looks like headers of an archive.
TEXT = b"a slice of bread " * 3000
TRAP = b"-PK\x03\x04PK\x01\x02PK\x05\x06PK\x07\x08" * 40

# Each file's name, path and content, or the reason it broke off for; last the reason that ended the request.
Told = list[tuple[str, str | None, bytes | Reason] | Reason]


async def told(
    pieces: Sequence[Piece], limits: UploadLimits = LIMITS, archives: ArchiveLimits | None = ARCHIVES
) -> Told:
    """What the upload of these pieces comes to."""
    seen: Told = []
    try:
        async for file in UploadReader(stream(pieces), limits, archives=archives).files():
            try:
                seen.append((file.name, file.path, b"".join([chunk async for chunk in file])))
            except ServiceError as error:
                seen.append((file.name, file.path, error.reason))
    except ServiceError as error:
        seen.append(error.reason)
    return seen


async def unpacked(archive: bytes, size: int = 1000, **limits: int) -> Told:
    """What an archive sent raw, in pieces of this size, comes to."""
    archives = replace(ARCHIVES, **{name: limits.pop(name) for name in ("entries", "ratio") if name in limits})
    return await told(cut(archive, size, content_type=ZIP), replace(LIMITS, **limits), archives)


def good(*entries: Entry) -> Told:
    """What such entries come to when nothing is wrong with them."""
    return [(name.rpartition("/")[2], name, entry.data) for entry in entries for name in [entry.raw_name.decode()]]


FORMS = [
    Entry("DICOM/IM1", TEXT),
    Entry("DICOM/IM2", NOISE, STORED),
    Entry("DICOM/IM3", TRAP, STORED, zip64=True),
    Entry("DICOM/IM4", NOISE, descriptor="signed"),
    Entry("DICOM/IM5", TEXT, descriptor="bare"),
    Entry("DICOM/IM6", TEXT, descriptor="signed 64", zip64=True),
    Entry("DICOM/IM7", TRAP, descriptor="bare 64"),
    Entry("empty", b""),
    Entry("empty2", b"", STORED),
    Entry("stored and described", TEXT, STORED, descriptor="signed", told={"packed": len(TEXT), "size": len(TEXT)}),
]


@pytest.mark.parametrize("size", [1, 7, 30, 31, 1000, 65_536, 1_000_000])
@pytest.mark.parametrize("zip64", [True, False])
async def test_every_form_of_entry_comes_out_the_same_for_every_cut(size: int, *, zip64: bool) -> None:
    """Stored, deflated, sizes before, behind, long and short: the files come out as they went in, however it is cut."""
    archive = zip_of(*FORMS, comment=b"a CD", zip64=zip64)
    if size == 1:
        archive = zip_of(*(replace(entry, data=entry.data[:400], told={}) for entry in FORMS[:-1]), zip64=zip64)
        assert await unpacked(archive, 1) == await unpacked(archive, 100_000)
    else:
        assert await unpacked(archive, size) == good(*FORMS)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
async def test_what_other_programs_pack_comes_out(data: st.DataObject) -> None:
    """What Python's zipfile writes, to a file or a pipe, comes out as it went in, for random cuts."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

    files = data.draw(
        st.lists(st.tuples(st.text("abcé/", min_size=1, max_size=9), st.binary(max_size=300)), max_size=5)
    )
    files = [(f"{number}{name}x", b"-" + content * 9) for number, (name, content) in enumerate(files)]
    out = data.draw(st.sampled_from([io.BytesIO, Pipe]))()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("folder")
        for name, content in files:
            archive.writestr(name, content)
    body = out.getvalue()
    places = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=9)))
    pieces = [body[start:stop] for start, stop in zip([0, *places], [*places, len(body)], strict=True)]
    expected = [
        (name.rpartition("/")[2], "/".join(filter(None, name.split("/"))), content) for name, content in files
    ] or [Reason.FILE_FIELD_MISSING]
    assert await told([Piece(pieces[0], content_type=ZIP), *map(Piece, pieces[1:])]) == expected


async def test_an_archive_is_known_by_its_type_or_its_beginning() -> None:
    """In a form, an archive is unpacked by the type of its part or by its first bytes, among other files."""
    archive = zip_of(Entry("a/1", b"one"))
    typed = part(archive, filename="x").replace(b"application/octet-stream", b"Application/X-Zip-Compressed")
    for size in (1, 1000):
        body = part(b"plain", filename="p") + part(archive, filename="cd.bin") + typed + END
        assert await told(cut(body, size)) == [("p", None, b"plain"), ("1", "a/1", b"one"), ("1", "a/1", b"one")]


async def test_what_only_looks_like_an_archive_is_a_file() -> None:
    """A DICOM file whose preamble begins like an archive, and a file that is just too short for one, are files."""
    polyglot = b"PK\x03\x04".ljust(128, b"\0") + b"DICM and so on"
    for content in (polyglot, b"PK", b"PK\x03", b"PX\x03\x04"):
        assert await told(cut(part(content) + END, 3)) == [("a.dcm", None, content)]
    entry = Entry("IM1", polyglot)
    assert await unpacked(zip_of(entry), 5) == good(entry)


async def test_what_is_declared_a_file_is_one() -> None:
    """A raw body of application/dicom is never unpacked: who reads it says that it is no DICOM file."""
    archive = zip_of(Entry("1", b"one"))
    assert await told(cut(archive, 50, content_type="application/dicom")) == [("", None, archive)]


async def test_raw_archives_and_files_follow_each_other() -> None:
    """Over gRPC each file says what it is with its first message."""
    archive = zip_of(Entry("1", b"one"))
    pieces = [
        Piece(archive, content_type=ZIP, end_of_file=True),
        Piece(b"two", filename="2", end_of_file=True),
        Piece(archive[:9], content_type=ZIP),
        Piece(archive[9:]),
    ]
    assert await told(pieces) == [("1", "1", b"one"), ("2", None, b"two"), ("1", "1", b"one")]


@pytest.mark.parametrize("form", [True, False])
async def test_one_file_is_no_archive(*, form: bool) -> None:
    """Where one file is taken, an archive is refused by what it is, not as a file that is broken."""
    archive = zip_of(Entry("1", b"one"))
    pieces = cut(part(archive) + END, 100) if form else cut(archive, 100, content_type=ZIP)
    with pytest.raises(ServiceError, match="upload-multiple") as caught:
        await UploadReader(stream(pieces), LIMITS, archives=ARCHIVES).only_file()
    assert caught.value.reason is Reason.UNSUPPORTED_MEDIA_TYPE


async def test_without_archives_there_are_none() -> None:
    """A service that does not unpack refuses the type, and takes what begins like an archive for any file."""
    archive = zip_of(Entry("1", b"one"))
    assert await told(cut(archive, 100, content_type=ZIP), archives=None) == [Reason.UNSUPPORTED_MEDIA_TYPE]
    assert await told(cut(part(archive) + END, 100), archives=None) == [("a.dcm", None, archive)]


async def test_the_first_file_tells_whether_an_archive_begins() -> None:
    """Asking whether the upload begins with an archive takes nothing away from it."""
    archive = zip_of(Entry("1", b"one"))
    for body, expected in ((part(archive) + END, True), (part(b"x") + part(archive) + END, False)):
        reader = UploadReader(stream(cut(body, 10)), LIMITS, archives=ARCHIVES)
        assert await reader.begins_with_archive() is expected
        assert [file.path async for file in reader.files()] == (["1"] if expected else [None, "1"])


async def test_every_cut_of_an_archive_is_an_error() -> None:
    """An archive that ends early, wherever it does, ends in an error, and no file that was cut passes for whole."""
    entries = (Entry("1", b"one" * 30), Entry("2", b"two", STORED), Entry("3", b"three", descriptor="signed"))
    archive = zip_of(*entries, comment=b"bye", zip64=True)
    whole = good(*entries)
    for length in range(len(archive)):
        *files, last = await unpacked(archive[:length])
        assert last is Reason.ARCHIVE_INVALID, length
        if files and isinstance(files[-1], tuple) and files[-1][2] is Reason.ARCHIVE_INVALID:
            files.pop()
        assert files == whole[: len(files)], length
    assert await unpacked(archive) == whole


async def test_a_changed_byte_is_never_stored_as_if_it_were_whole() -> None:
    """Whatever byte of an archive is changed, each file comes out as it was, or breaks off."""
    entries = (Entry("1", b"one" * 30), Entry("2", b"two" * 30, STORED), Entry("3", b"three" * 9, descriptor="signed"))
    archive = zip_of(*entries)
    contents = [entry.data for entry in entries]
    for place in range(len(archive)):
        changed = archive[:place] + bytes([archive[place] ^ 0x41]) + archive[place + 1 :]
        for one in await unpacked(changed):
            assert isinstance(one, Reason) or isinstance(one[2], Reason) or one[2] in contents, place


NEXT = Entry("next", b"is well")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (Entry("x", TEXT, told={"crc": 1}, listed={"crc": 1}), Reason.ARCHIVE_INVALID),
        (Entry("x", TEXT, STORED, told={"crc": 1}), Reason.ARCHIVE_INVALID),
        (Entry("x", TEXT, told={"size": 9}), Reason.ARCHIVE_INVALID),
        (Entry("x", TEXT, STORED, told={"size": 9}), Reason.ARCHIVE_INVALID),
        (Entry("x", TEXT, packed=deflated(TEXT) + b"more"), Reason.ARCHIVE_INVALID),
        (Entry("x", TEXT, packed=deflated(TEXT)[:-9]), Reason.ARCHIVE_INVALID),
        (Entry("x", TEXT, packed=b"\xff" * 40), Reason.ARCHIVE_INVALID),
        (Entry("x", TEXT, flags=ENCRYPTED), Reason.ARCHIVE_UNSUPPORTED),
        (Entry("x", TEXT, flags=1 << 6 | ENCRYPTED), Reason.ARCHIVE_UNSUPPORTED),
        (Entry("x", TEXT, method=9, packed=b"deflate64"), Reason.ARCHIVE_UNSUPPORTED),
        (Entry("x", TEXT, method=99, flags=ENCRYPTED), Reason.ARCHIVE_UNSUPPORTED),
        (
            Entry("x", TEXT, flags=ENCRYPTED, descriptor="signed", told={"packed": len(deflated(TEXT))}),
            Reason.ARCHIVE_UNSUPPORTED,
        ),
        (Entry("x", TEXT, STORED, told={"size": 1 << 31}), Reason.FILE_TOO_LARGE),
        (Entry("x", b"z" * 100_001), Reason.FILE_TOO_LARGE),
        (Entry("x", b"z" * 100_001, descriptor="bare"), Reason.FILE_TOO_LARGE),
        (Entry("x.zip", zip_of(Entry("1", b"one"))), Reason.ARCHIVE_UNSUPPORTED),
        (Entry("x.dcm", zip_of(Entry("1", TEXT * 9)), STORED), Reason.ARCHIVE_UNSUPPORTED),
        (Entry("x.dcm", zip_of(), STORED), Reason.ARCHIVE_UNSUPPORTED),
    ],
    ids=lambda value: value if isinstance(value, Reason) else "",
)
@pytest.mark.parametrize("size", [13, 100_000])
async def test_a_bad_entry_spares_its_neighbours(entry: Entry, reason: Reason, size: int) -> None:
    """An entry that is broken, unreadable, too large or an archive fails by itself: the next one comes out whole."""
    name = entry.raw_name.decode()
    assert await unpacked(zip_of(entry, NEXT), size) == [(name, name, reason), *good(NEXT)]


@pytest.mark.parametrize("descriptor", ["signed", "bare", "signed 64", "bare 64"])
async def test_a_checksum_behind_the_data_that_does_not_fit_fails_the_file(descriptor: str) -> None:
    """The checksum comes behind the bytes: the file's stream ends in an error, and not as if it were whole."""
    archive = zip_of(Entry("x", TEXT, descriptor=descriptor), NEXT)
    crc = struct.pack("<I", Entry("x", TEXT).numbers["crc"])
    changed = archive.replace(crc, b"oops", 1)
    seen = await unpacked(changed)
    assert seen == [("x", "x", Reason.ARCHIVE_INVALID), *good(NEXT)]


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (b"not a zip", Reason.ARCHIVE_INVALID),
        (b"", Reason.ARCHIVE_INVALID),
        (zip_of(), Reason.FILE_FIELD_MISSING),
        (zip_of(Entry("folder/", b""), Entry("folder/sub/", b"", STORED)), Reason.FILE_FIELD_MISSING),
        (zip_of(disk=3), Reason.ARCHIVE_UNSUPPORTED),
        (b"PK\x06\x06" + struct.pack("<Q", 1 << 62), Reason.ARCHIVE_INVALID),
    ],
)
async def test_an_archive_without_files_is_refused(archive: bytes, reason: Reason) -> None:
    """What is no archive, or one without a file, is an error of the request."""
    assert await unpacked(archive) == [reason]


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (zip_of(NEXT) + b"\0", Reason.ARCHIVE_INVALID),
        (zip_of(NEXT, count=2), Reason.ARCHIVE_INVALID),
        (zip_of(NEXT, Entry("y", b"hidden", in_directory=False)), Reason.ARCHIVE_INVALID),
        (zip_of(replace(NEXT, listed={"crc": 5})), Reason.ARCHIVE_INVALID),
        (zip_of(replace(NEXT, listed={"size": 5})), Reason.ARCHIVE_INVALID),
        (zip_of(NEXT).replace(b"next", b"else", 1), Reason.ARCHIVE_INVALID),
        (zip_of(NEXT, Entry("y", TEXT, flags=ENCRYPTED, descriptor="signed")), Reason.ARCHIVE_UNSUPPORTED),
        (zip_of(NEXT, Entry("y", TEXT, method=12, descriptor="signed")), Reason.ARCHIVE_UNSUPPORTED),
        (zip_of(NEXT, Entry("y", TEXT, STORED, descriptor="signed")), Reason.ARCHIVE_UNSUPPORTED),
        (zip_of(NEXT, Entry("y", TEXT, told={"packed": 0xFFFFFFFF})), Reason.ARCHIVE_INVALID),
    ],
)
async def test_what_ends_an_archive_is_told_last(archive: bytes, reason: Reason) -> None:
    """Where the archive breaks, or is another than its directory says, the request ends with the reason."""
    seen = await unpacked(archive)
    assert seen[-1] is reason
    assert all(isinstance(one, tuple) for one in seen[:-1])


async def test_entries_that_overlap_are_never_unpacked_twice() -> None:
    """A directory that points many entries at the same bytes, as bombs do, gives each byte once, and then an error."""
    kernel = Entry("0", b"\0" * 90_000)
    directory = b"".join(replace(kernel, name=str(number)).central(0) for number in range(9))
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 9, 9, len(directory), len(kernel.local()), 0)
    seen = await unpacked(kernel.local() + directory + end)
    assert seen == [("0", "0", kernel.data), Reason.ARCHIVE_INVALID]


async def test_a_bomb_is_given_up_early() -> None:
    """An entry that unpacks to more than the allowed ratio breaks off soon after its first MiB, declared or not."""
    data = bytes(40 * MIB)
    limits = {"file_bytes": 64 * MIB, "request_bytes": 64 * MIB}
    assert await unpacked(zip_of(Entry("x", data), NEXT), **limits) == [
        ("x", "x", Reason.STRUCTURE_LIMIT),
        *good(NEXT),
    ]
    assert (await unpacked(zip_of(Entry("x", data, descriptor="bare"), NEXT), **limits))[-1] is Reason.STRUCTURE_LIMIT
    assert (await unpacked(zip_of(Entry("x", data)), ratio=2000, **limits))[0][2] == data


async def test_what_archives_unpack_to_counts_in_all() -> None:
    """The unpacked files of a request together are bounded as the request is, also those that nobody reads."""
    entries = [Entry(str(number), b"z" * 90_000) for number in range(8)]
    seen = await unpacked(zip_of(*entries), request_bytes=400_000)
    assert [one[0] for one in seen[:-2]] == ["0", "1", "2", "3"]
    assert seen[-1] is Reason.UPLOAD_TOO_LARGE
    reader = UploadReader(
        stream(cut(zip_of(*entries), 100, content_type=ZIP)), replace(LIMITS, request_bytes=400_000), archives=ARCHIVES
    )
    with pytest.raises(ServiceError, match="unpack to") as caught:
        _ = [file.name async for file in reader.files()]
    assert caught.value.reason is Reason.UPLOAD_TOO_LARGE


async def test_exactly_the_most_entries_pass_and_one_more_does_not() -> None:
    """An archive may hold MAX_ZIP_ENTRIES, folders among them, however many files a request may bring."""
    entries = [Entry("folder/", b""), *(Entry(str(number), b"x") for number in range(9))]
    assert await unpacked(zip_of(*entries)) == good(*entries[1:])
    seen = await unpacked(zip_of(*entries, NEXT))
    assert seen == [*good(*entries[1:]), Reason.TOO_MANY_FILES]


async def test_archives_of_one_request_share_the_limits() -> None:
    """Entries are counted over all archives of a request, and each archive counts as one file of it."""
    archive = zip_of(*(Entry(str(number), b"x") for number in range(4)))
    assert (await told(cut(part(archive) * 3 + END, 500)))[-1] is Reason.TOO_MANY_FILES
    one = zip_of(NEXT)
    assert len(await told(cut(part(one) * 3 + END, 500))) == 3
    assert (await told(cut(part(one) * 4 + END, 500)))[3:] == [Reason.TOO_MANY_FILES]


async def test_very_many_entries_take_little_memory() -> None:
    """What is held of an archive's entries until its directory comes is small, however long their names are."""
    entry = Entry("n" * 20_000, b"x", STORED).local()
    pieces = [Piece(b"", content_type=ZIP), *(Piece(entry) for _ in range(2000))]
    reader = UploadReader(
        stream(pieces), replace(LIMITS, request_bytes=100 * MIB), archives=replace(ARCHIVES, entries=100_000)
    )
    tracemalloc.start()
    count = 0
    try:
        with pytest.raises(ServiceError, match="too early"):  # noqa: PT012 - it is counted until it raises
            async for _ in reader.files():
                count += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 2000
    # The names would be 40 MB.
    assert peak < 500 * count


async def test_a_hundred_thousand_entries_are_refused_at_the_first_one_too_many() -> None:
    """A message packed with tiny entries is not read past the most that there may be."""
    archive = Entry("n", b"", STORED).local() * 100_000
    limits = {"request_bytes": 10 * MIB}
    assert (await unpacked(archive, len(archive), **limits))[10:] == [Reason.TOO_MANY_FILES]


async def test_one_piece_that_unpacks_to_much_is_not_held_whole() -> None:
    """What one message unpacks to comes in small chunks, of which the next is made when the last was taken."""
    archive = zip_of(Entry("x", bytes(60 * MIB)))
    limits = replace(LIMITS, file_bytes=64 * MIB, request_bytes=64 * MIB)
    reader = UploadReader(stream([Piece(archive, content_type=ZIP)]), limits, archives=replace(ARCHIVES, ratio=2000))
    tracemalloc.start()
    try:
        size = 0
        async for file in reader.files():
            async for chunk in file:
                size += len(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == 60 * MIB
    assert peak < 2 * MIB


@pytest.mark.parametrize(
    ("entry", "name", "path"),
    [
        (Entry("../../etc/passwd", b"x"), "passwd", ""),
        (Entry("/etc/passwd", b"x"), "passwd", "etc/passwd"),
        (Entry("C:\\CD\\IM1", b"x"), "IM1", "C:/CD/IM1"),
        (Entry("a/./b//c", b"x"), "c", "a/b/c"),
        (Entry("a\0b\x1b[2J\n", b"x"), "ab[2J", "a\0b\x1b[2J\n"),
        (Entry("Müller".encode(), b"x", flags=UTF8), "Müller", "Müller"),
        (Entry("Müller".encode("cp437"), b"x"), "Müller", "Müller"),
        (Entry(b"\xff\xfe", b"x", flags=UTF8), "\ufffd\ufffd", "\ufffd\ufffd"),
        (Entry("n" * 65_535, b"x"), "n" * 255, ""),
        (Entry("", b"x"), "", ""),
    ],
)
async def test_hostile_names_are_cleaned(entry: Entry, name: str, path: str) -> None:
    """The name of an entry loses its folders and what cannot be shown; its path serves for nothing but to compare."""
    assert await unpacked(zip_of(entry)) == [(name, path, b"x")]


FRAGMENTS = [
    *(entry.local() for entry in FORMS[4:8]),
    *(zip_of(NEXT), NEXT.local(), NEXT.central(0), b"PK\x05\x06" + bytes(18), b"PK\x07\x08"),
]


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(FRAGMENTS)), max_size=6))
async def test_garbage_gives_files_or_a_service_error(pieces: list[bytes]) -> None:
    """No bytes make the reader fail in any other way than it documents, or take for whole what is not."""
    seen = await told([Piece(b"", content_type=ZIP), *map(Piece, pieces)])
    wholes = {entry.data for entry in (*FORMS, NEXT)}
    for one in seen:
        assert isinstance(one, Reason) or isinstance(one[2], Reason) or one[2] in wholes


async def test_methods_are_as_the_format_has_them() -> None:
    """Python's own reader takes what these tests build for what it is meant to be."""
    entries = [replace(entry, told={}) if entry.descriptor else entry for entry in FORMS]
    with zipfile.ZipFile(io.BytesIO(zip_of(*entries, comment=b"x"))) as archive:
        assert [archive.read(info) for info in archive.infolist()] == [entry.data for entry in entries]
        assert {info.compress_type for info in archive.infolist()} == {STORED, DEFLATED}
