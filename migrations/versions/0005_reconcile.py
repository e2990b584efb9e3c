"""Reconcile the ledger with the PACS: which gateways live, and what the PACS was seen to hold of each study.

Revision: 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COUNTS = ("instances_missing", "instances_unlogged")


def upgrade() -> None:
    op.create_table(
        "gateways",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_gateways"),
    )
    for name in _COUNTS:
        op.add_column("dicom_upload_logs", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.add_column("dicom_upload_logs", sa.Column("compared_at", sa.DateTime(timezone=True)))
    op.create_index("ix_dicom_upload_logs_compared_at", "dicom_upload_logs", ["compared_at"])


def downgrade() -> None:
    op.drop_index("ix_dicom_upload_logs_compared_at", "dicom_upload_logs")
    op.drop_column("dicom_upload_logs", "compared_at")
    for name in reversed(_COUNTS):
        op.drop_column("dicom_upload_logs", name)
    op.drop_table("gateways")
