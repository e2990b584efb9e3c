"""What the tests of the gateway's inside share."""

import pytest

from tests.unit.pacs_gateway.fakes import World


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What holds for uploads holds for files that are taken in as a whole, and for those that stream through."""
    if "world" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2].startswith("test_uploads_"):
        metafunc.parametrize("world", [True, False], ids=["whole", "streamed"], indirect=True)


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    """A world of plain fakes, new for each test."""
    return World(holds_files=getattr(request, "param", True))
