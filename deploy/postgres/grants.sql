-- What each role of the server may do in the database. Run by its owner, after the first `assay-server migrate` and
-- after every later one: psql -v ON_ERROR_STOP=1 -d assay -U assay_owner -f deploy/postgres/grants.sql
-- A table that is named nowhere here is nobody's but the owner's; tests/deploy/test_grants.py holds the list complete.

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, assay_api, assay_scheduler, assay_worker, assay_signer;
GRANT SELECT ON alembic_version TO assay_api, assay_scheduler, assay_worker, assay_signer;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO assay_api, assay_scheduler, assay_worker;

-- The signer reads what it signs, and writes nothing.
GRANT SELECT ON audit, attempt, result, report, model, approval, approval_key, approval_use TO assay_signer;

-- Who may call, and whose signature is consent: read by those that decide, changed by the owner's local commands alone.
GRANT SELECT ON principal, approval_key TO assay_api, assay_scheduler;
GRANT SELECT ON revoked_certificate TO assay_api;
GRANT SELECT ON approval_key TO assay_worker;

-- The log of access and the journal grow, and nobody below the owner changes a row of them.
GRANT SELECT, INSERT ON access_log TO assay_api, assay_scheduler;
GRANT SELECT, INSERT ON journal TO assay_api, assay_scheduler, assay_worker;

-- Calls: tokens, repeated requests, uploads.
GRANT SELECT, INSERT, DELETE ON token_use TO assay_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON upload TO assay_api;
GRANT SELECT, INSERT ON idempotency TO assay_api;
GRANT SELECT, INSERT, DELETE ON idempotency TO assay_scheduler;

-- Blobs: only the scheduler's collection deletes. Workers store results and quarantine what is corrupt.
GRANT SELECT, INSERT, UPDATE ON blob TO assay_api, assay_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON blob TO assay_scheduler;
GRANT SELECT, INSERT, UPDATE ON blob_grant TO assay_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON blob_grant TO assay_scheduler;
GRANT SELECT ON blob_grant, upload TO assay_worker;
GRANT SELECT ON upload TO assay_scheduler;
GRANT SELECT, INSERT, UPDATE ON model TO assay_api, assay_scheduler;
GRANT SELECT, UPDATE (revision) ON model TO assay_worker;      -- the column lets it lock a row, which needs one

-- Audits. Workers make no audit, no approval and no report.
GRANT SELECT, INSERT, UPDATE ON audit, job TO assay_api, assay_scheduler;
GRANT SELECT, UPDATE ON audit TO assay_worker;
GRANT SELECT, INSERT, UPDATE ON job TO assay_worker;
GRANT SELECT, INSERT ON audit_label TO assay_api, assay_scheduler;
GRANT SELECT ON audit_label TO assay_worker;
GRANT SELECT, INSERT, UPDATE ON attempt TO assay_worker, assay_scheduler;
GRANT SELECT, UPDATE ON attempt TO assay_api;
GRANT SELECT, INSERT ON plan, result TO assay_worker;
GRANT SELECT ON plan, result TO assay_api, assay_scheduler;
GRANT SELECT, INSERT, UPDATE ON output_total TO assay_worker, assay_scheduler;
GRANT SELECT, INSERT ON output_charge TO assay_worker, assay_scheduler;
GRANT SELECT ON output_total, output_charge TO assay_api;
GRANT SELECT ON report TO assay_api, assay_worker;
GRANT SELECT, INSERT, UPDATE ON report TO assay_scheduler;
GRANT SELECT ON report_file TO assay_api;
GRANT SELECT, INSERT ON report_file TO assay_scheduler;
GRANT SELECT, INSERT ON event TO assay_api, assay_scheduler, assay_worker;
GRANT SELECT, INSERT ON outbox TO assay_api, assay_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox TO assay_scheduler;
GRANT SELECT, INSERT, UPDATE ON quota_use TO assay_api, assay_scheduler, assay_worker;

-- Consent.
GRANT SELECT, INSERT, UPDATE ON approval TO assay_api;
GRANT SELECT, UPDATE (revoked_at) ON approval TO assay_scheduler;
GRANT SELECT ON approval, approval_use TO assay_worker;
GRANT SELECT, INSERT ON approval_use TO assay_api, assay_scheduler;

-- Calendars and callbacks. A worker owes deliveries and sees no secret of a webhook.
GRANT SELECT, INSERT, UPDATE ON schedule TO assay_api;
GRANT SELECT, UPDATE ON schedule TO assay_scheduler;
GRANT SELECT, INSERT, DELETE ON fire TO assay_api;
GRANT SELECT, INSERT ON fire TO assay_scheduler;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook, delivery TO assay_api;
GRANT SELECT, UPDATE ON webhook TO assay_scheduler;
GRANT SELECT, INSERT, UPDATE ON delivery TO assay_scheduler;
GRANT SELECT, INSERT ON delivery TO assay_worker;
GRANT SELECT (tenant, id, types_json, role, disabled_at), UPDATE (created_at) ON webhook TO assay_worker;
