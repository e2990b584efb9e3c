"""Puts the demo's users, patients and orders into the registry, the way a RIS back end does: over gRPC."""

from dataclasses import asdict

import grpc

from deploy.local.people import ORDERS, PATIENTS, USERS, user_with_role
from deploy.local.process import PartError, python, python_environment, run_to_end
from deploy.local.stack import Stack
from ris.pacs.v1 import registry_service_pb2, registry_service_pb2_grpc

_SECONDS = 30


async def seed(stack: Stack) -> None:
    """Makes the demo's people and orders known to the gateway of the stack, which may have no Envoy yet. Doing it again
    changes nothing. Raises PartError.
    """
    users = registry_service_pb2.UpsertUsersRequest(users=[registry_service_pb2.User(**asdict(user)) for user in USERS])
    patients = registry_service_pb2.UpsertPatientsRequest(
        patients=[registry_service_pb2.Patient(**asdict(patient)) for patient in PATIENTS]
    )
    orders = registry_service_pb2.UpsertOrdersRequest(
        orders=[registry_service_pb2.Order(**asdict(order)) for order in ORDERS]
    )
    # The first user cannot come through the registry, which asks for a user who may.
    await add_user(stack, role="admin")
    metadata = (("authorization", f"Bearer {stack.token(role='admin')}"),)
    async with grpc.aio.insecure_channel(stack.pacs_gateway_target) as channel:
        registry = registry_service_pb2_grpc.RegistryServiceStub(channel)
        try:
            await registry.UpsertUsers(users, metadata=metadata, timeout=_SECONDS)
            await registry.UpsertPatients(patients, metadata=metadata, timeout=_SECONDS)
            await registry.UpsertOrders(orders, metadata=metadata, timeout=_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise PartError(f"The registry refused the demo's people: {error.code().name} {error.details()}") from None


async def add_user(stack: Stack, *, role: str) -> None:
    """Adds the demo user with that role to the stack's database, past the registry. Raises PartError."""
    user = user_with_role(role)
    words = ["--id", user.id, "--username", user.username, "--full-name", user.full_name, "--role", user.role]
    await run_to_end(
        "pacs_gateway add-user",
        python("-m", "pacs_gateway", "add-user", *words),
        log=stack.log("add-user"),
        env=python_environment(stack.gateway_settings),
    )
