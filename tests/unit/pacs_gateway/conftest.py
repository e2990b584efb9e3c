"""What the tests of the gateway's inside share."""

import pytest

from tests.unit.pacs_gateway.fakes import World


@pytest.fixture
def world() -> World:
    """A world of plain fakes, new for each test."""
    return World()
