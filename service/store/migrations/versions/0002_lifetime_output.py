"""What left about each model over its lifetime."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "output_total",
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.Column("principal", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("cap", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("model_sha256", "principal", name=op.f("pk_output_total")),
    )
    op.create_table(
        "output_charge",
        sa.Column("audit", sa.String(length=32), nullable=False),
        sa.Column("token", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("principal", sa.String(length=64), nullable=False),
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("charged_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("audit", "token", name=op.f("pk_output_charge")),
    )
    op.create_index("ix_output_charge_model_sha256", "output_charge", ["model_sha256"])
    op.add_column("result", sa.Column("lifetime_bytes", sa.BigInteger(), nullable=True))
    op.add_column("result", sa.Column("lifetime_cap", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("there is no way back: restore a backup")
