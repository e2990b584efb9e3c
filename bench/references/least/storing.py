"""The way of a file: whole where it is small, else piece by piece."""

import asyncio
import hashlib
import struct
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from bench.references.least.incoming import Incoming
from bench.references.least.ledger import Ledger, RefusedError
from bench.references.least.orthanc import Body, Orthanc, Piece
from ris.tags.v1 import tag_service_pb2

# What is taken in as a whole, and what tag_service is sent of it.
HELD_BYTES: Final = 1024 * 1024
_BEGINNING_BYTES: Final = 64 * 1024
_ENDING_BYTES: Final = 1024
_HEADER_SECONDS: Final = 30
# To hash less than this takes no longer than to have another thread do it.
_HASHED_AT_ONCE_BYTES: Final = 32 * 1024
# How long the end of a call that was broken off may look like one that was meant: a file goes no sooner to Orthanc.
_CANCELLATION_LAG_SECONDS: Final = 0.005
# The tag, VR and reserved bytes of native pixel data (PS3.5 7.1.2); its length follows.
_PIXEL_DATA: Final = (b"\xe0\x7f\x10\x00OW\x00\x00", b"\xe0\x7f\x10\x00OB\x00\x00")
_MESSAGE: Final = "Stored, read back and logged."


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and what says so to tag_service."""

    user_id: uuid.UUID
    metadata: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Coming:
    """A file of a call of `caller`: its name, its first pieces, and where the rest comes from, if there is more."""

    caller: Caller
    upload_id: uuid.UUID
    name: str
    pieces: Sequence[bytes]
    incoming: Incoming


@dataclass(slots=True)
class Digests:
    """Of what came, and of what goes to Orthanc."""

    source: Any = field(default_factory=hashlib.sha256)
    stored: Any = field(default_factory=hashlib.sha256)
    md5: Any = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))

    def take(self, came: Sequence[Piece], goes: Sequence[Piece]) -> None:
        """Takes pieces of both."""
        for piece in came:
            self.source.update(piece)
        for piece in goes:
            self.stored.update(piece)
            self.md5.update(piece)


@dataclass(slots=True)
class _File:
    """A file that is known to be storable. `size` and `stored_size` are those of what came and of what goes."""

    coming: Coming
    tags: Any
    size: int
    stored_size: int
    orthanc_id: str
    began: float
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    digests: Digests = field(default_factory=Digests)
    # The row that says whose it is.
    whose: Any = None


class Storing:
    """Stores files."""

    def __init__(self, modify_header: Any, ledger: Ledger, orthanc: Orthanc) -> None:
        """`modify_header` is tag_service's."""
        self._modify_header = modify_header
        self._ledger = ledger
        self._orthanc = orthanc
        self._hashing = ThreadPoolExecutor(2)

    async def whole(self, coming: Coming) -> Any:
        """Stores a file that is here; the fields of the answer. Raises RefusedError."""
        began, pieces = time.monotonic(), coming.pieces
        size = sum(map(len, pieces))
        edit = await self._edit(coming, size, *_ends(pieces))
        body = [edit.header, *_behind(pieces, edit.header_size)]
        file = _file(coming, edit, size, began)
        if size < _HASHED_AT_ONCE_BYTES:
            file.digests.take(pieces, body)
            await self._file_away(file)
        else:
            hashed = self._hash(file.digests, pieces, body)
            await self._file_away(file)
            await hashed
        await self._enter(file)
        return await self._store(file, body)

    async def long(self, coming: Coming) -> Any:
        """Stores a file of which more is to come; the fields of the answer. Raises RefusedError."""
        began = time.monotonic()
        beginning = b"".join(coming.pieces)[:_BEGINNING_BYTES]
        size = _size_of(beginning)
        edit = await self._edit(coming, size, beginning, b"")
        file = _file(coming, edit, size, began)
        await self._file_away(file)
        return await self._store(file, self._passing(file, edit))

    async def _edit(self, coming: Coming, size: int, beginning: bytes, ending: bytes) -> Any:
        request = tag_service_pb2.ModifyHeaderRequest(beginning=beginning, ending=ending, file_size=size)
        if (patient_id := coming.incoming.coerced_to) is not None:
            patient = await self._ledger.patients.ask(patient_id)
            if patient is None:
                raise RefusedError("its patient is not known")
            request.edits.MergeFrom(
                tag_service_pb2.ModifyTagsRequest(
                    dicom_patient_id=patient["mrn"],
                    patient_name=patient["full_name"],
                    patient_birth_date=patient["birth_date"],
                    patient_sex=patient["sex"],
                    record_original=True,
                    record_reason="COERCE",
                )
            )
        edit = await self._modify_header(request, metadata=coming.caller.metadata, timeout=_HEADER_SECONDS)
        if edit.needs_whole_file:
            raise RefusedError("it is no plain image in one piece")
        return edit

    async def _file_away(self, file: _File) -> None:
        """Finds out whose the file is."""
        tags = file.tags
        claims = (tags.dicom_patient_id, tags.accession_number, tags.study_instance_uid)
        row = file.whose = await self._ledger.whose.ask((*claims, file.coming.caller.user_id, tags))
        patient = row["patient_id"]
        if patient is None or row["is_deleted"] or row["log_patient_id"] != patient:
            raise RefusedError("its patient or its study is not known, or another")
        if row["order_id"] is not None and row["order_patient_id"] != patient:
            raise RefusedError("its order is another patient's")

    async def _enter(self, file: _File) -> None:
        """Has the entry on disk, before the end of the file goes to Orthanc."""
        tags, digests = file.tags, file.digests
        uids = (tags.study_instance_uid, tags.series_instance_uid, tags.sop_instance_uid, file.orthanc_id)
        source, stored, md5 = (one.hexdigest() for one in (digests.source, digests.stored, digests.md5))
        head = (file.id, file.coming.upload_id, file.whose["log_id"], file.coming.caller.user_id)
        await self._ledger.begin.ask((*head, *uids, file.coming.name, source, file.size, stored, md5, file.stored_size))
        if (ended_at := file.coming.incoming.ended_at) is not None:
            early = ended_at + _CANCELLATION_LAG_SECONDS - time.monotonic()
            if early > 0:
                await asyncio.sleep(early)

    async def _store(self, file: _File, body: Body) -> Any:
        answer = await self._orthanc.store(body, file.stored_size)
        if answer["ID"] != file.orthanc_id:
            raise RefusedError("Orthanc took it for another")
        if await self._orthanc.held(file.orthanc_id) != (file.stored_size, file.digests.md5.hexdigest()):
            raise RefusedError("Orthanc holds something else")
        is_new = answer["Status"] == "Success"
        seconds = time.monotonic() - file.began
        log = file.whose["log_id"]
        if not await self._ledger.finish.ask((file.id, log, is_new, answer["ParentStudy"], seconds)):
            raise RefusedError("its study is deleted meanwhile")
        return {
            "success": True,
            "orthanc_id": file.orthanc_id,
            "study_uid": file.tags.study_instance_uid,
            "tags": file.tags,
            "message": _MESSAGE,
            "filename": file.coming.name,
            "sop_instance_uid": file.tags.sop_instance_uid,
            "status": "stored" if is_new else "already_stored",
            "patient_id": str(file.whose["patient_id"]),
            "order_id": str(file.whose["order_id"] or ""),
            "upload_log_id": str(log),
        }

    async def _passing(self, file: _File, edit: Any) -> AsyncIterator[Piece]:
        """The file as it goes to Orthanc, each piece hashed while the one before it goes and the next one comes; the
        last one goes when the file's entry is on disk.
        """
        pieces, incoming = file.coming.pieces, file.coming.incoming
        goes: list[Piece] = [edit.header, *_behind(pieces, edit.header_size)]
        size = sum(map(len, pieces))
        hashed = self._hash(file.digests, pieces, goes)
        coming = asyncio.ensure_future(incoming.piece())
        while (piece := await coming) is not None:
            coming = asyncio.ensure_future(incoming.piece())
            for one in goes:
                yield one
            await hashed
            goes = [piece]
            size += len(piece)
            hashed = self._hash(file.digests, goes, goes)
        await hashed
        if size != file.size:
            raise RefusedError("it was cut short")
        await self._enter(file)
        for one in goes:
            yield one

    def _hash(self, digests: Digests, came: Sequence[Piece], goes: Sequence[Piece]) -> "asyncio.Future[None]":
        return asyncio.get_running_loop().run_in_executor(self._hashing, digests.take, came, goes)


def _file(coming: Coming, edit: Any, size: int, began: float) -> _File:
    tags = edit.tags if edit.HasField("tags") else edit.original_tags
    return _File(coming, tags, size, size - edit.header_size + len(edit.header), _orthanc_id(tags), began)


def _orthanc_id(tags: Any) -> str:
    """Orthanc's id of an instance is made of its identifiers."""
    uids = (tags.dicom_patient_id, tags.study_instance_uid, tags.series_instance_uid, tags.sop_instance_uid)
    digest = hashlib.sha1("|".join(uids).encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[at : at + 8] for at in range(0, 40, 8))


def _ends(pieces: Sequence[bytes]) -> tuple[bytes, bytes]:
    """What tag_service is sent of a file."""
    if len(pieces) > 1 and len(pieces[0]) >= _BEGINNING_BYTES and len(pieces[-1]) >= _ENDING_BYTES:
        return pieces[0][:_BEGINNING_BYTES], pieces[-1][-_ENDING_BYTES:]
    file = b"".join(pieces)
    return file[:_BEGINNING_BYTES], file[_BEGINNING_BYTES:][-_ENDING_BYTES:]


def _behind(pieces: Sequence[bytes], skipped: int) -> Iterator[Piece]:
    """The pieces behind so many bytes."""
    for piece in pieces:
        if skipped < len(piece):
            yield memoryview(piece)[skipped:] if skipped else piece
        skipped = max(0, skipped - len(piece))


def _size_of(beginning: bytes) -> int:
    """The size of a native image with nothing behind its pixels. A tag_service that were asked how far the last value
    of a header goes would tell it; this one wants to be told the file's size.
    """
    for mark in _PIXEL_DATA:
        at = beginning.find(mark)
        if at >= 0:
            (length,) = struct.unpack_from("<I", beginning, at + len(mark))
            return at + len(mark) + 4 + int(length)
    raise RefusedError("it is no native image")
