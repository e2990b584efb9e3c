"""The whole stack, started once for all these tests on free ports, and clients of its one front door."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from deploy.local.seed import seed
from deploy.local.stack import Existing, Stack
from tests.e2e.client import Client


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Every part, with the demo's people. ORTHANC_URL puts an existing Orthanc in the place of the embedded one.

    Limits are small, so that reaching them takes no time.
    """
    limits = {"MAX_DICOM_FILE_SIZE_MB": "8", "MAX_DICOM_FILES_PER_UPLOAD": "20", "MAX_UPLOAD_SIZE_MB": "24"}
    folder = Path(tmp_path_factory.mktemp("stack"))
    settings = {
        "tag_service": {**limits, "UPLOAD_IDLE_SECONDS": "2"},
        "pacs_gateway": {**limits, "UPLOAD_IDLE_SECONDS": "2", "QUARANTINE_DIR": str(folder / "quarantine")},
        "envoy": {"CORS_ORIGINS": "https://ris.example,http://localhost:3000"},
    }
    existing = Existing(orthanc=Existing.from_environment().orthanc)
    async with Stack(folder, settings=settings, existing=existing) as running:
        await seed(running)
        yield running


@pytest.fixture(scope="session")
async def client(stack: Stack) -> AsyncIterator[Client]:
    """A radiologist at Envoy's JSON."""
    async with httpx.AsyncClient(base_url=stack.base_url, timeout=60) as http:
        yield Client(http, stack.token(role="radiologist"))


@pytest.fixture(scope="session")
def admin(client: Client, stack: Stack) -> Client:
    """An admin at Envoy's JSON."""
    return client.with_token(stack.token(role="admin"))
