"""The options that come with files: what is read of them, and what is refused."""

from dataclasses import replace
from typing import Any

from pacs_gateway.api.fields import Fields
from pacs_gateway.api.roles import OVERWRITERS, expect_role
from pacs_gateway.domain.tags import Edits, RecordReason
from pacs_gateway.domain.upload import OnConflict, PatientMatch, UploadOptions, UploadSource
from service_runtime.identity import CALLER

_Options = Any  # any of the requests that bring files: their options are the same
# The fields of the requests that replace one attribute, and the fields of Edits that they become.
_ATTRIBUTES = {
    "dicom_patient_id": "patient_id",
    "patient_name": "patient_name",
    "patient_birth_date": "patient_birth_date",
    "patient_sex": "patient_sex",
    "accession_number": "accession_number",
    "study_date": "study_date",
    "study_description": "study_description",
}
_COERCED = {
    "dicom_patient_id": "PatientID",
    "patient_name": "PatientName",
    "patient_birth_date": "PatientBirthDate",
    "patient_sex": "PatientSex",
}


def options_of(request: _Options) -> UploadOptions:
    """What holds for every file of an upload. Raises INVALID_FIELD, ROLE_NOT_ALLOWED."""
    fields = Fields()
    options = replace(shared_options(fields, request), edits=_edits(request))
    if options.patient_match is PatientMatch.COERCE:
        for name, keyword in _COERCED.items():
            if request.HasField(name):
                fields.wrong(keyword, "is set by patient_match=COERCE; leave one of the two out")
    fields.expect_valid()
    expect_may_overwrite(options)
    return options


def shared_options(fields: Fields, request: Any) -> UploadOptions:
    """The options that may be said once for a session: all but the edits."""
    if request.patient_match and not request.patient_id:
        fields.wrong("patient_match", "needs patient_id: without it there is nothing to match")
    return UploadOptions(
        patient_id=fields.optional_uuid("patient_id", request.patient_id),
        order_id=fields.optional_uuid("order_id", request.order_id),
        source=fields.choice("upload_source", request.upload_source or UploadSource.MANUAL, UploadSource),
        patient_match=fields.choice("patient_match", request.patient_match or PatientMatch.REQUIRE, PatientMatch),
        on_conflict=fields.choice("on_conflict", request.on_conflict or OnConflict.REJECT, OnConflict),
    )


def expect_may_overwrite(options: UploadOptions) -> None:
    """Raises ROLE_NOT_ALLOWED where the options ask for what the caller's role may not."""
    if options.on_conflict is OnConflict.OVERWRITE:
        expect_role(CALLER.get().role, OVERWRITERS, "overwrite what the PACS holds")


def _edits(request: _Options) -> Edits:
    """The edits. Whether their values fit is for tag_service to say, which knows DICOM."""
    given = {mine: getattr(request, theirs) for theirs, mine in _ATTRIBUTES.items() if request.HasField(theirs)}
    return Edits(
        **given,
        remove_private_tags=request.remove_private_tags,
        set=tuple(request.set),
        remove=tuple(request.remove),
        force=request.force,
        record_original=RecordReason.CORRECT if request.record_original else None,
    )
