"""Storing many small files: through Envoy and the gateway, against posting them to Orthanc directly."""

import asyncio
import tempfile
import time
from pathlib import Path

import httpx

from deploy.local.seed import seed
from deploy.local.stack import Stack
from tests.files import SampleFile, fresh_file

FILES = 100
AT_ONCE = 8
ROUNDS = 3


async def run() -> None:
    """Prints files a second for each way and the ratio to Orthanc alone."""
    with tempfile.TemporaryDirectory() as folder:
        async with Stack(Path(folder)) as stack:
            await seed(stack)
            await _compare(stack)


async def _compare(stack: Stack) -> None:
    auth = (stack.orthanc.username, stack.orthanc.password)
    headers = {"Authorization": f"Bearer {stack.token()}"}
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with (
        httpx.AsyncClient(base_url=stack.orthanc.url, auth=auth, limits=limits, timeout=60) as orthanc,
        httpx.AsyncClient(base_url=stack.base_url, headers=headers, limits=limits, timeout=120) as envoy,
    ):

        async def direct(file: SampleFile) -> None:
            (await orthanc.post("/instances", content=file.content)).raise_for_status()

        async def upload(file: SampleFile) -> None:
            answer = await envoy.post("/api/v1/dicom/upload", files={"file": ("x.dcm", file.content)})
            answer.raise_for_status()

        async def many(files: list[SampleFile]) -> None:
            parts = [("files", (f"{n}.dcm", file.content)) for n, file in enumerate(files)]
            answer = await envoy.post("/api/v1/dicom/upload-multiple", files=parts)
            assert all(result["success"] for result in answer.json())

        async def at_once(way: object, files: list[SampleFile]) -> None:
            places = asyncio.Semaphore(AT_ONCE)

            async def one(file: SampleFile) -> None:
                async with places:
                    await way(file)  # type: ignore[operator]

            await asyncio.gather(*map(one, files))

        ways = {
            "Orthanc alone": lambda files: at_once(direct, files),
            f"upload, {AT_ONCE} at once": lambda files: at_once(upload, files),
            "upload-multiple, one study": many,
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                files = _study()
                began = time.perf_counter()
                await way(files)
                rates[name].append(FILES / (time.perf_counter() - began))
    best = sorted(rates["Orthanc alone"])[ROUNDS // 2]
    for name, found in rates.items():
        median = sorted(found)[ROUNDS // 2]
        print(f"{name:<28}{median:>8.1f} files/s{median / best:>8.2f} of Orthanc alone")


def _study() -> list[SampleFile]:
    first = fresh_file()
    return [first, *(fresh_file(like=first) for _ in range(FILES - 1))]
