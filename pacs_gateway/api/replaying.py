"""Uploads that carry a request id: what they ask, what they bring, and which of their answers are kept."""

import hashlib
from collections.abc import Iterable
from typing import Any

from grpc import StatusCode
from grpc.aio import ServicerContext

from pacs_gateway.api.fields import Fields
from ris.pacs.v1.upload_service_pb2 import UploadMultipleResponse
from service_runtime.errors import Reason
from service_runtime.metadata import value_of
from service_runtime.unpacking import FileBegin, FileEnd, FileEvent
from service_runtime.uploads import UploadReader

HEADER = "idempotency-key"
_MAX_LENGTH = 128
# Another try may come to something else.
_PASSING = frozenset(
    code.value[0] for code in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.INTERNAL)
) | {StatusCode.DATA_LOSS.value[0]}


class ContentDigest:
    """SHA-256 of what an upload brings: of the digests of its files, in order. `complete` once all of it was read.

    Of one that is not `wanted` nothing is computed.
    """

    def __init__(self, reader: UploadReader, *, wanted: bool) -> None:
        self.complete = False
        self._all = hashlib.sha256()
        self._file = hashlib.sha256()
        if wanted:
            reader.observe = self._add

    @property
    def value(self) -> str:
        """The digest (hex)."""
        return self._all.hexdigest()

    def _add(self, event: FileEvent | None) -> None:
        if isinstance(event, bytes):
            self._file.update(event)
        elif isinstance(event, FileBegin):
            self._file = hashlib.sha256()
        elif isinstance(event, FileEnd):
            self._all.update(self._file.digest())
        elif event is None:
            self.complete = True


def request_id_of(first: Any, context: ServicerContext[Any, Any]) -> str:
    """The request's id: its field, or the header Idempotency-Key. Raises INVALID_FIELD."""
    fields = Fields()
    header = value_of(context.invocation_metadata(), HEADER).strip('"')
    given = first.request_id or header
    if given:
        fields.exact("request_id", given, max_length=_MAX_LENGTH)
    if first.request_id and header and first.request_id != header:
        fields.wrong("request_id", "is another than the header Idempotency-Key says; leave one of the two out")
    fields.expect_valid()
    return given


def asked_by(first: Any) -> str:
    """SHA-256 (hex) of the options of an upload, and of which rpc it is of."""
    options = type(first)()
    options.CopyFrom(first)
    for name in ("file", "filename", "end_of_file", "request_id"):
        options.ClearField(name)
    asked = options.DESCRIPTOR.full_name.encode() + options.SerializeToString(deterministic=True)
    return hashlib.sha256(asked).hexdigest()


def are_final(answers: Iterable[UploadMultipleResponse]) -> bool:
    """Whether none of the answers is one that another try may change."""
    return not any(
        answer.error.code in _PASSING or answer.error.reason == Reason.OVERLOADED.value for answer in answers
    )
