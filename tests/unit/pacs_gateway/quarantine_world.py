"""A world that has a quarantine, in a real folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs_gateway.adapters.quarantine_folder import DiskFolder
from pacs_gateway.use_cases.quarantine import Quarantine
from pacs_gateway.use_cases.quarantine_upkeep import QuarantineUpkeep
from pacs_gateway.use_cases.quarantined_files import QuarantinedFiles
from pacs_gateway.use_cases.streams import Keeping
from tests.unit.pacs_gateway.fakes import World

KEPT_BYTES = 20_000
DAYS = 30


@contextmanager
def quarantine_of(world: World, path: Path, *, held_bytes: int = 1_000_000) -> Iterator[Keeping]:
    """Gives the world a quarantine as long as the context lasts; what it holds of files."""
    folder, keeping = DiskFolder(str(path)), Keeping(held_bytes)
    world.quarantine = Quarantine(
        database=world.database,
        folder=folder,
        tag_service=world.tag_service,
        clock=world.clock,
        keeping=keeping,
        max_bytes=KEPT_BYTES,
    )
    try:
        yield keeping
    finally:
        world.quarantine = None
        folder.close()


@contextmanager
def folder_at(path: Path) -> Iterator[DiskFolder]:
    """The folder, as long as the context lasts."""
    folder = DiskFolder(str(path))
    try:
        yield folder
    finally:
        folder.close()


def desk_of(world: World, folder: DiskFolder) -> QuarantinedFiles:
    """Where it is decided about the files."""
    return QuarantinedFiles(
        database=world.database,
        folder=folder,
        uploads=world.uploads(),
        clock=world.clock,
        days=DAYS,
        lease_seconds=30,
    )


def upkeep_of(world: World, folder: DiskFolder) -> QuarantineUpkeep:
    """What looks after the files."""
    return QuarantineUpkeep(
        database=world.database,
        folder=folder,
        clock=world.clock,
        days=DAYS,
        lease_seconds=30,
        compare_seconds=0,
    )
