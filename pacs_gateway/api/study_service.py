"""ris.pacs.v1.StudyService."""

from typing import Any

from google.api import httpbody_pb2
from grpc.aio import ServicerContext

from pacs_gateway.api.fields import Fields
from pacs_gateway.api.mapping import study_to_proto
from pacs_gateway.api.paging import next_page_token, page_request
from pacs_gateway.domain.study import StudyFilter, StudyKey, StudyOrder
from pacs_gateway.use_cases.deletions import Deletions
from pacs_gateway.use_cases.pictures import Pictures
from pacs_gateway.use_cases.studies import NEWEST_FIRST, Studies
from ris.pacs.v1 import study_service_pb2, study_service_pb2_grpc
from service_runtime.identity import CALLER
from service_runtime.metadata import value_of
from service_runtime.status import HTTP_STATUS_KEY

_Context = ServicerContext[Any, Any]
_ORDER_KEYS: dict[str, StudyKey] = {
    "StudyDate": "study_date",
    "PatientName": "patient_name",
    "PatientID": "patient_id",
    "AccessionNumber": "accession_number",
}


class StudyServicer(study_service_pb2_grpc.StudyServiceServicer):
    """Reads the requests, has the use cases do the work, and words the answers."""

    def __init__(self, *, studies: Studies, pictures: Pictures, deletions: Deletions) -> None:
        self._studies = studies
        self._pictures = pictures
        self._deletions = deletions

    async def ListStudies(  # noqa: N802 - gRPC's names
        self,
        request: study_service_pb2.ListStudiesRequest,
        context: _Context,  # noqa: ARG002
    ) -> study_service_pb2.ListStudiesResponse:
        """Lists studies."""
        fields = Fields()
        page = page_request(fields, request)
        wanted = _filter(fields, request)
        order = _order(fields, request.order_by)
        fields.expect_valid()
        found = await self._studies.page(wanted, page, order=order)
        return study_service_pb2.ListStudiesResponse(
            studies=[study_to_proto(study) for study in found.items],
            next_page_token=next_page_token(request, found.last),
            total_size=found.total_size,
        )

    async def GetStudy(  # noqa: N802
        self,
        request: study_service_pb2.GetStudyRequest,
        context: _Context,  # noqa: ARG002
    ) -> study_service_pb2.GetStudyResponse:
        """Gets one study."""
        study = await self._studies.get(_study_uid(request.study_uid))
        return study_service_pb2.GetStudyResponse(study=study_to_proto(study))

    async def ListPatientStudies(  # noqa: N802
        self,
        request: study_service_pb2.ListPatientStudiesRequest,
        context: _Context,  # noqa: ARG002
    ) -> study_service_pb2.ListPatientStudiesResponse:
        """Lists the studies of a patient."""
        fields = Fields()
        patient_id = fields.uuid("patient_id", request.patient_id)
        page = page_request(fields, request)
        fields.expect_valid()
        found = await self._studies.page_of_patient(patient_id, page)
        return study_service_pb2.ListPatientStudiesResponse(
            studies=[study_to_proto(study) for study in found.items],
            next_page_token=next_page_token(request, found.last),
            total_size=found.total_size,
        )

    async def GetStudyByAccession(  # noqa: N802
        self,
        request: study_service_pb2.GetStudyByAccessionRequest,
        context: _Context,  # noqa: ARG002
    ) -> study_service_pb2.GetStudyByAccessionResponse:
        """Gets the study with an accession number."""
        fields = Fields()
        number = fields.exact("accession_number", request.accession_number)
        fields.expect_valid()
        study = await self._studies.get_by_accession(number)
        return study_service_pb2.GetStudyByAccessionResponse(study=study_to_proto(study))

    async def DeleteStudy(  # noqa: N802
        self,
        request: study_service_pb2.DeleteStudyRequest,
        context: _Context,  # noqa: ARG002
    ) -> study_service_pb2.DeleteStudyResponse:
        """Deletes a study."""
        fields = Fields()
        uid = fields.uid("study_uid", request.study_uid)
        reason = fields.text("reason", request.reason, max_length=500)
        fields.expect_valid()
        deletion = await self._deletions.delete(uid, reason=reason, by=CALLER.get().user_id)
        return study_service_pb2.DeleteStudyResponse(
            message="The study is deleted from the PACS.", reason=deletion.reason
        )

    async def GetThumbnail(  # noqa: N802
        self, request: study_service_pb2.GetThumbnailRequest, context: _Context
    ) -> study_service_pb2.GetThumbnailResponse:
        """Shows a study. The etag of If-None-Match is compared weakly (RFC 9110 13.1.2)."""
        picture = await self._pictures.of_study(_study_uid(request.study_uid))
        response = study_service_pb2.GetThumbnailResponse(image=httpbody_pb2.HttpBody(content_type="image/png"))
        metadata = [("etag", picture.etag), ("cache-control", "private, no-cache")]
        if _names(value_of(context.invocation_metadata(), "if-none-match"), picture.etag):
            metadata.append((HTTP_STATUS_KEY, "304"))
        else:
            # A message that is put into another is copied.
            response.image.data = picture.png
        await context.send_initial_metadata(tuple(metadata))
        return response


def _names(if_none_match: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or tags == ["*"]


def _study_uid(value: str) -> str:
    fields = Fields()
    uid = fields.uid("study_uid", value)
    fields.expect_valid()
    return uid


def _filter(fields: Fields, request: study_service_pb2.ListStudiesRequest) -> StudyFilter:
    wanted = StudyFilter(
        patient_id=fields.optional_exact("PatientID", request.dicom_patient_id),
        patient_name=fields.optional_exact("PatientName", request.patient_name),
        accession_number=fields.optional_exact("AccessionNumber", request.accession_number),
        modality=fields.optional_exact("Modality", request.modality, max_length=16),
        study_date_from=fields.optional_da("study_date_from", request.study_date_from),
        study_date_until=fields.optional_da("study_date_until", request.study_date_until),
    )
    if wanted.study_date_from and wanted.study_date_until and wanted.study_date_from > wanted.study_date_until:
        fields.wrong("study_date_until", "must not lie before study_date_from")
    return wanted


def _order(fields: Fields, order_by: str) -> tuple[StudyOrder, ...]:
    """The order that an AIP-132 order_by names."""
    if not order_by.strip():
        return NEWEST_FIRST
    order = []
    for part in order_by.split(","):
        match part.split():
            case [name] if name in _ORDER_KEYS:
                order.append(StudyOrder(_ORDER_KEYS[name]))
            case [name, "desc"] if name in _ORDER_KEYS:
                order.append(StudyOrder(_ORDER_KEYS[name], descending=True))
            case _:
                fields.wrong("order_by", f'must name {", ".join(_ORDER_KEYS)}, each with " desc" or without')
                break
    if len({by.attribute for by in order}) < len(order):
        fields.wrong("order_by", "must not name an attribute twice")
    return tuple(order)
