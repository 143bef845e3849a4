"""A second model that an audit holds the first against, charged as the first is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit", sa.Column("base_sha256", sa.String(length=64), nullable=True))
    op.add_column("result", sa.Column("base_lifetime_bytes", sa.BigInteger(), nullable=True))
    op.add_column("result", sa.Column("base_lifetime_cap", sa.BigInteger(), nullable=True))
    # One lease may be charged for two models: the primary key grows. SQLite makes the table anew for that.
    with op.batch_alter_table("output_charge") as table:
        table.drop_constraint(op.f("pk_output_charge"), type_="primary")
        table.create_primary_key(op.f("pk_output_charge"), ["audit", "token", "model_sha256"])


def downgrade() -> None:
    raise NotImplementedError("there is no way back: restore a backup")
