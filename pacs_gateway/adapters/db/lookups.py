"""What is known of the files of many uploads, looked up at once: three statements, however many the files are."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import String, Uuid, any_, bindparam, or_, select
from sqlalchemy.dialects.postgresql import ARRAY

from pacs_gateway.adapters.db.models import orders, patients
from pacs_gateway.adapters.db.orders import order_of
from pacs_gateway.adapters.db.patients import patient_of
from pacs_gateway.adapters.db.prepared import Prepared
from pacs_gateway.adapters.db.session import Session
from pacs_gateway.adapters.db.texts import storable
from pacs_gateway.adapters.db.upload_logs import PostgresUploadLogs
from pacs_gateway.domain.registry import Order, Patient
from pacs_gateway.domain.whose import Claims, Known

_PATIENTS: Final = Prepared(select(patients).where(patients.c.mrn == any_(bindparam("mrns", type_=ARRAY(String)))))
_ORDERS: Final = Prepared(
    select(orders).where(
        or_(
            orders.c.accession_number == any_(bindparam("accession_numbers", type_=ARRAY(String))),
            orders.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))),
        )
    )
)


async def look_up(session: Session, logs: PostgresUploadLogs, claims: Sequence[Claims]) -> Sequence[Known]:
    """What is known of each file. What no row can hold is found in none."""
    by_mrn = await _patients(session, {claim.mrn for claim in claims})
    found = await _orders(
        session,
        {claim.accession_number for claim in claims},
        {claim.order_id for claim in claims if claim.order_id is not None},
    )
    by_accession = {order.accession_number: order for order in found}
    by_id = {order.id: order for order in found}
    of_studies = await logs.with_deletions({claim.study_instance_uid for claim in claims})
    known = []
    for claim in claims:
        log, is_being_deleted = of_studies.get(claim.study_instance_uid, (None, False))
        known.append(
            Known(
                patient=by_mrn.get(claim.mrn),
                by_accession=by_accession.get(claim.accession_number),
                named_order=by_id.get(claim.order_id) if claim.order_id is not None else None,
                log=log,
                is_being_deleted=is_being_deleted,
            )
        )
    return known


async def _patients(session: Session, mrns: set[str]) -> dict[str, Patient]:
    wanted = [mrn for mrn in mrns if mrn and storable(mrn)]
    if not wanted:
        return {}
    rows = await session.run(_PATIENTS, mrns=wanted)
    return {row.mrn: patient_of(row) for row in rows}


async def _orders(session: Session, accession_numbers: set[str], ids: set[object]) -> list[Order]:
    wanted = [number for number in accession_numbers if number and storable(number)]
    if not wanted and not ids:
        return []
    rows = await session.run(_ORDERS, accession_numbers=wanted, ids=list(ids))
    return [order_of(row) for row in rows]
