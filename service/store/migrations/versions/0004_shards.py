"""Plans of audits that are read in shards, and what the scan of each shard left."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("part_sha256", sa.String(length=64), nullable=True))
    op.add_column("job", sa.Column("part_size", sa.BigInteger(), nullable=True))
    op.create_table(
        "plan",
        sa.Column("audit", sa.String(length=32), nullable=False),
        sa.Column("shards", sa.Integer(), nullable=False),
        sa.Column("document_sha256", sa.String(length=64), nullable=False),
        sa.Column("document_size", sa.BigInteger(), nullable=False),
        sa.Column("carried_sha256", sa.String(length=64), nullable=True),
        sa.Column("carried_size", sa.BigInteger(), nullable=True),
        sa.Column("planned_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["audit"], ["audit.id"], name=op.f("fk_plan_audit_audit")),
        sa.PrimaryKeyConstraint("audit", name=op.f("pk_plan")),
    )


def downgrade() -> None:
    raise NotImplementedError("there is no way back: restore a backup")
