"""Who the command line of a development server names is who enters it, and nobody by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.main import clients
from service.main.config import ConfigError
from service.rules.access import Role
from service.store.migrations import migrate
from service.store.principals import list_principals


def test_a_principal_has_the_tenant_that_is_named_or_the_servers_own() -> None:
    first, ola, ops, gate = clients.people(["ola:owner:acme", "ops:operator", "ci:gate:acme:gate=release,env=eu"])
    assert (first.name, first.role, first.tenant) == ("dev-auditor", Role.AUDITOR, "dev")
    assert (ola.name, ola.role, ola.tenant) == ("ola", Role.OWNER, "acme")
    assert (ops.role, ops.tenant, ops.labels) == (Role.OPERATOR, "dev", {})
    assert gate.labels == {"gate": "release", "env": "eu"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ola", "a role is one of auditor"),
        ("ola:king", "a role is one of auditor"),
        (":owner", "a name is"),
        ("../ola:owner", "a name is"),
        ("Ola:owner", "a name is"),
        ("server:owner", "none of ca, root, server"),
        ("ca:owner", "none of"),
        ("ola:owner:ac me", "a tenant is"),
        ("ola:owner:" + "a" * 65, "a tenant is"),
        ("ci:gate:acme", "a gate needs labels"),
        ("ola:owner:acme:gate=release", "a gate needs labels"),
        ("ci:gate:acme:release", "KEY=VALUE"),
        ("ci:gate:acme:a=b:c", "KEY=VALUE"),
        ("dev-auditor:owner", "made anyway"),
    ],
)
def test_what_names_no_principal_is_refused_with_its_form(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        clients.people([text])
    assert named in str(refused.value)
    assert text.partition(":")[0] in str(refused.value)


def test_one_name_is_one_principal() -> None:
    with pytest.raises(ConfigError, match="named twice"):
        clients.people(["ola:owner:acme", "ola:auditor:bolt"])


def test_who_is_entered_is_in_the_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'assay.sqlite'}"
    migrate(url)
    clients.enter(url, clients.people(["ola:owner:acme"]))
    assert [(one.id, one.role, one.tenant) for one in list_principals(url)] == [
        ("dev-auditor", "auditor", "dev"),
        ("ola", "owner", "acme"),
    ]
