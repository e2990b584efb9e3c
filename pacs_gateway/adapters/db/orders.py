"""The orders of the registry."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, Uuid, any_, bindparam, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from pacs_gateway.adapters.db.models import orders, patients
from pacs_gateway.adapters.db.pages import EMPTY, page_by_id
from pacs_gateway.adapters.db.prepared import Prepared, Record, setting
from pacs_gateway.adapters.db.session import Session
from pacs_gateway.adapters.db.texts import fitted, refuse_unstorable, storable
from pacs_gateway.adapters.db.upserts import Known, Wanted, one_of, plan, write
from pacs_gateway.domain.paging import Page, PageRequest
from pacs_gateway.domain.registry import Order, OrderEntry, OrderStudy
from service_runtime.errors import Reason, ServiceError, not_found

_BY_ID: Final = Prepared(select(orders).where(orders.c.id == any_(bindparam("ids", type_=ARRAY(Uuid)))))
# In the order in which OrderStudy has them.
_NO_STUDY: Final = dict.fromkeys(
    (
        "study_instance_uid",
        "orthanc_study_id",
        "number_of_series",
        "number_of_images",
        "study_date",
        "study_time",
        "uploaded_by_id",
        "uploaded_at",
        "upload_source",
    )
)


class PostgresOrders:
    """The port `Orders`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, order_id: UUID) -> Order | None:
        """The order with this id."""
        return (await self.many([order_id])).get(order_id)

    async def many(self, order_ids: Collection[UUID]) -> Mapping[UUID, Order]:
        """The orders with these ids."""
        rows = await self._session.run(_BY_ID, ids=list(order_ids))
        return {row.id: order_of(row) for row in rows}

    async def by_accession(self, accession_number: str) -> Order | None:
        """The order with this accession number."""
        if not storable(accession_number):
            return None
        found = await self._session.execute(select(orders).where(orders.c.accession_number == accession_number))
        row = found.one_or_none()
        return order_of(row) if row is not None else None

    async def fill(self, order_id: UUID, study: OrderStudy) -> None:
        """Sets the order's DICOM fields. The study's date and time are cut to their columns' length."""
        values = {
            "study_instance_uid": study.study_instance_uid,
            "orthanc_study_id": study.orthanc_study_id,
            "number_of_series": study.number_of_series,
            "number_of_images": study.number_of_images,
            "study_date": fitted(orders.c.study_date, study.study_date),
            "study_time": fitted(orders.c.study_time, study.study_time),
            "uploaded_by_id": study.uploaded_by_id,
            "uploaded_at": study.uploaded_at,
            "upload_source": study.upload_source,
        }
        await self._session.share_registry()
        await self._session.run(setting(orders.name, *values), id=order_id, **values)

    async def clear(self, study_instance_uid: str) -> None:
        """Empties the DICOM fields of the orders that this study was uploaded for."""
        if storable(study_instance_uid):
            await self._session.share_registry()
            of_study = orders.c.study_instance_uid == study_instance_uid
            await self._session.execute(update(orders).where(of_study).values(_NO_STUDY))

    async def upsert(self, entries: Sequence[OrderEntry]) -> Sequence[Order]:
        """Makes or changes orders, in order; their DICOM fields stay. Raises REGISTRY_CONFLICT, PATIENT_NOT_FOUND."""
        if not entries:
            return ()
        refuse_unstorable("orders", entries, orders)
        await self._session.own_registry()
        await self._refuse_unknown_patients({entry.patient_id for entry in entries})
        wanted = [Wanted(entry.id, entry.accession_number) for entry in entries]
        before = await self._known(wanted)
        known = [Known(order.id, order.accession_number) for order in before.values()]
        what = plan("orders", wanted, known)
        made = []
        for position, (order_id, entry) in enumerate(zip(what.ids, entries, strict=True)):
            order = Order(order_id, entry.patient_id, entry.accession_number, entry.modality, entry.status)
            if order_id in before:
                order = replace(order, study=before[order_id].study)
                _refuse_other_patient(position, before[order_id], order)
            made.append(order)
        await write(self._session, orders.c.accession_number, what.rekeyed, [_row(order) for order in made])
        return made

    async def page(
        self, request: PageRequest, *, patient_id: UUID | None, accession_number: str | None, status: str | None
    ) -> Page[Order]:
        """A page of orders by id."""
        if not storable(accession_number or "") or not storable(status or ""):
            return EMPTY
        wanted = {
            orders.c.patient_id: patient_id,
            orders.c.accession_number: accession_number,
            orders.c.status: status,
        }
        where = [column == value for column, value in wanted.items() if value is not None]
        return await page_by_id(self._session, orders, where, request, order_of)

    async def _known(self, wanted: Sequence[Wanted]) -> dict[UUID, Order]:
        named = or_(
            one_of(orders.c.id, (entry.id for entry in wanted if entry.id is not None)),
            one_of(orders.c.accession_number, (entry.key for entry in wanted)),
        )
        rows = (await self._session.execute(select(orders).where(named))).all()
        return {row.id: order_of(row) for row in rows}

    async def _refuse_unknown_patients(self, patient_ids: set[UUID]) -> None:
        found = await self._session.execute(select(patients.c.id).where(one_of(patients.c.id, patient_ids)))
        unknown = sorted(patient_ids - set(found.scalars()))
        if unknown:
            raise not_found(Reason.PATIENT_NOT_FOUND, "patient", str(unknown[0]))


def _refuse_other_patient(position: int, before: Order, after: Order) -> None:
    if before.study is not None and before.patient_id != after.patient_id:
        raise ServiceError(
            Reason.REGISTRY_CONFLICT,
            f"orders[{position}] has a study, which is under another patient. Delete the study first. "
            "Nothing was changed.",
            metadata={"entry": f"orders[{position}]"},
        )


def _row(order: Order) -> dict[str, Any]:
    return {
        "id": order.id,
        "patient_id": order.patient_id,
        "accession_number": order.accession_number,
        "modality": order.modality,
        "status": order.status,
    }


def order_of(row: Row[Any] | Record, prefix: str = "") -> Order:
    """The order of a row, whose columns' names begin with `prefix`."""

    def of(name: str) -> Any:
        return getattr(row, prefix + name)

    study = OrderStudy(*map(of, _NO_STUDY)) if of("study_instance_uid") is not None else None
    return Order(of("id"), of("patient_id"), of("accession_number"), of("modality"), of("status"), study)
