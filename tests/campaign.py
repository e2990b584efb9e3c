"""python -m tests.campaign: kills the gateway at random moments of uploads, and holds the books to each other.

For each kill, an upload of some files is begun, the gateway is killed (-9) at a random moment of it and started again,
the reconciler finds out what is there, and what failed is sent again under the request ids that it had. Wrong is a file
that was told to be stored and is not in Orthanc with the right digest, and one that is logged as stored and is not, or
the other way round. Not among the tests: a hundred kills take some ten minutes.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

import httpx

from deploy.local.seed import seed
from deploy.local.stack import Stack
from tests.e2e.client import Client
from tests.faults import BRISK, Books, Uploading, kill, study_of
from tests.files import SampleFile


async def run(*, kills: int, files: int, seed_number: int) -> int:
    """The number of rounds after which the books did not agree."""
    chance = random.Random(seed_number)  # noqa: S311 - moments, no secrets
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Stack(Path(folder), settings={"pacs_gateway": BRISK}) as stack,
            httpx.AsyncClient(base_url=stack.base_url, timeout=60) as http,
        ):
            await seed(stack)
            client = Client(http, stack.token(role="radiologist"))
            done = 0
            while done < kills:
                study = study_of(files)
                uploading, books = Uploading(client.upload, request_ids=True), Books(stack)
                waiting = list(study)
                while waiting and done < kills:
                    waiting = await _interrupted(stack, uploading, waiting, chance)
                    done += 1
                    await books.settled()
                    try:
                        await books.check(study[0].study_uid, uploading.told)
                    except AssertionError as error:
                        wrong += 1
                        print(f"kill {done}: {error}", flush=True)  # noqa: T201 - a command
                    print(f"kill {done}: {len(uploading.told)} of {files} told", flush=True)  # noqa: T201
                await uploading.upload(waiting)
                await uploading.again()
                await books.settled()
                held = await books.check(study[0].study_uid, uploading.told)
                wrong += held != files
                print(f"study complete: {held} of {files} held", flush=True)  # noqa: T201
    return wrong


async def _interrupted(
    stack: Stack, uploading: Uploading, files: list[SampleFile], chance: random.Random
) -> list[SampleFile]:
    """Uploads the files until the gateway is killed, and starts it again; those of them that were not told stored."""
    running = asyncio.create_task(uploading.upload(files))
    await asyncio.sleep(chance.uniform(0.05, 1.5))
    await kill(stack, "pacs_gateway")
    await running
    await stack.start("pacs_gateway")
    failed, uploading.failed = uploading.failed, []
    return failed


def main() -> int:
    """Runs the campaign; the exit status says whether all was well."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began = time.monotonic()
    wrong = asyncio.run(run(kills=arguments.kills, files=arguments.files, seed_number=arguments.seed))
    print(f"{arguments.kills} kills in {time.monotonic() - began:.0f} s: {wrong} times wrong")  # noqa: T201
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
