"""The port `QuarantineFolder` over a folder that several gateways may share.

A file is `<id>.part` while it comes, and `<id>` once all of it is on the disk: names are made of ids only. Whatever
touches the disk runs in threads of this module's own, so that a disk that hangs keeps nobody else waiting.
"""

import asyncio
import errno
import hashlib
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Final, ParamSpec, TypeVar
from uuid import UUID

import structlog

from pacs_gateway.domain.ledger import Content
from pacs_gateway.domain.quarantine import FoundFile, file_lost, quarantine_full, quarantine_unavailable
from service_runtime.errors import ServiceError

log = structlog.get_logger()

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")

_THREADS: Final = 4
# The longest wait for the disk: a large file may be on its way to it all at once.
_DISK_SECONDS: Final = 30
_PIECE_BYTES: Final = 256 * 1024
_NAMES_AT_A_TIME: Final = 1000
_PART: Final = ".part"
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Nobody but the gateway's own user.
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


class DiskFolder:
    """The port `QuarantineFolder`. The folder is made when it is first needed."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="quarantine")
        # What is on its way to the disk, of all files together.
        self._arriving = 0

    def close(self) -> None:
        """Lets the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def arriving(self, file_id: UUID, *, room: int) -> AsyncIterator["ArrivingFile"]:
        """A file that comes in. Unless it is made to stay, nothing of it does."""
        file = ArrivingFile(self, self._part(file_id), self._whole(file_id), room=room)
        try:
            await self.on_disk(self._make)
            await self.on_disk(file.handle.open)
            yield file
        finally:
            self._arriving -= file.size
            await asyncio.shield(asyncio.ensure_future(file.close()))

    async def read(self, file_id: UUID) -> AsyncGenerator[bytes, None]:
        """The bytes of a file."""
        handle = _Handle(self._whole(file_id), os.O_RDONLY)
        try:
            await self.on_disk(handle.open_kept)
            while piece := await self.on_disk(handle.read):
                yield piece
        finally:
            await asyncio.shield(asyncio.ensure_future(self.on_disk(handle.close)))

    async def take_place(self, file_id: UUID, of: UUID) -> None:
        """Puts a file, which has the same bytes, where another is, or was."""
        await self.on_disk(_rename, self._whole(file_id), self._whole(of))

    async def remove(self, file_ids: Collection[UUID]) -> None:
        """Removes files; no error for those that are not there."""
        await self.on_disk(_remove, [self._whole(file_id) for file_id in file_ids])

    async def remove_parts(self, file_ids: Collection[UUID]) -> None:
        """Removes what has come of files that never came whole."""
        await self.on_disk(_remove, [self._part(file_id) for file_id in file_ids])

    async def sizes(self, file_ids: Collection[UUID]) -> dict[UUID, int]:
        """The sizes of those of the files that are there."""
        await self.on_disk(self._make)
        return await self.on_disk(lambda: {i: size for i in file_ids if (size := _size(self._whole(i))) is not None})

    async def found(self) -> AsyncGenerator[Sequence[FoundFile], None]:
        """All files and parts of files, some at a time. What has another name is none of ours."""
        await self.on_disk(self._make)
        named = _found(await self.on_disk(os.scandir, self._path))
        while some := await self.on_disk(lambda: list(islice(named, _NAMES_AT_A_TIME))):
            yield some

    async def on_disk(self, work: Callable[ParamsT, ResultT], *args: ParamsT.args, **kwargs: ParamsT.kwargs) -> ResultT:
        """What the work gives, done in a thread. Raises QUARANTINE_FULL, QUARANTINE_UNAVAILABLE."""
        running = self._threads.submit(work, *args, **kwargs)
        try:
            async with asyncio.timeout(_DISK_SECONDS):
                return await asyncio.wrap_future(running)
        except OSError as error:  # TimeoutError is one
            raise (quarantine_full() if error.errno in _NO_ROOM else quarantine_unavailable()) from error

    def take_up(self, size: int, *, room: int) -> None:
        """Notes that so many bytes more are on their way. Raises QUARANTINE_FULL where that is more than there is room
        for.
        """
        if self._arriving + size > room:
            raise quarantine_full()
        self._arriving += size

    def _whole(self, file_id: UUID) -> Path:
        return self._path / str(file_id)

    def _part(self, file_id: UUID) -> Path:
        return self._path / f"{file_id}{_PART}"

    def _make(self) -> None:
        self._path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        if self._path.stat().st_mode & 0o077:
            # A volume that is mounted there may be another's, and stays as it is then.
            with suppress(PermissionError):
                self._path.chmod(_FOLDER_MODE)


class ArrivingFile:
    """A file on its way into the folder."""

    def __init__(self, folder: DiskFolder, part: Path, whole: Path, *, room: int) -> None:
        self.size = 0
        self.handle = _Handle(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self._folder = folder
        self._part = part
        self._whole = whole
        self._room = room
        self._sha256 = hashlib.sha256()

    async def passing(self, chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        """The chunks, each written before it goes on. Raises QUARANTINE_FULL, QUARANTINE_UNAVAILABLE."""
        async for chunk in chunks:
            self._folder.take_up(len(chunk), room=self._room)
            self.size += len(chunk)
            self._sha256.update(chunk)
            await self._folder.on_disk(self.handle.write, chunk)
            yield chunk

    async def stay(self) -> Content:
        """Makes the file last, under its own name; what it is."""
        await self._folder.on_disk(self.handle.sync)
        await self._folder.on_disk(_rename, self._part, self._whole)
        return Content(self.size, self._sha256.hexdigest())

    async def close(self) -> None:
        """Closes the file, and removes what has come of it, unless it has its own name by now."""
        try:
            await self._folder.on_disk(self.handle.close)
            await self._folder.on_disk(_remove, [self._part])
        except ServiceError as error:
            # It is swept later.
            log.warning("quarantine not cleaned up", reason=error.reason)


class _Handle:
    """A file that one thread works on at a time. A thread that nobody waits for any more may do so still when the file
    is closed; whatever comes to it after that does nothing.
    """

    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        self._flags = flags | os.O_NOFOLLOW | os.O_CLOEXEC
        self._lock = threading.Lock()
        self._number: int | None = None
        self._closed = False

    def open(self) -> None:
        with self._lock:
            if not self._closed:
                self._number = os.open(self._path, self._flags, _FILE_MODE)

    def open_kept(self) -> None:
        try:
            self.open()
        except FileNotFoundError as error:
            raise file_lost() from error

    def read(self) -> bytes:
        with self._lock:
            return os.read(self._number, _PIECE_BYTES) if self._number is not None else b""

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        with self._lock:
            while view and self._number is not None:
                view = view[os.write(self._number, view) :]

    def sync(self) -> None:
        with self._lock:
            if self._number is not None:
                os.fsync(self._number)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._number is not None:
                number, self._number = self._number, None
                os.close(number)


def _rename(source: Path, target: Path) -> None:
    """Renames a file, and sees to it that the name lasts."""
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return None


def _found(entries: Iterator["os.DirEntry[str]"]) -> Iterator[FoundFile]:
    now = time.time()
    for entry in entries:
        name, is_part = entry.name.removesuffix(_PART), entry.name.endswith(_PART)
        try:
            file_id = UUID(name)
            changed_at = entry.stat(follow_symlinks=False).st_mtime
        except (ValueError, FileNotFoundError):
            continue
        if str(file_id) == name:
            yield FoundFile(file_id, is_part=is_part, age_seconds=now - changed_at)
