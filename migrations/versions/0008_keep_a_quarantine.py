"""Keep a quarantine: the files that uploads refused for whose they are, and what was done with each.

Revision: 0008, after 0007.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def _text(name: str, length: int | None = None) -> "sa.Column[str]":
    return sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False, server_default="")


def upgrade() -> None:
    op.create_table(
        "dicom_quarantine",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        _text("reason", 64),
        sa.Column("patient_id", sa.Uuid()),
        sa.Column("order_id", sa.Uuid()),
        sa.Column("uploaded_by_id", sa.Uuid(), nullable=False),
        sa.Column("upload_source", sa.String(20), nullable=False),
        _text("filename"),
        sa.Column("source_sha256", sa.String(64), nullable=False),
        sa.Column("source_size_bytes", sa.BigInteger(), nullable=False),
        _text("study_instance_uid", 64),
        _text("series_instance_uid", 64),
        _text("sop_instance_uid", 64),
        _text("original_patient_id", 64),
        _text("original_patient_name", 255),
        _text("original_accession_number", 64),
        _text("original_study_date", 8),
        _text("original_modality", 16),
        sa.Column("quarantined_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("refusals", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("gateway_id", sa.Uuid()),
        sa.Column("claimed_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_dicom_quarantine"),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patients.id"], name="fk_dicom_quarantine_patient_id_patients", onupdate="CASCADE"
        ),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_dicom_quarantine_order_id_orders"),
        sa.ForeignKeyConstraint(["uploaded_by_id"], ["users.id"], name="fk_dicom_quarantine_uploaded_by_id_users"),
        sa.CheckConstraint(
            "state IN ('quarantined', 'lost', 'released', 'discarded', 'expired')",
            name=op.f("ck_dicom_quarantine_state"),
        ),
        sa.CheckConstraint(
            "upload_source IN ('manual', 'api', 'cd_import')", name=op.f("ck_dicom_quarantine_upload_source")
        ),
    )
    op.create_index("ix_dicom_quarantine_patient_id", "dicom_quarantine", ["patient_id"])
    op.create_index("ix_dicom_quarantine_refused_at", "dicom_quarantine", ["refused_at"])
    op.create_index(
        "ix_dicom_quarantine_open",
        "dicom_quarantine",
        ["source_sha256"],
        unique=True,
        postgresql_where=sa.text("state IN ('quarantined', 'lost')"),
    )
    op.create_table(
        "dicom_quarantine_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.String(20), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by_id", sa.Uuid()),
        _text("reason"),
        sa.PrimaryKeyConstraint("id", name="pk_dicom_quarantine_events"),
        sa.ForeignKeyConstraint(
            ["file_id"], ["dicom_quarantine.id"], name="fk_dicom_quarantine_events_file_id_dicom_quarantine"
        ),
        sa.ForeignKeyConstraint(["by_id"], ["users.id"], name="fk_dicom_quarantine_events_by_id_users"),
        sa.CheckConstraint(
            "action IN ('quarantined', 'retried', 'released', 'discarded', 'expired', 'lost', 'found')",
            name=op.f("ck_dicom_quarantine_events_action"),
        ),
    )
    op.create_index("ix_dicom_quarantine_events_file_id", "dicom_quarantine_events", ["file_id", "id"])


def downgrade() -> None:
    op.drop_table("dicom_quarantine_events")
    op.drop_table("dicom_quarantine")
