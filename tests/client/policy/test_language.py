"""The language: defaults, digests, and every refusal with its line."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from assay.catalogue import Catalogue
from assay.policy import language, loader, waivers
from assay.policy.loader import Refused
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.policy import planted

SPEC = """schema: assay-policy/v1
name: release
require: [{check: forged_probe, version: "1", answered: measured}]      # version: major or major.minor
assertions:
  - {id: lies-not-readable, check: forged_probe, metric: accuracy, where: {}, quantifier: every,
     op: "<=", value: 0.60, bound: worst, min_power: 0.80, min_n: 200, min_instances: 1, level: gate,
     on_inconclusive: inconclusive}
findings: [{id: no-leak, check: forged_probe, max_severity: note}]
report: {max_age_days: 30, access: [weights, activations], sandbox: [bubblewrap], seed: derived, attempts_max: 3}
compare: [{id: no-drop, check: forged_probe, metric: accuracy, op: ">=", value: -0.02}]
"""


def read(text: str, file: str = "p.yaml") -> language.Policy:
    return language.parse(loader.read(text.encode(), file))


def test_the_specifications_example_is_read() -> None:
    found = read(SPEC)
    assert found.assertions[0].value == (Decimal("0.6"),)
    assert (found.assertions[0].min_n, found.assertions[0].min_power) == (200, Decimal("0.8"))
    assert found.compare[0].compared
    assert found.report.sandbox == ("bubblewrap",)
    assert found.require[0].version == "1"
    assert found.assertions[0].line == 5
    assert list(language.unknown_names(found, Catalogue((planted.ENTRY,), ""))) == []


def test_comments_order_quotes_zeros_and_defaults_do_not_change_the_digest() -> None:
    other = """# a comment
name: 'release'
schema: "assay-policy/v1"
report: {attempts_max: 3, seed: derived, sandbox: [bubblewrap], access: [activations, weights], max_age_days: 30}
compare: [{value: "-0.020", op: ">=", metric: accuracy, check: forged_probe, id: no-drop}]
findings: [{max_severity: note, id: no-leak, check: forged_probe, level: gate}]
assertions:
  - {metric: accuracy, op: <=, value: 0.6000, min_power: 0.8, min_n: 200, check: forged_probe, id: lies-not-readable}
require: [{check: forged_probe, version: 1}]
"""
    assert read(other).sha256 == read(SPEC).sha256
    assert read(SPEC.replace("0.60", "0.61")).sha256 != read(SPEC).sha256


def test_the_normalised_form_is_a_policy_with_the_same_digest() -> None:
    data = read(SPEC).data
    assert read(data.decode(), "policy.json").data == data
    assert json.loads(data)["assertions"][0]["bound"] == "worst"


ONE = "schema: assay-policy/v1\nname: p\nassertions:\n  - {id: a, check: c, metric: m, op: '<=', value: 1}\n"
BAD: dict[str, tuple[str, str, int]] = {
    "schema missing": ("schema: assay-policy/v1\n", "", 1),
    "schema of the future": ("assay-policy/v1", "assay-policy/v2", 1),
    "unknown field of a policy": ("name: p", "name: p\non: 1", 3),
    "unknown field of an assertion": ("value: 1", "value: 1, valeu: 2", 4),
    "op missing": ("op: '<=', ", "", 4),
    "op unknown": ("'<='", "'=='", 4),
    "value in exponents": ("value: 1", "value: 1e3", 4),
    "value in sixties": ("value: 1", "value: 1:30", 4),
    "value in octal": ("value: 1", "value: 017", 4),
    "value a list": ("value: 1", "value: [1, 2]", 4),
    "value missing": (", value: 1", "", 4),
    "within without a pair": ("op: '<='", "op: within", 4),
    "within out of order": ("op: '<=', value: 1", "op: within, value: [2, 1]", 4),
    "value empty": ("value: 1", "value: ", 4),
    "id a truth value": ("id: a", "id: true", 4),
    "id outside the alphabet": ("id: a", 'id: "a b"', 4),
    "id twice": ("value: 1}", "value: 1}\n  - {id: a, check: c, metric: m, op: '<', value: 1}", 5),
    "quantifier unknown": ("value: 1", "value: 1, quantifier: most", 4),
    "bound unknown": ("value: 1", "value: 1, bound: best", 4),
    "level unknown": ("value: 1", "value: 1, level: none", 4),
    "on_inconclusive pass": ("value: 1", "value: 1, on_inconclusive: pass", 4),
    "min_n zero": ("value: 1", "value: 1, min_n: 0", 4),
    "min_n a fraction": ("value: 1", "value: 1, min_n: 2.5", 4),
    "min_instances zero": ("value: 1", "value: 1, min_instances: 0", 4),
    "min_power above one": ("value: 1", "value: 1, min_power: 1.01", 4),
    "where a list": ("value: 1", "value: 1, where: [layer]", 4),
    "where a list of values": ("value: 1", "value: 1, where: {layer: [1, 2]}", 4),
    "nothing at gate": ("value: 1", "value: 1, level: advisory", 1),
    "assertions a mapping": ("  - {id: a", "  {id: a", 3),
    "assertion a text": ("value: 1}", "value: 1}\n  - text", 5),
    "severity that nothing exceeds": ("name: p", "name: p\nfindings: [{id: f, check: c, max_severity: breach}]", 3),
    "version with three parts": ("name: p", "name: p\nrequire: [{check: c, version: 1.0.0}]", 3),
    "answered unknown": ("name: p", "name: p\nrequire: [{check: c, answered: maybe}]", 3),
    "seed fixed": ("name: p", "name: p\nreport: {seed: fixed}", 3),
    "age of nothing": ("name: p", "name: p\nreport: {max_age_days: 0}", 3),
    "access empty": ("name: p", "name: p\nreport: {access: []}", 3),
    "access twice": ("name: p", "name: p\nreport: {access: [a, a]}", 3),
    "compare with min_n": ("name: p", "name: p\ncompare: [{id: d, check: c, metric: m, op: <, value: 1, min_n: 3}]", 3),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_policy_is_refused_with_its_line(case: str) -> None:
    assert read(ONE).name == "p"
    old, new, line = BAD[case]
    assert old in ONE
    with pytest.raises(Refused) as caught:
        read(ONE.replace(old, new, 1))
    assert caught.value.line == line, str(caught.value)


def test_what_the_catalogue_does_not_know_is_named() -> None:
    text = ONE.replace("check: c", "check: forged_probe")
    catalogue = Catalogue((planted.ENTRY,), "")
    (said,) = language.unknown_names(read(ONE), catalogue)
    assert said == (4, "the catalogue has no check c")
    (said,) = language.unknown_names(read(text), catalogue)
    assert said == (4, "forged_probe has no metric m")
    text = text.replace("metric: m", "metric: accuracy, where: {layr: 5}")
    (said,) = language.unknown_names(read(text), catalogue)
    assert said == (4, "forged_probe accuracy has no label layr")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-999, max_value=999), st.booleans())
def test_any_decimal_survives_normalisation(value: Decimal, quoted: bool) -> None:
    text = format(value, "f")
    found = planted.policy(value=f'"{text}"' if quoted else text)
    assert found.assertions[0].value == (value,)
    assert read(found.data.decode(), "p.json").sha256 == found.sha256


WAIVER: dict[str, Any] = {
    "fingerprint": planted.T8["fingerprint"],
    "outcome": "fail",
    "reason": "known",
    "approver": "a@example.com",
    "created": "2026-01-01",
    "expires": "2027-01-01",
    "model": None,
}


def waiver_file(*told: dict[str, Any]) -> tuple[waivers.Waiver, ...]:
    data = json.dumps({"schema": "assay-waivers/v1", "waivers": [*told]})
    return waivers.parse(loader.read(data.encode(), "w.json"))


def test_a_waiver_lasts_at_most_365_days() -> None:
    assert waiver_file(WAIVER)[0].to_json() == WAIVER
    with pytest.raises(Refused, match="expires"):
        waiver_file({**WAIVER, "expires": "2027-01-02"})
    with pytest.raises(Refused, match="expires"):
        waiver_file({**WAIVER, "expires": "2025-12-31"})


def test_the_same_waiver_twice_is_refused() -> None:
    assert len(waiver_file(WAIVER, {**WAIVER, "outcome": "inconclusive"})) == 2
    with pytest.raises(Refused, match="twice"):
        waiver_file(WAIVER, {**WAIVER, "reason": "again"})


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "E5" * 16},
        {"outcome": "pass"},
        {"outcome": "wrong"},
        {"reason": ""},
        {"reason": "x\u202ey"},
        {"approver": None},
        {"created": "2026-1-1"},
        {"created": "20260101"},
        {"created": "2026-02-30"},
        {"model": "abc"},
        {"more": "x"},
    ],
)
def test_a_bad_waiver_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        waiver_file({**WAIVER, **change})
