"""Studies that are listed, got and shown, where the PACS holds 10,000 of them."""

import json
import statistics
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from bench.case import Finding, Group, Row, at_least, at_most
from bench.clients.bare_grpc import BareGrpcLoad
from bench.clients.grpc_client import Call, GrpcLoad, Reply
from bench.clients.http import HttpLoad, Request, basic
from bench.files import File, Whose, ct_slices, tiny
from bench.lab import Lab
from bench.rounds import Turn, Way, in_turns, median_seconds
from deploy.local.stack import Stack
from ris.pacs.v1 import study_service_pb2

STUDIES: Final = 10_000
PAGE: Final = 100
ROUNDS: Final = 5
# Of each, in a turn.
LISTS: Final = 3
GETS: Final = 1000
CLIENTS: Final = 32
PICTURES: Final = 20
_LATE: Final = STUDIES - 5 * PAGE
_WRONG: Final = "a page holds less than it must"
_SERVICE: Final = "/ris.pacs.v1.StudyService"


async def _measure(lab: Lab, wanted: frozenset[str]) -> AsyncIterator[Finding]:
    stack = await lab.stack(new=True)
    studies = _Studies(lab, stack)
    await studies.post(tiny().studies(STUDIES, Whose("BENCH-MANY")))
    if wanted & {"list-first", "list-late"}:
        for case, what, since in (("list-first", "first", 0), ("list-late", "late", _LATE)):
            if case in wanted:
                yield await _list(studies, case, what, since, rounds=lab.rounds(ROUNDS))
    if "get-study" in wanted:
        yield await _get(studies)
    if "thumbnail" in wanted:
        yield await _show(studies)
    await lab.close()  # nobody else wants so many studies


class _Studies:
    """The studies, and who asks for them."""

    def __init__(self, lab: Lab, stack: Stack) -> None:
        self._lab = lab
        self._stack = stack
        self._auth = basic(stack.orthanc.username, stack.orthanc.password)

    async def post(self, files: Sequence[File]) -> None:
        """Puts files into Orthanc."""
        requests = [Request("/instances", (self._auth,), (file,)) for file in files]
        await self._ask_orthanc(requests, connections=8)

    async def find_page(self, since: int) -> Turn:
        """Orthanc's own pages, of the same fields."""
        query = {"Level": "Study", "Query": {}, "Expand": True, "Since": since, "Limit": PAGE}
        body = File(json.dumps(query).encode(), b"", 0)
        turn, pages = await self._ask_orthanc([Request("/tools/find", (self._auth,), (body,))] * LISTS, connections=1)
        assert all(len(page) == PAGE for page in pages), _WRONG
        return turn

    async def list_page(self, page_token: str) -> Turn:
        """Our pages."""
        request = study_service_pb2.ListStudiesRequest(limit=PAGE, page_token=page_token)
        turn, replies = await self.call("ListStudies", [request] * LISTS)
        pages = [study_service_pb2.ListStudiesResponse.FromString(one.messages[0]) for one in replies]
        assert all(len(page.studies) == PAGE and page.total_size == STUDIES for page in pages), _WRONG
        return turn

    async def uids(self, limit: int, *, patient_id: str = "") -> tuple[Sequence[str], str]:
        """Some of the studies, and the token of the page behind them."""
        uids: list[str] = []
        token = ""
        while len(uids) < limit:
            size = min(1000, limit - len(uids))
            request = study_service_pb2.ListStudiesRequest(limit=size, page_token=token, dicom_patient_id=patient_id)
            _, (reply,) = await self.call("ListStudies", [request])
            page = study_service_pb2.ListStudiesResponse.FromString(reply.messages[0])
            assert page.studies, "there are fewer studies than were stored"
            uids += [study.study_instance_uid for study in page.studies]
            token = page.next_page_token
        return uids, token

    async def call(self, method: str, requests: Sequence[Any], *, at_once: int = 1) -> tuple[Turn, Sequence[Reply]]:
        """One call a request. Raises what fails."""
        calls = tuple(Call((), request) for request in requests)
        target, token = self._stack.pacs_gateway_target, self._stack.token()
        return await self._lab.timed(GrpcLoad(target, f"{_SERVICE}/{method}", calls, token, at_once))

    async def pictures(self, uids: Sequence[str]) -> Sequence[Reply]:
        """The picture of each of these, one after the other, by a client that takes next to no time for one."""
        calls = tuple(Call((), study_service_pb2.GetThumbnailRequest(study_uid=uid)) for uid in uids)
        method = f"{_SERVICE}/GetThumbnail"
        load = BareGrpcLoad(self._stack.ports.pacs_gateway, method, calls, self._stack.token(), connections=1)
        return (await self._lab.timed(load))[1]

    async def _ask_orthanc(self, requests: Sequence[Request], *, connections: int) -> tuple[Turn, list[Any]]:
        turn, answers = await self._lab.timed(HttpLoad(self._stack.ports.orthanc, tuple(requests), connections))
        assert all(one.status == 200 for one in answers), "Orthanc refuses"
        return turn, [json.loads(one.body) for one in answers]


async def _list(studies: _Studies, case: str, what: str, since: int, *, rounds: int) -> Row:
    token = (await studies.uids(since))[1] if since else ""
    ways: dict[str, Way] = {"ours": lambda: studies.list_page(token), "theirs": lambda: studies.find_page(since)}
    turns = await in_turns(ways, rounds=rounds)
    ours, theirs = (median_seconds(turns[name]) / LISTS * 1000 for name in ("ours", "theirs"))
    words = f"ListStudies, {what} 100 of 10,000"
    return Row(case, words, ours, "ms", reference=theirs, bar=at_most(1.3), against="Orthanc's /tools/find")


async def _get(studies: _Studies) -> Row:
    uids, _ = await studies.uids(GETS)
    requests = [study_service_pb2.GetStudyRequest(study_uid=uid) for uid in uids]
    turn, replies = await studies.call("GetStudy", requests, at_once=CLIENTS)
    taken = sorted(reply.seconds * 1000 for reply in replies)
    middle, late = statistics.median(taken), taken[len(taken) * 99 // 100]
    note = f"{len(taken) / turn.seconds:.0f} calls/s, no errors"
    what = f"p99 of GetStudy, {CLIENTS} clients"
    return Row("get-study", what, late, "ms", reference=middle, bar=at_most(5), against="p50", note=note)


async def _show(studies: _Studies) -> Row:
    """Each picture twice, one after the other. The rate, so that more is better."""
    patient = "BENCH-PICTURES"
    await studies.post(ct_slices().studies(PICTURES, Whose(patient)))
    uids, _ = await studies.uids(PICTURES, patient_id=patient)
    replies = await studies.pictures([uid for uid in uids for _ in range(2)])
    first, second = (statistics.median(one.seconds for one in replies[start::2]) for start in (0, 1))
    note = f"{second * 1000:.1f} ms, {first * 1000:.1f} ms the first time"
    what, bar = "the same thumbnail again", at_least(10)
    return Row("thumbnail", what, 1 / second, "1/s", reference=1 / first, bar=bar, against="first time", note=note)


GROUPS: Final = (Group(("list-first", "list-late", "get-study", "thumbnail"), _measure),)
