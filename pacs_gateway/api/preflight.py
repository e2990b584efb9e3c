"""The answers of UploadService.Preflight: one for each file, as UploadMultiple would give them."""

from collections.abc import AsyncIterator
from typing import Final

import structlog

from pacs_gateway.api.many_files import NO_DICOM, defect
from pacs_gateway.api.mapping import error_to_proto, keyword_of, tags_to_proto
from pacs_gateway.domain.media import is_directory
from pacs_gateway.use_cases.preflight import Foreseen, Preflight
from ris.pacs.v1.upload_service_pb2 import PreflightResponse, TagChange, TagMatch
from service_runtime.errors import ServiceError
from service_runtime.logs import describe
from service_runtime.uploads import UploadedFile, UploadReader

log = structlog.get_logger()

_ACCEPTABLE: Final = "acceptable"
_REFUSED: Final = "refused"
_SKIPPED: Final = "skipped"


async def preflight_answers(preflight: Preflight, reader: UploadReader) -> AsyncIterator[PreflightResponse]:
    """An answer for each file, in order. Raises what breaks the request where nothing was answered before; else the
    last answer says it.
    """
    answered = False
    try:
        async for file in reader.files():
            yield await _answer(preflight, file)
            answered = True
    except ServiceError as error:
        if not answered:
            raise
        yield PreflightResponse(status=_REFUSED, error=error_to_proto(error))


async def _answer(preflight: Preflight, file: UploadedFile) -> PreflightResponse:
    if file.path is not None and is_directory(file.path or file.name):
        return PreflightResponse(filename=file.name, status=_SKIPPED)
    try:
        foreseen = await preflight.look(file)
    except ServiceError as error:
        status = _SKIPPED if file.path is not None and error.reason in NO_DICOM else _REFUSED
        return PreflightResponse(filename=file.name, status=status, error=error_to_proto(error))
    except Exception as error:  # noqa: BLE001 - as the interceptor does for a call of one file
        log.error("defect", **describe(error))  # noqa: TRY400 - it would log the text
        return PreflightResponse(filename=file.name, status=_REFUSED, error=error_to_proto(defect()))
    return _foreseen_to_proto(file.name, foreseen)


def _foreseen_to_proto(name: str, foreseen: Foreseen) -> PreflightResponse:
    return PreflightResponse(
        filename=name,
        status=_ACCEPTABLE if foreseen.error is None else _REFUSED,
        error=error_to_proto(foreseen.error) if foreseen.error is not None else None,
        tags=tags_to_proto(foreseen.tags),
        matches=[
            TagMatch(keyword=keyword_of(one.name), against=one.against, result=one.match) for one in foreseen.matches
        ],
        changes=[
            TagChange(
                keyword=keyword_of(one.name), is_changed=one.before != one.after, before=one.before, after=one.after
            )
            for one in foreseen.changes
        ],
        patient_id=str(foreseen.patient.id) if foreseen.patient is not None else "",
        order_id=str(foreseen.order.id) if foreseen.order is not None else "",
        instance_is_stored=foreseen.instance_is_stored,
    )
