"""Sending files in an upload session: what is missing is sent, and sent again, until the gateway gives a receipt."""

import asyncio
import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pacs_gateway.cli.files import LocalFile, Progress, read
from pacs_gateway.cli.outcomes import FAILED, SKIPPED, STORED, Outcome
from pacs_gateway.cli.sending import Gateway, NotPossibleError, Told, unreadable
from ris.pacs.v1 import upload_session_pb2 as messages
from service_runtime.errors import Reason

# Why a file that the session expects was not sent.
NOT_HERE: Final = "NOT_HERE"
_COMPLETED: Final = "completed"
_STORED: Final = "stored"
_EXPIRED: Final = "expired"
_LONGEST_PAUSE_SECONDS: Final = 30
_PAGE: Final = 1000


@dataclass(slots=True)
class Standing:
    """How a session stands: its files by SHA-256, as far as they are known, and which it lists as missing."""

    session: Any
    files: Mapping[str, Any]
    missing: Collection[str]

    @property
    def is_completed(self) -> bool:
        """Whether it has its receipt."""
        return bool(self.session.state == _COMPLETED)

    def is_wanted(self, sha256: str) -> bool:
        """Whether a file is still to be sent. A session that lists no files wants any that it does not have."""
        if self.missing or not self.session.files_missing:
            return sha256 in self.missing
        return sha256 not in self.files or self.files[sha256].status != _STORED


@dataclass(slots=True)
class SessionUpload:
    """Sends files in a session, a new one or, with `resume`, the one of this id. `tell_id` is given the id of a new one
    as soon as there is one. `session_id` is "" until the session is known to be there.
    """

    gateway: Gateway
    files: Sequence[LocalFile]
    moved: Progress
    told: Told
    tell_id: Callable[[str], None]
    resume: str = ""
    session_id: str = ""
    _by_sha256: dict[str, LocalFile] = field(default_factory=dict)
    _outcomes: dict[str, Outcome] = field(default_factory=dict)

    async def run(self) -> str:
        """The receipt; "" where files are missing, of which `told` has heard why. Raises NotPossibleError."""
        names: set[str] = set()
        for file in self.files:
            # Outcomes go by name: of two that are called the same, the second goes by its whole path.
            named = file if file.name not in names else replace(file, name=str(file.path))
            names.add(named.name)
            await self._read_digest(named)
        try:
            return await self._send_all()
        finally:
            for outcome in self._outcomes.values():
                self.told(outcome)

    async def _send_all(self) -> str:
        if not self.resume:
            if not self._by_sha256:
                raise NotPossibleError("There is nothing to send.")
            files = {sha256: (file.size_bytes, file.name) for sha256, file in self._by_sha256.items()}
            self.session_id = (await self.gateway.create_session(files)).id
            self.tell_id(self.session_id)
        standing = await self._standing()
        if standing.session.state == _EXPIRED:
            raise NotPossibleError("SESSION_EXPIRED: The session's time is over. Send all of its files with --session.")
        self.session_id = standing.session.id
        self._tell_what_is_done(standing)
        if not standing.is_completed:
            standing = await self._send_missing(standing)
            if standing.session.files_missing:
                self._tell_what_is_not_here(standing)
                return ""
        return await self.gateway.complete_session(self.session_id)

    async def _send_missing(self, standing: Standing) -> Standing:
        """Sends what is missing. Where the gateway goes away meanwhile, it is waited for, and asked what it has."""
        inside = self.gateway.inside(self.session_id)
        pauses = self._pauses()
        stored = standing.session.files_stored
        while True:
            wanted = [file for sha256, file in self._by_sha256.items() if standing.is_wanted(sha256)]
            try:
                await inside.send_all(wanted, self.moved, self._note)
                return await self._standing()
            except NotPossibleError as error:
                pause = next(pauses, None)
                if not error.may_pass or pause is None:
                    raise
            await asyncio.sleep(pause)
            with contextlib.suppress(NotPossibleError):
                standing = await self._standing()
            if standing.session.files_stored > stored:
                stored, pauses = standing.session.files_stored, self._pauses()

    def _pauses(self) -> Iterator[int]:
        """How long to wait each time that the gateway is away, besides the retries of each call."""
        return (min(2**attempt, _LONGEST_PAUSE_SECONDS) for attempt in range(1, self.gateway.retries + 1))

    async def _standing(self) -> Standing:
        request = messages.GetSessionRequest(session_id=self.session_id or self.resume, limit=_PAGE)
        first = answer = await self.gateway.get_session(request)
        files = {one.sha256: one for one in answer.files}
        while answer.next_page_token:
            request.page_token = answer.next_page_token
            answer = await self.gateway.get_session(request)
            files |= {one.sha256: one for one in answer.files}
        return Standing(first.session, files, frozenset(first.missing))

    async def _read_digest(self, file: LocalFile) -> None:
        try:
            sha256 = await asyncio.to_thread(_digest, file, self.moved)
        except OSError:
            self._note(unreadable(file.name))
            return
        if not file.size_bytes:
            self._note(Outcome(file.name, FAILED, Reason.EMPTY_FILE, "The file holds no byte; it was not sent."))
            return
        first = self._by_sha256.setdefault(sha256, file)
        if first is not file:
            self._note(Outcome(file.name, SKIPPED, message=f"It has the same content as {first.name}."))
            self.moved(file.size_bytes)

    def _tell_what_is_done(self, standing: Standing) -> None:
        """Of the files that are here: what was stored in an earlier run, and what the session does not know."""
        for sha256, file in self._by_sha256.items():
            if standing.is_wanted(sha256):
                continue
            self.moved(file.size_bytes)
            known = standing.files.get(sha256)
            if known is not None and known.status == _STORED:
                self._note(Outcome(file.name, STORED, study_uid=known.study_uid))
            else:
                message = "The session does not expect it; it was not sent."
                self._note(Outcome(file.name, FAILED, Reason.FILE_NOT_EXPECTED, message))

    def _tell_what_is_not_here(self, standing: Standing) -> None:
        for sha256 in standing.missing:
            if sha256 not in self._by_sha256:
                name = standing.files[sha256].name or sha256
                self._note(Outcome(name, FAILED, NOT_HERE, "The session expects it, and it is not among these files."))

    def _note(self, outcome: Outcome) -> None:
        """A later outcome of a file takes the place of an earlier one."""
        self._outcomes[outcome.name] = outcome


def _digest(file: LocalFile, progress: Progress) -> str:
    """SHA-256 (hex) of a file; blocks. Raises OSError."""
    digest = hashlib.sha256()
    for piece in read(file, progress):
        digest.update(piece)
    return digest.hexdigest()


def write_receipt(path: Path, receipt: str) -> None:
    """Writes the file whole or not at all. Raises OSError."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with new.open("x") as file:
            file.write(f"{receipt}\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
