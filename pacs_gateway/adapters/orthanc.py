"""Orthanc over its REST API: the only place that knows it; `orthanc_http.py` is the only one that speaks HTTP to it.

Works the same with Orthanc 1.10 and 1.12. What differs, as tried: RequestedTags (the modalities and counts of studies)
came with 1.11 and is ignored before, where they are counted from one query for all series. verify-md5 of 1.10 takes the
file from the storage cache of Orthanc's memory, so it proves what is on the disk only under MaximumStorageCacheSize=0;
1.12 reads the disk. Neither may run under LimitFindResults, which shortens lists without a word (0, the default, is no
limit).
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from pacs_gateway.adapters import orthanc_answers as answers
from pacs_gateway.adapters.orthanc_answers import checked_id, parse
from pacs_gateway.adapters.orthanc_body import Body, ReplayableBody, WholeBody, putting_off
from pacs_gateway.adapters.orthanc_directory import StudyDirectory
from pacs_gateway.adapters.orthanc_http import (
    ANSWER_BYTES,
    BrokenError,
    OrthancHttp,
    Stream,
    away,
    expect_ok,
    ok,
    pieces_of,
)
from pacs_gateway.adapters.orthanc_places import Places
from pacs_gateway.adapters.orthanc_query import STUDY_COUNTS, is_broad, is_literal, matches, query_of
from pacs_gateway.domain.study import (
    Counts,
    Fingerprint,
    PacsSeries,
    PacsStudy,
    StoredInstance,
    StudyFilter,
    StudyOrder,
    in_order,
)
from pacs_gateway.use_cases.ports import fate_unknown
from service_runtime.errors import Reason, ServiceError

# Of the connections, so many are left to stores by all else, and by stores, which last as long as their senders are
# slow, to all else.
_RESERVED: Final = 1 / 4
# How many stores may wait for each one that is under way, and how long. tag_service, which gives the file, waits a
# minute at most for what it has to be taken.
_WAITING_STORES: Final = 4
_WAIT_SECONDS: Final = 30
# All else is short, and what was stored must be read back: as good as never refused.
_WAITING_READS: Final = 32
# A call that is safe to repeat is made this often when its connection breaks, with a pause in which the loop learns
# which of the kept connections are dead as well.
_ATTEMPTS: Final = 3
_PAUSE_SECONDS: Final = 0.05
# A gRPC message holds 4 MiB by default.
_PICTURE_BYTES: Final = 3 * 1024 * 1024
_THUMBNAIL: Final = "rendered?width=256&height=256"
_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds for a whole exchange, by its kind; waiting for a connection counts, but not for the place of a store.

    A store has a second more for each 128 KiB of the file, and as long again once all of it is sent.
    """

    check: float = 5
    query: float = 30
    store: float = 300
    delete: float = 60


class Orthanc:
    """The port `Pacs` over Orthanc's REST API."""

    def __init__(
        self,
        url: str,
        *,
        username: str,
        password: str,
        connections: int,
        deadlines: Deadlines | None = None,
        answer_bytes: int = ANSWER_BYTES,
        studies_in_memory: int = 0,
    ) -> None:
        """`url` is http(s)://host:port with an optional path. Connects at the first call.

        At most `connections` are open at once: three quarters of them for stores, as many for all else. Of stores,
        four times as many may wait, before their first byte goes out; further ones are OVERLOADED. An answer of more
        than `answer_bytes` is an ORTHANC_ERROR. An Orthanc with at most `studies_in_memory` has them listed from there.
        """
        self._deadlines = deadlines or Deadlines()
        self._directory = StudyDirectory(self._asked, most=studies_in_memory)
        places = max(1, connections - max(1, int(connections * _RESERVED)))
        self._stores = Places(places, waiting=_WAITING_STORES * places, seconds=_WAIT_SECONDS)
        self._reads = Places(places, waiting=_WAITING_READS * places)
        self._http = OrthancHttp(
            url, username=username, password=password, connections=connections, answer_bytes=answer_bytes
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.close()

    async def check(self) -> str:
        """Orthanc's version."""
        # Not one of the many that wait for a place: an Orthanc with much to do is there.
        status, content = await self._exchange("GET", "/system", seconds=self._deadlines.check, queued=False)
        return (await parse(answers.SYSTEM, ok(status, content))).version

    async def store(self, chunks: AsyncIterable[bytes]) -> StoredInstance:
        """Stores one file while it comes in. When `chunks` raises, the request is broken off and Orthanc keeps nothing.

        Storing is idempotent: a request whose connection breaks at the file's first bytes is made again. Raises
        STORE_REFUSED, OVERLOADED before anything is sent, and what `chunks` raises. Where all of it was sent,
        is_fate_unknown of any other error.
        """
        # Before any of the file is asked for: what waits holds no more of it than has come already.
        self._stores.expect_room()
        async with ReplayableBody(chunks) as body:
            # Orthanc closes a connection on which nothing comes for a second, and aiohttp keeps the head of a request
            # back until its body begins: how long that takes is the sender's affair.
            await body.begun()
            return await self._stored(body)

    async def store_whole(self, data: bytes) -> StoredInstance:
        """Stores one file that is here as a whole. Raises as `store`."""
        return await self._stored(WholeBody(data))

    async def _stored(self, body: Body) -> StoredInstance:
        try:
            return await self._told_of(body)
        except ServiceError as error:
            if body.handed_over and error.reason is not Reason.STORE_REFUSED:
                fate_unknown(error)
            raise

    async def _told_of(self, body: Body) -> StoredInstance:
        async with self._stores:
            try:
                async with asyncio.timeout(self._deadlines.store) as deadline:
                    status, content = await self._send(body, deadline)
            except TimeoutError as error:
                raise away() from error
        if status in {400, 404, 415} and answers.is_problem(content):
            raise ServiceError(Reason.STORE_REFUSED, "Orthanc refused the file. Validate it to learn what is wrong.")
        outcome = (await parse(answers.STATUS, ok(status, content))).status
        if outcome == "FilteredOut":
            raise ServiceError(Reason.STORE_REFUSED, "A filter of Orthanc's refused the file. Its Lua scripts say why.")
        stored = await parse(answers.STORED, content)
        return StoredInstance(stored.id, stored.study, already_stored=outcome == "AlreadyStored")

    async def fingerprint(self, orthanc_id: str, *, read_again: bool = True) -> Fingerprint | None:
        """Size and MD5 of what Orthanc keeps, which it reads again to prove it, unless it is to tell what it noted.
        Raises STORE_UNVERIFIED.

        An Orthanc that notes no MD5 (StoreMD5ForAttachments=false) must hand out the file instead.
        """
        path = f"/instances/{checked_id(orthanc_id)}/attachments/dicom"
        content = await self._find(f"{path}/info")
        if content is None:
            return None
        noted = await parse(answers.ATTACHMENT, content)
        if not noted.md5:
            return await self._hash(f"{path}/data")
        if not read_again:
            return Fingerprint(noted.size, noted.md5)
        status, content = await self._exchange("POST", f"{path}/verify-md5", seconds=self._deadlines.store)
        if status == 404:
            return None
        # 400: other bytes than were noted; 500: no bytes to be had.
        if status in {400, 500}:
            raise ServiceError(Reason.STORE_UNVERIFIED, "What Orthanc's storage holds is not what was stored there.")
        ok(status, content)
        return Fingerprint(noted.size, noted.md5)

    async def file(self, orthanc_id: str) -> AsyncGenerator[bytes, None]:
        """The bytes of an instance; none where there is none. The deadline is for each piece of them."""
        path = f"/instances/{checked_id(orthanc_id)}/file"
        try:
            async with AsyncExitStack() as opened:
                async with asyncio.timeout(self._deadlines.query):
                    await opened.enter_async_context(self._reads)
                    response = await opened.enter_async_context(self._http.answer("GET", path))
                if response.status_code == 404:
                    return
                expect_ok(response.status_code)
                chunks = pieces_of(response)
                while True:
                    async with asyncio.timeout(self._deadlines.query):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    yield chunk
        except (TimeoutError, BrokenError) as error:
            raise away() from error

    async def study_of(self, orthanc_id: str) -> PacsStudy | None:
        """The study of an instance."""
        content = await self._find(f"/instances/{checked_id(orthanc_id)}/study")
        return None if content is None else (await parse(answers.STUDY, content)).as_pacs_study()

    async def delete_instance(self, orthanc_id: str) -> None:
        """Deletes an instance; no error where there is none."""
        await self._delete(f"/instances/{checked_id(orthanc_id)}")

    async def delete_study(self, orthanc_study_id: str) -> None:
        """Deletes a study; no error where there is none."""
        await self._delete(f"/studies/{checked_id(orthanc_study_id)}")

    async def find_studies(
        self, wanted: StudyFilter, *, limit: int, order: Sequence[StudyOrder] = ()
    ) -> Sequence[PacsStudy]:
        """The studies that match exactly, in that order, at most `limit`. Raises INVALID_FIELD for a value that Orthanc
        would take for a pattern.

        Orthanc compares without regard to case, so its answer is filtered again here; where that leaves too few, it is
        asked for more.
        """
        query = query_of(wanted)
        if is_broad(wanted):
            try:
                async with asyncio.timeout(self._deadlines.query):
                    known = await self._directory.find(wanted, order)
            except TimeoutError as error:
                raise away() from error
            if known is not None:
                return known[:limit]
        asked = limit
        while True:
            studies = await self._studies(query, limit=asked, counted=wanted.modality is not None)
            found = [study for study in studies if matches(study.as_pacs_study(), wanted)]
            if wanted.modality is not None:
                counted = await self._counted(found)
                found = [study for study, counts in counted if wanted.modality in counts.modalities]
            if len(found) >= limit or len(studies) < asked:
                return in_order([study.as_pacs_study() for study in found[:limit]], order)
            asked *= 4

    async def contents(self, orthanc_study_ids: Collection[str]) -> Mapping[str, tuple[PacsStudy, Counts]]:
        """The studies as they are now, by their Orthanc ids, and what they hold; those that are gone are left out."""
        if not orthanc_study_ids:
            return {}
        body = {"Resources": [checked_id(one) for one in orthanc_study_ids], "Metadata": False}
        # One after the other: Orthanc's own database answers one at a time.
        studies = await self._post("/tools/bulk-content", {**body, "Level": "Study"})
        series = await self._post("/tools/bulk-content", {**body, "Level": "Series"})
        by_study: dict[str, list[answers.Series]] = {}
        for one in await parse(answers.SERIES, series):
            by_study.setdefault(one.study, []).append(one)
        found = {study.id: study for study in await parse(answers.STUDIES, studies) if study.id in by_study}
        contents = {
            key: (study.as_pacs_study(), answers.counts_of(study, by_study[key])) for key, study in found.items()
        }
        for study, _ in contents.values():
            self._directory.compare(study)
        return contents

    async def counts(self, study_uids: Collection[str]) -> Mapping[str, Counts]:
        """What the studies hold, by StudyInstanceUID, from one query (two of Orthanc before 1.11) for all of them.

        Where several patients have a study with the same UID, what they hold together. A UID that is unknown, or that
        Orthanc would take for a pattern, is left out.
        """
        query = "\\".join(filter(is_literal, sorted(set(study_uids))))
        if not query:
            return {}
        studies = await self._studies({"StudyInstanceUID": query}, counted=True)
        by_uid: dict[str, list[Counts]] = {}
        for study, counts in await self._counted(studies):
            by_uid.setdefault(study.tags.study_instance_uid, []).append(counts)
        return {uid: answers.sum_of(counts) for uid, counts in by_uid.items()}

    async def series(self, orthanc_study_id: str) -> Sequence[PacsSeries] | None:
        """The series of a study, by SeriesNumber."""
        content = await self._find(f"/studies/{checked_id(orthanc_study_id)}/series")
        if content is None:
            return None
        found = await parse(answers.SERIES, content)
        found.sort(key=lambda one: (answers.number(one.tags.series_number), one.id))
        return [one.as_pacs_series() for one in found]

    async def instances(self, orthanc_series_id: str) -> Sequence[str]:
        """The instances of a series, by InstanceNumber."""
        content = await self._find(f"/series/{checked_id(orthanc_series_id)}/instances")
        found = await parse(answers.INSTANCES, content) if content is not None else []
        found.sort(key=lambda one: (answers.number(one.tags.instance_number), one.id))
        return [one.id for one in found]

    async def picture(self, orthanc_id: str) -> bytes | None:
        """A PNG of an instance, of its first frame.

        One that says how it wants to be windowed, and one in colour, is rendered at thumbnail size. Any other would
        come out black so, and is taken as a preview, stretched from its darkest to its brightest value; one that is too
        large for an answer is rendered with its whole range of values for a window.
        """
        path = f"/instances/{checked_id(orthanc_id)}"
        window, photometric = await asyncio.gather(
            self._find(f"{path}/content/0028-1050"), self._find(f"{path}/content/0028-0004")
        )
        if window or (photometric and not photometric.startswith(b"MONOCHROME")):
            return await self._png(f"{path}/{_THUMBNAIL}")
        preview = await self._png(f"{path}/preview")
        if preview is None or len(preview) <= _PICTURE_BYTES:
            return preview
        # BitsStored and PixelRepresentation: both are US, two bytes.
        bits, signed = await asyncio.gather(
            self._find(f"{path}/content/0028-0101"), self._find(f"{path}/content/0028-0103")
        )
        width = 1 << min(16, (bits or b"\x08")[0])
        centre = 0 if signed and signed[0] else width // 2
        return await self._png(f"{path}/{_THUMBNAIL}&window-center={centre}&window-width={width}")

    async def last_change(self) -> int:
        """The number of the last entry of Orthanc's log of changes; 0 where that is empty."""
        log = await parse(answers.CHANGES, await self._asked("GET", "/changes?last", None))
        return log.changes[-1].number if log.changes else 0

    async def _studies(
        self, query: Mapping[str, str], *, limit: int = 0, counted: bool = False
    ) -> Sequence[answers.Study]:
        """The studies that Orthanc finds; 0 is no limit. `counted`: with what they hold, where Orthanc computes it."""
        body = {"Level": "Study", "Query": query, "Expand": True, "Limit": limit}
        tags = {"RequestedTags": STUDY_COUNTS} if counted else {}
        return await parse(answers.STUDIES, await self._post("/tools/find", {**body, **tags}))

    async def _counted(self, studies: Sequence[answers.Study]) -> Sequence[tuple[answers.Study, Counts]]:
        """The studies with what they hold: as Orthanc computed it, else from one query for all their series."""
        by_study: dict[str, list[answers.Series]] = {}
        uids = {study.tags.study_instance_uid for study in studies if study.computed is None}
        if query := "\\".join(filter(is_literal, sorted(uids))):
            wanted = {"Level": "Series", "Query": {"StudyInstanceUID": query}, "Expand": True}
            content = await self._post("/tools/find", wanted)
            for one in await parse(answers.SERIES, content):
                by_study.setdefault(one.study, []).append(one)
        return [(study, answers.counts_of(study, by_study.get(study.id, ()))) for study in studies]

    async def _hash(self, path: str) -> Fingerprint | None:
        """Size and MD5 of a file while it comes in."""
        digest, size = hashlib.md5(usedforsecurity=False), 0
        try:
            async with (
                asyncio.timeout(self._deadlines.store),
                self._reads,
                self._http.answer("GET", path) as response,
            ):
                if response.status_code == 404:
                    return None
                expect_ok(response.status_code)
                async for chunk in pieces_of(response):
                    digest.update(chunk)
                    size += len(chunk)
        except (TimeoutError, BrokenError) as error:
            raise away() from error
        return Fingerprint(size, digest.hexdigest())

    async def _png(self, path: str) -> bytes | None:
        status, content = await self._exchange("GET", path, seconds=self._deadlines.query)
        # 415: no pixel data, or such as Orthanc has no decoder for.
        if status in {400, 404, 415}:
            return None
        ok(status, content)
        return bytes(content) if content.startswith(_PNG) else None

    async def _find(self, path: str) -> bytearray | None:
        status, content = await self._exchange("GET", path, seconds=self._deadlines.query)
        return None if status == 404 else ok(status, content)

    async def _post(self, path: str, body: Mapping[str, object]) -> bytearray:
        return await self._asked("POST", path, body)

    async def _asked(self, method: str, path: str, body: Mapping[str, object] | None) -> bytearray:
        return ok(*await self._exchange(method, path, seconds=self._deadlines.query, json=body))

    async def _delete(self, path: str) -> None:
        status, content = await self._exchange("DELETE", path, seconds=self._deadlines.delete)
        if status != 404:
            ok(status, content)

    async def _exchange(
        self, method: str, path: str, *, seconds: float, queued: bool = True, **request: Any
    ) -> tuple[int, bytearray]:
        """Status and body of a call that is safe to repeat, within its deadline. Raises ORTHANC_UNAVAILABLE, and
        OVERLOADED where it is `queued`.
        """
        try:
            async with asyncio.timeout(seconds), self._reads if queued else nullcontext():
                for _ in range(_ATTEMPTS - 1):
                    try:
                        return await self._http.ask(method, path, **request)
                    except BrokenError:
                        await asyncio.sleep(_PAUSE_SECONDS)
                return await self._http.ask(method, path, **request)
        except (TimeoutError, BrokenError) as error:
            raise away() from error

    async def _send(self, body: Body, deadline: asyncio.Timeout) -> tuple[int, bytearray]:
        """Status and body of storing. Raises ORTHANC_UNAVAILABLE, and what the body's source raised."""
        attempts = 0
        while True:
            attempts += 1
            try:
                sent = putting_off(deadline, body.send(), seconds=self._deadlines.store)
                return await self._http.ask("POST", "/instances", stream=Stream(sent), headers=body.headers)
            except BrokenError as error:
                if body.failure is not None:
                    raise body.failure from None
                if attempts == _ATTEMPTS or not body.rewind():
                    raise away() from error
            await asyncio.sleep(_PAUSE_SECONDS)
