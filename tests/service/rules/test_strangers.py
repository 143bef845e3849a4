"""A third-party check is asked alone: what shares its cell could be falsified by it."""

from __future__ import annotations

import json

import pytest
from assay import canonical, catalogue
from assay.api.v1 import audits_pb2
from assay.catalogue import Catalogue, CheckEntry

from service.rules.errors import Refusal
from service.rules.submission import read_submission


def stranger(name: str, distribution: str) -> CheckEntry:
    """Return an entry as the operator's list adds it: a built-in's promises under another name and author."""
    raw = json.loads(canonical.dumps(dict(own("clusterability").raw)))
    raw |= {"name": name, "distribution": {"name": distribution, "version": "1.0", "sha256": "0" * 64}}
    return CheckEntry(raw=raw)


def own(name: str) -> CheckEntry:
    entry = catalogue.load().entry(name)
    assert entry is not None
    return entry


def asked(*names: str) -> audits_pb2.Audit:
    audit = audits_pb2.Audit(model="models/" + "a" * 64, nonce=b"n" * 32)
    for name in names:
        audit.checks.add(check=f"checks/{name}")
    return audit


@pytest.fixture
def offered() -> Catalogue:
    built_in = catalogue.load()
    others = (stranger("first", "acme"), stranger("second", "acme"), stranger("third", "other"))
    return Catalogue((*built_in.checks, *others), "0" * 64)


@pytest.mark.parametrize("names", [("first",), ("first", "second"), ("clusterability", "clusterability")])
def test_checks_of_one_author_are_asked_together(offered: Catalogue, names: tuple[str, ...]) -> None:
    assert [one.name for one in read_submission(asked(*names), offered).checks] == list(names)


@pytest.mark.parametrize("names", [("clusterability", "first"), ("first", "third")])
def test_a_strangers_check_never_shares_a_cell_with_anothers(offered: Catalogue, names: tuple[str, ...]) -> None:
    with pytest.raises(Refusal) as caught:
        read_submission(asked(*names), offered)
    assert "in a cell of their own" in str(caught.value.__dict__)
