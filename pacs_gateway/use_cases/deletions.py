"""Deleting a study from the PACS, with a trace that is written before it goes and completed after."""

import uuid
from dataclasses import replace
from uuid import UUID

from pacs_gateway.domain.study import StudyFilter
from pacs_gateway.domain.upload_log import Deletion
from pacs_gateway.use_cases.ports import Clock, Database, Pacs
from pacs_gateway.use_cases.streams import to_the_end
from pacs_gateway.use_cases.studies import only_study
from service_runtime.errors import Reason, ServiceError


class Deletions:
    """Deletes studies."""

    def __init__(self, *, database: Database, pacs: Pacs, clock: Clock) -> None:
        self._database = database
        self._pacs = pacs
        self._clock = clock

    async def delete(self, study_uid: str, *, reason: str, by: UUID) -> Deletion:
        """Deletes the study, marks its upload log deleted and clears the DICOM fields of its order; the trace of it.

        A deletion that broke off half-way is completed by the next one, under the trace of the first. Raises
        STUDY_NOT_FOUND, STUDY_AMBIGUOUS.
        """
        try:
            study = await only_study(self._pacs, StudyFilter(study_instance_uid=study_uid))
        except ServiceError as error:
            if error.reason is not Reason.STUDY_NOT_FOUND:
                raise
            deletion = await self._broken_off(study_uid)
            if deletion is None:
                raise
        else:
            deletion = await self._begin(study_uid, study.orthanc_study_id, reason=reason, by=by)
        await to_the_end(self._complete(deletion))
        return deletion

    async def _broken_off(self, study_uid: str) -> Deletion | None:
        async with self._database.begin() as work:
            return await work.upload_logs.open_deletion(study_uid)

    async def _begin(self, study_uid: str, orthanc_study_id: str, *, reason: str, by: UUID) -> Deletion:
        async with self._database.begin() as work:
            log = (await work.upload_logs.by_study([study_uid])).get(study_uid)
            deletion = Deletion(
                id=uuid.uuid4(),
                study_instance_uid=study_uid,
                orthanc_study_id=orthanc_study_id,
                reason=reason,
                requested_by_id=by,
                requested_at=self._clock(),
                upload_log_id=log.id if log else None,
            )
            await work.upload_logs.save_deletion(deletion)
            await work.commit()
        return deletion

    async def _complete(self, deletion: Deletion) -> None:
        """Under the study's lock, so that no upload to it is read back before and logged as stored after."""
        uid = deletion.study_instance_uid
        async with self._database.begin() as work:
            await work.lock_study(uid)
            await self._pacs.delete_study(deletion.orthanc_study_id)
            log = (await work.upload_logs.by_study([uid])).get(uid)
            if log is not None:
                await work.upload_logs.save(replace(log, is_deleted=True))
                await work.ledger.forget(log.id)
            await work.orders.clear(uid)
            await work.upload_logs.save_deletion(replace(deletion, completed_at=self._clock()))
            await work.commit()
