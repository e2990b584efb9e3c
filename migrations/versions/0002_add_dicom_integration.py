"""Add dicom integration: the study that was uploaded for an order, and the upload logs.

Revision: 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ORDER_COLUMNS = {
    "study_instance_uid": sa.String(64),
    "orthanc_study_id": sa.String(64),
    "number_of_series": sa.Integer(),
    "number_of_images": sa.Integer(),
    "study_date": sa.String(16),
    "study_time": sa.String(16),
    "uploaded_by_id": sa.Uuid(),
    "uploaded_at": sa.DateTime(timezone=True),
    "upload_source": sa.String(20),
}


def _text(name: str, length: int | None = None) -> "sa.Column[str]":
    return sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False, server_default="")


def upgrade() -> None:
    for name, kind in _ORDER_COLUMNS.items():
        op.add_column("orders", sa.Column(name, kind))
    op.create_foreign_key("fk_orders_uploaded_by", "orders", "users", ["uploaded_by_id"], ["id"])
    op.create_index("ix_orders_study_instance_uid", "orders", ["study_instance_uid"])

    op.create_table(
        "dicom_upload_logs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("patient_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid()),
        sa.Column("uploaded_by_id", sa.Uuid(), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        _text("orthanc_study_id", 64),
        sa.Column("number_of_files", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("total_size_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("file_names", sa.JSON(), nullable=False, server_default=sa.text("'[]'::json")),
        _text("original_patient_id", 64),
        _text("original_patient_name", 255),
        _text("original_accession_number", 64),
        _text("original_study_date", 8),
        _text("original_modality", 16),
        _text("modified_patient_id", 64),
        _text("modified_patient_name", 255),
        _text("modified_accession_number", 64),
        sa.Column("tags_modified", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("upload_status", sa.String(20), nullable=False),
        _text("error_message"),
        sa.Column("uploaded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("upload_source", sa.String(20), nullable=False),
        sa.Column("upload_duration_seconds", sa.Double(), nullable=False, server_default="0"),
        sa.Column("is_deleted", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("id", name="pk_dicom_upload_logs"),
        sa.UniqueConstraint("study_instance_uid", name="uq_study_instance_uid"),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patients.id"], name="fk_dicom_upload_logs_patient_id_patients", onupdate="CASCADE"
        ),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_dicom_upload_logs_order_id_orders"),
        sa.ForeignKeyConstraint(["uploaded_by_id"], ["users.id"], name="fk_dicom_upload_logs_uploaded_by_id_users"),
        sa.CheckConstraint(
            "upload_status IN ('in_progress', 'success', 'partial', 'failed')",
            name=op.f("ck_dicom_upload_logs_upload_status"),
        ),
        sa.CheckConstraint(
            "upload_source IN ('manual', 'api', 'cd_import')", name=op.f("ck_dicom_upload_logs_upload_source")
        ),
    )
    for column in ("orthanc_study_id", "patient_id", "order_id", "uploaded_at"):
        op.create_index(f"ix_dicom_upload_logs_{column}", "dicom_upload_logs", [column])


def downgrade() -> None:
    op.drop_table("dicom_upload_logs")
    op.drop_index("ix_orders_study_instance_uid", "orders")
    op.drop_constraint("fk_orders_uploaded_by", "orders", type_="foreignkey")
    for name in reversed(_ORDER_COLUMNS):
        op.drop_column("orders", name)
