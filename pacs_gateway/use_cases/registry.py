"""Keeping patients, orders and users in step with the RIS, which owns them."""

from collections.abc import Sequence
from uuid import UUID

from pacs_gateway.domain.paging import Page, PageRequest
from pacs_gateway.domain.registry import Order, OrderEntry, Patient, PatientEntry, User, UserEntry
from pacs_gateway.use_cases.ports import Database
from service_runtime.errors import Reason, not_found


class Registry:
    """Puts, gets and lists. An upsert is all or nothing."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def upsert_patients(self, entries: Sequence[PatientEntry]) -> Sequence[Patient]:
        """The patients as they are now, in order. Raises REGISTRY_CONFLICT."""
        async with self._database.begin() as work:
            patients = await work.patients.upsert(entries)
            await work.commit()
        return patients

    async def get_patient(self, patient_id: UUID) -> Patient:
        """The patient. Raises PATIENT_NOT_FOUND."""
        async with self._database.begin() as work:
            patient = await work.patients.get(patient_id)
        if patient is None:
            raise not_found(Reason.PATIENT_NOT_FOUND, "patient", str(patient_id))
        return patient

    async def page_of_patients(self, request: PageRequest, *, mrn: str | None) -> Page[Patient]:
        """A page of patients."""
        async with self._database.begin() as work:
            return await work.patients.page(request, mrn=mrn)

    async def upsert_orders(self, entries: Sequence[OrderEntry]) -> Sequence[Order]:
        """The orders as they are now, in order. Raises PATIENT_NOT_FOUND, REGISTRY_CONFLICT."""
        async with self._database.begin() as work:
            orders = await work.orders.upsert(entries)
            await work.commit()
        return orders

    async def get_order(self, order_id: UUID) -> Order:
        """The order. Raises ORDER_NOT_FOUND."""
        async with self._database.begin() as work:
            order = await work.orders.get(order_id)
        if order is None:
            raise not_found(Reason.ORDER_NOT_FOUND, "order", str(order_id))
        return order

    async def page_of_orders(
        self, request: PageRequest, *, patient_id: UUID | None, accession_number: str | None, status: str | None
    ) -> Page[Order]:
        """A page of orders."""
        async with self._database.begin() as work:
            return await work.orders.page(
                request, patient_id=patient_id, accession_number=accession_number, status=status
            )

    async def upsert_users(self, entries: Sequence[UserEntry]) -> Sequence[User]:
        """The users as they are now, in order. Raises REGISTRY_CONFLICT."""
        async with self._database.begin() as work:
            users = await work.users.upsert(entries)
            await work.commit()
        return users

    async def get_user(self, user_id: UUID) -> User:
        """The user. Raises USER_NOT_FOUND."""
        user = await self.find_user(user_id)
        if user is None:
            raise not_found(Reason.USER_NOT_FOUND, "user", str(user_id))
        return user

    async def find_user(self, user_id: UUID) -> User | None:
        """The user, where there is one."""
        return await self._database.find_user(user_id)

    async def page_of_users(self, request: PageRequest, *, username: str | None) -> Page[User]:
        """A page of users."""
        async with self._database.begin() as work:
            return await work.users.page(request, username=username)
