"""The client against a gateway whose answers are chosen."""

import datetime as dt
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pacs_gateway.cli.files import Kind, LocalFile
from pacs_gateway.cli.outcomes import Outcome
from pacs_gateway.cli.sending import UNREADABLE, NotPossibleError, Sending, Target, connected
from ris.pacs.v1.upload_service_pb2 import DirectoryReport, UploadError, UploadMultipleResponse
from service_runtime.errors import InvalidFieldError, Reason, ServiceError, Violation
from tests.unit.pacs_gateway.cli.fake_gateway import FakeGateway, serving, stored


def local(folder: Path, name: str, content: bytes, kind: Kind = Kind.DICOM) -> LocalFile:
    """A file on this machine."""
    (folder / name).write_bytes(content)
    return LocalFile(folder / name, f"study/{name}", len(content), kind)


async def sent(
    fake: FakeGateway, files: Sequence[LocalFile], moved: Callable[[int], None] = lambda _: None, **sending: Any
) -> list[Outcome]:
    """What becomes of the files."""
    outcomes: list[Outcome] = []
    target = Target(fake.address, "a-token")
    async with connected(target, Sending(**sending)) as gateway:
        await gateway.send_all(files, moved, outcomes.append)
    return sorted(outcomes, key=lambda one: one.name)


async def test_files_are_sent_whole_with_the_options(tmp_path: Path) -> None:
    """Each file arrives byte by byte, with its name, the options and the token; the progress adds up."""
    moved: list[int] = []
    contents = [os.urandom(600_000), b"", b"small"]
    async with serving(FakeGateway()) as fake:
        files = [local(tmp_path, str(number), content) for number, content in enumerate(contents)]
        outcomes = await sent(fake, files, moved.append, options={"patient_id": "P", "set": ["A=B"]})
    assert sorted(fake.contents) == sorted(contents)
    assert {(first.patient_id, tuple(first.set)) for first in fake.firsts} == {("P", ("A=B",))}
    assert {first.filename for first in fake.firsts} == {"0", "1", "2"}
    assert {one["authorization"] for one in fake.metadata} == {"Bearer a-token"}
    assert [(one.name, one.status, one.study_uid) for one in outcomes] == [
        (f"study/{n}", "stored", "1.2.3") for n in range(3)
    ]
    assert outcomes[0].patient_id == "MRN-SMITH"
    assert sum(moved) == 600_005


async def test_no_more_are_sent_at_once_than_asked_for(tmp_path: Path) -> None:
    """Several files travel at the same time, as many as `parallel`."""
    files = [local(tmp_path, str(number), b"x") for number in range(12)]
    async with serving(FakeGateway()) as fake:
        assert len(await sent(fake, files, parallel=3)) == 12
    assert fake.most_running == 3


async def test_what_may_pass_later_is_tried_again(tmp_path: Path) -> None:
    """A file that is to be sent again is, as often as asked for; the progress does not count it twice."""
    moved: list[int] = []
    answers: list[Any] = [ServiceError(Reason.ORTHANC_UNAVAILABLE, "Away.", retry_after=0.01)] * 2 + [None]
    file = local(tmp_path, "a", b"12345")
    async with serving(FakeGateway(lambda content: answers.pop(0) or stored(content))) as fake:
        (outcome,) = await sent(fake, [file], moved.append, retries=2)
        assert outcome.status == "stored"
        assert sum(moved) == 5
        answers = [ServiceError(Reason.OVERLOADED, "Full.", retry_after=0.01)] * 3
        (outcome,) = await sent(fake, [file], retries=1)
    assert (outcome.status, outcome.reason, outcome.message) == ("failed", "OVERLOADED", "Full.")
    assert len(fake.contents) == 5


async def test_a_file_that_fails_spares_the_others(tmp_path: Path) -> None:
    """A refusal, and a file that cannot be read here, are told; the others are stored."""
    files = [local(tmp_path, name, name.encode()) for name in ("bad", "good")]
    gone = LocalFile(tmp_path / "gone", "gone", 1, Kind.DICOM)

    def answer(content: bytes) -> Any:
        return ServiceError(Reason.NOT_DICOM, "It is none.") if content == b"bad" else stored(content)

    async with serving(FakeGateway(answer)) as fake:
        outcomes = await sent(fake, [gone, *files])
    assert [(one.name, one.status, one.reason) for one in outcomes] == [
        ("gone", "failed", UNREADABLE),
        ("study/bad", "failed", "NOT_DICOM"),
        ("study/good", "stored", ""),
    ]


@pytest.mark.parametrize(
    "error",
    [
        ServiceError(Reason.TOKEN_EXPIRED, "Get a new one."),
        ServiceError(Reason.PATIENT_NOT_FOUND, "No such patient."),
        InvalidFieldError(Violation("patient_id", "no UUID")),
    ],
    ids=lambda error: error.reason,
)
@pytest.mark.parametrize("kind", [Kind.DICOM, Kind.ZIP])
async def test_what_holds_for_all_files_stops_at_once(tmp_path: Path, error: ServiceError, kind: Kind) -> None:
    """A bad token, or an option that is refused, is told once, and nothing more is sent."""
    files = [local(tmp_path, str(number), b"x", kind) for number in range(20)]
    async with serving(FakeGateway(lambda _: error)) as fake:
        with pytest.raises(NotPossibleError) as caught:
            await sent(fake, files, parallel=2)
    assert error.message in str(caught.value)
    assert all(one.field in str(caught.value) for one in error.violations)
    assert len(fake.contents) <= 4


async def test_nobody_there_is_told_as_that(tmp_path: Path) -> None:
    """Where nobody answers, no file is called failed."""
    async with serving(FakeGateway()) as fake:
        address = fake.address
    fake.address = address
    with pytest.raises(NotPossibleError, match="Nobody answers"):
        await sent(fake, [local(tmp_path, "a", b"x")], retries=0)


async def test_an_archive_has_an_outcome_for_each_of_its_files(tmp_path: Path) -> None:
    """A ZIP archive goes to UploadMultiple as one; each answer is told, with what a DICOMDIR lacks."""
    mismatch = UploadMultipleResponse(
        filename="DICOMDIR",
        status="skipped",
        error=UploadError(reason="DIRECTORY_MISMATCH"),
        directory=DirectoryReport(missing=["A"], unlisted=["B"], other_instances=["C"], left_out=4),
    )
    answers = [UploadMultipleResponse(success=True, filename="I1", status="stored"), mismatch]
    content = b"PK\x03\x04" + bytes(300_000)
    async with serving(FakeGateway(lambda _: answers)) as fake:
        outcomes = await sent(fake, [local(tmp_path, "cd.zip", content, Kind.ZIP)], options={"order_id": "O"})
    assert fake.contents == [content]
    assert (fake.firsts[0].file.content_type, fake.firsts[0].order_id) == ("application/zip", "O")
    assert [(one.name, one.status) for one in outcomes] == [
        ("study/cd.zip: DICOMDIR", "skipped"),
        ("study/cd.zip: I1", "stored"),
    ]
    assert outcomes[0].details == ("missing: A", "not listed: B", "another instance: C", "and 4 more")


async def test_an_archive_that_breaks_off_keeps_what_was_told(tmp_path: Path) -> None:
    """What was answered before an error of the call stays, and the error is told of the archive."""
    answers = [UploadMultipleResponse(success=True, filename="I1", status="stored"),
               ServiceError(Reason.DATABASE_UNAVAILABLE, "Away.", retry_after=1)]  # fmt: skip
    async with serving(FakeGateway(lambda _: answers)) as fake:
        outcomes = await sent(fake, [local(tmp_path, "cd.zip", b"PK\x03\x04", Kind.ZIP)])
        gone = LocalFile(tmp_path / "gone.zip", "gone.zip", 1, Kind.ZIP)
        (unread,) = await sent(fake, [gone])
    assert [(one.name, one.reason) for one in outcomes] == [
        ("study/cd.zip", "DATABASE_UNAVAILABLE"),
        ("study/cd.zip: I1", ""),
    ]
    assert unread.reason == UNREADABLE


def certificate() -> tuple[bytes, bytes]:
    """A key and a certificate of localhost that it signed itself, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form), made.public_bytes(serialization.Encoding.PEM)


async def test_tls_trusts_whom_it_is_told_to(tmp_path: Path) -> None:
    """With TLS a gateway is believed by the given certificate, and without one by the system's roots alone."""
    key, chain = certificate()
    (tmp_path / "ca.pem").write_bytes(chain)
    file = local(tmp_path, "a", b"x")
    outcomes: list[Outcome] = []
    async with serving(FakeGateway(), grpc.ssl_server_credentials([(key, chain)])) as fake:
        trusted = Target(fake.address, "t", tls=True, ca_file=tmp_path / "ca.pem")
        async with connected(trusted, Sending()) as gateway:
            await gateway.send_all([file], lambda _: None, outcomes.append)
        async with connected(Target(fake.address, "t", tls=True), Sending(retries=0)) as gateway:
            with pytest.raises(NotPossibleError):
                await gateway.send_all([file], lambda _: None, outcomes.append)
    assert [one.status for one in outcomes] == ["stored"]
