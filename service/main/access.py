"""Local commands that say who may use the service, whose signature is whose consent, and which report is taken back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from service.main import config, revoking
from service.rules.access import Role


def add_commands(commands: Any) -> None:
    """Add `principals` and `approval-keys` to the table of commands."""
    principal = commands.add_parser("principals", help="say who may use the service")
    principal.add_argument("--config", type=Path, required=True)
    principal.add_argument("action", choices=("add", "disable", "list", "revoke-certificate", "revoked-certificates"))
    principal.add_argument(
        "id", nargs="?", default="", help="of the principal; with revoke-certificate: SHA256 or FILE.pem"
    )
    principal.add_argument("--tenant", default="")
    principal.add_argument("--role", choices=[str(role) for role in Role], default=str(Role.AUDITOR))
    principal.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE", help="of a gate: which audits it sees (repeatable)"
    )
    principal.add_argument(
        "--issuer", default="", help="whose tokens name this principal; without it only a certificate does"
    )
    principal.add_argument("--reason", default="", help="with revoke-certificate: why, for the list")
    principal.add_argument("--json", action="store_true", help="with revoked-certificates: one array instead of lines")
    principal.set_defaults(run=principals)
    key = commands.add_parser("approval-keys", help="say whose signature is a model owner's consent")
    key.add_argument("--config", type=Path, required=True)
    key.add_argument("action", choices=("add", "list", "revoke"))
    key.add_argument("id", nargs="?", default="", help="with revoke: the key's id, as list prints it")
    key.add_argument("--tenant", default="", help="with add: whose models the key speaks for")
    key.add_argument("--pem", type=Path, help="with add: the public P-256 key")
    key.set_defaults(run=approval_keys)
    back = commands.add_parser("withdraw", help="take a signed report back: the log says so for ever")
    back.add_argument("--config", type=Path, required=True)
    back.add_argument("audit", help="audits/ID")
    back.add_argument("--reason", required=True, help="a word for the log: a letter, then a-z, 0-9 and _, at most 32")
    back.set_defaults(run=withdraw)


def principals(options: argparse.Namespace) -> int:
    """Add, disable or list principals; revoke one certificate, or list those that are."""
    from service.store import principals

    server = config.load(options.config)
    url = server.database_url
    _require_fitting(options)
    if options.action == "revoke-certificate":
        revoking.revoke(url, options.id, options.reason)
        return 0
    if options.action == "revoked-certificates":
        revoking.show(url, as_json=options.json)
        return 0
    if options.action == "list":
        for row in principals.list_principals(url):
            labels = ",".join(f"{key}={value}" for key, value in sorted(row.selector.items()))
            state = "disabled" if row.disabled else "enabled"
            more = [*([labels] if labels else []), *([f"tokens of {row.issuer}"] if row.issuer else [])]
            print("\t".join((row.id, row.tenant, row.role, state, *more)))
        return 0
    if not options.id or (options.action == "add" and not options.tenant):
        raise config.ConfigError(f"principals {options.action}: an id is needed, and --tenant with add")
    if options.action == "add":
        selector = _selector(options.role, options.label)
        _require_issuer(server, options.issuer, options.tenant, options.role)
        principals.put_principal(
            url, options.id, tenant=options.tenant, role=options.role, selector=selector, issuer=options.issuer
        )
    elif not principals.disable_principal(url, options.id):
        raise config.ConfigError(
            f"principals disable: no principal {options.id!r}; `assay-server principals list` names them"
        )
    return 0


def _require_fitting(options: argparse.Namespace) -> None:
    """Refuse an option that another action would have used: `disable --reason` keeps no reason."""
    if options.action == "revoke-certificate" and not options.id:
        raise config.ConfigError("principals revoke-certificate: name the certificate, SHA256 or FILE.pem")
    if options.reason and options.action != "revoke-certificate":
        raise config.ConfigError(f"principals {options.action}: --reason goes with revoke-certificate alone")
    if options.json and options.action != "revoked-certificates":
        raise config.ConfigError(f"principals {options.action}: --json goes with revoked-certificates alone")


def _require_issuer(server: config.Server, issuer: str, tenant: str, role: str) -> None:
    if not issuer:
        return
    found = next((one for one in server.issuers if one.issuer == issuer), None)
    if found is None:
        raise config.ConfigError(f"principals add: --issuer {issuer}: the configuration has no such [[issuers]]")
    if not found.speaks_for(tenant, role):
        raise config.ConfigError(
            f"principals add: --issuer {issuer}: its tenants and roles do not name {tenant} and {role}; "
            "name them in [[issuers]] first"
        )


def _selector(role: str, labels: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in labels]
    wrong = next((text for text, one in zip(labels, pairs, strict=True) if not all(one)), None)
    if wrong is not None:
        raise config.ConfigError(f"principals add: --label {wrong} has not the form KEY=VALUE")
    if bool(labels) != (role == Role.GATE):
        raise config.ConfigError("principals add: a gate needs --label, which audits it sees; no other role takes one")
    return {key: value for key, _, value in pairs}


def approval_keys(options: argparse.Namespace) -> int:
    """Add, list or revoke keys of owners."""
    from service.store import approval_keys as keys

    url = config.load(options.config).database_url
    if options.action == "list":
        for row in keys.list_keys(url, options.tenant):
            print(f"{row.key_id}\t{row.tenant}\t{'serves' if row.revoked_at is None else 'revoked'}")
    elif options.action == "revoke":
        ended = keys.revoke_key(url, options.id)
        if ended is None:
            raise config.ConfigError(
                f"approval-keys revoke: no key {options.id!r} that serves; `assay-server approval-keys list` names them"
            )
        print(f"{options.id}\trevoked, with {len(ended)} approvals")
    else:
        print(_add_key(url, options.tenant, options.pem))
    return 0


def _add_key(url: str, tenant: str, pem: Path | None) -> str:
    from assay.errors import Misused
    from assay.keys import load_public
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from service.rules.approvals import OwnerKey
    from service.store.approval_keys import KeyTaken, add_key

    if not tenant or pem is None:
        raise config.ConfigError("approval-keys add: --tenant and --pem are needed")
    try:
        read = load_public(pem)
        spki = read.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        add_key(url, tenant, OwnerKey(key_id=read.id, spki=spki))
    except (Misused, KeyTaken) as error:
        raise config.ConfigError(f"approval-keys add: {error}") from None
    return read.id


def withdraw(options: argparse.Namespace) -> int:
    """Owe the log the withdrawal of a report; the scheduler has the signer write it."""
    from assay.tlog.entries import is_reason

    from service.rules import names
    from service.rules.errors import Refusal
    from service.store.withdrawals import CannotWithdraw
    from service.store.withdrawals import withdraw as owe_withdrawal

    server = config.load(options.config)
    if not is_reason(options.reason):
        raise config.ConfigError(
            f"withdraw: --reason {options.reason!r}: a letter, then a-z, 0-9 and _, at most 32, e.g. wrong_model"
        )
    try:
        audit_id = names.audit(options.audit)
    except Refusal:
        raise config.ConfigError(f"withdraw: {options.audit!r} is no audit's name; give audits/ID") from None
    try:
        fresh = owe_withdrawal(server.database_url, audit_id, options.reason)
    except CannotWithdraw as error:
        raise config.ConfigError(f"withdraw: {error}") from None
    told = "will be in the log when scheduler and signer run" if fresh else "was asked before; nothing new is owed"
    print(f"{options.audit}\t{options.reason}\tthe withdrawal {told}")
    return 0
