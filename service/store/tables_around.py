"""Tables round an audit's life: consent, calendars, callbacks, quotas, and what was written down about all of it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from service.store.schema import metadata

approval_key = Table(
    "approval_key",
    metadata,
    Column("key_id", String(64), primary_key=True),  # hex SHA-256 of the SubjectPublicKeyInfo
    Column("tenant", String(64), nullable=False),
    Column("public_spki", LargeBinary, nullable=False),
    Column("added_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

approval = Table(
    "approval",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model_sha256", String(64), nullable=False),
    Column("owner_tenant", String(64), nullable=False),
    Column("grantee_tenant", String(64), nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("envelope_sha256", String(64), nullable=False, unique=True),
    Column("max_runs", Integer, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Index("ix_approval_model", "model_sha256", "grantee_tenant"),
    Index("ix_approval_page", "owner_tenant", "created_at", "id"),
)

approval_use = Table(
    "approval_use",
    metadata,
    Column("approval", String(32), ForeignKey("approval.id"), primary_key=True),
    Column("audit", String(32), ForeignKey("audit.id"), primary_key=True),
    Column("used_at", BigInteger, nullable=False),
    Index("ix_approval_use_audit", "audit"),
)

schedule = Table(
    "schedule",
    metadata,
    Column("tenant", String(64), primary_key=True),  # each tenant has its own ids, so none learns another's
    Column("id", String(63), primary_key=True),
    Column("principal", String(64), nullable=False),
    Column("template", LargeBinary, nullable=False),  # the input fields of assay.api.v1.Audit, serialised
    Column("cron", String(256), nullable=False),
    Column("time_zone", String(64), nullable=False),
    Column("misfire", String(8), nullable=False),
    Column("overlap", String(8), nullable=False),
    Column("jitter_s", Integer, nullable=False, server_default="0"),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("considered_until", BigInteger, nullable=False),  # due minutes up to here were decided
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    Index("ix_schedule_page", "tenant", "created_at", "id"),
)

fire = Table(
    "fire",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("schedule", String(63), primary_key=True),
    Column("due_at", BigInteger, primary_key=True, autoincrement=False),
    Column("fired_at", BigInteger, nullable=False),
    Column("outcome", String(24), nullable=False),
    Column("reason", String(64), nullable=False, server_default=""),
    Column("audit", String(32), ForeignKey("audit.id")),
    ForeignKeyConstraint(("tenant", "schedule"), ("schedule.tenant", "schedule.id")),
    Index("ix_fire_audit", "audit"),
)

webhook = Table(
    "webhook",
    metadata,
    Column("tenant", String(64), primary_key=True),  # each tenant has its own ids, so none learns another's
    Column("id", String(63), primary_key=True),
    Column("url", String(2048), nullable=False),
    Column("role", String(16), nullable=False),  # of who made it: it tells what that role may see
    Column("types_json", Text, nullable=False, server_default="[]"),  # [] means all
    Column("signing", String(8), nullable=False),  # HMAC, ED25519
    Column("secret", LargeBinary, nullable=False),
    Column("old_secrets_json", Text, nullable=False, server_default="[]"),  # see rules.standard_webhooks
    Column("created_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
    Index("ix_webhook_page", "tenant", "created_at", "id"),
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("webhook", String(63), nullable=False),
    Column("event_id", String(64), nullable=False),
    Column("type", String(64), nullable=False),
    Column("audit", String(32), ForeignKey("audit.id"), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),  # PENDING, DELIVERED, DEAD
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("not_before", BigInteger, nullable=False),
    Column("last_status", Integer, nullable=False, server_default="0"),
    Column("last_error", String(64), nullable=False, server_default=""),
    Column("created_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    ForeignKeyConstraint(("tenant", "webhook"), ("webhook.tenant", "webhook.id")),
    UniqueConstraint("tenant", "webhook", "event_id"),
    Index("ix_delivery_page", "tenant", "webhook", "created_at", "id"),
    Index(
        "ix_delivery_pending",
        "not_before",
        sqlite_where=text("state = 'PENDING'"),
        postgresql_where=text("state = 'PENDING'"),
    ),
)

quota_use = Table(
    "quota_use",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("quota", String(32), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),  # days since 1970, UTC
    Column("used", BigInteger, nullable=False),
)

access_log = Table(
    "access_log",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("principal", String(64), nullable=False),
    Column("method", String(64), nullable=False),
    Column("object", String(128), nullable=False),
    Column("outcome", String(32), nullable=False),  # OK, or the refusal's reason
    Column("times", Integer, nullable=False, server_default="1"),  # denials alike of one second, reads of one minute
    Column("previous_sha256", String(64), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    sqlite_autoincrement=True,
)

journal = Table(
    "journal",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("audit", String(32), nullable=False, server_default=""),
    Column("sequence", BigInteger, nullable=False, server_default="0"),  # gapless within the audit
    Column("job", String(40), nullable=False, server_default=""),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("token", BigInteger, nullable=False, server_default="0"),
    Column("kind", String(24), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("detail_json", Text, nullable=False, server_default="{}"),
    Index("ix_journal_audit", "audit", "sequence"),
    sqlite_autoincrement=True,
)
