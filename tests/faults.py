"""What the tests of faults and the campaign share: an Orthanc that misbehaves, and books that must agree."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from aiohttp import web

from deploy.local.orthanc import OrthancServer
from deploy.local.stack import Stack
from tests.files import SampleFile, fresh_file

# Impatient: what a gateway leaves is looked into within seconds.
BRISK = {"GATEWAY_LEASE_SECONDS": "1", "RECONCILE_INTERVAL_SECONDS": "0.5", "COMPARE_INTERVAL_SECONDS": "1"}
_SECONDS = 60
_STATES = "SELECT count(*) FROM dicom_upload_files WHERE state IN ('received', 'stored')"
_BUSY = "SELECT count(*) FROM dicom_upload_logs WHERE upload_status = 'in_progress'"
_COUNTED = """
SELECT orthanc_id, sop_instance_uid, stored_md5, stored_size_bytes FROM dicom_upload_files
 WHERE is_current AND state = 'verified' AND study_instance_uid = $1
"""
_READY = """
SELECT count(*) FROM dicom_upload_files WHERE state = 'received' AND stored_md5 <> '' AND study_instance_uid = $1
"""
_LOG = "SELECT number_of_files, total_size_bytes, is_deleted FROM dicom_upload_logs WHERE study_instance_uid = $1"


def resident_bytes(stack: Stack, part: str) -> int:
    """The memory that a part has now."""
    status = Path(f"/proc/{stack.pid(part)}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


async def kill(stack: Stack, part: str) -> None:
    """Ends a part with no chance to say goodbye, and sees it gone."""
    pid = stack.pid(part)
    os.kill(pid, signal.SIGKILL)
    await stack.stop(part)


def study_of(number: int) -> list[SampleFile]:
    """So many files of one new study."""
    first = fresh_file()
    return [first, *(fresh_file(like=first) for _ in range(number - 1))]


@dataclass
class Misbehaving:
    """An Orthanc in front of the real one, that does the next stores as it is told to.

    `fault` is one of: `500`; `garbage`, which stores and answers nonsense; `lost`, which says stored and keeps nothing;
    `before`, `during`, `after`, which stand still there for ever; `stalled`, which reads nothing until `go` is set; ""
    for none. `reached` is set when a fault is.
    """

    server: OrthancServer
    fault: str = ""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Misbehaving"]:
        """Takes requests as long as the context lasts."""
        auth = httpx.BasicAuth(self.server.username, self.server.password)
        async with httpx.AsyncClient(base_url=self.server.url, auth=auth, timeout=60) as self._real:
            app = web.Application(client_max_size=1 << 30)
            app.router.add_route("*", "/{path:.*}", self._answer)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield self
            finally:
                await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        fault = self.fault if (request.method, request.path) == ("POST", "/instances") else ""
        if fault == "stalled":
            self.reached.set()
            await self.go.wait()
        if fault == "during":
            await request.content.readany()
            await self._stand_still()
        body = await request.read()
        if fault == "before":
            await self._stand_still()
        if fault == "500":
            self.reached.set()
            return web.Response(status=500, text="secret")
        answer = await self._real.request(request.method, str(request.rel_url), content=body)
        if fault == "after":
            await self._stand_still()
        if fault == "lost":
            await self._real.delete(f"/instances/{answer.json()['ID']}")
        if fault:
            self.reached.set()
        if fault == "garbage":
            return web.Response(text="<html>secret</html>")
        return web.Response(status=answer.status_code, body=answer.content)

    async def _stand_still(self) -> None:
        self.reached.set()
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Books:
    """The ledger and the logs on one side, Orthanc on the other."""

    stack: Stack

    async def settled(self) -> None:
        """Waits until the fate of every file is known."""
        async with asyncio.timeout(_SECONDS), self._database() as database:
            while await database.fetchval(_STATES) or await database.fetchval(_BUSY):  # noqa: ASYNC110 - others' work
                await asyncio.sleep(0.1)

    async def ready(self, study_uid: str, number: int) -> None:
        """Waits until all of so many files of the study has come, and none is stored yet."""
        async with asyncio.timeout(_SECONDS), self._database() as database:
            while await database.fetchval(_READY, study_uid) < number:  # noqa: ASYNC110 - others' work
                await asyncio.sleep(0.05)

    async def check(self, study_uid: str, told: Iterable[dict[str, Any]] = ()) -> int:
        """The number of instances of the study, on which all agree: Orthanc, by what lies on its disk, the ledger, and
        the log. Every file that was told to be stored is among them.
        """
        server = self.stack.orthanc
        auth = httpx.BasicAuth(server.username, server.password)
        async with self._database() as database, httpx.AsyncClient(base_url=server.url, auth=auth) as orthanc:
            counted = {row["orthanc_id"]: row for row in await database.fetch(_COUNTED, study_uid)}
            log = await database.fetchrow(_LOG, study_uid)
            query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid}}
            held = set((await orthanc.post("/tools/find", json=query)).raise_for_status().json())
            assert held == set(counted), f"{len(held)} in Orthanc, {len(counted)} in the ledger"
            for orthanc_id, row in counted.items():
                content = (await orthanc.get(f"/instances/{orthanc_id}/file")).raise_for_status().content
                digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
                assert (digest, len(content)) == (row["stored_md5"], row["stored_size_bytes"])
        for result in told:
            assert result["orthanc_id"] in counted, "told stored, and is not"
        if log is not None and not log["is_deleted"]:
            assert log["number_of_files"] == len(counted)
            assert log["total_size_bytes"] == sum(row["stored_size_bytes"] for row in counted.values())
        return len(held)

    @asynccontextmanager
    async def _database(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.stack.database_url, timeout=5)
        try:
            yield connection
        finally:
            await connection.close(timeout=5)


@dataclass
class Uploading:
    """Sends files, a few at a time, and keeps what it was told. With `request_ids` each file keeps one of its own."""

    send: Callable[..., Awaitable[httpx.Response]]
    request_ids: bool = False
    told: list[dict[str, Any]] = field(default_factory=list)
    failed: list[SampleFile] = field(default_factory=list)

    async def upload(self, files: Iterable[SampleFile], *, at_once: int = 4) -> None:
        """Sends each file once."""
        places = asyncio.Semaphore(at_once)

        async def one(file: SampleFile) -> None:
            async with places:
                answer = None
                with suppress(httpx.TransportError):
                    answer = await self.send(file.content, request_id=file.sop_uid if self.request_ids else "")
                if answer is not None and answer.status_code == 200:
                    self.told.append(answer.json())
                else:
                    self.failed.append(file)

        await asyncio.gather(*map(one, files))

    async def again(self, *, seconds: float = 60) -> None:
        """Sends what failed again, until nothing fails."""
        async with asyncio.timeout(seconds):
            while self.failed:
                files, self.failed = self.failed, []
                await self.upload(files)
                if self.failed:
                    await asyncio.sleep(0.2)
