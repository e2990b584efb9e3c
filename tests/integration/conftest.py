"""The real servers that these tests need, started once for all of them, on free ports, and stopped at the end."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.orthanc import OrthancServer
from deploy.local.stack import Existing, Stack
from tests.integration.databases import empty_database, migrate


@pytest.fixture(scope="session")
async def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The URL of an empty database on a PostgreSQL of the tests' own."""
    async with Stack(Path(tmp_path_factory.mktemp("postgres")), parts=("postgres",)) as stack:
        yield stack.database_url


@pytest.fixture(scope="session")
async def migrated_url(postgres_url: str) -> AsyncIterator[str]:
    """The URL of a database with all tables there, which is copied and otherwise left alone."""
    async with empty_database(postgres_url) as url:
        await migrate(url)
        yield url


@pytest.fixture(scope="session")
async def orthanc_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OrthancServer]:
    """An Orthanc: the one at ORTHANC_URL, else one of the tests' own."""
    existing = Existing(orthanc=Existing.from_environment().orthanc)
    async with Stack(Path(tmp_path_factory.mktemp("orthanc")), parts=("orthanc",), existing=existing) as stack:
        yield stack.orthanc
