"""Replay requests: the answers of uploads that carried a request id, for a while.

Revision: 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "upload_requests",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("gateway_id", sa.Uuid(), nullable=False),
        sa.Column("asked_sha256", sa.String(64), nullable=False),
        sa.Column("content_sha256", sa.String(64), nullable=False, server_default=""),
        sa.Column("answers", ARRAY(sa.LargeBinary())),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "request_id", name="pk_upload_requests"),
    )
    op.create_index("ix_upload_requests_expires_at", "upload_requests", ["expires_at"])


def downgrade() -> None:
    op.drop_table("upload_requests")
