"""The tables. migrations/ makes them; a test holds the two to each other.

Texts are never null: "" stands for what is not known, as in the domain. Where a column is shorter than what a hostile
file may hold, the repositories cut what they write to the column's length.
"""

from collections.abc import Iterable
from enum import StrEnum

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    false,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY

from pacs_gateway.domain.ledger import FileState
from pacs_gateway.domain.quarantine import OPEN_STATES, QuarantineAction, QuarantineState
from pacs_gateway.domain.registry import Role
from pacs_gateway.domain.sessions import SessionState
from pacs_gateway.domain.upload import OnConflict, PatientMatch
from pacs_gateway.domain.upload_log import UploadStatus

# The revision of migrations/ that this code works with.
SCHEMA_REVISION = "0008"

UPLOAD_SOURCES = ("manual", "api", "cd_import")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _one_of(column: str, values: Iterable[str]) -> CheckConstraint:
    return CheckConstraint(_is_one_of(column, values), name=column)


def _is_one_of(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def _all(enumeration: type[StrEnum]) -> Iterable[str]:
    return (member.value for member in enumeration)


def _text(name: str, length: int | None = None) -> "Column[str]":
    """A text that may be unknown."""
    return Column(name, String(length) if length else Text(), nullable=False, server_default="")


users = Table(
    "users",
    metadata,
    Column("id", Uuid(), primary_key=True),
    Column("username", String(150), nullable=False),
    Column("full_name", String(255), nullable=False),
    Column("role", String(20), nullable=False),
    Column("is_active", Boolean(), nullable=False, server_default=true()),
    UniqueConstraint("username"),
    _one_of("role", _all(Role)),
)

patients = Table(
    "patients",
    metadata,
    Column("id", Uuid(), primary_key=True),
    Column("mrn", String(64), nullable=False),
    Column("full_name", String(255), nullable=False),
    Column("birth_date", Date()),
    _text("sex", 1),
    Column("is_provisional", Boolean(), nullable=False, server_default=false()),
    UniqueConstraint("mrn"),
    _one_of("sex", ("M", "F", "O", "")),
)

orders = Table(
    "orders",
    metadata,
    Column("id", Uuid(), primary_key=True),
    # A provisional patient takes on the RIS's id: its orders and logs follow.
    Column("patient_id", ForeignKey("patients.id", onupdate="CASCADE"), nullable=False, index=True),
    Column("accession_number", String(16), nullable=False),
    _text("modality", 16),
    Column("status", String(20), nullable=False),
    # The study that was uploaded for it; all null until then. Its date and time are what the file says: any text.
    Column("study_instance_uid", String(64), index=True),
    Column("orthanc_study_id", String(64)),
    Column("number_of_series", Integer()),
    Column("number_of_images", Integer()),
    Column("study_date", String(16)),
    Column("study_time", String(16)),
    Column("uploaded_by_id", ForeignKey("users.id", name="fk_orders_uploaded_by")),
    Column("uploaded_at", DateTime(timezone=True)),
    Column("upload_source", String(20)),
    UniqueConstraint("accession_number"),
)

dicom_upload_logs = Table(
    "dicom_upload_logs",
    metadata,
    Column("id", Uuid(), primary_key=True),
    Column("patient_id", ForeignKey("patients.id", onupdate="CASCADE"), nullable=False, index=True),
    Column("order_id", ForeignKey("orders.id"), index=True),
    Column("uploaded_by_id", ForeignKey("users.id"), nullable=False),
    Column("study_instance_uid", String(64), nullable=False),
    _text("orthanc_study_id", 64),
    Column("number_of_files", Integer(), nullable=False, server_default="0"),
    Column("total_size_bytes", BigInteger(), nullable=False, server_default="0"),
    # A list of objects: sop_instance_uid, name, size_bytes, error. A copy of the ledger for who reads the table, made
    # when a study has come to rest: it is stale until then.
    Column("file_names", JSON(), nullable=False, server_default=text("'[]'::json")),
    Column("file_names_stale", Boolean(), nullable=False, server_default=false()),
    _text("original_patient_id", 64),
    _text("original_patient_name", 255),
    _text("original_accession_number", 64),
    _text("original_study_date", 8),
    _text("original_modality", 16),
    _text("modified_patient_id", 64),
    _text("modified_patient_name", 255),
    _text("modified_accession_number", 64),
    Column("tags_modified", Boolean(), nullable=False, server_default=false()),
    Column("upload_status", String(20), nullable=False),
    _text("error_message"),
    Column("uploaded_at", DateTime(timezone=True), nullable=False, index=True),
    Column("upload_source", String(20), nullable=False),
    Column("upload_duration_seconds", Double(), nullable=False, server_default="0"),
    Column("is_deleted", Boolean(), nullable=False, server_default=false()),
    # What the PACS was seen to hold less, and more, than the log counts, when the two were last compared.
    Column("instances_missing", Integer(), nullable=False, server_default="0"),
    Column("instances_unlogged", Integer(), nullable=False, server_default="0"),
    Column("compared_at", DateTime(timezone=True), index=True),
    # Its index is the one that finds a study's log.
    UniqueConstraint("study_instance_uid", name="uq_study_instance_uid"),
    Index(None, "orthanc_study_id"),
    _one_of("upload_status", _all(UploadStatus)),
    _one_of("upload_source", UPLOAD_SOURCES),
    Index("ix_dicom_upload_logs_in_progress", "uploaded_at", postgresql_where=text("upload_status = 'in_progress'")),
    Index("ix_dicom_upload_logs_stale", "id", postgresql_where=text("file_names_stale")),
)

# A client's word of what it is going to send, and the receipt of it.
upload_sessions = Table(
    "upload_sessions",
    metadata,
    Column("id", Uuid(), primary_key=True),
    Column("created_by_id", ForeignKey("users.id"), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("patient_id", ForeignKey("patients.id", onupdate="CASCADE"), index=True),
    Column("order_id", ForeignKey("orders.id")),
    Column("upload_source", String(20), nullable=False),
    Column("patient_match", String(20), nullable=False),
    Column("on_conflict", String(20), nullable=False),
    Column("number_of_files", Integer(), nullable=False),
    # Whether the files are listed, in upload_session_files.
    Column("lists_files", Boolean(), nullable=False),
    Column("state", String(20), nullable=False),
    Column("completed_at", DateTime(timezone=True)),
    # The JWS, as it was given.
    _text("receipt"),
    _one_of("state", _all(SessionState)),
    _one_of("upload_source", UPLOAD_SOURCES),
    _one_of("patient_match", _all(PatientMatch)),
    _one_of("on_conflict", _all(OnConflict)),
    Index("ix_upload_sessions_open", "expires_at", postgresql_where=text("state = 'open'")),
)

upload_session_files = Table(
    "upload_session_files",
    metadata,
    Column("session_id", ForeignKey("upload_sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("sha256", String(64), primary_key=True, index=True),
    Column("size_bytes", BigInteger(), nullable=False),
    _text("name", 255),
)

# The ledger: one row for each file of each upload.
dicom_upload_files = Table(
    "dicom_upload_files",
    metadata,
    Column("id", Uuid(), primary_key=True),
    Column("upload_id", Uuid(), nullable=False, index=True),
    # Null of a file that never came as far as to a study.
    Column("upload_log_id", ForeignKey("dicom_upload_logs.id")),
    # The gateway process that knows what becomes of a file that is received or stored; null where none does.
    Column("gateway_id", Uuid()),
    Column("uploaded_by_id", ForeignKey("users.id"), nullable=False),
    Column("upload_source", String(20), nullable=False),
    _text("study_instance_uid", 64),
    _text("series_instance_uid", 64),
    _text("sop_instance_uid", 64),
    _text("orthanc_id", 64),
    _text("filename"),
    # What came, and what Orthanc holds or is sent of it: digests in hex, "" until all of the file has come.
    _text("source_sha256", 64),
    Column("source_size_bytes", BigInteger(), nullable=False, server_default="0"),
    _text("stored_sha256", 64),
    _text("stored_md5", 32),
    Column("stored_size_bytes", BigInteger(), nullable=False, server_default="0"),
    _text("edits_sha256", 64),
    Column("overwrites", Boolean(), nullable=False, server_default=false()),
    Column("state", String(20), nullable=False),
    # Whether it is what is known last of its instance, in its log: the one that the log counts.
    Column("is_current", Boolean(), nullable=False, server_default=false()),
    _text("error"),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True)),
    # The session that it was sent into. It may be deleted; the ledger stays.
    Column("session_id", ForeignKey("upload_sessions.id", ondelete="SET NULL")),
    Index(
        "ix_dicom_upload_files_session",
        "session_id",
        "source_sha256",
        postgresql_where=text("session_id IS NOT NULL"),
    ),
    Index("ix_dicom_upload_files_orthanc_id", "orthanc_id", "received_at"),
    # Not unique: a statement takes it from one row and gives it to another, in no order. The log's row is locked then.
    Index("ix_dicom_upload_files_current", "upload_log_id", "sop_instance_uid", postgresql_where=text("is_current")),
    Index(
        "ix_dicom_upload_files_failed",
        "upload_log_id",
        postgresql_where=text("is_current AND state = 'failed'"),
    ),
    Index(
        "ix_dicom_upload_files_open",
        "upload_log_id",
        "received_at",
        postgresql_where=text("state IN ('received', 'stored')"),
    ),
    _one_of("state", _all(FileState)),
    _one_of("upload_source", UPLOAD_SOURCES),
)

# Gateway processes, by their last sign of life.
gateways = Table(
    "gateways",
    metadata,
    Column("id", Uuid(), primary_key=True),
    Column("seen_at", DateTime(timezone=True), nullable=False),
)

# What was answered to uploads that carried a request id; no answers yet while one is under way.
upload_requests = Table(
    "upload_requests",
    metadata,
    Column("user_id", Uuid(), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    Column("gateway_id", Uuid(), nullable=False),
    Column("asked_sha256", String(64), nullable=False),
    _text("content_sha256", 64),
    Column("answers", ARRAY(LargeBinary())),
    Column("expires_at", DateTime(timezone=True), nullable=False, index=True),
)

study_deletions = Table(
    "study_deletions",
    metadata,
    Column("id", Uuid(), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False),
    _text("orthanc_study_id", 64),
    _text("reason"),
    Column("requested_by_id", ForeignKey("users.id"), nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("upload_log_id", ForeignKey("dicom_upload_logs.id")),
    Column("completed_at", DateTime(timezone=True)),
    Index(None, "study_instance_uid", "requested_at"),
)

# Files that were refused for whose they are. Their bytes lie in QUARANTINE_DIR as long as the state is an open one.
dicom_quarantine = Table(
    "dicom_quarantine",
    metadata,
    Column("id", Uuid(), primary_key=True),
    Column("state", String(20), nullable=False),
    _text("reason", 64),
    # What the upload named.
    Column("patient_id", ForeignKey("patients.id", onupdate="CASCADE"), index=True),
    Column("order_id", ForeignKey("orders.id")),
    Column("uploaded_by_id", ForeignKey("users.id"), nullable=False),
    Column("upload_source", String(20), nullable=False),
    _text("filename"),
    Column("source_sha256", String(64), nullable=False),
    Column("source_size_bytes", BigInteger(), nullable=False),
    _text("study_instance_uid", 64),
    _text("series_instance_uid", 64),
    _text("sop_instance_uid", 64),
    _text("original_patient_id", 64),
    _text("original_patient_name", 255),
    _text("original_accession_number", 64),
    _text("original_study_date", 8),
    _text("original_modality", 16),
    Column("quarantined_at", DateTime(timezone=True), nullable=False),
    Column("refused_at", DateTime(timezone=True), nullable=False, index=True),
    Column("refusals", Integer(), nullable=False, server_default="1"),
    # The gateway process that tries to store it, and since when; null where none does.
    Column("gateway_id", Uuid()),
    Column("claimed_at", DateTime(timezone=True)),
    _one_of("state", _all(QuarantineState)),
    _one_of("upload_source", UPLOAD_SOURCES),
    # The same bytes are there once.
    Index(
        "ix_dicom_quarantine_open",
        "source_sha256",
        unique=True,
        postgresql_where=text(_is_one_of("state", OPEN_STATES)),
    ),
)

dicom_quarantine_events = Table(
    "dicom_quarantine_events",
    metadata,
    # In the order of what was done.
    Column("id", BigInteger(), Identity(), primary_key=True),
    Column("file_id", ForeignKey("dicom_quarantine.id"), nullable=False),
    Column("action", String(20), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    # Null where the gateway did it by itself.
    Column("by_id", ForeignKey("users.id")),
    _text("reason"),
    _one_of("action", _all(QuarantineAction)),
    Index(None, "file_id", "id"),
)
