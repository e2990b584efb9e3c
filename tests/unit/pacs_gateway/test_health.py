"""Whether everything that the gateway stands on is there."""

import asyncio

import pytest

from pacs_gateway.use_cases import health as use_case
from pacs_gateway.use_cases.health import Health, PartHealth
from tests.unit.pacs_gateway.fakes import World, orthanc_away
from tests.unit.pacs_gateway.hooks import Gate, raising


@pytest.fixture
def health(world: World) -> Health:
    """The use case over the fakes."""
    return Health(
        {"orthanc": world.pacs.check, "database": world.database.check, "tag_service": world.tag_service.check}
    )


async def test_parts_that_are_well_tell_their_version(health: Health) -> None:
    """Each part is named, in order, with what its check says."""
    assert await health.parts() == (
        PartHealth("orthanc", healthy=True, message="1.12.0"),
        PartHealth("database", healthy=True, message="18.0"),
        PartHealth("tag_service", healthy=True, message=""),
    )
    assert await health.is_healthy()


async def test_a_part_that_is_away_does_not_hide_the_others(world: World, health: Health) -> None:
    """One part away is told with its reason; the others are as they are."""
    world.pacs.hooks.at("check", raising(orthanc_away))
    parts = {part.name: part for part in await health.parts()}
    assert not parts["orthanc"].healthy
    assert parts["orthanc"].message == orthanc_away().message
    assert parts["database"].healthy
    assert parts["tag_service"].healthy
    assert not await health.is_healthy()


async def test_a_part_that_does_not_answer_is_away_in_time(
    world: World, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts that hang are found out at the same time, each within its seconds."""
    monkeypatch.setattr(use_case, "_CHECK_SECONDS", 0.2)
    world.pacs.hooks.at("check", Gate())
    world.database.hooks.at("begin", Gate())
    world.tag_service.hooks.at("read", Gate())
    started = asyncio.get_running_loop().time()
    parts = await health.parts()
    assert asyncio.get_running_loop().time() - started < 0.5
    assert [part.healthy for part in parts] == [False, False, False]
    assert all("0.2 seconds" in part.message for part in parts)


def test_a_part_has_five_seconds() -> None:
    """The bound is the one that the contract names."""
    assert use_case._CHECK_SECONDS == 5
