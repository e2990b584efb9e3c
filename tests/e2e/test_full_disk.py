"""Orthanc's disk gets full in the middle of uploads: what is told, what is there and what is logged still agree."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deploy.local.seed import seed
from deploy.local.stack import Stack
from tests.e2e.client import Client, expect_error
from tests.faults import BRISK, Books, Uploading, study_of

_MIB = 1024 * 1024
_ALONE = ("unshare", "--user", "--map-root-user", "--mount", "--")
# What takes Orthanc's place on PATH: Orthanc, its storage on a disk in memory that is gone with it.
_ORTHANC = """#!/bin/sh
exec {alone} sh -c 'mount -t tmpfs -o size=16m none "$1" && exec "$2" "$3"' sh '{storage}' '{orthanc}' "$1"
"""


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk of Orthanc's storage, which nobody else sees."""

    stack: Stack
    storage: Path

    @property
    def folder(self) -> Path:
        """The storage, as Orthanc's process sees it."""
        return Path(f"/proc/{self.stack.pid('orthanc')}/root{self.storage}")

    def fill(self, *, but_for: int) -> None:
        """Fills it, but for so many bytes."""
        free = os.statvfs(self.folder)
        (self.folder / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - but_for))

    def make_room(self) -> None:
        """Takes out again what filled it."""
        (self.folder / "ballast").unlink()


@pytest.fixture(scope="module")
async def disk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Disk]:
    """The disk of a stack's Orthanc."""
    if not _may_mount():
        pytest.skip("A disk to be filled is mounted in a namespace of its own, which is not allowed here.")
    folder = Path(tmp_path_factory.mktemp("disk"))
    storage = folder / "stack" / "orthanc" / "storage"
    storage.mkdir(parents=True)
    path = os.environ["PATH"]
    orthanc = shutil.which("Orthanc", path=f"{path}:/usr/sbin")
    wrapper = folder / "Orthanc"
    wrapper.write_text(_ORTHANC.format(alone=" ".join(_ALONE), storage=storage, orthanc=orthanc))
    wrapper.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{path}")
        async with Stack(folder / "stack", settings={"pacs_gateway": BRISK}) as stack:
            await seed(stack)
            yield Disk(stack, storage)


def _may_mount() -> bool:
    mount = (*_ALONE, "mount", "-t", "tmpfs", "none", "/mnt")
    return shutil.which("unshare") is not None and subprocess.run(mount, check=False).returncode == 0


async def test_a_full_disk_of_orthanc_s_loses_nothing(disk: Disk) -> None:
    """While files are uploaded the disk gets full: every file that was told stored is there, no other is, and when
    there is room again the others can be sent again.
    """
    files, books = study_of(40), Books(disk.stack)
    async with httpx.AsyncClient(base_url=disk.stack.base_url, timeout=60) as http:
        caller = Client(http, disk.stack.token(role="radiologist"))
        uploading = Uploading(caller.upload)
        await uploading.upload(files[:1])
        disk.fill(but_for=_MIB)
        await uploading.upload(files[1:])
        assert uploading.told
        assert uploading.failed
        expect_error(await caller.upload(uploading.failed[0].content), 500, "ORTHANC_ERROR")
        await books.settled()
        assert await books.check(files[0].study_uid, uploading.told) == len(uploading.told)
        assert (await caller.log(files[0].study_uid))["upload_status"] == "partial"
        disk.make_room()
        await uploading.again()
        await books.settled()
        assert await books.check(files[0].study_uid, uploading.told) == 40
        assert (await caller.log(files[0].study_uid))["upload_status"] == "success"
