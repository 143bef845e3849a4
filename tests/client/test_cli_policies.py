"""`assay submit --policy`: read whole, refused with its line before anything travels, sent in its normalised form."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from assay.policy import registered

from tests.client.conftest import Assay
from tests.client.fakes import Fake

POLICY = """schema: assay-policy/v1
# why: as agreed
name: release
assertions:
  - {id: low, check: forged_probe, metric: accuracy, op: "<=", value: 0.60}
"""
WAIVERS = "schema: assay-waivers/v1\nwaivers: []\n"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    return file


def test_the_policy_is_sent_before_the_audit_and_named_in_it(
    assay: Assay, fake: Fake, model: Path, policy: Path, tmp_path: Path
) -> None:
    (tmp_path / "waivers.yaml").write_text(WAIVERS)
    arguments = ("--check", "forged_probe", "--policy", policy, "--waivers", tmp_path / "waivers.yaml", "--json")
    ran = assay("submit", model, *arguments)
    assert ran.code == 0, ran.err
    sent = fake.audits.requests[-1].audit
    data = fake.blobs.whole[sent.policy.sha256]
    assert registered.read_policy(data).assertions[0].id == "low"
    assert (len(data), hashlib.sha256(data).hexdigest()) == (sent.policy.size, ran.json()["policy_sha256"])
    assert registered.read_waivers(fake.blobs.whole[sent.waivers.sha256]) == ()
    # Comments, key order and trailing zeros change nothing.
    policy.write_text(POLICY.replace("# why: as agreed\n", "").replace("0.60", "0.6"))
    assert assay("submit", model, "--check", "forged_probe", "--policy", policy, "--json").json()["policy_sha256"] == (
        sent.policy.sha256
    )


def test_without_a_policy_nothing_is_named(assay: Assay, fake: Fake, model: Path) -> None:
    assert assay("submit", model, "--check", "forged_probe").code == 0
    assert not fake.audits.requests[-1].audit.HasField("policy")


@pytest.mark.parametrize(
    ("wrong", "right", "words"),
    [
        ("metric: accuracy", "metric: accurcay", "line 5: forged_probe has no metric accurcay"),
        ("check: forged_probe", "check: forged_prob", "line 5: the catalogue has no check forged_prob"),
        ("metric: accuracy", "metric: accuracy, where: {row: a}", "line 5: forged_probe accuracy has no label row"),
        ("name: release", "name: release\nname: other", "line 4: the key name appears twice"),
        ("value: 0.60", "value: 6e-1", "line 5"),
        ("value: 0.60", "value: &a 0.60", "line 5: anchors"),
        ("id: low,", "id: low, level: advisory,", "nothing here is at level"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_line_and_sends_nothing(
    assay: Assay, fake: Fake, model: Path, policy: Path, wrong: str, right: str, words: str
) -> None:
    policy.write_text(POLICY.replace(wrong, right))
    ran = assay("submit", model, "--check", "forged_probe", "--policy", policy)
    assert (ran.code, words in ran.err) == (3, True), ran.err
    assert (fake.audits.requests, fake.blobs.whole) == ([], {})


def test_waivers_without_a_policy_and_files_that_are_not_there_are_usage(
    assay: Assay, fake: Fake, model: Path, policy: Path, tmp_path: Path
) -> None:
    for given in (("--waivers", policy), ("--policy", tmp_path / "absent.yaml"), ("--policy", tmp_path)):
        ran = assay("submit", model, "--check", "forged_probe", *given)
        assert ran.code == 3, ran.err
    assert fake.audits.requests == []
