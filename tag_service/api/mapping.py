"""Between the messages of ris.tags.v1 and the domain."""

import urllib.parse
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, TypeVar

from google.api import httpbody_pb2

from ris.tags.v1 import dicom_tags_pb2, tag_service_pb2
from service_runtime.errors import InvalidFieldError, Violation
from tag_service.domain.deidentify.options import Dates, Options
from tag_service.domain.editing.edits import Edits, Mode
from tag_service.domain.editing.provenance import ModificationReason
from tag_service.domain.reading.chosen import ChosenAttribute
from tag_service.domain.reading.dicom_tags import DicomTags, Header
from tag_service.domain.standard.problems import Problem
from tag_service.domain.validating.validation import Verdict
from tag_service.use_cases.deidentifying import Deidentification
from tag_service.use_cases.heading import EditedHeader
from tag_service.use_cases.rewriting import Bulk

ChoiceT = TypeVar("ChoiceT", bound=StrEnum)

_DEFAULT_FILENAME: Final = "edited.dcm"
_OPTIONAL: Final = {
    "patient_id": "dicom_patient_id",
    "patient_name": "patient_name",
    "patient_birth_date": "patient_birth_date",
    "patient_sex": "patient_sex",
    "accession_number": "accession_number",
    "study_date": "study_date",
    "study_description": "study_description",
}


def edits_from(request: tag_service_pb2.ModifyTagsRequest) -> Edits:
    """The edits that a first message asks for."""
    # An option that is present and empty empties its attribute.
    present = {field.name for field, _ in request.ListFields()}
    named = {name: getattr(request, proto_name) for name, proto_name in _OPTIONAL.items() if proto_name in present}
    reason = _choice("record_reason", request.record_reason, ModificationReason, ModificationReason.CORRECT)
    if request.record_reason and not request.record_original:
        raise InvalidFieldError(Violation("record_reason", "needs record_original: without it nothing is recorded"))
    return Edits(
        **named,
        remove_private_tags=request.remove_private_tags,
        set=tuple(request.set),
        remove=tuple(request.remove),
        force=request.force,
        mode=_choice("mode", request.mode, Mode, Mode.CORRECT),
        record_original=reason if request.record_original else None,
    )


def options_from(request: tag_service_pb2.DeidentifyFileRequest) -> Options:
    """The options of de-identification that a first message asks for."""
    switches = {name: getattr(request, name) for name in Options.__slots__ if name != "dates"}
    return Options(dates=_choice("dates", request.dates, Dates, Dates.REMOVE), **switches)


def _choice(field: str, value: str, choices: type[ChoiceT], default: ChoiceT) -> ChoiceT:
    try:
        return choices(value) if value else default
    except ValueError:
        raise InvalidFieldError(Violation(field, f"is none of {', '.join(choices)}")) from None


def header_to_proto(header: Header, attributes: Iterable[ChosenAttribute] = ()) -> tag_service_pb2.ReadTagsResponse:
    """The answer of ReadTags."""
    return tag_service_pb2.ReadTagsResponse(
        tags=_tags(header.tags),
        warnings=[_problem(problem) for problem in header.problems],
        attributes=[_attribute(attribute) for attribute in attributes],
    )


def edited_header_to_proto(edited: EditedHeader) -> tag_service_pb2.ModifyHeaderResponse:
    """The answer of ModifyHeader."""
    original, tags = edited.original, edited.tags
    return tag_service_pb2.ModifyHeaderResponse(
        original_tags=_tags(original) if original else None,
        tags=_tags(tags) if tags and tags != original else None,
        header=edited.header,
        header_size=edited.header_size,
        needs_whole_file=edited.needs_whole_file,
    )


def edited_part_to_proto(part: bytes | Bulk) -> tag_service_pb2.ModifyTagsResponse:
    """A part of the answer of ModifyTags to a caller who keeps bulk."""
    if isinstance(part, Bulk):
        return tag_service_pb2.ModifyTagsResponse(bulk_offset=part.offset, bulk_size=part.size_bytes)
    return tag_service_pb2.ModifyTagsResponse(file=httpbody_pb2.HttpBody(data=part))


def verdict_to_proto(verdict: Verdict) -> tag_service_pb2.ValidateFileResponse:
    """The answer of ValidateFile."""
    return tag_service_pb2.ValidateFileResponse(
        is_dicom=verdict.is_dicom,
        is_valid=verdict.is_valid,
        transfer_syntax_uid=verdict.transfer_syntax_uid,
        transfer_syntax_name=verdict.transfer_syntax_name,
        sop_class_uid=verdict.sop_class_uid,
        sop_class_name=verdict.sop_class_name,
        modality=verdict.modality,
        size_bytes=verdict.size_bytes,
        has_pixel_data=verdict.has_pixel_data,
        problems=[_problem(problem) for problem in verdict.problems],
        problems_left_out=verdict.problems_left_out,
    )


def about_deidentification(deidentification: Deidentification) -> tuple[tuple[str, str], ...]:
    """The metadata that say what is out of reach, and whose key it was."""
    reach = deidentification.reach()
    return (
        ("x-deidentify-may-show-patient", "true" if reach.may_show_patient else "false"),
        ("x-deidentify-doubts", ",".join(reach.doubts)),
        ("x-deidentify-modality", reach.modality),
        ("x-deidentify-burned-in-annotation", reach.burned_in_annotation),
        ("x-deidentify-key-source", deidentification.key_source),
    )


def content_disposition(filename: str) -> str:
    """The header that names a download: plain for old clients, and exactly (RFC 6266, RFC 5987)."""
    name = filename or _DEFAULT_FILENAME
    plain = "".join(char if char.isascii() and (char.isalnum() or char in " ._-") else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{urllib.parse.quote(name, safe='')}"


def _tags(tags: DicomTags) -> dicom_tags_pb2.DicomTags:
    values = tags._asdict()
    return dicom_tags_pb2.DicomTags(dicom_patient_id=values.pop("patient_id"), **values)


def _attribute(attribute: ChosenAttribute) -> tag_service_pb2.Attribute:
    return tag_service_pb2.Attribute(
        path=attribute.path,
        tag=attribute.tag,
        vr=attribute.vr,
        value=attribute.value,
        is_present=attribute.is_present,
        item_count=attribute.item_count,
        size_bytes=attribute.size_bytes,
    )


def _problem(problem: Problem) -> tag_service_pb2.Problem:
    return tag_service_pb2.Problem(
        severity=problem.severity, code=problem.code, tag=problem.tag, message=problem.message, rule=problem.rule
    )
