import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service_runtime.bodies import Piece
from service_runtime.errors import Reason, ServiceError
from service_runtime.uploads import MIB, UploadedFile, UploadLimits, UploadReader

LIMITS = UploadLimits(file_bytes=1000, request_bytes=5000, files=3, idle_seconds=5)
FORM = 'multipart/form-data; boundary="b0und-ary"'
BOUNDARY = b"b0und-ary"


def part(data: bytes, *, field: str = "file", filename: str | None = "a.dcm") -> bytes:
    """One part of a form, as curl writes it."""
    name = f'; filename="{filename}"' if filename is not None else ""
    head = f'Content-Disposition: form-data; name="{field}"{name}\r\nContent-Type: application/octet-stream\r\n\r\n'
    return b"--" + BOUNDARY + b"\r\n" + head.encode() + data + b"\r\n"


END = b"--" + BOUNDARY + b"--\r\n"


def cut(body: bytes, size: int, *, content_type: str = FORM) -> list[Piece]:
    """The body in pieces of this size; an empty body is one empty piece, as Envoy sends it."""
    chunks = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
    return [Piece(chunks[0], content_type=content_type), *(Piece(chunk) for chunk in chunks[1:])]


async def stream(pieces: Sequence[Piece]) -> AsyncIterator[Piece]:
    """The pieces as a request stream brings them."""
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


def reader(
    pieces: Sequence[Piece], limits: UploadLimits = LIMITS, *, declared_bytes: int | None = None
) -> UploadReader:
    """The reader of an upload of these pieces."""
    return UploadReader(stream(pieces), limits, declared_bytes=declared_bytes)


async def content(file: UploadedFile) -> bytes:
    """All of a file."""
    return b"".join([chunk async for chunk in file])


async def all_files(upload: UploadReader) -> list[tuple[str, bytes]]:
    """The name and content of every file."""
    return [(file.name, await content(file)) async for file in upload.files()]


async def only(upload: UploadReader) -> tuple[str, bytes]:
    """The name and content of the only file."""
    file = await upload.only_file()
    return file.name, await content(file)


async def reason_of(upload: UploadReader, read: Callable[[UploadReader], object] = all_files) -> Reason:
    """Why reading the upload fails."""
    with pytest.raises(ServiceError) as caught:
        await read(upload)  # type: ignore[misc]
    return caught.value.reason


# What could be taken for a boundary, or the beginning of one.
TRICKY = b"\r\n--b0und-ar\r\n--\r\n\r--b0und-ary\n--b0und-arX\r\n-" + bytes(range(256)) + b"\r\n--b0und-ary"[:-1]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 61, 256, 100_000])
async def test_form_gives_the_same_files_for_every_cut(size: int) -> None:
    """The files of a form are the same bytes however the body is cut into pieces."""
    body = part(TRICKY) + part(b"", filename="empty") + part(b"\r\n", field="files", filename="b") + END
    files = await all_files(reader(cut(body, size)))
    assert files == [("a.dcm", TRICKY), ("empty", b""), ("b", b"\r\n")]


@settings(max_examples=150, deadline=None)
@given(
    contents=st.lists(st.lists(st.sampled_from([b"\r\n", b"--", BOUNDARY[:-1], b"x", b"\r", b"\0" * 50])), max_size=3),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
async def test_form_gives_the_same_files_for_random_cuts(contents: list[list[bytes]], sizes: list[int]) -> None:
    """Whatever the files hold and wherever the pieces end, the files come out as they went in."""
    expected = [b"".join(pieces) for pieces in contents]
    body = b"".join(part(data) for data in expected) + END
    pieces = [Piece(b"", content_type=FORM)]
    while body:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(Piece(body[:size]))
        body = body[size:]
    if expected:
        assert [data for _, data in await all_files(reader(pieces))] == expected
    else:
        assert await reason_of(reader(pieces)) is Reason.FILE_FIELD_MISSING


@settings(max_examples=300, deadline=None)
@given(
    content_type=st.one_of(st.just(FORM), st.text(max_size=50), st.text(max_size=30).map(lambda t: f"{FORM}; {t}")),
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=30), st.sampled_from([part(b"x"), END, b"\r\n", b"--" + BOUNDARY, b"a: b\r\n", b";"])
        ),
        max_size=8,
    ),
)
async def test_garbage_gives_files_or_a_service_error(content_type: str, pieces: list[bytes]) -> None:
    """No body and no content type makes the reader fail in any other way than it documents."""
    stream_of = [Piece(b"", content_type=content_type), *(Piece(data) for data in pieces)]
    try:
        await all_files(reader(stream_of))
    except ServiceError as error:
        assert error.reason in {  # noqa: PT017 - there is no error where the garbage happens to be good
            Reason.MULTIPART_INVALID,
            Reason.FILE_FIELD_MISSING,
            Reason.UNSUPPORTED_MEDIA_TYPE,
            Reason.INVALID_FIELD,
            Reason.TOO_MANY_FILES,
        }


@pytest.mark.parametrize(
    "content_type", ["", "application/dicom", "application/octet-stream; x=y", "Application/DICOM"]
)
async def test_raw_body_is_one_file(content_type: str) -> None:
    """A body that is no form is the file itself, with the name of its first message."""
    pieces = [Piece(b"ab", content_type=content_type, filename="x/y.dcm"), Piece(b""), Piece(b"c", filename="other")]
    assert await only(reader(pieces)) == ("y.dcm", b"abc")


async def test_raw_files_end_where_they_say() -> None:
    """Several raw files follow each other, each ended by its message; the last one also by the end of the stream."""
    pieces = [
        Piece(b"a", filename="1"),
        Piece(b"b", end_of_file=True),
        Piece(b"", filename="2", end_of_file=True),
        Piece(b"c", filename="3"),
    ]
    assert await all_files(reader(pieces)) == [("1", b"ab"), ("2", b""), ("3", b"c")]


async def test_raw_files_that_all_say_their_end_are_no_more_than_they_are() -> None:
    """An end mark on the last message does not begin another file."""
    assert await all_files(reader([Piece(b"a", filename="1", end_of_file=True)])) == [("1", b"a")]


async def test_empty_raw_body_is_an_empty_file() -> None:
    """A body without a byte is a file without a byte; who reads it says what is wrong with that."""
    assert await only(reader([Piece(b"", content_type="application/dicom")])) == ("", b"")


async def test_no_message_at_all_is_no_file() -> None:
    """A request stream that ends at once holds no file."""
    assert await reason_of(reader([])) is Reason.FILE_FIELD_MISSING
    assert await reason_of(reader([]), only) is Reason.FILE_FIELD_MISSING


@pytest.mark.parametrize(
    "body",
    [b"", END, part(b"x", field="other") + END, part(b"x", field="patient_id", filename=None) + END],
    ids=["no byte", "no part", "another field", "only text"],
)
@pytest.mark.parametrize("read", [all_files, only])
async def test_form_without_a_file_field_is_refused(body: bytes, read: Callable[[UploadReader], object]) -> None:
    """A form that is empty, or has no field `file`, holds no file."""
    assert await reason_of(reader(cut(body, 7)), read) is Reason.FILE_FIELD_MISSING


@pytest.mark.parametrize("order", ["before", "after"])
async def test_option_as_a_form_field_is_refused(order: str) -> None:
    """An option sent as a form field is an error that names it, for it would else be without effect, silently."""
    text = part(b"MRN1", field="patient_id", filename=None)
    body = (text + part(b"x") if order == "before" else part(b"x") + text) + END
    with pytest.raises(ServiceError) as caught:
        await only(reader(cut(body, 11)))
    assert caught.value.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in caught.value.violations] == ["patient_id"]
    assert "MRN1" not in str(caught.value)


async def test_every_cut_of_a_form_is_an_error() -> None:
    """A form that ends before its closing boundary is refused wherever it ends: a cut file never passes for a whole."""
    body = part(b"0123456789") + part(b"abc") + END
    closing = len(body) - len(b"\r\n")
    for length in range(1, closing):
        assert await reason_of(reader(cut(body[:length], 1000))) is Reason.MULTIPART_INVALID, length
    assert len(await all_files(reader(cut(body[:closing], 1000)))) == 2


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 71,
        "multipart/form-data; boundary=é中",
        "multipart/form-data; " + "x" * 100_000 + "; boundary=b0und-ary",
    ],
)
async def test_form_without_a_usable_boundary_is_refused(content_type: str) -> None:
    """A form whose content type names no boundary, or one that cannot be, is broken."""
    assert await reason_of(reader(cut(part(b"x") + END, 100, content_type=content_type))) is Reason.MULTIPART_INVALID


async def test_longest_boundary_is_taken() -> None:
    """A boundary of 70 characters, the most there may be, works."""
    boundary = "x" * 70
    body = (part(b"x") + END).replace(BOUNDARY, boundary.encode())
    upload = reader(cut(body, 10, content_type=f"multipart/form-data; boundary={boundary}"))
    assert await only(upload) == ("a.dcm", b"x")


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/mixed; boundary=x", "x" * 5000])
async def test_other_media_types_are_refused(content_type: str) -> None:
    """A body that is neither a form nor a file is refused by its type."""
    upload = reader(cut(b"{}", 10, content_type=content_type))
    assert await reason_of(upload) is Reason.UNSUPPORTED_MEDIA_TYPE


@pytest.mark.parametrize(
    "headers",
    [
        b"X: " + b"y" * 10_000 + b"\r\n",
        b"".join(b"X-%d: y\r\n" % number for number in range(100)),
        b"no colon\r\n",
        b": no name\r\n",
    ],
)
async def test_form_with_hostile_headers_is_refused(headers: bytes) -> None:
    """Part headers that are too long, too many or no headers at all break the form, in any cut."""
    body = b"--" + BOUNDARY + b"\r\n" + headers + b"\r\nx\r\n" + END
    for size in (1, 1000):
        assert await reason_of(reader(cut(body, size), replace(LIMITS, request_bytes=MIB))) is Reason.MULTIPART_INVALID


@pytest.mark.parametrize("form", [True, False])
async def test_file_of_exactly_the_limit_passes_and_one_byte_more_does_not(*, form: bool) -> None:
    """A file may have MAX_DICOM_FILE_SIZE_MB and no byte more; the error names the limit."""

    def upload(size: int) -> UploadReader:
        data = b"x" * size
        return reader(cut(part(data) + END, 90) if form else cut(data, 90, content_type=""))

    assert len((await only(upload(LIMITS.file_bytes)))[1]) == LIMITS.file_bytes
    with pytest.raises(ServiceError, match="MAX_DICOM_FILE_SIZE_MB") as caught:
        await only(upload(LIMITS.file_bytes + 1))
    assert caught.value.reason is Reason.FILE_TOO_LARGE
    assert caught.value.metadata == {"limit": "MAX_DICOM_FILE_SIZE_MB", "limit_bytes": str(LIMITS.file_bytes)}


async def test_file_too_large_spares_its_neighbours() -> None:
    """Where one file of many is too large, the others are read whole."""
    body = part(b"1") + part(b"x" * 2000) + part(b"3") + END
    seen: list[bytes | Reason] = []
    async for file in reader(cut(body, 300)).files():
        try:
            seen.append(await content(file))
        except ServiceError as error:
            seen.append(error.reason)
    assert seen == [b"1", Reason.FILE_TOO_LARGE, b"3"]


async def test_request_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    """The whole request may have MAX_UPLOAD_SIZE_MB and no byte more; the error names the limit."""
    body = part(b"x" * 500) + part(b"y" * 500) + END
    assert len(await all_files(reader(cut(body, 100), replace(LIMITS, request_bytes=len(body))))) == 2
    with pytest.raises(ServiceError, match="MAX_UPLOAD_SIZE_MB") as caught:
        await all_files(reader(cut(body, 100), replace(LIMITS, request_bytes=len(body) - 1)))
    assert caught.value.reason is Reason.UPLOAD_TOO_LARGE
    assert caught.value.metadata == {"limit": "MAX_UPLOAD_SIZE_MB", "limit_bytes": str(len(body) - 1)}


async def test_what_is_skipped_counts() -> None:
    """The bytes of files that nobody reads count towards the limit on the request."""
    body = b"".join(part(b"x" * 900) for _ in range(3)) + END
    upload = reader(cut(body, 100), replace(LIMITS, request_bytes=2000))
    with pytest.raises(ServiceError) as caught:
        _ = [file.name async for file in upload.files()]
    assert caught.value.reason is Reason.UPLOAD_TOO_LARGE


async def test_declared_length_over_the_limit_is_refused_unread() -> None:
    """A request that says it is too large is refused before any of it is read, and one that says the limit is not."""

    async def never() -> AsyncIterator[Piece]:
        pytest.fail("the request was read")
        yield Piece(b"")

    upload = UploadReader(never(), LIMITS, declared_bytes=LIMITS.request_bytes + 1)
    assert await reason_of(upload, only) is Reason.UPLOAD_TOO_LARGE
    assert await only(reader(cut(b"x", 1, content_type=""), declared_bytes=LIMITS.request_bytes)) == ("", b"x")


@pytest.mark.parametrize("form", [True, False])
async def test_exactly_the_most_files_pass_and_one_more_does_not(*, form: bool) -> None:
    """A request may bring MAX_DICOM_FILES_PER_UPLOAD files; all these are read before the one too many is refused."""

    def upload(count: int) -> UploadReader:
        if form:
            return reader(cut(part(b"x") * count + END, 50))
        return reader([Piece(b"x", end_of_file=True)] * count)

    assert len(await all_files(upload(3))) == 3
    read = 0
    with pytest.raises(ServiceError, match="MAX_DICOM_FILES_PER_UPLOAD") as caught:  # noqa: PT012 - where is what counts
        async for file in upload(4).files():
            assert await content(file) == b"x"
            read += 1
    assert read == 3
    assert caught.value.reason is Reason.TOO_MANY_FILES
    assert caught.value.metadata["limit_files"] == "3"


async def test_second_file_where_one_is_allowed_is_an_error_before_the_first_one_ends() -> None:
    """The only file's iteration fails, and does not end, when another file follows: nothing is stored by mistake."""
    upload = reader(cut(part(b"1") + part(b"2") + END, 1000))
    file = await upload.only_file()
    chunks = aiter(file)
    assert await anext(chunks) == b"1"
    with pytest.raises(ServiceError) as caught:
        await anext(chunks)
    assert caught.value.reason is Reason.TOO_MANY_FILES


async def test_files_left_unread_are_skipped() -> None:
    """A file that is not read, or not to its end, does not run into the next one."""
    body = part(b"a" * 500, filename="1") + part(b"b" * 500, filename="2") + part(b"c", filename="3") + END
    seen: list[tuple[str, bytes]] = []
    async for file in reader(cut(body, 60)).files():
        if file.name == "1":
            continue
        if file.name == "2":
            seen.append((file.name, await anext(aiter(file))))
            continue
        seen.append((file.name, await content(file)))
    assert [(name, data[:1]) for name, data in seen] == [("2", b"b"), ("3", b"c")]


async def test_file_that_was_read_gives_nothing_when_it_is_read_again() -> None:
    """A second iteration of a file does not reach into the next one."""
    names = []
    async for file in reader(cut(part(b"1", filename="1") + part(b"2", filename="2") + END, 9)).files():
        assert await content(file) != b""
        assert await content(file) == b""
        names.append(file.name)
    assert names == ["1", "2"]


async def test_iteration_that_is_left_is_taken_up_by_the_next() -> None:
    """Who reads the beginning of a file leaves the rest to who comes after."""
    file = await reader(cut(b"abcdef", 2, content_type="")).only_file()
    assert await anext(aiter(file)) == b"ab"
    assert await content(file) == b"cdef"


class _Gated:
    """Pieces that come when they are let, and whose wait can be cancelled."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = list(pieces)
        self.let = asyncio.Semaphore(0)

    def __aiter__(self) -> "_Gated":
        return self

    async def __anext__(self) -> Piece:
        await self.let.acquire()
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop(0)


async def test_cancelled_wait_for_a_chunk_loses_neither_the_chunk_nor_the_files_behind() -> None:
    """Who waits for a chunk can be cancelled, as when the file is refused meanwhile, and other files still come."""
    gated = _Gated(
        [
            Piece(part(b"1" * 9)[:-5], content_type=FORM),
            Piece(b"1\r\n" + part(b"2", filename="2") + END),
        ]
    )
    files = UploadReader(gated, LIMITS).files()
    gated.let.release()
    first = await anext(files)
    chunks = aiter(first)
    await anext(chunks)
    waiting = asyncio.ensure_future(content(first))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    for _ in range(5):
        gated.let.release()
    assert [(file.name, await content(file)) async for file in files] == [("2", b"2")]


@pytest.mark.parametrize(
    ("body", "limit", "reason"),
    [
        (part(b"x" * 100) + part(b"y" * 400) + END, 400, Reason.UPLOAD_TOO_LARGE),
        (part(b"x" * 100) + part(b"y" * 400), 5000, Reason.MULTIPART_INVALID),
    ],
)
async def test_what_breaks_the_request_is_raised_again_between_files(body: bytes, limit: int, reason: Reason) -> None:
    """An error of the whole request that its file's reader took for the file's own still ends the request."""
    upload = reader(cut(body, 50), replace(LIMITS, request_bytes=limit))
    seen = []
    with pytest.raises(ServiceError) as caught:  # noqa: PT012 - what is shown is where it raises
        async for file in upload.files():
            try:
                await content(file)
            except ServiceError as error:
                seen.append(error.reason)
    assert seen == [reason]
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("a.dcm", "a.dcm"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Scans\\a.dcm", "a.dcm"),
        ("/", ""),
        ("a\x00b\x1b[31m\u202egpj.dcm", "ab[31mgpj.dcm"),
        ("line\u2028end", "lineend"),
        ("Müller^Bjørn.dcm", "Müller^Bjørn.dcm"),
        ("x" * 300, "x" * 255),
        ("\u202e" * 4_000_000, ""),
    ],
)
async def test_hostile_names_are_cleaned(given_name: str, kept: str) -> None:
    """A file's name comes without directories, control characters and excess length."""
    assert (await only(reader([Piece(b"x", filename=given_name)])))[0] == kept


async def test_names_of_form_files_are_cleaned_and_utf8() -> None:
    """The name in a form is read as UTF-8, as browsers and curl send it, and cleaned alike; other bytes do no harm."""
    assert (await only(reader(cut(part(b"x", filename="dir/Bjørn.dcm") + END, 3))))[0] == "Bjørn.dcm"
    odd = part(b"x", filename="N").replace(b'"N"', b'"\xff\xfe.dcm"')
    assert (await only(reader(cut(odd + END, 3))))[0] == "\ufffd\ufffd.dcm"


async def test_body_of_nothing_but_tiny_files_is_refused_early() -> None:
    """A message packed with thousands of empty files is refused at the first one too many, not parsed to its end."""
    body = part(b"") * 30_000
    assert len(body) > 3 * MIB
    upload = reader([Piece(body, content_type=FORM)], replace(LIMITS, request_bytes=4 * MIB))
    async with asyncio.timeout(0.5):
        assert await reason_of(upload) is Reason.TOO_MANY_FILES
