"""The database's tables. Times are milliseconds since 1970 by the database's clock, named for their moment."""

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

principal = Table(
    "principal",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("disabled", Boolean, nullable=False, server_default=text("false")),
    Column("selector_json", Text, nullable=False, server_default="{}"),  # labels that a gate principal's audits have
    Column("issuer", String(256), nullable=False, server_default=""),  # whose tokens name it; empty: certificates alone
)

revoked_certificate = Table(
    "revoked_certificate",
    metadata,
    Column("sha256", String(64), primary_key=True),  # of its DER; it outlives the principal's row
    Column("principal", String(64), nullable=False, server_default=""),
    Column("reason", String(200), nullable=False, server_default=""),
    Column("revoked_at", BigInteger, nullable=False),
)

token_use = Table(
    "token_use",
    metadata,
    Column(
        "token_sha256", String(64), primary_key=True
    ),  # of issuer and jti: an unbound bearer token changes one thing
    Column("expires_at", BigInteger, nullable=False),
    Index("ix_token_use_expires_at", "expires_at"),
)

blob = Table(
    "blob",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("stored_at", BigInteger, nullable=False),
    Column("doomed_at", BigInteger),  # found unreferenced; an hour later row and bytes go
    Column("quarantined_at", BigInteger),  # its bytes were not its digest's
    Index(
        "ix_blob_doomed_at",
        "doomed_at",
        sqlite_where=text("doomed_at IS NOT NULL"),
        postgresql_where=text("doomed_at IS NOT NULL"),
    ),
)

blob_grant = Table(
    "blob_grant",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("sha256", String(64), ForeignKey("blob.sha256"), primary_key=True),
    Column("touched_at", BigInteger, nullable=False),
)

upload = Table(
    "upload",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant", String(64), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("committed_size", BigInteger, nullable=False),
    Column("complete", Boolean, nullable=False, server_default=text("false")),
    Column("written_at", BigInteger, nullable=False),
    Index(
        "ix_upload_unsent",
        "tenant",
        sqlite_where=text("NOT complete"),
        postgresql_where=text("NOT complete"),
    ),
)

model = Table(
    "model",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("manifest_sha256", String(64), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("files", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False, server_default="1"),  # what its etag is made of
    Column("deleted_at", BigInteger),
    Column("purged_at", BigInteger),  # its weights are gone
    Index("ix_model_page", "tenant", "created_at", "manifest_sha256"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("principal", String(64), nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("base_sha256", String(64)),  # a second model that the first is held against
    Column("checks", Text, nullable=False),  # space-separated names, for the list filter
    Column("request_sha256", String(64), nullable=False),
    Column("request_json", LargeBinary),  # until it is registered; from before that on it is a blob
    Column("submission", LargeBinary, nullable=False),  # the accepted assay.api.v1.Audit input, serialised
    # 17 letters of AWAITING_APPROVAL; SQLite ignores lengths, and cannot change a table that others refer to.
    Column("state", String(16).with_variant(String(24), "postgresql"), nullable=False),
    Column("state_reason", String(64), nullable=False, server_default=""),
    Column("retryable", Boolean, nullable=False, server_default=text("false")),
    Column("outcome", String(16), nullable=False, server_default=""),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    Column("cancel_confirmation", String(16), nullable=False, server_default=""),
    Column("attempts_max", Integer, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("submitted_at", BigInteger, nullable=False),
    Column("registered_at", BigInteger),
    Column("registration_json", Text),  # what the signer answered to `register`: request_sha256, entropy, seed
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column(
        "model_tenant", String(64), nullable=False, server_default=""
    ),  # its owner; empty in rows from before owners
    Column("schedule", String(64), nullable=False, server_default=""),
    Index("ix_audit_page", "tenant", "submitted_at", "id"),
    Index("ix_audit_owner_page", "model_tenant", "submitted_at", "id"),
    Index(
        "ix_audit_unfinished",
        "tenant",
        "state",
        sqlite_where=text("state NOT IN ('COMPLETED','CANCELLED','FAILED')"),
        postgresql_where=text("state NOT IN ('COMPLETED','CANCELLED','FAILED')"),
    ),
)

audit_label = Table(
    "audit_label",
    metadata,
    Column("audit", String(32), ForeignKey("audit.id"), primary_key=True),
    Column("key", String(63), primary_key=True),
    Column("value", String(256), nullable=False),
    Index("ix_audit_label_key_value", "key", "value"),
)

job = Table(
    "job",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("audit", String(32), ForeignKey("audit.id"), nullable=False),
    Column("kind", String(8), nullable=False),  # whole, shard, combine
    Column("shard", Integer, nullable=False, server_default="0"),
    Column("capability", String(16), nullable=False),
    Column("state", String(8), nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("strikes", Integer, nullable=False, server_default="0"),
    Column("token", BigInteger, nullable=False, server_default="0"),
    Column("beat", BigInteger, nullable=False, server_default="0"),
    Column("worker", String(64), nullable=False, server_default=""),
    Column("backoff_ms", BigInteger, nullable=False, server_default="0"),
    Column("published_at", BigInteger),
    Column("part_sha256", String(64)),  # of a finished shard: what its scan left, a blob
    Column("part_size", BigInteger),
    Column("traceparent", String(55), nullable=False, server_default=""),  # W3C; the broker carries the id alone
    UniqueConstraint("audit", "kind", "shard"),
    Index(
        "ix_job_live",
        "state",
        "capability",
        sqlite_where=text("state IN ('QUEUED','LEASED','WAITING')"),
        postgresql_where=text("state IN ('QUEUED','LEASED','WAITING')"),
    ),
)

plan = Table(
    "plan",
    metadata,
    Column("audit", String(32), ForeignKey("audit.id"), primary_key=True),
    Column("shards", Integer, nullable=False),
    Column("document_sha256", String(64), nullable=False),  # blobs of no tenant, as the host's record is one
    Column("document_size", BigInteger, nullable=False),
    Column("carried_sha256", String(64)),
    Column("carried_size", BigInteger),
    Column("planned_at", BigInteger, nullable=False),
)

attempt = Table(
    "attempt",
    metadata,
    Column("audit", String(32), ForeignKey("audit.id"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("job", String(40), ForeignKey("job.id"), nullable=False),
    Column("job_label", String(16), nullable=False),  # whole, shard:k, combine
    Column("token", BigInteger, nullable=False),
    Column("worker", String(64), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("exit_class", String(24)),
    Column("cells_json", Text, nullable=False, server_default="[]"),  # seals and usage, host-measured
    Column("result_sha256", String(64)),
    Column(
        "operator_note", Text, nullable=False, server_default=""
    ),  # last signal and stderr, never leaves the operator
)

result = Table(
    "result",
    metadata,
    Column("audit", String(32), ForeignKey("audit.id"), primary_key=True),
    Column("token", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),  # the host's record: answers, environment, sandbox; a blob
    Column("finalised_at", BigInteger, nullable=False),
    Column("lifetime_bytes", BigInteger),  # what the auditor was charged for the model by then, this result included
    Column("lifetime_cap", BigInteger),
    Column("base_lifetime_bytes", BigInteger),  # the same of the base, where there is one
    Column("base_lifetime_cap", BigInteger),
)

output_total = Table(
    "output_total",
    metadata,
    Column("model_sha256", String(64), primary_key=True),  # of the weights alone, unlike an audit's
    Column("principal", String(64), primary_key=True),  # empty: all of the model's auditors together
    Column("bytes", BigInteger, nullable=False),
    Column("cap", BigInteger),  # an owner's own, lower than the service's
)

output_charge = Table(
    "output_charge",
    metadata,
    Column("audit", String(32), primary_key=True),  # no foreign key: a charge outlives its audit
    Column("token", BigInteger, primary_key=True, autoincrement=False),
    Column("principal", String(64), nullable=False),
    Column("model_sha256", String(64), primary_key=True),  # a base is charged as its model is
    Column("bytes", BigInteger, nullable=False),
    Column("charged_at", BigInteger, nullable=False),
    Index("ix_output_charge_model_sha256", "model_sha256"),
)

report = Table(
    "report",
    metadata,
    Column("audit", String(32), ForeignKey("audit.id"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("files_json", Text, nullable=False),  # [{"path","sha256","size"}]
    Column("key_id", String(64), nullable=False),
    Column("signed_at", BigInteger, nullable=False),
    Column("withdrawal_reason", String(32)),  # an operator took the report back: a word, as the log has it
    Column("withdrawn_at", BigInteger),  # when the scheduler heard that the withdrawal is in the log
)

report_file = Table(
    "report_file",
    metadata,
    Column("sha256", String(64), primary_key=True),  # what `report.files_json` says, to be found by its digest
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("audit", String(32), primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    ForeignKeyConstraint(("audit", "n"), ("report.audit", "report.n")),
)

event = Table(
    "event",
    metadata,
    Column("audit", String(32), ForeignKey("audit.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("kind", String(24), nullable=False),
    Column("detail_json", Text, nullable=False, server_default="{}"),
    Column("occurred_at", BigInteger, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),  # register, publish, sign, void, withdraw
    Column("audit", String(32), ForeignKey("audit.id"), nullable=False),
    Column("job", String(40), nullable=False, server_default=""),
    Column("token", BigInteger, nullable=False, server_default="0"),
    Column("queued_at", BigInteger, nullable=False),
    # Without it SQLite gives a deleted row's id to the next one, and a relay that settles late deletes another debt.
    sqlite_autoincrement=True,
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("principal", String(64), primary_key=True),
    Column("method", String(64), primary_key=True),
    Column("request_id", String(36), primary_key=True),
    Column("request_sha256", String(64), nullable=False),
    Column("resource", String(64), nullable=False),
    Column("stored_at", BigInteger, nullable=False),
)

Index("ix_blob_grant_sha256", blob_grant.c.sha256)
