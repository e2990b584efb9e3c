"""Orthanc over its REST API: the only place that speaks to it, with one long-lived HTTP client.

Works the same with Orthanc 1.10 and 1.12: /tools/find of 1.10 knows no RequestedTags, so the modalities and counts of
studies come from one query for their series.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar

import httpx
from httpx_aiohttp import AiohttpTransport
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from pacs_gateway.domain.study import Counts, Fingerprint, PacsSeries, PacsStudy, StoredInstance, StudyFilter
from service_runtime.errors import Reason, ServiceError

# Seconds for a whole exchange, by kind.
_CHECK_SECONDS: Final = 5
_QUERY_SECONDS: Final = 30
_STORE_SECONDS: Final = 300
_DELETE_SECONDS: Final = 60
# Orthanc closes a connection that is idle for a second; one that is about to be closed must not be used again.
_KEEPALIVE_SECONDS: Final = 0.5
# Eight connections were measured to be the fastest for storing.
_CONNECTIONS: Final = 16
_ANSWER_BYTES: Final = 256 * 1024 * 1024
# How much of a file is kept, to send it once more when the connection turns out dead at its first bytes.
_REPLAY_BYTES: Final = 1024 * 1024

_OrthancId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{8}){4}$")]
_T = TypeVar("_T")


class _Tags(BaseModel):
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


class _Study(BaseModel):
    id: _OrthancId = Field(alias="ID")
    tags: _Tags = Field(alias="MainDicomTags")
    patient: _Tags = Field(alias="PatientMainDicomTags")


class _Series(BaseModel):
    id: _OrthancId = Field(alias="ID")
    study: _OrthancId = Field(alias="ParentStudy")
    instances: list[_OrthancId] = Field(alias="Instances")
    tags: _Tags = Field(alias="MainDicomTags")


class _Instance(BaseModel):
    id: _OrthancId = Field(alias="ID")
    index: int | None = Field(None, alias="IndexInSeries")
    tags: _Tags = Field(alias="MainDicomTags")


class _Stored(BaseModel):
    id: _OrthancId = Field(alias="ID")
    study: _OrthancId = Field(alias="ParentStudy")
    status: str = Field(alias="Status", pattern="^(Success|AlreadyStored)$")


class _System(BaseModel):
    version: str = Field(alias="Version")


_SYSTEM = TypeAdapter(_System)
_STORED = TypeAdapter(_Stored)
_STUDIES = TypeAdapter(list[_Study])
_SERIES = TypeAdapter(list[_Series])
_INSTANCES = TypeAdapter(list[_Instance])


class Orthanc:
    """The port `Pacs` over Orthanc's REST API."""

    def __init__(self, url: str, *, username: str, password: str) -> None:
        """`url` is http(s)://host:port with an optional path. Connects at the first call."""
        self._client = httpx.AsyncClient(
            base_url=url,
            auth=httpx.BasicAuth(username, password) if username else None,
            transport=AiohttpTransport(
                limits=httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=_KEEPALIVE_SECONDS),
                trust_env=False,
            ),
            timeout=None,  # noqa: S113 - _exchange sets one deadline for the whole exchange, by kind
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def check(self) -> str:
        """Orthanc's version."""
        return _parse(_SYSTEM, await self._get("/system", seconds=_CHECK_SECONDS)).version

    async def store(self, chunks: AsyncIterable[bytes]) -> StoredInstance:
        """Stores one file while it comes in. When `chunks` raises, the request is broken off and Orthanc keeps nothing.

        Raises STORE_REFUSED, and what `chunks` raises.
        """
        body = _Replayable(chunks)
        while True:
            try:
                status, content = await self._exchange(
                    "POST", "/instances", seconds=_STORE_SECONDS, content=body.send()
                )
                break
            except ServiceError as error:
                if body.failure is not None:
                    raise body.failure from None
                if error.reason is not Reason.ORTHANC_UNAVAILABLE or not body.rewind():
                    raise
        if status in {400, 415}:
            raise ServiceError(Reason.STORE_REFUSED, "Orthanc refused the file. Validate it to learn what is wrong.")
        stored = _parse(_STORED, _ok(status, content))
        return StoredInstance(stored.id, stored.study, already_stored=stored.status == "AlreadyStored")

    async def fingerprint(self, orthanc_id: str) -> Fingerprint | None:
        """Size and MD5, as Orthanc computed them from the bytes that it keeps."""
        size, md5 = await asyncio.gather(
            self._find(f"/instances/{orthanc_id}/attachments/dicom/size"),
            self._find(f"/instances/{orthanc_id}/attachments/dicom/md5"),
        )
        if size is None or md5 is None:
            return None
        if not size.isdigit() or len(md5) != 2 * hashlib.md5(usedforsecurity=False).digest_size:
            raise _nonsense()
        return Fingerprint(int(size), md5.decode("ascii", "replace"))

    async def delete_instance(self, orthanc_id: str) -> None:
        """Deletes an instance; no error where there is none."""
        await self._delete(f"/instances/{orthanc_id}")

    async def delete_study(self, orthanc_study_id: str) -> None:
        """Deletes a study; no error where there is none."""
        await self._delete(f"/studies/{orthanc_study_id}")

    async def find_studies(self, wanted: StudyFilter, *, limit: int) -> Sequence[PacsStudy]:
        """The studies that match exactly. Orthanc compares without regard to case and accents, so its answer is
        filtered again here.
        """
        query = {"Level": "Study", "Query": _query(wanted), "Expand": True, "Limit": limit}
        studies = _parse(_STUDIES, await self._post("/tools/find", query))
        return [found for study in studies if _matches(found := _study(study), wanted)]

    async def counts(self, study_uids: Collection[str]) -> Mapping[str, Counts]:
        """What the studies hold, by StudyInstanceUID, from one query for all their series."""
        if not study_uids:
            return {}
        uids = "\\".join(_literal(uid) for uid in study_uids)
        studies, series = await asyncio.gather(
            self._post("/tools/find", {"Level": "Study", "Query": {"StudyInstanceUID": uids}, "Expand": True}),
            self._post("/tools/find", {"Level": "Series", "Query": {"StudyInstanceUID": uids}, "Expand": True}),
        )
        by_study: dict[str, list[_Series]] = {}
        for one in _parse(_SERIES, series):
            by_study.setdefault(one.study, []).append(one)
        return {
            study.tags.study_instance_uid: _counts(by_study.get(study.id, [])) for study in _parse(_STUDIES, studies)
        }

    async def series(self, orthanc_study_id: str) -> Sequence[PacsSeries] | None:
        """The series of a study, by SeriesNumber."""
        content = await self._find(f"/studies/{orthanc_study_id}/series")
        if content is None:
            return None
        series = sorted(_parse(_SERIES, content), key=lambda one: (_number(one.tags.series_number), one.id))
        return [
            PacsSeries(
                series_instance_uid=one.tags.series_instance_uid,
                orthanc_series_id=one.id,
                series_number=one.tags.series_number.strip(),
                series_description=one.tags.series_description,
                modality=one.tags.modality,
                number_of_instances=len(one.instances),
            )
            for one in series
        ]

    async def instances(self, orthanc_series_id: str) -> Sequence[str]:
        """The instances of a series, by InstanceNumber."""
        content = await self._find(f"/series/{orthanc_series_id}/instances")
        found = _parse(_INSTANCES, content) if content is not None else []
        return [one.id for one in sorted(found, key=lambda one: (_number(one.tags.instance_number), one.id))]

    async def picture(self, orthanc_id: str) -> bytes | None:
        """A PNG of an instance.

        One that says how it wants to be windowed, and one in colour, is rendered at thumbnail size. Any other would
        come out black so, and is taken as a preview, stretched from its darkest to its brightest value.
        """
        window, photometric = await asyncio.gather(
            self._find(f"/instances/{orthanc_id}/content/0028-1050"),
            self._find(f"/instances/{orthanc_id}/content/0028-0004"),
        )
        renderable = window or (photometric and not photometric.startswith(b"MONOCHROME"))
        path = "rendered?width=256&height=256" if renderable else "preview"
        status, content = await self._exchange("GET", f"/instances/{orthanc_id}/{path}", seconds=_QUERY_SECONDS)
        if status in {400, 404, 415}:
            return None
        _ok(status, content)
        return content if content.startswith(b"\x89PNG\r\n\x1a\n") else None

    async def _get(self, path: str, *, seconds: float) -> bytes:
        return _ok(*await self._exchange("GET", path, seconds=seconds))

    async def _find(self, path: str) -> bytes | None:
        status, content = await self._exchange("GET", path, seconds=_QUERY_SECONDS)
        return None if status == 404 else _ok(status, content)

    async def _post(self, path: str, body: Mapping[str, object]) -> bytes:
        return _ok(*await self._exchange("POST", path, seconds=_QUERY_SECONDS, json=body))

    async def _delete(self, path: str) -> None:
        status, content = await self._exchange("DELETE", path, seconds=_DELETE_SECONDS)
        if status != 404:
            _ok(status, content)

    async def _exchange(self, method: str, path: str, *, seconds: float, **body: Any) -> tuple[int, bytes]:
        """Status and body of one exchange, within its deadline. Raises ORTHANC_UNAVAILABLE."""
        content = bytearray()
        try:
            async with asyncio.timeout(seconds), self._client.stream(method, path, **body) as response:
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > _ANSWER_BYTES:
                        raise _nonsense()
                return response.status_code, bytes(content)
        except (httpx.HTTPError, TimeoutError) as error:
            raise _away() from error


class _Replayable:
    """A body that can be sent again as long as little of it was sent. Remembers what its source raised."""

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self.failure: Exception | None = None
        self._source = aiter(chunks)
        self._kept: list[bytes] | None = []
        self._kept_bytes = 0
        self._rewound = False

    async def send(self) -> AsyncIterator[bytes]:
        for chunk in self._kept or ():
            yield chunk
        try:
            async for chunk in self._source:
                self._keep(chunk)
                yield chunk
        except Exception as error:
            self.failure = error
            raise

    def rewind(self) -> bool:
        """Whether it can be sent once more from its start."""
        possible = self._kept is not None and not self._rewound
        self._rewound = True
        return possible

    def _keep(self, chunk: bytes) -> None:
        self._kept_bytes += len(chunk)
        if self._kept is not None and self._kept_bytes <= _REPLAY_BYTES:
            self._kept.append(chunk)
        else:
            self._kept = None


def _query(wanted: StudyFilter) -> dict[str, str]:
    exact = {
        "StudyInstanceUID": wanted.study_instance_uid,
        "PatientID": wanted.patient_id,
        "AccessionNumber": wanted.accession_number,
        "ModalitiesInStudy": wanted.modality,
    }
    query = {key: _literal(value) for key, value in exact.items() if value is not None}
    if wanted.patient_name is not None:
        query["PatientName"] = _literal(wanted.patient_name) + "*"
    if wanted.study_date_from is not None or wanted.study_date_until is not None:
        query["StudyDate"] = f"{wanted.study_date_from or ''}-{wanted.study_date_until or ''}"
    return query


def _literal(value: str) -> str:
    """The value, which must mean itself to Orthanc: an empty one, or one with a wildcard, would match all."""
    if not value.strip() or any(char in value for char in "*?\\"):
        raise ValueError("neither an empty identifier nor a wildcard may reach Orthanc")
    return value


def _matches(study: PacsStudy, wanted: StudyFilter) -> bool:
    pairs = (
        (wanted.study_instance_uid, study.study_instance_uid),
        (wanted.patient_id, study.patient_id),
        (wanted.accession_number, study.accession_number),
    )
    return all(value is None or value == found for value, found in pairs)


def _study(study: _Study) -> PacsStudy:
    return PacsStudy(
        study_instance_uid=study.tags.study_instance_uid,
        orthanc_study_id=study.id,
        patient_id=study.patient.patient_id,
        patient_name=study.patient.patient_name,
        study_date=study.tags.study_date,
        study_time=study.tags.study_time,
        study_description=study.tags.study_description,
        accession_number=study.tags.accession_number,
    )


def _counts(series: Sequence[_Series]) -> Counts:
    return Counts(
        modalities=tuple(sorted({one.tags.modality for one in series if one.tags.modality})),
        number_of_series=len(series),
        number_of_instances=sum(len(one.instances) for one in series),
    )


def _number(value: str) -> float:
    """An IS value to sort by; one that is absent or no number comes last."""
    try:
        return int(value)
    except ValueError:
        return float("inf")


def _parse(adapter: TypeAdapter[_T], content: bytes) -> _T:
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        raise _nonsense() from error


def _ok(status: int, content: bytes) -> bytes:
    if status in {502, 503, 504}:
        raise _away()
    if status != 200:
        raise ServiceError(
            Reason.ORTHANC_ERROR,
            f"Orthanc answered with HTTP status {status}. Its log says why.",
            metadata={"http_status": str(status)},
        )
    return content


def _away() -> ServiceError:
    return ServiceError(Reason.ORTHANC_UNAVAILABLE, "Orthanc cannot be reached, or is too slow. Retry.", retry_after=5)


def _nonsense() -> ServiceError:
    return ServiceError(Reason.ORTHANC_ERROR, "Orthanc's answer makes no sense. Is ORTHANC_URL the URL of an Orthanc?")
