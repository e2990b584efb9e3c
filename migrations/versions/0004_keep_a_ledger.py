"""Keep a ledger of uploaded files: one row for each file of each upload.

What the logs listed in file_names becomes rows of it. Going down puts the list back.

Revision: 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_CURRENT = "is_current"
_FAILED = "is_current AND state = 'failed'"
_OPEN = "state IN ('received', 'stored')"

# The files of a study that was deleted are gone, those that had failed are still what is known of their instances.
_TAKE_OVER = """
INSERT INTO dicom_upload_files (
    id, upload_id, upload_log_id, uploaded_by_id, upload_source, study_instance_uid, sop_instance_uid, filename,
    stored_size_bytes, state, is_current, error, received_at, finished_at)
SELECT gen_random_uuid(), log.id, log.id, log.uploaded_by_id, log.upload_source, log.study_instance_uid,
       coalesce(file ->> 'sop_instance_uid', ''), coalesce(file ->> 'name', ''),
       CASE WHEN coalesce(file ->> 'error', '') = '' THEN coalesce((file ->> 'size_bytes')::bigint, 0) ELSE 0 END,
       CASE WHEN coalesce(file ->> 'error', '') = '' THEN 'verified' ELSE 'failed' END,
       NOT log.is_deleted OR coalesce(file ->> 'error', '') <> '',
       coalesce(file ->> 'error', ''), log.uploaded_at, log.uploaded_at
  FROM dicom_upload_logs log, json_array_elements(log.file_names) file
"""
_PUT_BACK = """
UPDATE dicom_upload_logs log SET file_names = (
    SELECT coalesce(json_agg(json_build_object('sop_instance_uid', file.sop_instance_uid, 'name', file.filename,
                                               'size_bytes', file.stored_size_bytes, 'error', file.error)
                             ORDER BY file.received_at, file.id), '[]'::json)
      FROM dicom_upload_files file WHERE file.upload_log_id = log.id AND file.is_current)
 WHERE log.file_names_stale
"""


def _text(name: str, length: int | None = None) -> "sa.Column[str]":
    return sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False, server_default="")


def upgrade() -> None:
    op.add_column(
        "dicom_upload_logs",
        sa.Column("file_names_stale", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_index(
        "ix_dicom_upload_logs_in_progress",
        "dicom_upload_logs",
        ["uploaded_at"],
        postgresql_where=sa.text("upload_status = 'in_progress'"),
    )
    op.create_index(
        "ix_dicom_upload_logs_stale", "dicom_upload_logs", ["id"], postgresql_where=sa.text("file_names_stale")
    )
    op.create_table(
        "dicom_upload_files",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        sa.Column("upload_log_id", sa.Uuid()),
        sa.Column("gateway_id", sa.Uuid()),
        sa.Column("uploaded_by_id", sa.Uuid(), nullable=False),
        sa.Column("upload_source", sa.String(20), nullable=False),
        _text("study_instance_uid", 64),
        _text("series_instance_uid", 64),
        _text("sop_instance_uid", 64),
        _text("orthanc_id", 64),
        _text("filename"),
        _text("source_sha256", 64),
        sa.Column("source_size_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        _text("stored_sha256", 64),
        _text("stored_md5", 32),
        sa.Column("stored_size_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        _text("edits_sha256", 64),
        sa.Column("overwrites", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("is_current", sa.Boolean(), nullable=False, server_default=sa.false()),
        _text("error"),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_dicom_upload_files"),
        sa.ForeignKeyConstraint(
            ["upload_log_id"], ["dicom_upload_logs.id"], name="fk_dicom_upload_files_upload_log_id_dicom_upload_logs"
        ),
        sa.ForeignKeyConstraint(["uploaded_by_id"], ["users.id"], name="fk_dicom_upload_files_uploaded_by_id_users"),
        sa.CheckConstraint(
            "state IN ('received', 'stored', 'verified', 'failed', 'quarantined')",
            name=op.f("ck_dicom_upload_files_state"),
        ),
        sa.CheckConstraint(
            "upload_source IN ('manual', 'api', 'cd_import')", name=op.f("ck_dicom_upload_files_upload_source")
        ),
    )
    indexes = {
        "upload_id": (["upload_id"], None),
        "orthanc_id": (["orthanc_id", "received_at"], None),
        "current": (["upload_log_id", "sop_instance_uid"], _CURRENT),
        "failed": (["upload_log_id"], _FAILED),
        "open": (["upload_log_id", "received_at"], _OPEN),
    }
    for name, (columns, where) in indexes.items():
        partial = {"postgresql_where": sa.text(where)} if where else {}
        op.create_index(f"ix_dicom_upload_files_{name}", "dicom_upload_files", columns, **partial)
    op.execute(_TAKE_OVER)


def downgrade() -> None:
    op.execute(_PUT_BACK)
    op.drop_table("dicom_upload_files")
    op.drop_index("ix_dicom_upload_logs_stale", "dicom_upload_logs")
    op.drop_index("ix_dicom_upload_logs_in_progress", "dicom_upload_logs")
    op.drop_column("dicom_upload_logs", "file_names_stale")
