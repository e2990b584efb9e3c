"""Who may call what: every rpc with every role and without a good token, through Envoy and past it."""

import asyncio
import time
import uuid

import grpc
import httpx
import pytest
from google.api import httpbody_pb2
from google.protobuf import symbol_database  # noqa: F401 - the pools that the stubs below need
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_status import rpc_status

from deploy.local.people import USERS
from deploy.local.stack import Stack
from ris.pacs.v1 import (
    health_service_pb2,
    quarantine_service_pb2,
    registry_service_pb2,
    study_service_pb2,
    upload_service_pb2,
)
from ris.tags.v1 import tag_service_pb2
from service_runtime.status import error_of
from tests.e2e.client import API, REGISTRY, Client, expect_error
from tests.files import fresh_file

SERVICES = [
    module.DESCRIPTOR.services_by_name[name]
    for module, name in [
        (tag_service_pb2, "TagService"),
        (upload_service_pb2, "UploadService"),
        (study_service_pb2, "StudyService"),
        (quarantine_service_pb2, "QuarantineService"),
        (registry_service_pb2, "RegistryService"),
        (health_service_pb2, "HealthService"),
    ]
]
METHODS = {f"/{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods}
ROLES = [user.role for user in USERS]
# What asks for no token.
PUBLIC = {"CheckHealth", "GetReceiptKeys"}
QUARANTINE = {"ListQuarantinedFiles", "GetQuarantinedFile", "RetryQuarantinedFile", "DiscardQuarantinedFile"}
# What each role may not call; everything else it may. Written out by hand, from the contract.
FORBIDDEN = {
    "admin": set(),
    "radiologist": {"UpsertPatients", "UpsertOrders", "UpsertUsers", "GetUser", "ListUsers"},
    "technologist": {
        *{"UpsertPatients", "UpsertOrders", "UpsertUsers", "GetUser", "ListUsers", "DeleteStudy"},
        *QUARANTINE,
    },
    "viewer": {
        *{"UpsertPatients", "UpsertOrders", "UpsertUsers", "GetUser", "ListUsers", "DeleteStudy"},
        *{"Upload", "UploadMultiple", "Preflight", "ListUploadLogs", "GetUploadLog"},
        *{"CreateSession", "GetSession", "CompleteSession"},
        *QUARANTINE,
    },
    "service": {"DeleteStudy", *QUARANTINE},
}


def reason_of(channel: grpc.Channel, path: str, method: MethodDescriptor, token: str) -> str:
    """The reason that an otherwise wrong call fails for, "" where it does not fail.

    Without asyncio: grpc.aio may lose a refusal that comes while it still writes (grpc/grpc#36066).
    """
    request_class, response_class = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    request = (
        request_class(file=httpbody_pb2.HttpBody(data=b"no DICOM")) if method.client_streaming else request_class()
    )
    kind = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
    call = getattr(channel, "_".join(kind))(
        path, request_serializer=request_class.SerializeToString, response_deserializer=response_class.FromString
    )
    argument = iter([request]) if method.client_streaming else request
    try:
        answer = call(argument, metadata=metadata, timeout=20)
        if method.server_streaming:
            for _ in answer:
                pass
    except grpc.RpcError as error:
        for key, value in error.trailing_metadata() or ():
            if key == rpc_status.GRPC_DETAILS_METADATA_KEY:
                told = error_of(rpc_status.status_pb2.Status.FromString(value))
                return told.reason.value if told else "?"
        return f"? {error.code()} {error.details()}"
    return ""


def targets(stack: Stack, service: ServiceDescriptor) -> list[str]:
    """Envoy, and the service itself past Envoy."""
    own = stack.tag_service_target if service.full_name.startswith("ris.tags.") else stack.pacs_gateway_target
    return [stack.envoy_target, own]


@pytest.mark.parametrize("path", METHODS)
def test_roles_may_call_what_the_contract_says(stack: Stack, path: str) -> None:
    """Each role is let through to an rpc, or told that it is the role that may not, before anything is looked up."""
    method = METHODS[path]
    for target in targets(stack, method.containing_service):
        with grpc.insecure_channel(target) as channel:
            for role in ROLES:
                reason = reason_of(channel, path, method, stack.token(role=role))
                forbidden = method.name in FORBIDDEN[role]
                assert (reason == "ROLE_NOT_ALLOWED") == forbidden, (target, role, reason)
                assert not reason.startswith("?"), (target, role, reason)


@pytest.mark.parametrize("path", METHODS)
def test_every_rpc_but_the_public_asks_for_a_good_token(stack: Stack, path: str) -> None:
    """Without a token, or with one that is bad in any way, only health and the keys of receipts are told, at Envoy and
    at the service itself.
    """
    method = METHODS[path]
    other = uuid.uuid4()
    bad = {
        "": "TOKEN_MISSING",
        "abc": "TOKEN_INVALID",
        stack.token(exp=int(time.time()) - 3600): "TOKEN_EXPIRED",
        stack.token(exp=None): "TOKEN_INVALID",
        stack.token(iss="https://other.invalid"): "TOKEN_INVALID",
        stack.token(aud="other"): "TOKEN_INVALID",
        stack.token()[:-6] + "AAAAAA": "TOKEN_INVALID",
    }
    for target in targets(stack, method.containing_service):
        with grpc.insecure_channel(target) as channel:
            for token, wanted in bad.items():
                reason = reason_of(channel, path, method, token)
                assert reason == ("" if method.name in PUBLIC else wanted), (target, token[-20:])
            if method.containing_service.full_name.startswith("ris.pacs.") and method.name not in PUBLIC:
                stranger = reason_of(channel, path, method, stack.token(user_id=str(other)))
                assert stranger == "USER_NOT_ALLOWED"


async def test_json_callers_get_the_same_refusals(client: Client, stack: Stack) -> None:
    """Over JSON a refusal has its HTTP status and the same reason, Envoy's own among them."""
    path = f"{API}/studies"
    expect_error(await client.with_token("").send("GET", path), 401, "TOKEN_MISSING")
    expect_error(await client.with_token("abc").send("GET", path), 401, "TOKEN_INVALID")
    expired = stack.token(exp=int(time.time()) - 3600)
    expect_error(await client.with_token(expired).send("GET", path), 401, "TOKEN_EXPIRED")
    stranger = client.with_token(stack.token(user_id=str(uuid.uuid4())))
    expect_error(await stranger.send("GET", path), 403, "USER_NOT_ALLOWED")
    answer = await client.with_token("").send("GET", path, params={"access_token": client.token})
    assert answer.status_code == 401
    file = fresh_file()
    await client.stored(file)
    viewer = client.with_token(stack.token(role="viewer"))
    for uid in (file.study_uid, fresh_file().study_uid, "no-uid"):
        answer = await viewer.send("DELETE", f"{API}/studies/{uid}", params={"reason": "x"})
        expect_error(answer, 403, "ROLE_NOT_ALLOWED")
    assert await client.in_pacs(file.study_uid)
    expect_error(await viewer.upload(file.content), 403, "ROLE_NOT_ALLOWED")


async def test_a_token_that_was_good_is_refused_once_it_is_not(client: Client, stack: Stack) -> None:
    """Envoy, which remembers good tokens, still sees when one expires, and that another one is not it."""
    path, skew_seconds, left_seconds = f"{API}/studies?limit=1", 60, 6
    expires_at = int(time.time()) - skew_seconds + left_seconds
    token = stack.token(exp=expires_at)
    for _ in range(6):
        assert (await client.with_token(token).send("GET", path)).status_code == 200
    expect_error(await client.with_token(f"{token[:-6]}AAAAAA").send("GET", path), 401, "TOKEN_INVALID")
    await asyncio.sleep(expires_at + skew_seconds + 2 - time.time())
    for _ in range(6):
        refusal = expect_error(await client.with_token(token).send("GET", path), 401, "TOKEN_EXPIRED")
        assert refusal["message"] == "The token has expired: get a new one."  # Envoy's words


async def test_the_scheme_is_read_without_regard_to_case(client: Client) -> None:
    """`bearer` is the scheme that `Bearer` is (RFC 9110 11.1), and two tokens are none."""
    anybody, path = client.with_token(""), f"{API}/studies?limit=1"
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = await anybody.send("GET", path, headers={"authorization": f"{scheme} {client.token}"})
        assert answer.status_code == 200, answer.text
        twice = httpx.Headers([("authorization", f"{scheme} {client.token}")] * 2)
        answer = await client.http.request("GET", path, headers=twice)
        expect_error(answer, 401, "TOKEN_INVALID")
    answer = await anybody.send("GET", path, headers={"authorization": f"Basic {client.token}"})
    expect_error(answer, 401, "TOKEN_MISSING")


async def test_a_user_who_is_switched_off_is_out_at_once(client: Client, admin: Client, stack: Stack) -> None:
    """The token of a user stays good only as long as the registry says that the user is active."""
    user = {"id": str(uuid.uuid4()), "username": f"u{uuid.uuid4().hex}", "full_name": "Gone Soon", "role": "viewer"}
    answer = await admin.send("PUT", f"{REGISTRY}/users", json={"users": [user]})
    assert answer.status_code == 200, answer.text
    theirs = client.with_token(stack.token(user_id=user["id"]))
    assert (await theirs.send("GET", f"{API}/studies", params={"limit": 1})).status_code == 200
    await admin.send("PUT", f"{REGISTRY}/users", json={"users": [user | {"is_active": False}]})
    expect_error(await theirs.send("GET", f"{API}/studies"), 403, "USER_NOT_ALLOWED")
