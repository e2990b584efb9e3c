"""A large file through Envoy and the gateway: how fast, and how much memory the services take for it."""

import tempfile
import time
from pathlib import Path

import httpx

from deploy.local.seed import seed
from deploy.local.stack import Stack
from tests.files import fresh_file

MIB = 1024 * 1024
SIZE = 95 * MIB


async def run() -> None:
    """Prints the throughput, and each service's peak memory before and after."""
    with tempfile.TemporaryDirectory() as folder:
        async with Stack(Path(folder)) as stack:
            await seed(stack)
            headers = {"Authorization": f"Bearer {stack.token()}", "content-type": "application/dicom"}
            async with httpx.AsyncClient(base_url=stack.base_url, headers=headers, timeout=120) as client:
                before = _peaks(stack)
                for path in ("read-tags", "validate", "modify-tags", "upload"):
                    content = fresh_file(PixelData=bytes(SIZE)).content
                    began = time.perf_counter()
                    answer = await client.post(f"/api/v1/dicom/{path}", content=content)
                    taken = time.perf_counter() - began
                    assert answer.is_success, answer.text
                    peaks = ", ".join(f"{name} {peak} MiB" for name, peak in _peaks(stack).items())
                    print(f"{path:<12}{SIZE / MIB / taken:>8.0f} MiB/s   peak memory so far: {peaks}")
                print(f"{'':<12}{'':>8}         before: {before}")


def _peaks(stack: Stack) -> dict[str, int]:
    """The peak resident memory of each service, in MiB."""
    peaks = {}
    for name in ("tag_service", "pacs_gateway", "envoy"):
        status = Path(f"/proc/{stack.pid(name)}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        peaks[name] = int(line.split()[1]) // 1024
    return peaks
