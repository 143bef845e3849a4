"""A report of a foreign model rests on what its owner signed, and says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from assay import approval
from assay.verify import verify
from sqlalchemy import insert, update

from service.signer import consent
from service.signer.refusal import Refused
from service.store.tables import model
from service.store.tables_around import approval as approval_table
from service.store.tables_around import approval_key, approval_use
from tests.service.rules.test_approvals import KEY, OTHER, owner
from tests.service.signer.planting import World


class Foreign(World):
    """An audit of tenant t on a model of acme."""

    def _request(self, checks: int) -> dict[str, Any]:
        asked = super()._request(checks)
        asked["limits"]["output_bytes"] = approval.OUTPUT_CAP_MAX
        return {**asked, "access": {"granted": ["weights", "activations"]}}

    def approve(self, signer: Any = KEY, owner_tenant: str = "acme", **changes: Any) -> str:
        """Count a run of an approval; return its id."""
        entry = self.forge.entry
        check = approval.ApprovedCheck(
            name=entry.name, version=entry.version, code_sha256=entry.code_sha256, params_sha256=approval.ANY
        )
        made = approval.Approval(
            model=self.forge.manifest.digest,
            grantee="t",
            checks=(check,),
            data=None,
            access=("weights", "activations"),
            output_cap_bytes=approval.OUTPUT_CAP_MAX,
            lifetime_cap_bytes=approval.LIFETIME_CAP_MAX,
            max_runs=1,
            not_after=datetime(2999, 1, 1, tzinfo=UTC),
            nonce="5" * 64,
        )
        envelope = approval.sign(replace(made, **changes), signer)
        identifier = approval.open_envelope(envelope).id
        key = {"key_id": owner().key_id, "tenant": "acme", "public_spki": owner().spki, "added_at": 1}
        row = {
            "id": identifier, "model_sha256": self.forge.manifest.digest, "owner_tenant": owner_tenant,
            "grantee_tenant": "t", "envelope": envelope, "envelope_sha256": identifier, "max_runs": 1,
            "not_after": 1, "created_at": 1,
        }  # fmt: skip
        self.execute(insert(approval_key).values(key))
        self.execute(insert(approval_table).values(row))
        self.execute(insert(approval_use).values(approval=identifier, audit=self.id, used_at=1))
        return identifier


@pytest.fixture
def world(tmp_path: Path) -> Foreign:
    made = Foreign(tmp_path)
    made.set(model_tenant="acme")
    made.execute(update(model).values(tenant="acme"))
    return made


def test_foreign_model_without_an_approval_is_not_signed(world: Foreign) -> None:
    with pytest.raises(Refused, match="another tenant's, with no approval"):
        consent.read(world.desk.rows.consent(world.id), world.request, [world.forge.entry])


@pytest.mark.parametrize(
    "changes", [{"grantee": "other"}, {"checks": ()}, {"data": ()}, {"access": ()}, {"signer": OTHER}]
)
def test_what_the_owner_did_not_sign_is_not_signed(world: Foreign, changes: dict[str, Any]) -> None:
    world.approve(**changes)
    with pytest.raises(Refused) as caught:
        consent.read(world.desk.rows.consent(world.id), world.request, [world.forge.entry])
    assert caught.value.code == "REQUEST_REJECTED"


def test_envelope_in_the_row_of_another_approval_is_not_signed(world: Foreign) -> None:
    world.approve()
    row = world.desk.rows.consent(world.id)
    (counted,) = row.counted
    with pytest.raises(Refused, match="holds another envelope"):
        consent.read(replace(row, counted=(replace(counted, id="0" * 32),)), world.request, [world.forge.entry])


@pytest.mark.parametrize("named", ["acme", "evil"])
def test_approval_of_a_tenant_that_does_not_own_the_model_is_not_signed(world: Foreign, named: str) -> None:
    world.approve(signer=OTHER, owner_tenant="evil")
    key = {"key_id": owner(OTHER).key_id, "tenant": "evil", "public_spki": owner(OTHER).spki, "added_at": 1}
    world.execute(insert(approval_key).values(key))
    world.set(model_tenant=named)
    with pytest.raises(Refused, match="is of evil, the model of acme" if named == "acme" else "evil has no such model"):
        consent.read(world.desk.rows.consent(world.id), world.request, [world.forge.entry])


def test_model_that_its_owner_has_not_or_no_more_is_not_signed(world: Foreign) -> None:
    world.approve()
    world.execute(update(model).values(deleted_at=1, purged_at=2))
    with pytest.raises(Refused, match="acme has no such model"):
        consent.read(world.desk.rows.consent(world.id), world.request, [world.forge.entry])


def test_row_that_says_the_model_is_ones_own_is_not_signed(world: Foreign) -> None:
    world.set(model_tenant="t")
    with pytest.raises(Refused, match="t has no such model"):
        consent.read(world.desk.rows.consent(world.id), world.request, [world.forge.entry])


def test_runs_beyond_what_the_owner_signed_are_not_signed(world: Foreign) -> None:
    world.approve(max_runs=0)
    with pytest.raises(Refused, match="allows 0 runs, and 1 were counted"):
        consent.read(world.desk.rows.consent(world.id), world.request, [world.forge.entry])


def test_report_names_parties_and_the_consent_that_it_rests_on(world: Foreign) -> None:
    identifier = world.approve()
    world.execute(update(approval_table).values(revoked_at=2))  # after it was measured: no reason against
    world.execute(update(approval_key).values(revoked_at=2))
    world.register()
    world.finish()
    directory = Path(world.sealed()["directory"])
    told = world.forge.statement(directory)["predicate"]
    (counted,) = told["parties"]["approvals"]
    assert (told["parties"]["auditor"], told["parties"]["owner"]) == ("t", "acme")
    assert counted["name"] == f"models/{world.forge.manifest.digest}/approvals/{identifier}"
    assert counted["key_id"] == owner().key_id
    assert told["access"]["grant"] == counted["envelope_sha256"]
    assert told["access"]["granted"] == ["weights", "activations"]
    assert world.desk.journal is not None
    seen = verify(
        directory,
        keys=[world.desk.public_file],
        log_vkeys=[world.desk.journal.vkey.text],
        model_dir=world.forge.model_dir,
        catalogue=world.desk.catalogue,
        now=world.now,
    )
    assert seen.outcome == "verified", seen.render_text()
