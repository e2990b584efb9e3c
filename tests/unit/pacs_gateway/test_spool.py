"""Copies that are kept out of memory for a while."""

import hashlib
from functools import partial
from pathlib import Path

import pytest

from pacs_gateway.adapters.spool import TemporarySpool
from pacs_gateway.domain.study import Fingerprint
from service_runtime.errors import Reason, ServiceError
from tests.unit.pacs_gateway.fakes import chunks_of


async def test_a_copy_can_be_read_again_and_again_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the file, it is known by size and MD5, and nobody finds it in the folder, neither before nor after."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    content = bytes(range(256)) * 4096
    copy = await TemporarySpool().set_aside(chunks_of(content, 100_000))
    assert copy is not None
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - a test's own folder
    for _ in range(2):
        assert b"".join([chunk async for chunk in copy.chunks()]) == content
    assert copy.fingerprint == Fingerprint(len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())
    await copy.aclose()
    assert await TemporarySpool().set_aside(chunks_of(b"")) is None


@pytest.mark.parametrize("size", [1000, 10_000_000])
async def test_a_full_disk_is_told_as_such(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Where there is no room for the copy, whoever asks for it is to come again."""
    monkeypatch.setattr("tempfile.TemporaryFile", partial(open, "/dev/full", "r+b"))
    with pytest.raises(ServiceError) as error:
        await TemporarySpool().set_aside(chunks_of(bytes(size)))
    assert (error.value.reason, error.value.metadata) == (Reason.OVERLOADED, {"limit": "TMPDIR"})
