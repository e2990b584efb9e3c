"""The patients of the registry."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, String, Uuid, any_, bindparam, delete, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from pacs_gateway.adapters.db.models import (
    dicom_quarantine,
    dicom_upload_logs,
    orders,
    patients,
    upload_sessions,
)
from pacs_gateway.adapters.db.pages import EMPTY, page_by_id
from pacs_gateway.adapters.db.prepared import Prepared, Record
from pacs_gateway.adapters.db.session import Session
from pacs_gateway.adapters.db.texts import fitted, refuse_unstorable, storable
from pacs_gateway.adapters.db.upserts import Known, Plan, Wanted, one_of, plan, write
from pacs_gateway.domain.paging import Page, PageRequest
from pacs_gateway.domain.registry import Patient, PatientEntry
from service_runtime.errors import InvalidFieldError, Violation

_BY_ID: Final = Prepared(select(patients).where(patients.c.id == any_(bindparam("ids", type_=ARRAY(Uuid)))))
_BY_MRN: Final = Prepared(select(patients).where(patients.c.mrn == any_(bindparam("mrns", type_=ARRAY(String)))))

# In the order in which Patient has them.
_FIELDS: Final = ("id", "mrn", "full_name", "birth_date", "sex", "is_provisional")
_ADD: Final = Prepared(
    f"INSERT INTO patients ({', '.join(_FIELDS)}) VALUES (:{', :'.join(_FIELDS)}) ON CONFLICT (mrn) DO NOTHING"  # noqa: S608
)


class PostgresPatients:
    """The port `Patients`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, patient_id: UUID) -> Patient | None:
        """The patient with this id."""
        return (await self.many([patient_id])).get(patient_id)

    async def many(self, patient_ids: Collection[UUID]) -> Mapping[UUID, Patient]:
        """The patients with these ids."""
        rows = await self._session.run(_BY_ID, ids=list(patient_ids))
        return {row.id: patient_of(row) for row in rows}

    async def by_mrn(self, mrns: Collection[str]) -> Mapping[str, Patient]:
        """The patients with these MRNs, by MRN."""
        rows = await self._session.run(_BY_MRN, mrns=[mrn for mrn in mrns if storable(mrn)])
        return {row.mrn: patient_of(row) for row in rows}

    async def make_provisional(self, patient: Patient) -> Patient:
        """Adds the patient, unless another call has added the MRN meanwhile; the one that is there then.

        The name is cut to its column's length. An MRN is never cut: raises INVALID_FIELD.
        """
        if not storable(patient.mrn) or fitted(patients.c.mrn, patient.mrn) != patient.mrn:
            raise InvalidFieldError(Violation("PatientID", "cannot be the MRN of a patient: at most 64 characters"))
        await self._session.share_registry()
        row = _row(patient) | {"is_provisional": True, "full_name": fitted(patients.c.full_name, patient.full_name)}
        await self._session.run(_ADD, **row)
        return (await self.by_mrn([patient.mrn]))[patient.mrn]

    async def upsert(self, entries: Sequence[PatientEntry]) -> Sequence[Patient]:
        """Makes or changes patients, in order. Raises REGISTRY_CONFLICT.

        A provisional patient takes on the id that an entry gives its MRN, and its orders and logs follow. Where that id
        has a patient already, who had another MRN, the two become one.
        """
        if not entries:
            return ()
        refuse_unstorable("patients", entries, patients)
        await self._session.own_registry()
        wanted = [Wanted(entry.id, entry.mrn) for entry in entries]
        what = plan("patients", wanted, await self._known(wanted))
        await self._settle_provisional(what)
        made = [
            Patient(i, entry.mrn, entry.full_name, entry.birth_date, entry.sex)
            for i, entry in zip(what.ids, entries, strict=True)
        ]
        await write(self._session, patients.c.mrn, what.rekeyed, [_row(patient) for patient in made])
        return made

    async def page(self, request: PageRequest, *, mrn: str | None) -> Page[Patient]:
        """A page of patients by id."""
        if not storable(mrn or ""):
            return EMPTY
        where = [] if mrn is None else [patients.c.mrn == mrn]
        return await page_by_id(self._session, patients, where, request, patient_of)

    async def _known(self, wanted: Sequence[Wanted]) -> list[Known]:
        named = or_(
            one_of(patients.c.id, (entry.id for entry in wanted if entry.id is not None)),
            one_of(patients.c.mrn, (entry.key for entry in wanted)),
        )
        columns = select(patients.c.id, patients.c.mrn, patients.c.is_provisional)
        rows = (await self._session.execute(columns.where(named))).all()
        return [Known(row.id, row.mrn, row.is_provisional) for row in rows]

    async def _settle_provisional(self, what: Plan) -> None:
        if what.renamed:
            statement = update(patients).where(patients.c.id == bindparam("old")).values(id=bindparam("new"))
            await self._session.execute(statement, _pairs(what.renamed))
        if what.merged:
            for table in (orders, dicom_upload_logs, upload_sessions, dicom_quarantine):
                moving = update(table).where(table.c.patient_id == bindparam("old"))
                await self._session.execute(moving.values(patient_id=bindparam("new")), _pairs(what.merged))
            await self._session.execute(delete(patients).where(one_of(patients.c.id, what.merged)))


def _pairs(ids: Mapping[UUID, UUID]) -> list[dict[str, UUID]]:
    return [{"old": old, "new": new} for old, new in ids.items()]


def _row(patient: Patient) -> dict[str, Any]:
    return {
        "id": patient.id,
        "mrn": patient.mrn,
        "full_name": patient.full_name,
        "birth_date": patient.birth_date,
        "sex": patient.sex,
        "is_provisional": patient.is_provisional,
    }


def patient_of(row: Row[Any] | Record, prefix: str = "") -> Patient:
    """The patient of a row, whose columns' names begin with `prefix`."""
    return Patient(*(getattr(row, prefix + name) for name in _FIELDS))
