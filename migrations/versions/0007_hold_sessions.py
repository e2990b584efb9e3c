"""Hold upload sessions: what a client is going to send, which files of the ledger came into it, and its receipt.

Revision: 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_WORDS = {
    "state": "'open', 'completed', 'expired'",
    "upload_source": "'manual', 'api', 'cd_import'",
    "patient_match": "'REQUIRE', 'COERCE', 'ACCEPT'",
    "on_conflict": "'REJECT', 'OVERWRITE', 'KEEP'",
}


def upgrade() -> None:
    op.create_table(
        "upload_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("patient_id", sa.Uuid()),
        sa.Column("order_id", sa.Uuid()),
        sa.Column("upload_source", sa.String(20), nullable=False),
        sa.Column("patient_match", sa.String(20), nullable=False),
        sa.Column("on_conflict", sa.String(20), nullable=False),
        sa.Column("number_of_files", sa.Integer(), nullable=False),
        sa.Column("lists_files", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("receipt", sa.Text(), nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("id", name="pk_upload_sessions"),
        sa.ForeignKeyConstraint(["created_by_id"], ["users.id"], name="fk_upload_sessions_created_by_id_users"),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patients.id"], name="fk_upload_sessions_patient_id_patients", onupdate="CASCADE"
        ),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_upload_sessions_order_id_orders"),
        *(
            sa.CheckConstraint(f"{column} IN ({words})", name=op.f(f"ck_upload_sessions_{column}"))
            for column, words in _WORDS.items()
        ),
    )
    op.create_index("ix_upload_sessions_patient_id", "upload_sessions", ["patient_id"])
    op.create_index(
        "ix_upload_sessions_open", "upload_sessions", ["expires_at"], postgresql_where=sa.text("state = 'open'")
    )
    op.create_table(
        "upload_session_files",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(255), nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("session_id", "sha256", name="pk_upload_session_files"),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["upload_sessions.id"],
            name="fk_upload_session_files_session_id_upload_sessions",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_upload_session_files_sha256", "upload_session_files", ["sha256"])
    op.add_column("dicom_upload_files", sa.Column("session_id", sa.Uuid()))
    op.create_foreign_key(
        "fk_dicom_upload_files_session_id_upload_sessions",
        "dicom_upload_files",
        "upload_sessions",
        ["session_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.create_index(
        "ix_dicom_upload_files_session",
        "dicom_upload_files",
        ["session_id", "source_sha256"],
        postgresql_where=sa.text("session_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_dicom_upload_files_session", "dicom_upload_files")
    op.drop_column("dicom_upload_files", "session_id")
    op.drop_table("upload_session_files")
    op.drop_table("upload_sessions")
