"""What is known of the files of many uploads, looked up at once: one statement, however many the files are, which sees
all of it as it stands at one moment.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Column

from pacs_gateway.adapters.db.models import orders, patients
from pacs_gateway.adapters.db.orders import order_of
from pacs_gateway.adapters.db.patients import patient_of
from pacs_gateway.adapters.db.prepared import Prepared, Record
from pacs_gateway.adapters.db.texts import storable
from pacs_gateway.adapters.db.upload_logs import SHOWN, log_of
from pacs_gateway.domain.whose import Claims, Known


def _columns(table: str, columns: Iterable[Column[Any]]) -> str:
    return ", ".join(f"{table}.{column.name} AS {table}_{column.name}" for column in columns)


_LOOK_UP: Final = Prepared(f"""
SELECT {_columns("patient", patients.columns)}, {_columns("by_accession", orders.columns)},
       {_columns("named", orders.columns)}, {_columns("log", SHOWN)},
       (SELECT deletion.completed_at IS NULL FROM study_deletions deletion
         WHERE deletion.study_instance_uid = log.study_instance_uid
         ORDER BY deletion.requested_at DESC, deletion.id LIMIT 1) AS is_being_deleted
  FROM unnest(CAST(:mrns AS text[]), CAST(:accession_numbers AS text[]), CAST(:order_ids AS uuid[]),
              CAST(:study_uids AS text[]))
       WITH ORDINALITY AS claim (mrn, accession_number, order_id, study_uid, place)
  LEFT JOIN patients patient ON patient.mrn = claim.mrn
  LEFT JOIN orders by_accession ON by_accession.accession_number = claim.accession_number
  LEFT JOIN orders named ON named.id = claim.order_id
  LEFT JOIN dicom_upload_logs log ON log.study_instance_uid = claim.study_uid
 ORDER BY claim.place
""")  # noqa: S608 - the names are those of the tables


async def look_up(run: Callable[..., Awaitable[Sequence[Record]]], claims: Sequence[Claims]) -> Sequence[Known]:
    """What is known of each file. What no row can hold is found in none. `run` runs a statement."""
    # Files of one study mostly claim the same.
    asked = list(dict.fromkeys(claims))
    rows = await run(
        _LOOK_UP,
        mrns=[_key(claim.mrn) for claim in asked],
        accession_numbers=[_key(claim.accession_number) for claim in asked],
        order_ids=[claim.order_id for claim in asked],
        study_uids=[_key(claim.study_instance_uid) for claim in asked],
    )
    known = dict(zip(asked, map(_known, rows), strict=True))
    return [known[claim] for claim in claims]


def _key(value: str) -> str | None:
    """What rows are looked for by; None, which none has, where there is nothing to look for."""
    return value if value and storable(value) else None


def _known(row: Record) -> Known:
    return Known(
        patient=patient_of(row, "patient_") if row.patient_id is not None else None,
        by_accession=order_of(row, "by_accession_") if row.by_accession_id is not None else None,
        named_order=order_of(row, "named_") if row.named_id is not None else None,
        log=log_of(row, "log_") if row.log_id is not None else None,
        is_being_deleted=bool(row.is_being_deleted),
    )
