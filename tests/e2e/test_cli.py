"""The client as a command, against the whole stack."""

import asyncio
import os
import shutil
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local.process import ROOT
from deploy.local.stack import Stack
from tests.e2e.client import Client
from tests.files import dicomdir_folder, fresh_file


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command came to."""

    status: int | None
    out: str
    err: str


@pytest.fixture
def cli(stack: Stack, client: Client, tmp_path: Path):
    """Runs the client with arguments, as a radiologist, whose token is in a file."""
    (tmp_path / "token").write_text(f"{client.token}\n")

    async def run(*arguments: str | Path, token: bool = True, target: str = "") -> Ended:
        shared: Sequence[str] = ("--target", target or stack.envoy_target)
        if token:
            shared = (*shared, "--token-file", str(tmp_path / "token"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pacs_gateway.cli", *map(str, arguments), *shared),
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/generated", "COLUMNS": "200"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return Ended(process.returncode, out.decode(), err.decode())

    return run


async def test_a_folder_is_stored_and_a_second_run_finds_it_stored(cli, client: Client, tmp_path: Path) -> None:
    """All DICOM files of a folder are stored; run again, the command has nothing left to do and succeeds."""
    folder = tmp_path / "study"
    folder.mkdir()
    first = fresh_file()
    files = [first, *(fresh_file(like=first) for _ in range(5))]
    for number, file in enumerate(files):
        (folder / f"IM{number}").write_bytes(file.content)
    (folder / "README.TXT").write_text("a text")
    ended = await cli("upload", folder)
    assert ended.status == 0, ended
    assert ended.out.splitlines()[-1] == "6 stored, 1 skipped"
    assert first.study_uid in ended.out
    assert first.patient_id not in ended.out
    assert (await client.log(first.study_uid))["number_of_files"] == 6
    again = await cli("upload", folder, "--show-patients")
    assert again.status == 0, again
    assert again.out.splitlines()[-1] == "6 already stored, 1 skipped"
    assert first.patient_id in again.out


async def test_what_is_not_stored_is_told_with_status_1(cli, client: Client, admin: Client, tmp_path: Path) -> None:
    """One file that is refused does not keep the other from being stored; the command says which and why."""
    good, bad = fresh_file(), fresh_file()
    patient = await admin.register_patient(good.patient_id)
    (tmp_path / "good.dcm").write_bytes(good.content)
    (tmp_path / "bad.dcm").write_bytes(bad.content)
    ended = await cli("upload", tmp_path / "good.dcm", tmp_path / "bad.dcm", "--patient", patient.id)
    assert ended.status == 1, ended
    assert "bad.dcm" in ended.out
    assert "PATIENT_MISMATCH" in ended.out
    assert bad.patient_id not in ended.out
    assert await client.in_pacs(good.study_uid)
    assert not await client.in_pacs(bad.study_uid)


async def test_options_edit_and_coerce(cli, client: Client, admin: Client, tmp_path: Path) -> None:
    """Patient, matching and edits are those of the upload."""
    file = fresh_file()
    patient = await admin.register_patient(f"C{file.patient_id}")
    (tmp_path / "x.dcm").write_bytes(file.content)
    ended = await cli(
        *("upload", tmp_path / "x.dcm", "--patient", patient.id, "--match", "COERCE", "--source", "api"),
        *("--set", "StudyDescription=From the client"),
    )
    assert ended.status == 0, ended
    log = await client.log(file.study_uid)
    assert (log["modified_patient_id"], log["upload_source"]) == (patient.mrn, "api")
    other = ("upload", tmp_path / "x.dcm", "--patient", patient.id, "--match", "COERCE")
    for more, status, said in ((), 1, "INSTANCE_CONFLICT"), (("--on-conflict", "KEEP"), 0, "1 kept"):
        ended = await cli(*other, *more)
        assert ended.status == status, ended
        assert said in ended.out


async def test_a_cd_is_imported_from_a_folder_and_from_an_archive(cli, tmp_path: Path) -> None:
    """A CD is held against its DICOMDIR either way; one that lacks a folder is told with what is missing."""
    cd = tmp_path / "CD"
    cd.mkdir()
    for name in ("77654033", "98892001", "98892003"):
        shutil.copytree(dicomdir_folder() / name, cd / name)
    shutil.copy(dicomdir_folder() / "DICOMDIR", cd)
    ended = await cli("import-cd", cd)
    assert ended.status == 0, ended
    assert "1 skipped" in ended.out

    shutil.rmtree(cd / "98892003")
    with zipfile.ZipFile(tmp_path / "cd.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(cd.rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
    for source in (cd, tmp_path / "cd.zip"):
        ended = await cli("import-cd", source)
        assert ended.status == 1, ended
        assert "DIRECTORY_MISMATCH" in ended.out
        assert "missing: 98892003/" in ended.out


async def test_what_cannot_be_is_told_with_status_2(cli, tmp_path: Path) -> None:
    """Without a token, with an option that is refused, with nothing there to send or nobody to send to."""
    (tmp_path / "x.dcm").write_bytes(fresh_file().content)
    for ended, said in (
        (await cli("upload", tmp_path / "x.dcm", token=False), "token"),
        (await cli("upload", tmp_path / "x.dcm", "--token", "bad", token=False), "TOKEN_INVALID"),
        (await cli("upload", tmp_path / "x.dcm", "--patient", "42"), "patient_id"),
        (await cli("upload", tmp_path / "nothing"), "does not exist"),
        (await cli("import-cd", tmp_path / "x.dcm"), "neither"),
        (await cli("upload", tmp_path / "x.dcm", "--retries", "0", target="localhost:1"), "Nobody answers"),
    ):
        assert ended.status == 2, ended
        assert said in ended.err
        assert "Traceback" not in ended.err
