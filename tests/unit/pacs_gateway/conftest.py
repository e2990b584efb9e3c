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


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which what is waited for never comes, or comes at the next try: little of the product's waiting."""
    monkeypatch.setattr("pacs_gateway.use_cases.storing._WAIT_SECONDS", 0.1)
    monkeypatch.setattr("pacs_gateway.use_cases.streams._PAUSE_SECONDS", 0.1)
    monkeypatch.setattr("pacs_gateway.use_cases.replacing._PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("pacs_gateway.use_cases.replacing._SECONDS", 2.0)
