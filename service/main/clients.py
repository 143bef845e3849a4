"""Who uses a development server: principals that the command line names, each with a certificate and a client file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.main.config import ConfigError, Server
from service.main.layout import Layout
from service.rules.access import Role

TENANT = "dev"
"""Whose the principals are that no tenant is named for."""

FORM = "NAME:ROLE[:TENANT[:LABELS]]"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""Names become names of files."""

_TENANT = re.compile(r"[!-9;-~]{1,64}")
"""Printable, without blanks, as the grantee of an approval is; and without the colon, which parts the fields here."""

TAKEN = frozenset({"ca", "server", "root"})
"""Files of the authority, the server and the trust root lie beside the clients'."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """One principal."""

    name: str
    role: Role = Role.AUDITOR
    tenant: str = TENANT
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of a gate: which audits it sees."""


FIRST = Person(name="dev-auditor")
"""The one that every development server has; `client.json` is its."""


def people(texts: Sequence[str]) -> tuple[Person, ...]:
    """Read who is named, the first one before them.

    Args:
        texts: `NAME:ROLE[:TENANT[:KEY=VALUE,...]]`; labels are a gate's, which needs them.

    Raises:
        ConfigError: one of them has another form; names it.
    """
    found = [FIRST, *map(_person, texts)]
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"--principal {twice}: named twice, or made anyway; give each its own name")
    return tuple(found)


def _person(text: str) -> Person:
    name, role, tenant, labels, *more = [*text.split(":"), "", "", ""]
    pairs = [one.partition("=") for one in labels.split(",") if labels]
    problem = ""
    if not _NAME.fullmatch(name) or name in TAKEN:
        problem = f"a name is a-z, 0-9 and -, at most 63, and none of {', '.join(sorted(TAKEN))}"
    elif role not in set(map(str, Role)):
        problem = f"a role is one of {', '.join(Role)}"
    elif tenant and not _TENANT.fullmatch(tenant):
        problem = "a tenant is 1 to 64 printable characters without blanks and colons"
    elif any(more) or not all(map(all, pairs)):
        problem = "labels are KEY=VALUE, with commas between them"
    elif bool(pairs) != (role == Role.GATE):
        problem = "a gate needs labels, which audits it sees; no other role takes any"
    if problem:
        raise ConfigError(f"--principal {text}: {problem}; write {FORM}")
    told = {key: value for key, _, value in pairs}
    return Person(name=name, role=Role(role), tenant=tenant or TENANT, labels=told)


def enter(url: str, who: Sequence[Person]) -> None:
    """Write people into the database.

    Raises:
        StoreError: it cannot be written.
    """
    from service.store.principals import put_principal

    for one in who:
        put_principal(url, one.name, tenant=one.tenant, role=str(one.role), selector=one.labels)


def write_files(layout: Layout, server: Server, trust_root: Path, who: Sequence[Person]) -> dict[str, str]:
    """Write what `assay` needs of each; return their places by name."""
    places = {one.name: layout.client_config_of(one.name) for one in who}
    places[FIRST.name] = layout.client_config
    for name, path in places.items():
        told = {
            "address": server.address,
            "ca": str(layout.pki / "ca.pem"),
            "certificate": str(layout.pki / f"{name}.pem"),
            "key": str(layout.pki / f"{name}.key"),
            "report_key": str(layout.signing_key.with_name("report.pub.pem")),
            "trust_root": str(trust_root),
        }
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return {name: str(path) for name, path in places.items()}
