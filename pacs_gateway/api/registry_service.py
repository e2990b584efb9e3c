"""ris.pacs.v1.RegistryService."""

from typing import Any

from grpc.aio import ServicerContext

from pacs_gateway.api.fields import Fields
from pacs_gateway.api.mapping import order_to_proto, patient_to_proto, user_to_proto
from pacs_gateway.api.paging import next_page_token, page_request
from pacs_gateway.domain.registry import OrderEntry, PatientEntry, Role, UserEntry
from pacs_gateway.use_cases.registry import Registry
from ris.pacs.v1 import registry_service_pb2, registry_service_pb2_grpc

_Context = ServicerContext[Any, Any]
_MAX_ENTRIES = 1000
_MAX_NAME = 255
_MAX_USERNAME = 150
_MAX_ACCESSION_NUMBER = 16  # SH (PS3.5 6.2)
_MAX_MODALITY = 16  # CS (PS3.5 6.2)
_MAX_STATUS = 20
_SEXES = ("M", "F", "O", "")


class RegistryServicer(registry_service_pb2_grpc.RegistryServiceServicer):
    """Reads the requests, has the use cases do the work, and words the answers."""

    def __init__(self, *, registry: Registry) -> None:
        self._registry = registry

    async def UpsertPatients(  # noqa: N802 - gRPC's names
        self,
        request: registry_service_pb2.UpsertPatientsRequest,
        context: _Context,  # noqa: ARG002
    ) -> registry_service_pb2.UpsertPatientsResponse:
        """Makes or changes patients."""
        fields = Fields()
        fields.count("patients", len(request.patients), at_most=_MAX_ENTRIES)
        entries = [_patient(fields, f"patients[{n}]", one) for n, one in enumerate(request.patients[:_MAX_ENTRIES])]
        fields.expect_valid()
        patients = await self._registry.upsert_patients(entries)
        return registry_service_pb2.UpsertPatientsResponse(patients=map(patient_to_proto, patients))

    async def GetPatient(  # noqa: N802
        self,
        request: registry_service_pb2.GetPatientRequest,
        context: _Context,  # noqa: ARG002
    ) -> registry_service_pb2.GetPatientResponse:
        """Gets one patient."""
        fields = Fields()
        patient_id = fields.uuid("id", request.id)
        fields.expect_valid()
        patient = await self._registry.get_patient(patient_id)
        return registry_service_pb2.GetPatientResponse(patient=patient_to_proto(patient))

    async def ListPatients(  # noqa: N802
        self,
        request: registry_service_pb2.ListPatientsRequest,
        context: _Context,  # noqa: ARG002
    ) -> registry_service_pb2.ListPatientsResponse:
        """Lists patients."""
        fields = Fields()
        page = page_request(fields, request)
        mrn = fields.optional_exact("mrn", request.mrn)
        fields.expect_valid()
        found = await self._registry.page_of_patients(page, mrn=mrn)
        return registry_service_pb2.ListPatientsResponse(
            patients=map(patient_to_proto, found.items),
            next_page_token=next_page_token(request, found.last),
            total_size=found.total_size,
        )

    async def UpsertOrders(  # noqa: N802
        self,
        request: registry_service_pb2.UpsertOrdersRequest,
        context: _Context,  # noqa: ARG002
    ) -> registry_service_pb2.UpsertOrdersResponse:
        """Makes or changes orders."""
        fields = Fields()
        fields.count("orders", len(request.orders), at_most=_MAX_ENTRIES)
        entries = [_order(fields, f"orders[{n}]", one) for n, one in enumerate(request.orders[:_MAX_ENTRIES])]
        fields.expect_valid()
        orders = await self._registry.upsert_orders(entries)
        return registry_service_pb2.UpsertOrdersResponse(orders=map(order_to_proto, orders))

    async def GetOrder(  # noqa: N802
        self,
        request: registry_service_pb2.GetOrderRequest,
        context: _Context,  # noqa: ARG002
    ) -> registry_service_pb2.GetOrderResponse:
        """Gets one order."""
        fields = Fields()
        order_id = fields.uuid("id", request.id)
        fields.expect_valid()
        return registry_service_pb2.GetOrderResponse(order=order_to_proto(await self._registry.get_order(order_id)))

    async def ListOrders(  # noqa: N802
        self,
        request: registry_service_pb2.ListOrdersRequest,
        context: _Context,  # noqa: ARG002
    ) -> registry_service_pb2.ListOrdersResponse:
        """Lists orders."""
        fields = Fields()
        page = page_request(fields, request)
        patient_id = fields.optional_uuid("patient_id", request.patient_id)
        number = fields.optional_exact("accession_number", request.accession_number, max_length=_MAX_ACCESSION_NUMBER)
        status = fields.text("status", request.status, max_length=_MAX_STATUS) if request.status else None
        fields.expect_valid()
        found = await self._registry.page_of_orders(page, patient_id=patient_id, accession_number=number, status=status)
        return registry_service_pb2.ListOrdersResponse(
            orders=map(order_to_proto, found.items),
            next_page_token=next_page_token(request, found.last),
            total_size=found.total_size,
        )

    async def UpsertUsers(  # noqa: N802
        self,
        request: registry_service_pb2.UpsertUsersRequest,
        context: _Context,  # noqa: ARG002
    ) -> registry_service_pb2.UpsertUsersResponse:
        """Makes or changes users."""
        fields = Fields()
        fields.count("users", len(request.users), at_most=_MAX_ENTRIES)
        entries = [_user(fields, f"users[{n}]", one) for n, one in enumerate(request.users[:_MAX_ENTRIES])]
        fields.expect_valid()
        users = await self._registry.upsert_users(entries)
        return registry_service_pb2.UpsertUsersResponse(users=map(user_to_proto, users))

    async def GetUser(  # noqa: N802
        self,
        request: registry_service_pb2.GetUserRequest,
        context: _Context,  # noqa: ARG002
    ) -> registry_service_pb2.GetUserResponse:
        """Gets one user."""
        fields = Fields()
        user_id = fields.uuid("id", request.id)
        fields.expect_valid()
        return registry_service_pb2.GetUserResponse(user=user_to_proto(await self._registry.get_user(user_id)))

    async def ListUsers(  # noqa: N802
        self,
        request: registry_service_pb2.ListUsersRequest,
        context: _Context,  # noqa: ARG002
    ) -> registry_service_pb2.ListUsersResponse:
        """Lists users."""
        fields = Fields()
        page = page_request(fields, request)
        username = fields.text("username", request.username, max_length=_MAX_USERNAME) if request.username else None
        fields.expect_valid()
        found = await self._registry.page_of_users(page, username=username)
        return registry_service_pb2.ListUsersResponse(
            users=map(user_to_proto, found.items),
            next_page_token=next_page_token(request, found.last),
            total_size=found.total_size,
        )


def _patient(fields: Fields, at: str, patient: registry_service_pb2.Patient) -> PatientEntry:
    if any(char in patient.full_name for char in "\\="):
        # It becomes a PatientName by coercion (PN, PS3.5 6.2.1).
        fields.wrong(f"{at}.full_name", "must not hold \\ or =")
    return PatientEntry(
        id=fields.optional_uuid(f"{at}.id", patient.id),
        mrn=fields.exact(f"{at}.mrn", patient.mrn),
        full_name=fields.text(f"{at}.full_name", patient.full_name, max_length=_MAX_NAME),
        birth_date=fields.optional_day(f"{at}.birth_date", patient.birth_date),
        sex=fields.word(f"{at}.sex", patient.sex, _SEXES),
    )


def _order(fields: Fields, at: str, order: registry_service_pb2.Order) -> OrderEntry:
    if len(order.modality) > _MAX_MODALITY or not order.modality.isprintable():
        fields.wrong(f"{at}.modality", f"must be at most {_MAX_MODALITY} printable characters")
    return OrderEntry(
        id=fields.optional_uuid(f"{at}.id", order.id),
        patient_id=fields.uuid(f"{at}.patient_id", order.patient_id),
        accession_number=fields.exact(
            f"{at}.accession_number", order.accession_number, max_length=_MAX_ACCESSION_NUMBER
        ),
        modality=order.modality,
        status=fields.text(f"{at}.status", order.status, max_length=_MAX_STATUS),
    )


def _user(fields: Fields, at: str, user: registry_service_pb2.User) -> UserEntry:
    return UserEntry(
        id=fields.optional_uuid(f"{at}.id", user.id),
        username=fields.text(f"{at}.username", user.username, max_length=_MAX_USERNAME),
        full_name=fields.text(f"{at}.full_name", user.full_name, max_length=_MAX_NAME),
        role=fields.choice(f"{at}.role", user.role, Role),
        is_active=user.is_active if user.HasField("is_active") else True,
    )
