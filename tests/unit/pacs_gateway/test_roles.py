"""Which role may call which rpc, as the comments of the protos say."""

from dataclasses import replace
from uuid import UUID

import pytest

from pacs_gateway.api.roles import PUBLIC, ROLES, UserGatekeeper
from pacs_gateway.domain.registry import Role
from pacs_gateway.use_cases.registry import Registry
from ris.pacs.v1 import (
    health_service_pb2,
    quarantine_service_pb2,
    registry_service_pb2,
    study_service_pb2,
    upload_service_pb2,
)
from service_runtime.errors import Reason
from tests.unit.pacs_gateway.fake_database import database_away
from tests.unit.pacs_gateway.fakes import RADIOLOGIST, World, refused
from tests.unit.pacs_gateway.hooks import raising

# a: admin, r: radiologist, t: technologist, v: viewer, s: service; capital where the role may call the rpc.
MATRIX = {
    "UploadService/Upload": "A R T v S",
    "UploadService/UploadMultiple": "A R T v S",
    "UploadService/Preflight": "A R T v S",
    "UploadService/CreateSession": "A R T v S",
    "UploadService/GetSession": "A R T v S",
    "UploadService/CompleteSession": "A R T v S",
    "UploadService/ListUploadLogs": "A R T v S",
    "UploadService/GetUploadLog": "A R T v S",
    "StudyService/ListStudies": "A R T V S",
    "StudyService/GetStudy": "A R T V S",
    "StudyService/ListPatientStudies": "A R T V S",
    "StudyService/GetStudyByAccession": "A R T V S",
    "StudyService/DeleteStudy": "A R t v s",
    "StudyService/GetThumbnail": "A R T V S",
    "QuarantineService/ListQuarantinedFiles": "A R t v s",
    "QuarantineService/GetQuarantinedFile": "A R t v s",
    "QuarantineService/RetryQuarantinedFile": "A R t v s",
    "QuarantineService/DiscardQuarantinedFile": "A R t v s",
    "RegistryService/UpsertPatients": "A r t v S",
    "RegistryService/GetPatient": "A R T V S",
    "RegistryService/ListPatients": "A R T V S",
    "RegistryService/UpsertOrders": "A r t v S",
    "RegistryService/GetOrder": "A R T V S",
    "RegistryService/ListOrders": "A R T V S",
    "RegistryService/UpsertUsers": "A r t v S",
    "RegistryService/GetUser": "A r t v S",
    "RegistryService/ListUsers": "A r t v S",
}
LETTERS = {"a": Role.ADMIN, "r": Role.RADIOLOGIST, "t": Role.TECHNOLOGIST, "v": Role.VIEWER, "s": Role.SERVICE}
CASES = [
    pytest.param(f"/ris.pacs.v1.{rpc}", LETTERS[letter.lower()], letter.isupper(), id=f"{rpc}-{letter}")
    for rpc, row in MATRIX.items()
    for letter in row.split()
]


def rpcs() -> set[str]:
    """Every rpc of the gateway's own services."""
    files = (
        upload_service_pb2,
        study_service_pb2,
        quarantine_service_pb2,
        registry_service_pb2,
        health_service_pb2,
    )
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    return {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}


@pytest.fixture
def gatekeeper(world: World) -> UserGatekeeper:
    """The gatekeeper over the fakes."""
    return UserGatekeeper(Registry(database=world.database))


def test_every_rpc_has_its_roles_or_is_public() -> None:
    """No rpc is forgotten, none is both, and none is there that does not exist."""
    assert ROLES.keys() | PUBLIC == rpcs()
    assert not ROLES.keys() & PUBLIC
    assert {"/ris.pacs.v1.HealthService/CheckHealth", "/ris.pacs.v1.UploadService/GetReceiptKeys"} == PUBLIC


def test_the_matrix_has_every_rpc() -> None:
    """The table of this test is complete."""
    assert {f"/ris.pacs.v1.{rpc}" for rpc in MATRIX} == rpcs() - PUBLIC


@pytest.mark.parametrize(("method", "role", "allowed"), CASES)
async def test_the_matrix_holds(
    world: World,
    gatekeeper: UserGatekeeper,
    method: str,
    role: Role,
    allowed: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Each role is let in to exactly what the protos say."""
    world.database.tables.users[RADIOLOGIST.id] = replace(RADIOLOGIST, role=role)
    if not allowed:
        with refused(Reason.ROLE_NOT_ALLOWED):
            await gatekeeper.admit(method, RADIOLOGIST.id, "token")
        return
    caller = await gatekeeper.admit(method, RADIOLOGIST.id, "token")
    assert (caller.user_id, caller.token) == (RADIOLOGIST.id, "token")
    assert (caller.role, caller.full_name) == (role, RADIOLOGIST.full_name)


@pytest.mark.parametrize("role", Role)
async def test_an_rpc_that_nobody_knows_is_nobodys(world: World, gatekeeper: UserGatekeeper, role: Role) -> None:
    """What is not in the table is refused, also to admins."""
    world.database.tables.users[RADIOLOGIST.id] = replace(RADIOLOGIST, role=role)
    with refused(Reason.ROLE_NOT_ALLOWED):
        await gatekeeper.admit("/ris.pacs.v1.StudyService/DropEverything", RADIOLOGIST.id, "token")


async def test_a_stranger_is_not_let_in(gatekeeper: UserGatekeeper) -> None:
    """A good token whose subject is nobody in the users table opens nothing."""
    with refused(Reason.USER_NOT_ALLOWED):
        await gatekeeper.admit("/ris.pacs.v1.StudyService/ListStudies", UUID(int=404), "token")


async def test_a_user_who_was_switched_off_is_out_at_once(world: World, gatekeeper: UserGatekeeper) -> None:
    """Nothing of the call before is remembered."""
    method = "/ris.pacs.v1.StudyService/ListStudies"
    await gatekeeper.admit(method, RADIOLOGIST.id, "token")
    world.database.tables.users[RADIOLOGIST.id] = replace(RADIOLOGIST, is_active=False)
    with refused(Reason.USER_NOT_ALLOWED):
        await gatekeeper.admit(method, RADIOLOGIST.id, "token")


async def test_without_the_database_nobody_is_let_in(world: World, gatekeeper: UserGatekeeper) -> None:
    """Who cannot be looked up is not let in, and told to retry."""
    world.database.hooks.at("find_user", raising(database_away))
    with refused(Reason.DATABASE_UNAVAILABLE):
        await gatekeeper.admit("/ris.pacs.v1.StudyService/ListStudies", RADIOLOGIST.id, "token")
