"""What Orthanc answers, checked on its way in, in the gateway's terms."""

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from pacs_gateway.domain.study import Counts, PacsSeries, PacsStudy
from service_runtime.errors import Reason, ServiceError

# An answer of this size takes a few milliseconds to parse; a larger one must not hold up the event loop.
_LARGE_BYTES: Final = 1024 * 1024
_ID: Final = r"^[0-9a-f]{8}(-[0-9a-f]{8}){4}$"

_OrthancId = Annotated[str, StringConstraints(pattern=_ID)]
_T = TypeVar("_T")


class Tags(BaseModel):
    """MainDicomTags and PatientMainDicomTags: absent and empty are the same here."""

    patient_id: str = Field("", alias="PatientID")
    patient_name: str = Field("", alias="PatientName")
    study_instance_uid: str = Field("", alias="StudyInstanceUID")
    study_date: str = Field("", alias="StudyDate")
    study_time: str = Field("", alias="StudyTime")
    study_description: str = Field("", alias="StudyDescription")
    accession_number: str = Field("", alias="AccessionNumber")
    series_instance_uid: str = Field("", alias="SeriesInstanceUID")
    series_number: str = Field("", alias="SeriesNumber")
    series_description: str = Field("", alias="SeriesDescription")
    modality: str = Field("", alias="Modality")
    instance_number: str = Field("", alias="InstanceNumber")


class Computed(BaseModel):
    """The RequestedTags of a study that Orthanc computes from what the study holds, in every case."""

    modalities: str = Field(alias="ModalitiesInStudy")
    number_of_series: int = Field(alias="NumberOfStudyRelatedSeries", ge=0)
    number_of_instances: int = Field(alias="NumberOfStudyRelatedInstances", ge=0)


class Study(BaseModel):
    """A study. Orthanc before 1.11 knows no RequestedTags."""

    id: _OrthancId = Field(alias="ID")
    tags: Tags = Field(alias="MainDicomTags")
    patient: Tags = Field(alias="PatientMainDicomTags")
    computed: Computed | None = Field(None, alias="RequestedTags")

    def as_pacs_study(self) -> PacsStudy:
        """The study in the gateway's terms."""
        return PacsStudy(
            study_instance_uid=self.tags.study_instance_uid,
            orthanc_study_id=self.id,
            patient_id=self.patient.patient_id,
            patient_name=self.patient.patient_name,
            study_date=self.tags.study_date,
            study_time=self.tags.study_time,
            study_description=self.tags.study_description,
            accession_number=self.tags.accession_number,
        )


class Series(BaseModel):
    """A series with the ids of its instances."""

    id: _OrthancId = Field(alias="ID")
    study: _OrthancId = Field(alias="ParentStudy")
    instances: list[_OrthancId] = Field(alias="Instances")
    tags: Tags = Field(alias="MainDicomTags")

    def as_pacs_series(self) -> PacsSeries:
        """The series in the gateway's terms."""
        return PacsSeries(
            series_instance_uid=self.tags.series_instance_uid,
            orthanc_series_id=self.id,
            series_number=self.tags.series_number.strip(),
            series_description=self.tags.series_description,
            modality=self.tags.modality,
            number_of_instances=len(self.instances),
        )


class Instance(BaseModel):
    """An instance."""

    id: _OrthancId = Field(alias="ID")
    tags: Tags = Field(alias="MainDicomTags")


class Status(BaseModel):
    """What came of storing: Success, AlreadyStored or FilteredOut; an unknown one makes no sense."""

    status: str = Field(alias="Status", pattern="^(Success|AlreadyStored|FilteredOut)$")


class Stored(BaseModel):
    """The ids of what was stored."""

    id: _OrthancId = Field(alias="ID")
    study: _OrthancId = Field(alias="ParentStudy")


class Attachment(BaseModel):
    """What Orthanc noted of a file when it stored it. The MD5 is "" under StoreMD5ForAttachments=false."""

    size: int = Field(alias="UncompressedSize", ge=0)
    md5: str = Field(alias="UncompressedMD5", pattern="^([0-9a-f]{32})?$")


class Statistics(BaseModel):
    """How much Orthanc holds."""

    studies: int = Field(alias="CountStudies", ge=0)


class Change(BaseModel):
    """An entry of Orthanc's log of changes, which is kept as long as what it is about."""

    number: int = Field(alias="Seq", ge=0)
    level: str = Field(alias="ResourceType")
    id: str = Field(alias="ID")


class Changes(BaseModel):
    """A part of the log: whether it is the last one, and the number of the last entry that was looked at."""

    changes: list[Change] = Field(alias="Changes")
    done: bool = Field(alias="Done")
    last: int = Field(alias="Last", ge=0)


class System(BaseModel):
    """What Orthanc says of itself."""

    version: str = Field(alias="Version", max_length=64)


class Problem(BaseModel):
    """The body of an error that is Orthanc's own, not that of a proxy before it."""

    orthanc_status: int = Field(alias="OrthancStatus")


SYSTEM: Final = TypeAdapter(System)
STATUS: Final = TypeAdapter(Status)
STORED: Final = TypeAdapter(Stored)
ATTACHMENT: Final = TypeAdapter(Attachment)
STUDY: Final = TypeAdapter(Study)
STUDIES: Final = TypeAdapter(list[Study])
SERIES: Final = TypeAdapter(list[Series])
INSTANCES: Final = TypeAdapter(list[Instance])
IDS: Final = TypeAdapter(list[_OrthancId])
STATISTICS: Final = TypeAdapter(Statistics)
CHANGES: Final = TypeAdapter(Changes)
_PROBLEM: Final = TypeAdapter(Problem)


async def parse(adapter: TypeAdapter[_T], content: bytearray) -> _T:
    """The answer, checked. Raises ORTHANC_ERROR."""
    try:
        if len(content) > _LARGE_BYTES:
            return await asyncio.to_thread(adapter.validate_json, content)
        return adapter.validate_json(content)
    except ValidationError as error:
        raise nonsense() from error


def is_problem(content: bytearray) -> bool:
    """Whether the body of an error is Orthanc's own."""
    try:
        _PROBLEM.validate_json(content)
    except ValidationError:
        return False
    return True


def checked_id(value: str) -> str:
    """An id of Orthanc's, to be put into a path. Anything else would name another resource: a ValueError."""
    if not re.fullmatch(_ID, value):
        raise ValueError("not an id of Orthanc's")
    return value


def counts_of(study: Study, series: Sequence[Series]) -> Counts:
    """What the study holds: as Orthanc computed it, else counted from its series."""
    if study.computed is not None:
        found = study.computed.modalities.split("\\")
        return Counts(_modalities(found), study.computed.number_of_series, study.computed.number_of_instances)
    return Counts(
        modalities=_modalities(one.tags.modality for one in series),
        number_of_series=len(series),
        number_of_instances=sum(len(one.instances) for one in series),
    )


def sum_of(counts: Sequence[Counts]) -> Counts:
    """What several studies hold together."""
    return Counts(
        modalities=_modalities(modality for one in counts for modality in one.modalities),
        number_of_series=sum(one.number_of_series for one in counts),
        number_of_instances=sum(one.number_of_instances for one in counts),
    )


def number(value: str) -> float:
    """An IS value to sort by; one that is absent or no number comes last."""
    try:
        return int(value)
    except ValueError:
        return float("inf")


def nonsense() -> ServiceError:
    """The error for an answer that no Orthanc gives."""
    return ServiceError(Reason.ORTHANC_ERROR, "Orthanc's answer makes no sense. Is ORTHANC_URL the URL of an Orthanc?")


def _modalities(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({stripped for value in values if (stripped := value.strip())}))
