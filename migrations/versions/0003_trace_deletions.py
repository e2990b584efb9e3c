"""Trace the deletions of studies: who asked for one, when and why, and whether it was completed.

Revision: 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "study_deletions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("orthanc_study_id", sa.String(64), nullable=False, server_default=""),
        sa.Column("reason", sa.Text(), nullable=False, server_default=""),
        sa.Column("requested_by_id", sa.Uuid(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("upload_log_id", sa.Uuid()),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_study_deletions"),
        sa.ForeignKeyConstraint(["requested_by_id"], ["users.id"], name="fk_study_deletions_requested_by_id_users"),
        sa.ForeignKeyConstraint(
            ["upload_log_id"], ["dicom_upload_logs.id"], name="fk_study_deletions_upload_log_id_dicom_upload_logs"
        ),
    )
    op.create_index("ix_study_deletions_study_instance_uid", "study_deletions", ["study_instance_uid", "requested_at"])


def downgrade() -> None:
    op.drop_table("study_deletions")
