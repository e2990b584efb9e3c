"""Pictures of studies, kept in memory for as long as the PACS holds what they were made of."""

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from pacs_gateway.domain.study import Fingerprint, StudyFilter
from pacs_gateway.use_cases.ports import Pacs
from pacs_gateway.use_cases.studies import only_study
from service_runtime.errors import Reason, ServiceError

# In how many of a study's series a picture is looked for before it counts as one that cannot be shown.
_SERIES_TRIED: Final = 20
# What an entry takes besides its PNG.
_ENTRY_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG and its entity tag (RFC 9110 8.8.3)."""

    png: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class _Kept:
    """A picture, the instance that it is of, and where the PACS' log of changes was before that was looked for."""

    picture: Picture
    orthanc_id: str
    fingerprint: Fingerprint
    change: int


class Pictures:
    """Shows studies.

    A picture is kept by its study, and good again where nothing came into the PACS since it was looked for and its
    instance is there as it was; so it may be that of a study that lost other instances since. Where something came, the
    study and its instance are looked for again, and only the making of the picture is saved.
    """

    def __init__(self, *, pacs: Pacs, max_bytes: int) -> None:
        """`max_bytes` is what is kept of pictures."""
        self._pacs = pacs
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0

    async def of_study(self, study_uid: str) -> Picture:
        """A picture of the middle instance of the first series that can be shown.

        Raises STUDY_NOT_FOUND, STUDY_AMBIGUOUS, THUMBNAIL_NOT_AVAILABLE.
        """
        kept = self._kept.get(study_uid)
        if kept is None:
            kept = await self._found(study_uid, None, await self._pacs.last_change())
        else:
            # What comes after this is seen the next time.
            change, now = await asyncio.gather(self._pacs.last_change(), self._fingerprint(kept.orthanc_id))
            if not change or (change, now) != (kept.change, kept.fingerprint):
                kept = await self._found(study_uid, kept, change)
        self._keep(study_uid, kept)
        return kept.picture

    async def _fingerprint(self, orthanc_id: str) -> Fingerprint | None:
        return await self._pacs.fingerprint(orthanc_id, read_again=False)

    async def _found(self, study_uid: str, before: _Kept | None, change: int) -> _Kept:
        study = await only_study(self._pacs, StudyFilter(study_instance_uid=study_uid))
        for series in (await self._pacs.series(study.orthanc_study_id) or ())[:_SERIES_TRIED]:
            instances = await self._pacs.instances(series.orthanc_series_id)
            found = await self._made(instances[len(instances) // 2], before, change) if instances else None
            if found is not None:
                return found
        raise ServiceError(Reason.THUMBNAIL_NOT_AVAILABLE, "The study holds nothing that can be shown as a picture.")

    async def _made(self, orthanc_id: str, before: _Kept | None, change: int) -> _Kept | None:
        """The picture of an instance, the one from before where it is as it was; None where it cannot be shown."""
        # Before the picture: where the instance is replaced in between, the next call sees that it has another one.
        fingerprint = await self._fingerprint(orthanc_id)
        if fingerprint is None:
            return None
        if before is not None and (before.orthanc_id, before.fingerprint) == (orthanc_id, fingerprint):
            return replace(before, change=change)
        png = await self._pacs.picture(orthanc_id)
        if png is None:
            return None
        return _Kept(Picture(png, f'"{hashlib.sha256(png).hexdigest()}"'), orthanc_id, fingerprint, change)

    def _keep(self, study_uid: str, kept: _Kept) -> None:
        """Keeps a picture as the one that was asked for last, and lets go of those that were not for the longest."""
        self._let_go(self._kept.pop(study_uid, None))
        if _size(kept) > self._max_bytes:
            return
        self._kept[study_uid] = kept
        self._bytes += _size(kept)
        while self._bytes > self._max_bytes:
            self._let_go(self._kept.popitem(last=False)[1])

    def _let_go(self, kept: _Kept | None) -> None:
        self._bytes -= _size(kept) if kept else 0


def _size(kept: _Kept) -> int:
    return len(kept.picture.png) + _ENTRY_BYTES
