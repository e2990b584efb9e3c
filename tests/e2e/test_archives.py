"""ZIP archives and CDs through Envoy."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from deploy.local.stack import Stack
from ris.pacs.v1 import upload_service_pb2_grpc
from ris.pacs.v1.upload_service_pb2 import UploadMultipleRequest
from tests.e2e.client import API, Client, expect_error, form
from tests.files import dicomdir_folder, fresh_file
from tests.unit.service_runtime.zips import Entry, zip_of

CD_FOLDERS = ("77654033", "98892001", "98892003")
ZIP = {"content-type": "application/zip"}


def cd(*, without: str = "") -> bytes:
    """Pydicom's CD, zipped; without the files whose path begins so."""
    folder = dicomdir_folder()
    files = [path for name in CD_FOLDERS for path in sorted((folder / name).rglob("*")) if path.is_file()]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.TXT", "a CD")
        for path in [folder / "DICOMDIR", *files]:
            name = path.relative_to(folder).as_posix()
            if not (without and name.startswith(without)):
                archive.write(path, Path("CD", name).as_posix())
    return out.getvalue()


async def test_a_cd_is_imported_and_its_dicomdir_agrees(client: Client) -> None:
    """A zipped CD is stored file by file, what is no DICOM skipped, and its DICOMDIR held against the files."""
    answer = await client.send("POST", f"{API}/upload-multiple", content=cd(), headers=ZIP)
    assert answer.status_code == 200, answer.text
    results = answer.json()
    assert [(one["filename"], one["status"]) for one in results if one["status"] == "skipped"] == [
        ("README.TXT", "skipped"),
        ("DICOMDIR", "skipped"),
    ]
    assert results[-1]["filename"] == "DICOMDIR"
    assert "error" not in results[-1]
    stored = [one for one in results if one["success"]]
    assert len(stored) == len(results) - 2 == 31
    assert (await client.log(stored[0]["study_uid"]))["upload_source"] == "cd_import"


async def test_a_cd_that_was_not_copied_whole_is_told(client: Client) -> None:
    """What the DICOMDIR names and the archive lacks is named; the files that are there are stored."""
    answer = await client.send("POST", f"{API}/upload-multiple", files=form(("cd.zip", cd(without="98892003"))))
    assert answer.status_code == 200, answer.text
    *files, directory = answer.json()
    assert directory["error"]["reason"] == "DIRECTORY_MISMATCH"
    missing = directory["directory"]["missing"]
    assert missing
    assert all(name.startswith("98892003/") for name in missing)
    assert len([one for one in files if one["success"]]) + len(missing) == 31


async def test_an_archive_over_grpc(client: Client, stack: Stack) -> None:
    """A gRPC caller sends the archive in messages, and has each answer as soon as the file's fate is known."""
    files = [fresh_file() for _ in range(3)]
    archive = zip_of(*(Entry(f"I{number}", file.content) for number, file in enumerate(files)))

    def requests() -> Iterator[UploadMultipleRequest]:
        for at in range(0, len(archive), 10_000):
            body = HttpBody(data=archive[at : at + 10_000], content_type="" if at else ZIP["content-type"])
            yield UploadMultipleRequest(file=body)

    async with grpc.aio.insecure_channel(stack.envoy_target) as channel:
        stub = upload_service_pb2_grpc.UploadServiceStub(channel)
        call = stub.UploadMultiple(requests(), metadata=(("authorization", f"Bearer {client.token}"),))
        answers = [(one.filename, one.status) async for one in call]
    assert answers == [("I0", "stored"), ("I1", "stored"), ("I2", "stored")]


@pytest.mark.parametrize("descriptor", ["", "signed"])
async def test_a_file_whose_checksum_does_not_fit_is_not_stored(client: Client, descriptor: str) -> None:
    """The real Orthanc is sent the file without its end, and keeps nothing of it."""
    broken, good = fresh_file(), fresh_file()
    entry = Entry("BROKEN", broken.content, descriptor=descriptor, told={} if descriptor else {"crc": 1})
    archive = zip_of(entry, Entry("GOOD", good.content))
    crc = entry.numbers["crc"].to_bytes(4, "little")
    answer = await client.send("POST", f"{API}/upload-multiple", content=archive.replace(crc, b"oops", 1), headers=ZIP)
    results = answer.json()
    assert [(one["filename"], one["status"]) for one in results[:2]] == [("BROKEN", "failed"), ("GOOD", "stored")]
    assert results[0]["error"]["reason"] == "ARCHIVE_INVALID"
    assert not await client.in_pacs(broken.study_uid)
    assert await client.in_pacs(good.study_uid)


async def test_what_is_no_upload_of_many_refuses_archives(client: Client) -> None:
    """Upload says where an archive belongs; an archive that is none is an error with its reason."""
    archive = zip_of(Entry("I1", fresh_file().content))
    expect_error(
        await client.send("POST", f"{API}/upload", content=archive, headers=ZIP), 415, "UNSUPPORTED_MEDIA_TYPE"
    )
    expect_error(await client.upload(archive, name="x.zip"), 415, "UNSUPPORTED_MEDIA_TYPE")
    for path, content, status, reason in (
        ("read-tags", archive, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("upload-multiple", b"no archive", 400, "ARCHIVE_INVALID"),
        ("upload-multiple", zip_of(), 400, "FILE_FIELD_MISSING"),
    ):
        expect_error(await client.send("POST", f"{API}/{path}", content=content, headers=ZIP), status, reason)
