"""The client's sessions against a gateway that keeps them in memory, and goes away when it is told to."""

import hashlib
from pathlib import Path
from typing import Any

import grpc
import pytest

from pacs_gateway.cli import sending, sessions
from pacs_gateway.cli.files import Kind, LocalFile
from pacs_gateway.cli.outcomes import Outcome
from pacs_gateway.cli.sending import NotPossibleError, Sending, Target, connected
from pacs_gateway.cli.sessions import NOT_HERE, SessionUpload, write_receipt
from ris.pacs.v1 import upload_service_pb2, upload_session_pb2
from tests.unit.pacs_gateway.cli.fake_gateway import FakeGateway, serving, stored

SESSION_ID = "00000000-0000-4000-8000-000000000001"


class SessionGateway(FakeGateway):
    """Keeps one session. `away` is how many further calls find nobody there."""

    def __init__(self) -> None:
        super().__init__(self._store)
        self.created: Any = None
        self.expected: dict[str, str] = {}
        self.held: set[str] = set()
        self.away = 0
        self.state = "open"
        self.page = 2

    def _store(self, content: bytes) -> upload_service_pb2.UploadResponse:
        self.held.add(hashlib.sha256(content).hexdigest())
        return stored(content)

    async def Upload(self, requests: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
        """Stores a file, unless it is away."""
        await self._expect_here(context)
        return await super().Upload(requests, context)

    async def CreateSession(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The session."""
        await self._expect_here(context)
        self.created = request
        self.expected = {file.sha256: file.name for file in request.files}
        return upload_session_pb2.CreateSessionResponse(session=self._session())

    async def GetSession(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The session, in small pages."""
        await self._expect_here(context)
        start, shas = int(request.page_token or 0), sorted(self.expected)
        files = [self._file(sha) for sha in shas[start : start + self.page]]
        return upload_session_pb2.GetSessionResponse(
            session=self._session(),
            files=files,
            missing=[sha for sha in shas if sha not in self.held] if not start else [],
            next_page_token=str(start + self.page) if start + self.page < len(shas) else "",
        )

    async def CompleteSession(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """The receipt."""
        await self._expect_here(context)
        return upload_session_pb2.CompleteSessionResponse(receipt="a.b.c")

    def _file(self, sha256: str) -> upload_session_pb2.SessionFile:
        status = "stored" if sha256 in self.held else "missing"
        name = self.expected[sha256]
        return upload_session_pb2.SessionFile(sha256=sha256, name=name, status=status, study_uid="1.2.3")

    def _session(self) -> upload_session_pb2.UploadSession:
        missing = len(self.expected.keys() - self.held)
        return upload_session_pb2.UploadSession(
            id=SESSION_ID, state=self.state, files_missing=missing, files_stored=len(self.expected) - missing
        )

    async def _expect_here(self, context: Any) -> None:
        if self.away:
            self.away -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "nobody")


def local(folder: Path, name: str, content: bytes, called: str = "") -> LocalFile:
    """A file on this machine."""
    (folder / name).write_bytes(content)
    return LocalFile(folder / name, called or name, len(content), Kind.DICOM)


async def sent(
    fake: SessionGateway, *files: LocalFile, resume: str = "", **chosen: Any
) -> tuple[str, dict[str, Outcome], list[str]]:
    """The receipt, what became of each file, and the ids that were told."""
    outcomes: dict[str, Outcome] = {}
    ids: list[str] = []

    def told(outcome: Outcome) -> None:
        assert outcome.name not in outcomes
        outcomes[outcome.name] = outcome

    async with connected(Target(fake.address, "a-token"), Sending(**chosen)) as gateway:
        upload = SessionUpload(gateway, files, lambda _: None, told, ids.append, resume)
        return await upload.run(), outcomes, ids


async def test_a_session_has_the_options_and_its_uploads_have_the_edits(tmp_path: Path) -> None:
    """What the session says is not said again; each upload names the session."""
    async with serving(SessionGateway()) as fake:
        options = {"patient_id": "P", "patient_match": "COERCE", "set": ["A=B"]}
        files = [local(tmp_path, str(number), bytes([number])) for number in range(3)]
        receipt, outcomes, ids = await sent(fake, *files, options=options)
    assert (receipt, ids) == ("a.b.c", [SESSION_ID])
    assert (fake.created.patient_id, fake.created.patient_match) == ("P", "COERCE")
    assert {(one.size_bytes, one.name) for one in fake.created.files} == {(1, "0"), (1, "1"), (1, "2")}
    assert {(one.session_id, one.patient_id, tuple(one.set)) for one in fake.firsts} == {(SESSION_ID, "", ("A=B",))}
    assert {one.status for one in outcomes.values()} == {"stored"}


async def test_each_file_is_told_once_whatever_it_is_called(tmp_path: Path) -> None:
    """Two of one name, two of one content, and one that is empty."""
    async with serving(SessionGateway()) as fake:
        files = [
            local(tmp_path, "a", b"1", "x.dcm"),
            local(tmp_path, "b", b"2", "x.dcm"),
            local(tmp_path, "c", b"1", "y.dcm"),
            local(tmp_path, "d", b"", "z.dcm"),
        ]
        receipt, outcomes, _ = await sent(fake, *files)
    assert receipt == "a.b.c"
    assert {name: one.status for name, one in outcomes.items()} == {
        "x.dcm": "stored",
        str(tmp_path / "b"): "stored",
        "y.dcm": "skipped",
        "z.dcm": "failed",
    }
    assert len(fake.created.files) == 2


async def test_a_gateway_that_goes_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it comes back before patience ends; else the error says that it may pass, and nothing is lost."""
    monkeypatch.setattr(sessions, "_LONGEST_PAUSE_SECONDS", 0)
    monkeypatch.setattr(sending, "_LONGEST_WAIT_SECONDS", 0)
    files = [local(tmp_path, str(number), bytes([number])) for number in range(4)]
    async with serving(SessionGateway()) as fake:
        fake.expected = {hashlib.sha256(bytes([number])).hexdigest(): str(number) for number in range(4)}
        sparing = {"parallel": 1, "retries": 1}

        def leave(content: bytes) -> Any:
            # Two calls of the second file, and the question what has come.
            fake.away = 3 if len(fake.held) == 1 else 0
            return fake._store(content)

        fake.answer = leave
        receipt, outcomes, _ = await sent(fake, *files, resume=SESSION_ID, **sparing)
        assert receipt == "a.b.c"
        assert {one.status for one in outcomes.values()} == {"stored"}
        fake.held, fake.away = set(), 0

        def leave_for_long(content: bytes) -> Any:
            fake.away = 1000
            return fake._store(content)

        fake.answer = leave_for_long
        with pytest.raises(NotPossibleError) as raised:
            await sent(fake, *files, resume=SESSION_ID, **sparing)
    assert raised.value.may_pass
    assert len(fake.held) == 1


async def test_what_was_sent_before_is_not_sent_again(tmp_path: Path) -> None:
    """A resumed session is sent what is missing; what is not expected, and what is not here, is told."""
    async with serving(SessionGateway()) as fake:
        known, missing, elsewhere = (hashlib.sha256(one).hexdigest() for one in (b"known", b"missing", b"elsewhere"))
        fake.expected = {known: "k", missing: "m", elsewhere: "e"}
        fake.held = {known}
        files = [local(tmp_path, name, name.encode()) for name in ("known", "missing", "stranger")]
        receipt, outcomes, ids = await sent(fake, *files, resume=SESSION_ID)
    assert (receipt, ids, fake.contents) == ("", [], [b"missing"])
    assert {name: one.status for name, one in outcomes.items()} == {
        "known": "stored",
        "missing": "stored",
        "stranger": "failed",
        "e": "failed",
    }
    assert outcomes["known"].study_uid == "1.2.3"
    assert (outcomes["stranger"].reason, outcomes["e"].reason) == ("FILE_NOT_EXPECTED", NOT_HERE)


async def test_nothing_is_sent_into_a_session_that_is_over(tmp_path: Path) -> None:
    """Completed: the receipt is had again. Expired: it is told."""
    file = local(tmp_path, "a", b"1")
    async with serving(SessionGateway()) as fake:
        fake.expected = {hashlib.sha256(b"other").hexdigest(): "other"}
        fake.state = "completed"
        assert (await sent(fake, file, resume=SESSION_ID))[0] == "a.b.c"
        fake.state = "expired"
        with pytest.raises(NotPossibleError, match="SESSION_EXPIRED"):
            await sent(fake, file, resume=SESSION_ID)
    assert not fake.contents


async def test_a_session_of_nothing_is_not_made(tmp_path: Path) -> None:
    """It would never be complete, or at once."""
    async with serving(SessionGateway()) as fake:
        with pytest.raises(NotPossibleError, match="nothing"):
            await sent(fake, local(tmp_path, "a", b""))
    assert fake.created is None


def test_a_receipt_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """It takes the place of one that is there, and leaves nothing beside it."""
    path = tmp_path / "r.jws"
    path.write_text("before")
    write_receipt(path, "a.b.c")
    assert path.read_text() == "a.b.c\n"
    with pytest.raises(OSError, match="nowhere"):
        write_receipt(tmp_path / "nowhere" / "r.jws", "a.b.c")
    assert [one.name for one in tmp_path.iterdir()] == ["r.jws"]
