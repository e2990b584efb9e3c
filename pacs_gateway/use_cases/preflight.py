"""What an upload of a file would come to, found out by its header alone. Nothing is stored, and nothing is written."""

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from pacs_gateway.domain.comparing import TagChange, TagMatch, changes, compare
from pacs_gateway.domain.identifiers import orthanc_id
from pacs_gateway.domain.matching import edits_of
from pacs_gateway.domain.registry import Order, Patient
from pacs_gateway.domain.tags import DicomTags
from pacs_gateway.domain.upload import UploadOptions
from pacs_gateway.use_cases.filing import Filing
from pacs_gateway.use_cases.streams import Replayable
from pacs_gateway.use_cases.uploads import Uploads
from service_runtime.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What an upload of a file would come to, as far as the header tells.

    `tags` are those that would be stored. `error` is what the upload would be refused with. `patient` is None where one
    would be made, or none is found; `instance_is_stored` says that the PACS holds an instance with the identifiers: the
    file is that one, or conflicts with it.
    """

    tags: DicomTags
    matches: Sequence[TagMatch]
    changes: Sequence[TagChange]
    patient: Patient | None
    order: Order | None
    instance_is_stored: bool
    error: ServiceError | None


class Preflight:
    """Looks at the files that one upload would bring."""

    def __init__(
        self, uploads: Uploads, options: UploadOptions, *, patient: Patient | None, order: Order | None
    ) -> None:
        """`patient` and `order` are those that the options name."""
        self._uploads = uploads
        self._edits = edits_of(options, patient)
        self._filing = Filing(
            database=uploads.database,
            lookups=uploads.lookups,
            pacs=uploads.pacs,
            unknown=uploads.unknown,
            options=options,
            patient=patient,
            order=order,
        )

    @classmethod
    async def of(cls, uploads: Uploads, options: UploadOptions) -> "Preflight":
        """Raises what Uploads.open does."""
        patient, order = await uploads.named_by(options)
        return cls(uploads, options, patient=patient, order=order)

    async def look(self, chunks: AsyncIterable[bytes]) -> Foreseen:
        """What the upload of one file would come to. Asks for no more than its header, where no edit needs more.

        Raises what reading the header does, and what says that a part is away.
        """
        original, tags = await self._tags_of(chunks)
        patient, order = await self._filing.candidates(tags)
        error: ServiceError | None = None
        try:
            await self._filing.expect_acceptable(tags)
        except ServiceError as refusal:
            if refusal.retry_after is not None:
                raise
            error = refusal
        return Foreseen(
            tags=tags,
            matches=compare(original, patient, order),
            changes=tuple(changes(original, tags, self._edits)),
            patient=patient,
            order=order,
            instance_is_stored=await self._holds(tags),
            error=error,
        )

    async def _tags_of(self, chunks: AsyncIterable[bytes]) -> tuple[DicomTags, DicomTags]:
        """The tags of the file as it came, and as it would be stored: as an upload finds them."""
        tag_service, keeping = self._uploads.tag_service, self._uploads.keeping
        async with aclosing(Replayable(chunks, keeping)) as source:
            original = await tag_service.read_tags(source.beginning())
            if self._edits.is_empty:
                return original, original
            edited = tag_service.modify(source.whole(), self._edits)
            beginning = _as_far_as_it_goes(edited)
            async with aclosing(edited), aclosing(beginning), aclosing(Replayable(beginning, keeping)) as body:
                return original, await tag_service.read_tags(body.beginning())

    async def _holds(self, tags: DicomTags) -> bool:
        identifiers = (tags.patient_id, tags.study_instance_uid, tags.series_instance_uid, tags.sop_instance_uid)
        held = await self._uploads.pacs.fingerprint(orthanc_id(*identifiers), read_again=False)
        return held is not None


async def _as_far_as_it_goes(edited: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """An edited file, which ends where a fault is found in it: what came before is asked for its header alone.

    A fault before the first byte is raised, and so is one that may pass.
    """
    has_begun = False
    try:
        async for chunk in edited:
            has_begun = True
            yield chunk
    except ServiceError as error:
        if not has_begun or error.retry_after is not None:
            raise
