"""ris.pacs.v1.RegistryService: what may be put, and how it is told."""

from datetime import date
from typing import Any
from uuid import UUID

import pytest

from pacs_gateway.api.registry_service import RegistryServicer
from pacs_gateway.domain.registry import Role
from pacs_gateway.use_cases.registry import Registry
from ris.pacs.v1 import registry_service_pb2 as pb
from service_runtime.errors import InvalidFieldError, Reason
from tests.unit.pacs_gateway.fake_context import FakeContext
from tests.unit.pacs_gateway.fakes import JONES, ORDER_OF_SMITH, SMITH, World, refused

NOBODY = str(UUID(int=404))
PATIENT = {"mrn": "M9", "full_name": "New^Nina", "birth_date": "1999-09-09", "sex": "F"}
ORDER = {"patient_id": str(SMITH.id), "accession_number": "A9", "modality": "MR", "status": "scheduled"}
USER = {"username": "nina", "full_name": "Nina", "role": "viewer"}


@pytest.fixture
def servicer(world: World) -> RegistryServicer:
    """The servicer over the fakes."""
    return RegistryServicer(registry=Registry(database=world.database))


async def wrong_fields(call: Any) -> list[str]:
    """Which fields of a request are wrong."""
    with pytest.raises(InvalidFieldError) as raised:
        await call
    return [violation.field for violation in raised.value.violations]


async def upsert(servicer: RegistryServicer, kind: str, *entries: dict[str, Any]) -> Any:
    """The answer to an upsert of patients, orders or users."""
    message = {"patients": pb.Patient, "orders": pb.Order, "users": pb.User}[kind]
    request = getattr(pb, f"Upsert{kind.title()}Request")(**{kind: [message(**entry) for entry in entries]})
    return getattr(await getattr(servicer, f"Upsert{kind.title()}")(request, FakeContext()), kind)


async def test_a_patient_is_put_and_got(world: World, servicer: RegistryServicer) -> None:
    """What is put is told back, kept, and got by its id; a provisional mark in an upsert is ignored."""
    (patient,) = await upsert(servicer, "patients", PATIENT | {"is_provisional": True})
    kept = world.database.tables.patients[UUID(patient.id)]
    assert (kept.mrn, kept.full_name, kept.birth_date, kept.sex) == ("M9", "New^Nina", date(1999, 9, 9), "F")
    assert not kept.is_provisional
    got = await servicer.GetPatient(pb.GetPatientRequest(id=patient.id), FakeContext())
    assert got.patient == patient


async def test_an_order_is_put_and_got(world: World, servicer: RegistryServicer) -> None:
    """What is put is told back, kept, and got by its id; the DICOM fields of an upsert are ignored."""
    (order,) = await upsert(servicer, "orders", ORDER | {"study_instance_uid": "1.2.3", "number_of_series": 7})
    assert world.database.tables.orders[UUID(order.id)].study is None
    assert order.study_instance_uid == ""
    got = await servicer.GetOrder(pb.GetOrderRequest(id=order.id), FakeContext())
    assert got.order == order


@pytest.mark.parametrize(("given", "kept"), [({}, True), ({"is_active": True}, True), ({"is_active": False}, False)])
async def test_a_user_is_put_and_got(
    world: World,
    servicer: RegistryServicer,
    given: dict[str, bool],
    kept: bool,  # noqa: FBT001 - a parameter
) -> None:
    """A user is active unless the upsert says otherwise."""
    (user,) = await upsert(servicer, "users", USER | given)
    assert world.database.tables.users[UUID(user.id)].is_active == kept
    assert world.database.tables.users[UUID(user.id)].role is Role.VIEWER
    got = await servicer.GetUser(pb.GetUserRequest(id=user.id), FakeContext())
    assert got.user == user


@pytest.mark.parametrize(
    ("kind", "entry", "wrong"),
    [
        ("patients", PATIENT, {"id": "x"}),
        ("patients", PATIENT, {"mrn": ""}),
        ("patients", PATIENT, {"mrn": "*"}),
        ("patients", PATIENT, {"mrn": "x" * 65}),
        ("patients", PATIENT, {"mrn": "M9 "}),
        ("patients", PATIENT, {"full_name": ""}),
        ("patients", PATIENT, {"full_name": "x" * 256}),
        ("patients", PATIENT, {"full_name": "a\\b"}),
        ("patients", PATIENT, {"full_name": "a=b"}),
        ("patients", PATIENT, {"full_name": "a\nb"}),
        ("patients", PATIENT, {"birth_date": "19990909"}),
        ("patients", PATIENT, {"birth_date": "1999-02-29"}),
        ("patients", PATIENT, {"sex": "female"}),
        ("orders", ORDER, {"id": "x"}),
        ("orders", ORDER, {"patient_id": ""}),
        ("orders", ORDER, {"patient_id": "x"}),
        ("orders", ORDER, {"accession_number": ""}),
        ("orders", ORDER, {"accession_number": "x" * 17}),
        ("orders", ORDER, {"accession_number": "A?"}),
        ("orders", ORDER, {"modality": "x" * 17}),
        ("orders", ORDER, {"modality": "C\x00T"}),
        ("orders", ORDER, {"status": ""}),
        ("orders", ORDER, {"status": "x" * 21}),
        ("users", USER, {"id": "x"}),
        ("users", USER, {"username": ""}),
        ("users", USER, {"username": "x" * 151}),
        ("users", USER, {"full_name": " "}),
        ("users", USER, {"role": "root"}),
        ("users", USER, {"role": ""}),
    ],
)
async def test_a_wrong_value_is_told_with_its_entry(
    world: World, servicer: RegistryServicer, kind: str, entry: dict[str, str], wrong: dict[str, str]
) -> None:
    """The violation names the entry and the field; nothing of the request is kept."""
    (field,) = wrong
    assert await wrong_fields(upsert(servicer, kind, entry, entry | wrong)) == [f"{kind}[1].{field}"]
    assert world.database.hooks.passed["commit"] == 0


@pytest.mark.parametrize(("kind", "entry"), [("patients", PATIENT), ("orders", ORDER), ("users", USER)])
async def test_an_upsert_has_one_to_a_thousand_entries(
    servicer: RegistryServicer, kind: str, entry: dict[str, str]
) -> None:
    """None and too many are refused, without a violation for each of those too many."""
    assert await wrong_fields(upsert(servicer, kind)) == [kind]
    assert await wrong_fields(upsert(servicer, kind, *[entry] * 1001)) == [kind]


async def test_an_order_of_an_unknown_patient_is_refused(servicer: RegistryServicer) -> None:
    """The patient must be registered first."""
    with refused(Reason.PATIENT_NOT_FOUND):
        await upsert(servicer, "orders", ORDER | {"patient_id": NOBODY})


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("Patient", Reason.PATIENT_NOT_FOUND),
        ("Order", Reason.ORDER_NOT_FOUND),
        ("User", Reason.USER_NOT_FOUND),
    ],
)
async def test_what_is_got_is_there_or_not_found(servicer: RegistryServicer, kind: str, reason: Reason) -> None:
    """A malformed id is a wrong field, an unknown one is not found."""
    get, request = getattr(servicer, f"Get{kind}"), getattr(pb, f"Get{kind}Request")
    assert await wrong_fields(get(request(id="42"), FakeContext())) == ["id"]
    with refused(reason):
        await get(request(id=NOBODY), FakeContext())


async def test_patients_are_listed(servicer: RegistryServicer) -> None:
    """Pages go on by their token; the MRN is the whole one."""
    first = await servicer.ListPatients(pb.ListPatientsRequest(limit=1), FakeContext())
    assert ([one.mrn for one in first.patients], first.total_size) == ([SMITH.mrn], 2)
    request = pb.ListPatientsRequest(limit=1, page_token=first.next_page_token)
    second = await servicer.ListPatients(request, FakeContext())
    assert ([one.mrn for one in second.patients], second.next_page_token) == ([JONES.mrn], "")
    found = await servicer.ListPatients(pb.ListPatientsRequest(mrn=JONES.mrn), FakeContext())
    assert [one.mrn for one in found.patients] == [JONES.mrn]
    wrong = pb.ListPatientsRequest(limit=-1, page_token="x", mrn="*")
    assert sorted(await wrong_fields(servicer.ListPatients(wrong, FakeContext()))) == ["limit", "mrn", "page_token"]


async def test_orders_are_listed(servicer: RegistryServicer) -> None:
    """Every filter chooses, and each wrong one is told."""
    for chosen in (
        pb.ListOrdersRequest(patient_id=str(SMITH.id)),
        pb.ListOrdersRequest(accession_number="ACC-SMITH", status="scheduled"),
    ):
        found = await servicer.ListOrders(chosen, FakeContext())
        assert [one.id for one in found.orders] == [str(ORDER_OF_SMITH.id)]
    found = await servicer.ListOrders(pb.ListOrdersRequest(status="done"), FakeContext())
    assert (list(found.orders), found.total_size) == ([], 0)
    wrong = pb.ListOrdersRequest(limit=1001, page_token="x", patient_id="x", accession_number="x" * 17, status="x" * 21)
    fields = await wrong_fields(servicer.ListOrders(wrong, FakeContext()))
    assert sorted(fields) == sorted(field.json_name for field in pb.ListOrdersRequest.DESCRIPTOR.fields)


async def test_users_are_listed(servicer: RegistryServicer) -> None:
    """The username is the whole one, and each wrong field is told."""
    found = await servicer.ListUsers(pb.ListUsersRequest(username="rad"), FakeContext())
    assert [one.username for one in found.users] == ["rad"]
    wrong = pb.ListUsersRequest(limit=-1, page_token="x", username="x" * 151)
    fields = await wrong_fields(servicer.ListUsers(wrong, FakeContext()))
    assert sorted(fields) == ["limit", "page_token", "username"]
