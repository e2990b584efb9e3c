"""What a file, and the upload that brings it, say of whose it is, and what the RIS knows of that."""

from dataclasses import dataclass
from uuid import UUID

from pacs_gateway.domain.registry import Order, Patient
from pacs_gateway.domain.upload_log import UploadLog


@dataclass(frozen=True, slots=True)
class Claims:
    """What is looked up for a file: its patient's MRN, its order by AccessionNumber and by the id that the upload
    names, its study. What is empty, or None, is not looked up.
    """

    mrn: str
    accession_number: str
    order_id: UUID | None
    study_instance_uid: str


@dataclass(frozen=True, slots=True)
class Known:
    """What there is of it. `is_being_deleted`: the study's last deletion has begun, and is not said to be over."""

    patient: Patient | None = None
    by_accession: Order | None = None
    named_order: Order | None = None
    log: UploadLog | None = None
    is_being_deleted: bool = False
