"""Consent of owners, calendars, callbacks, quotas, labels that are searched, the journal and the log of access."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "access_log",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("principal", sa.String(length=64), nullable=False),
        sa.Column("method", sa.String(length=64), nullable=False),
        sa.Column("object", sa.String(length=128), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("times", sa.Integer(), server_default="1", nullable=False),
        sa.Column("previous_sha256", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_access_log")),
        sa.UniqueConstraint("sha256", name=op.f("uq_access_log_sha256")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "approval",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.Column("owner_tenant", sa.String(length=64), nullable=False),
        sa.Column("grantee_tenant", sa.String(length=64), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("envelope_sha256", sa.String(length=64), nullable=False),
        sa.Column("max_runs", sa.Integer(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approval")),
        sa.UniqueConstraint("envelope_sha256", name=op.f("uq_approval_envelope_sha256")),
    )
    op.create_index("ix_approval_model", "approval", ["model_sha256", "grantee_tenant"], unique=False)
    op.create_index("ix_approval_page", "approval", ["owner_tenant", "created_at", "id"], unique=False)
    op.create_table(
        "approval_key",
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("public_spki", sa.LargeBinary(), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_approval_key")),
    )
    op.create_table(
        "journal",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("audit", sa.String(length=32), server_default="", nullable=False),
        sa.Column("sequence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("job", sa.String(length=40), server_default="", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("detail_json", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_journal")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_journal_audit", "journal", ["audit", "sequence"], unique=False)
    op.create_table(
        "quota_use",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("quota", sa.String(length=32), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "quota", "day", name=op.f("pk_quota_use")),
    )
    op.create_table(
        "schedule",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("principal", sa.String(length=64), nullable=False),
        sa.Column("template", sa.LargeBinary(), nullable=False),
        sa.Column("cron", sa.String(length=256), nullable=False),
        sa.Column("time_zone", sa.String(length=64), nullable=False),
        sa.Column("misfire", sa.String(length=8), nullable=False),
        sa.Column("overlap", sa.String(length=8), nullable=False),
        sa.Column("jitter_s", sa.Integer(), server_default="0", nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("considered_until", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_schedule")),
    )
    op.create_index("ix_schedule_page", "schedule", ["tenant", "created_at", "id"], unique=False)
    op.create_table(
        "token_use",
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_token_use")),
    )
    op.create_index("ix_token_use_expires_at", "token_use", ["expires_at"], unique=False)
    op.create_table(
        "webhook",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("url", sa.String(length=2048), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("types_json", sa.Text(), server_default="[]", nullable=False),
        sa.Column("signing", sa.String(length=8), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("old_secrets_json", sa.Text(), server_default="[]", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_webhook")),
    )
    op.create_index("ix_webhook_page", "webhook", ["tenant", "created_at", "id"], unique=False)
    op.create_table(
        "approval_use",
        sa.Column("approval", sa.String(length=32), nullable=False),
        sa.Column("audit", sa.String(length=32), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["approval"], ["approval.id"], name=op.f("fk_approval_use_approval_approval")),
        sa.ForeignKeyConstraint(["audit"], ["audit.id"], name=op.f("fk_approval_use_audit_audit")),
        sa.PrimaryKeyConstraint("approval", "audit", name=op.f("pk_approval_use")),
    )
    op.create_index("ix_approval_use_audit", "approval_use", ["audit"], unique=False)
    op.create_table(
        "audit_label",
        sa.Column("audit", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=63), nullable=False),
        sa.Column("value", sa.String(length=256), nullable=False),
        sa.ForeignKeyConstraint(["audit"], ["audit.id"], name=op.f("fk_audit_label_audit_audit")),
        sa.PrimaryKeyConstraint("audit", "key", name=op.f("pk_audit_label")),
    )
    op.create_index("ix_audit_label_key_value", "audit_label", ["key", "value"], unique=False)
    op.create_table(
        "delivery",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("webhook", sa.String(length=63), nullable=False),
        sa.Column("event_id", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("audit", sa.String(length=32), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("last_status", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.String(length=64), server_default="", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["audit"], ["audit.id"], name=op.f("fk_delivery_audit_audit")),
        sa.ForeignKeyConstraint(
            ["tenant", "webhook"], ["webhook.tenant", "webhook.id"], name=op.f("fk_delivery_tenant_webhook")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sa.UniqueConstraint("tenant", "webhook", "event_id", name=op.f("uq_delivery_tenant_webhook_event_id")),
    )
    op.create_index("ix_delivery_page", "delivery", ["tenant", "webhook", "created_at", "id"], unique=False)
    op.create_index(
        "ix_delivery_pending",
        "delivery",
        ["not_before"],
        unique=False,
        sqlite_where=sa.text("state = 'PENDING'"),
        postgresql_where=sa.text("state = 'PENDING'"),
    )
    op.create_table(
        "fire",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("schedule", sa.String(length=63), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("fired_at", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(length=24), nullable=False),
        sa.Column("reason", sa.String(length=64), server_default="", nullable=False),
        sa.Column("audit", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(["audit"], ["audit.id"], name=op.f("fk_fire_audit_audit")),
        sa.ForeignKeyConstraint(
            ["tenant", "schedule"], ["schedule.tenant", "schedule.id"], name=op.f("fk_fire_tenant_schedule")
        ),
        sa.PrimaryKeyConstraint("tenant", "schedule", "due_at", name=op.f("pk_fire")),
    )
    op.create_index("ix_fire_audit", "fire", ["audit"], unique=False)
    op.create_table(
        "report_file",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("audit", sa.String(length=32), nullable=False),
        sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["audit", "n"], ["report.audit", "report.n"], name=op.f("fk_report_file_audit_report")),
        sa.PrimaryKeyConstraint("sha256", "size", "audit", "n", name=op.f("pk_report_file")),
    )
    op.add_column("audit", sa.Column("model_tenant", sa.String(length=64), server_default="", nullable=False))
    op.add_column("audit", sa.Column("request_json", sa.LargeBinary(), nullable=True))
    op.add_column("audit", sa.Column("schedule", sa.String(length=64), server_default="", nullable=False))
    op.create_index("ix_audit_owner_page", "audit", ["model_tenant", "submitted_at", "id"], unique=False)
    op.create_index(
        "ix_audit_unfinished",
        "audit",
        ["tenant", "state"],
        unique=False,
        sqlite_where=sa.text("state NOT IN ('COMPLETED','CANCELLED','FAILED')"),
        postgresql_where=sa.text("state NOT IN ('COMPLETED','CANCELLED','FAILED')"),
    )
    op.create_index(
        "ix_upload_unsent",
        "upload",
        ["tenant"],
        unique=False,
        sqlite_where=sa.text("NOT complete"),
        postgresql_where=sa.text("NOT complete"),
    )
    op.add_column("blob", sa.Column("doomed_at", sa.BigInteger(), nullable=True))
    op.add_column("blob", sa.Column("quarantined_at", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_blob_doomed_at",
        "blob",
        ["doomed_at"],
        unique=False,
        sqlite_where=sa.text("doomed_at IS NOT NULL"),
        postgresql_where=sa.text("doomed_at IS NOT NULL"),
    )
    op.add_column("job", sa.Column("traceparent", sa.String(length=55), server_default="", nullable=False))
    op.add_column("model", sa.Column("revision", sa.Integer(), server_default="1", nullable=False))
    op.add_column("model", sa.Column("deleted_at", sa.BigInteger(), nullable=True))
    op.add_column("model", sa.Column("purged_at", sa.BigInteger(), nullable=True))
    op.add_column("report", sa.Column("withdrawal_reason", sa.String(length=32), nullable=True))
    op.add_column("report", sa.Column("withdrawn_at", sa.BigInteger(), nullable=True))
    op.add_column("principal", sa.Column("selector_json", sa.Text(), server_default="{}", nullable=False))
    op.add_column("principal", sa.Column("issuer", sa.String(length=256), server_default="", nullable=False))
    # The journal begins here: of an audit that is older nobody wrote down how it began.
    op.execute("INSERT INTO journal (audit, sequence, kind, at) SELECT id, 1, 'carried_over', submitted_at FROM audit")
    # The files of the reports that there are, one by one.
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "INSERT INTO report_file (sha256, size, audit, n)"
            " SELECT DISTINCT one ->> 'sha256', CAST(one ->> 'size' AS BIGINT), report.audit, report.n"
            " FROM report, json_array_elements(CAST(report.files_json AS JSON)) AS one"
        )
    else:
        op.execute(
            "INSERT INTO report_file (sha256, size, audit, n)"
            " SELECT DISTINCT json_extract(one.value, '$.sha256'), json_extract(one.value, '$.size'),"
            " report.audit, report.n FROM report, json_each(report.files_json) AS one"
        )
    # What each tenant has sent so far; from here on it is counted blob by blob.
    op.execute(
        "INSERT INTO quota_use (tenant, quota, day, used) SELECT blob_grant.tenant, 'stored_bytes', 0,"
        " sum(CASE WHEN blob.size < 4096 THEN 4096 ELSE blob.size END)"
        " FROM blob_grant JOIN blob ON blob.sha256 = blob_grant.sha256 GROUP BY blob_grant.tenant"
    )
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("audit", "state", type_=sa.String(length=24), existing_type=sa.String(length=16))


def downgrade() -> None:
    raise NotImplementedError("there is no way back: restore a backup")
