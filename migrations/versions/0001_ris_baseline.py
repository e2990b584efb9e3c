"""RIS baseline: the users, patients and orders that the gateway keeps in step with the RIS.

Revision: 0001, the first.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("username", sa.String(150), nullable=False),
        sa.Column("full_name", sa.String(255), nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("username", name="uq_users_username"),
        sa.CheckConstraint(
            "role IN ('admin', 'radiologist', 'technologist', 'viewer', 'service')", name=op.f("ck_users_role")
        ),
    )
    op.create_table(
        "patients",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("mrn", sa.String(64), nullable=False),
        sa.Column("full_name", sa.String(255), nullable=False),
        sa.Column("birth_date", sa.Date()),
        sa.Column("sex", sa.String(1), nullable=False, server_default=""),
        sa.Column("is_provisional", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("id", name="pk_patients"),
        sa.UniqueConstraint("mrn", name="uq_patients_mrn"),
        sa.CheckConstraint("sex IN ('M', 'F', 'O', '')", name=op.f("ck_patients_sex")),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("patient_id", sa.Uuid(), nullable=False),
        sa.Column("accession_number", sa.String(16), nullable=False),
        sa.Column("modality", sa.String(16), nullable=False, server_default=""),
        sa.Column("status", sa.String(20), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_orders"),
        sa.UniqueConstraint("accession_number", name="uq_orders_accession_number"),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patients.id"], name="fk_orders_patient_id_patients", onupdate="CASCADE"
        ),
    )
    op.create_index("ix_orders_patient_id", "orders", ["patient_id"])


def downgrade() -> None:
    op.drop_table("orders")
    op.drop_table("patients")
    op.drop_table("users")
