"""Plain fakes with real behaviour for the gateway's ports, and a world that is made of them.

Their files are toys: a line of JSON with the tags, then a body that ends with END where it was not cut short.
"""

import hashlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from pacs_gateway.adapters.spool import TemporarySpool
from pacs_gateway.domain.ledger import LedgerFile
from pacs_gateway.domain.media import DirectoryRecord
from pacs_gateway.domain.registry import Order, Patient, Role, User
from pacs_gateway.domain.study import (
    Counts,
    Fingerprint,
    PacsSeries,
    PacsStudy,
    StoredInstance,
    StudyFilter,
    StudyOrder,
    in_order,
)
from pacs_gateway.domain.tags import DicomTags, Edits, HeaderEdit
from pacs_gateway.domain.upload import StoredFile, UnknownPatients, UploadOptions
from pacs_gateway.domain.upload_log import UploadLog
from pacs_gateway.use_cases.deletions import Deletions
from pacs_gateway.use_cases.pictures import Pictures
from pacs_gateway.use_cases.ports import fate_unknown
from pacs_gateway.use_cases.quarantine import Quarantine
from pacs_gateway.use_cases.reconciling import Reconciler
from pacs_gateway.use_cases.requests import Requests
from pacs_gateway.use_cases.sessions import Sessions
from pacs_gateway.use_cases.streams import Keeping
from pacs_gateway.use_cases.studies import Studies
from pacs_gateway.use_cases.uploads import Uploads
from service_runtime.errors import Reason, ServiceError
from tests.unit.pacs_gateway.fake_database import FakeDatabase
from tests.unit.pacs_gateway.fake_sessions import FakeSigner
from tests.unit.pacs_gateway.hooks import Hooks

END = b"END"
STUDY, SERIES, INSTANCE = "1.2.3", "1.2.3.1", "1.2.3.1.1"
SMITH = Patient(UUID(int=1), "MRN-SMITH", "Smith^Anna", date(1970, 1, 2), "F")
JONES = Patient(UUID(int=2), "MRN-JONES", "Jones^Bob", None, "M")
ORDER_OF_SMITH = Order(UUID(int=11), SMITH.id, "ACC-SMITH", "CT", "scheduled")
ORDER_OF_JONES = Order(UUID(int=12), JONES.id, "ACC-JONES", "CT", "scheduled")
RADIOLOGIST = User(UUID(int=21), "rad", "Dr Radiologist", Role.RADIOLOGIST)
TECHNOLOGIST = User(UUID(int=22), "tech", "Tina Technologist", Role.TECHNOLOGIST)
_KEYWORDS = {"PatientID": "patient_id", "StudyInstanceUID": "study_instance_uid", "Modality": "modality"}


def tags_of(patient: Patient = SMITH, **changed: str) -> DicomTags:
    """The tags of a slice of the patient."""
    tags = DicomTags(
        patient_id=patient.mrn,
        patient_name=patient.full_name,
        study_instance_uid=STUDY,
        series_instance_uid=SERIES,
        sop_instance_uid=INSTANCE,
        modality="CT",
        study_date="20240102",
        study_time="101112",
    )
    return replace(tags, **changed)


def file_of(tags: DicomTags, body: bytes = b"pixels") -> bytes:
    """A whole toy file."""
    return json.dumps(asdict(tags)).encode() + b"\n" + body + END


async def chunks_of(content: bytes, size: int = 50) -> AsyncGenerator[bytes, None]:
    """The file, a piece at a time."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


def orthanc_away() -> ServiceError:
    """What the real one raises when Orthanc is away."""
    return ServiceError(Reason.ORTHANC_UNAVAILABLE, "Orthanc cannot be reached. Retry.", retry_after=5)


def tag_service_away() -> ServiceError:
    """What the real one raises when tag_service is away."""
    return ServiceError(Reason.TAG_SERVICE_UNAVAILABLE, "tag_service cannot be reached. Retry.", retry_after=5)


@contextmanager
def refused(reason: Reason) -> Iterator[None]:
    """Expects a ServiceError with this reason, which says nothing of any patient."""
    with pytest.raises(ServiceError) as raised:
        yield
    assert raised.value.reason is reason
    told = f"{raised.value.message} {raised.value.metadata} {raised.value.violations}"
    for patient in (SMITH, JONES):
        assert patient.mrn not in told
        assert patient.full_name not in told


class SettableClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        """The time."""
        return self.time

    def forward(self, **much: float) -> None:
        """Moves it forward, by what timedelta takes."""
        self.time += timedelta(**much)


class FakeTagService:
    """tag_service for toy files. Its hooks' places: `read`, `modify`, `header`, `end` (of a file)."""

    def __init__(self) -> None:
        self.hooks = Hooks()
        # Whether edits leave their time in the file, so that no two results are the same.
        self.stamping = False
        # Whether the tags are answered only once all of a file has come.
        self.reading_on = False
        self._stamps = 0

    async def read_tags(self, chunks: AsyncIterable[bytes]) -> DicomTags:
        """The tags; reads on only to the end of the header."""
        await self.hooks.reach("read")
        header = b""
        async for chunk in chunks:
            header += chunk
            if b"\n" in header and not self.reading_on:
                break
        return _tags(header)

    async def modify(self, chunks: AsyncIterable[bytes], edits: Edits) -> AsyncGenerator[bytes, None]:
        """The edited file; TRUNCATED_FILE comes only once all of it has been given."""
        await self.hooks.reach("modify")
        header, sent, last = b"", False, b""
        async for chunk in chunks:
            header += chunk
            if sent:
                yield chunk
            elif b"\n" in header:
                yield _edited(header, edits) + self._stamp(edits)
                sent = True
            last = header[-len(END) :]
            header = last if sent else header
        if not sent:
            _tags(header)
        await self.hooks.reach("end")
        if last != END:
            raise ServiceError(Reason.TRUNCATED_FILE, "The file ends too early.")

    async def modify_header(self, beginning: bytes, file_size: int, edits: Edits, *, ending: bytes = b"") -> HeaderEdit:
        """The same by the ends of the file; they do not tell where the first line is longer, or all is read."""
        await self.hooks.reach("read")
        line, newline, _ = beginning.partition(b"\n")
        if (not newline and len(beginning) < file_size) or self.reading_on:
            return HeaderEdit(None, None, b"", 0, needs_whole_file=True)
        original = _tags(beginning)
        await self.hooks.reach("modify")
        await self.hooks.reach("end")
        if not (beginning if len(beginning) == file_size else ending).endswith(END):
            raise ServiceError(Reason.TRUNCATED_FILE, "The file ends too early.")
        header = _edited(line + newline, edits) + self._stamp(edits)
        return HeaderEdit(original, _tags(header), header, len(line) + 1, needs_whole_file=False)

    async def read_directory(self, chunks: AsyncIterable[bytes]) -> Sequence[DirectoryRecord]:
        """What a toy DICOMDIR names: a line for each file, its path and its SOPInstanceUID."""
        await self.hooks.reach("read")
        lines = b"".join([chunk async for chunk in chunks]).decode().splitlines()
        return [DirectoryRecord(*line.split()) for line in lines if line]

    def _stamp(self, edits: Edits) -> bytes:
        if not self.stamping or edits.is_empty:
            return b""
        self._stamps += 1
        return f"<{self._stamps}>".encode()

    async def check(self) -> str:
        """Nothing to say."""
        await self.hooks.reach("read")
        return ""


def _tags(header: bytes) -> DicomTags:
    if not header:
        raise ServiceError(Reason.EMPTY_FILE, "The file holds no byte.")
    line, newline, _ = header.partition(b"\n")
    if not newline:
        raise ServiceError(Reason.NOT_DICOM, "The bytes are no DICOM file.")
    return DicomTags(**json.loads(line))


def _edited(header: bytes, edits: Edits) -> bytes:
    line, _, rest = header.partition(b"\n")
    tags = json.loads(line)
    named = {name: value for name, value in asdict(edits).items() if name in tags and value is not None}
    general = {_KEYWORDS[path]: value for path, _, value in (one.partition("=") for one in edits.set)}
    return json.dumps(tags | named | general).encode() + b"\n" + rest


@dataclass(frozen=True)
class Held:
    """An instance in the fake PACS."""

    tags: DicomTags
    content: bytes
    study_id: str
    series_id: str


class FakePacs:
    """Orthanc with OverwriteInstances=false, which knows an instance by PatientID and the three UIDs.

    Its hooks' places: every method's name, `chunk` (each that comes in), `stored` (kept, and not yet answered).
    """

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self.hooks = Hooks()
        self.corrupting = False
        # How it reads the tags of a file, which may be otherwise than tag_service does.
        self.reading: Callable[[DicomTags], DicomTags] = lambda tags: tags
        self.pictures: dict[str, bytes] = {}
        self.change = 1

    async def check(self) -> str:
        """A version."""
        await self.hooks.reach("check")
        return "1.12.0"

    async def store(self, chunks: AsyncIterable[bytes]) -> StoredInstance:
        """Keeps a file, unless the chunks or a hook raise before its end."""
        await self.hooks.reach("store")
        content = b""
        async for chunk in chunks:
            await self.hooks.reach("chunk")
            content += chunk
        stored = self.put(content[:-1] + b"?" if self.corrupting else content)
        try:
            await self.hooks.reach("stored")
        except ServiceError as error:
            raise fate_unknown(error) from None
        return stored

    async def store_whole(self, data: bytes) -> StoredInstance:
        """Keeps a file that is there as a whole."""
        return await self.store(chunks_of(data))

    def put(self, content: bytes) -> StoredInstance:
        """Keeps a file, as the store of a modality does that goes past the gateway."""
        tags = self.reading(_tags(content))
        of_study = f"{tags.patient_id}|{tags.study_instance_uid}"
        of_series = f"{of_study}|{tags.series_instance_uid}"
        instance, study = _id(f"{of_series}|{tags.sop_instance_uid}"), _id(of_study)
        known = instance in self.held
        if not known:
            self.held[instance] = Held(tags, content, study, _id(of_series))
            self.change += 1
        return StoredInstance(instance, study, already_stored=known)

    async def fingerprint(self, orthanc_id: str, *, read_again: bool = True) -> Fingerprint | None:
        """Size and MD5."""
        await self.hooks.reach("fingerprint" if read_again else "noted")
        held = self.held.get(orthanc_id)
        return None if held is None else _fingerprint(held.content)

    async def file(self, orthanc_id: str) -> AsyncGenerator[bytes, None]:
        """The bytes of an instance."""
        await self.hooks.reach("file")
        if orthanc_id in self.held:
            yield self.held[orthanc_id].content

    async def study_of(self, orthanc_id: str) -> PacsStudy | None:
        """The study of an instance."""
        await self.hooks.reach("study_of")
        return _study(self.held[orthanc_id]) if orthanc_id in self.held else None

    async def delete_instance(self, orthanc_id: str) -> None:
        """Deletes an instance."""
        await self.hooks.reach("delete_instance")
        self.held.pop(orthanc_id, None)

    async def find_studies(
        self, wanted: StudyFilter, *, limit: int, order: Sequence[StudyOrder] = ()
    ) -> Sequence[PacsStudy]:
        """The studies that match."""
        await self.hooks.reach("find_studies")
        found = {held.study_id: _study(held) for held in self.held.values() if _matches(held.tags, wanted)}
        return in_order(found.values(), order)[:limit]

    async def contents(self, orthanc_study_ids: Collection[str]) -> Mapping[str, tuple[PacsStudy, Counts]]:
        """The studies and what they hold."""
        await self.hooks.reach("contents")
        return {
            key: (_study(held[0]), _counts(held))
            for key in orthanc_study_ids
            if (held := [one for one in self.held.values() if one.study_id == key])
        }

    async def counts(self, study_uids: Collection[str]) -> Mapping[str, Counts]:
        """What the studies hold."""
        await self.hooks.reach("counts")
        return {
            uid: _counts(held)
            for uid in study_uids
            if (held := [one for one in self.held.values() if one.tags.study_instance_uid == uid])
        }

    async def series(self, orthanc_study_id: str) -> Sequence[PacsSeries] | None:
        """The series of a study, by SeriesNumber."""
        await self.hooks.reach("series")
        of_study = [one for one in self.held.values() if one.study_id == orthanc_study_id]
        if not of_study:
            return None
        series = {one.series_id: one.tags for one in of_study}
        return [
            PacsSeries(
                series_instance_uid=tags.series_instance_uid,
                orthanc_series_id=series_id,
                series_number=tags.series_number,
                series_description=tags.series_description,
                modality=tags.modality,
                number_of_instances=sum(one.series_id == series_id for one in of_study),
            )
            for series_id, tags in sorted(series.items(), key=lambda one: int(one[1].series_number or 0))
        ]

    async def instances(self, orthanc_series_id: str) -> Sequence[str]:
        """The instances of a series, by InstanceNumber."""
        await self.hooks.reach("instances")
        found = {key: one.tags for key, one in self.held.items() if one.series_id == orthanc_series_id}
        return sorted(found, key=lambda key: int(found[key].instance_number or 0))

    async def delete_study(self, orthanc_study_id: str) -> None:
        """Deletes a study."""
        await self.hooks.reach("delete_study")
        self.held = {key: one for key, one in self.held.items() if one.study_id != orthanc_study_id}
        await self.hooks.reach("study_deleted")

    async def picture(self, orthanc_id: str) -> bytes | None:
        """The PNG that the test gave the instance."""
        await self.hooks.reach("picture")
        return self.pictures.get(orthanc_id)

    async def last_change(self) -> int:
        """How much came, and one."""
        await self.hooks.reach("last_change")
        return self.change


def _id(name: str) -> str:
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    return "-".join(re.findall("." * 8, digest))


def _fingerprint(content: bytes) -> Fingerprint:
    return Fingerprint(len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())


def _study(held: Held) -> PacsStudy:
    tags = held.tags
    return PacsStudy(
        study_instance_uid=tags.study_instance_uid,
        orthanc_study_id=held.study_id,
        patient_id=tags.patient_id,
        patient_name=tags.patient_name,
        study_date=tags.study_date,
        study_time=tags.study_time,
        study_description=tags.study_description,
        accession_number=tags.accession_number,
    )


def _matches(tags: DicomTags, wanted: StudyFilter) -> bool:
    exact = ("study_instance_uid", "patient_id", "accession_number", "modality")
    assert "" not in (getattr(wanted, name) for name in exact), "an empty identifier matches everything"
    return all(getattr(wanted, name) in {None, getattr(tags, name)} for name in exact)


def _counts(held: Sequence[Held]) -> Counts:
    return Counts(
        modalities=tuple(sorted({one.tags.modality for one in held} - {""})),
        number_of_series=len({one.series_id for one in held}),
        number_of_instances=len(held),
    )


class World:
    """Two patients, an order of each, two users, and the services around them. `holds_files`: small files are taken in
    as a whole.
    """

    def __init__(self, *, holds_files: bool = True) -> None:
        self.holds_files = holds_files
        self.keeping_bytes = 16 * 1024 * 1024 if holds_files else 1_000_000
        self.database = FakeDatabase()
        self.pacs = FakePacs()
        self.tag_service = FakeTagService()
        self.clock = SettableClock()
        # None: what is refused is not kept.
        self.quarantine: Quarantine | None = None
        tables = self.database.tables
        tables.patients |= {one.id: one for one in (SMITH, JONES)}
        tables.orders |= {one.id: one for one in (ORDER_OF_SMITH, ORDER_OF_JONES)}
        tables.users |= {one.id: one for one in (RADIOLOGIST, TECHNOLOGIST)}
        self.deletions = Deletions(database=self.database, pacs=self.pacs, clock=self.clock)
        self.reconciler = Reconciler(
            database=self.database,
            pacs=self.pacs,
            clock=self.clock,
            lease_seconds=30,
            interval_seconds=60,
            compare_seconds=3600,
        )
        self.requests = Requests(database=self.database, keep_seconds=60, lease_seconds=30)
        self.signer = FakeSigner()
        self.sessions = Sessions(
            database=self.database,
            pacs=self.pacs,
            clock=self.clock,
            signer=self.signer,
            issuer="test",
            keep_seconds=3600,
            max_files=10,
        )
        self.pictures = Pictures(pacs=self.pacs, max_bytes=1024 * 1024)
        self.studies = Studies(database=self.database, pacs=self.pacs, max_listed=5000)

    def uploads(self, unknown: UnknownPatients = UnknownPatients.CREATE) -> Uploads:
        """The use case."""
        return Uploads(
            database=self.database,
            pacs=self.pacs,
            tag_service=self.tag_service,
            clock=self.clock,
            unknown=unknown,
            keeping=Keeping(self.keeping_bytes),
            spool=TemporarySpool(),
            quarantine=self.quarantine,
        )

    async def send(
        self,
        file: DicomTags | bytes,
        *,
        unknown: UnknownPatients = UnknownPatients.CREATE,
        name: str = "slice.dcm",
        by: User = TECHNOLOGIST,
        **options: Any,
    ) -> StoredFile:
        """Uploads one file."""
        content = file if isinstance(file, bytes) else file_of(file)
        upload = await self.uploads(unknown).open(UploadOptions(**options), by=by.id)
        async with aclosing(chunks_of(content, max(50, len(content) // 100))) as chunks:
            return await upload.store(name, chunks)

    async def delete(self, study_uid: str = STUDY, *, reason: str = "wrong patient") -> None:
        """Deletes a study."""
        await self.deletions.delete(study_uid, reason=reason, by=RADIOLOGIST.id)

    def log(self, study_uid: str = STUDY) -> UploadLog:
        """The log of a study, which must be there."""
        log = self.database.log_of(study_uid)
        assert log is not None, "the study has no log"
        return log

    def files(self, study_uid: str = STUDY) -> list[LedgerFile]:
        """The entries that the log of a study counts, in the order they came."""
        log, current = self.log(study_uid), self.database.current
        files = self.database.tables.files.values()
        return [one for one in files if one.upload_log_id == log.id and one.id in current]

    def order(self, order: Order = ORDER_OF_SMITH) -> Order:
        """The order as it is now."""
        return self.database.tables.orders[order.id]

    @property
    def patient_ids_in_pacs(self) -> set[str]:
        """Whose files the PACS holds."""
        return {held.tags.patient_id for held in self.pacs.held.values()}


def some_uid(root: str = STUDY) -> str:
    """A UID that nobody else has."""
    return f"{root}.{uuid4().int % 10**20}"
