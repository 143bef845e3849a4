"""What `truth_probe` hands out pairs two reports: no change where there is none, and a planted loss is found.

The measurement is the check's own, on planted states; the reports are forged around it. A server's own reports:
`tests/e2e/test_compare.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from assay.compare.compare import Comparison, Row, compare
from assay.result import Measured
from assay.testing import forged_entry

from checks.truth_probe.check import TruthProbe
from checks.truth_probe.items import FILES
from tests.checks.truth_probe.cases import BARE, Case, Layer, evidence, probe
from tests.client.compare.planted import Pair, answer

CASE = replace(BARE, layers=(Layer(a=3.0),), train=120, test=300, width=24)
TWIN = replace(CASE, layers=(Layer(a=1.0),))
"""The same rows asked of a model that carries a third of the truth."""


@dataclass(frozen=True)
class Ran:
    """One run of the check."""

    measured: Measured
    files: Mapping[str, bytes]


def run(case: Case, seed: int) -> Ran:
    check = probe(case, methods=("md", "lr"), causal_layers=(0,))
    seen = evidence(check, case)
    seen.seed = seed
    real = check.measure(seen)
    return Ran(real, check.hand_out(seen, real, ()))


@pytest.fixture(scope="module")
def runs() -> dict[str, Ran]:
    return {"first": run(CASE, 1), "again": run(CASE, 2), "twin": run(TWIN, 3)}


def report(pair: Pair, which: int, ran: Ran, *, items: bool = True) -> Path:
    """A report of one run, of a version that this client does not ship: it has the controls of a forge."""
    forge = pair.forges[which]
    offers = [
        {"name": one.name, "media_type": one.media_type, "max_bytes": one.max_bytes, "summary": one.summary}
        for one in FILES
    ]
    forge.entry = forged_entry(name=TruthProbe.name, version="0.1", artefacts=offers)
    made = forge.report()
    told = forge.statement(made)
    mine = answer(told)
    mine["measured"] = ran.measured.model_dump(mode="json")
    mine["findings"] = []
    if items:
        mine["artefacts"] = [_put(made, offer, ran.files[str(offer["name"])]) for offer in offers]
    pair.promise(made, told, forge)
    return forge.reseal(made, told)


def _put(made: Path, offer: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (made / "artefacts" / digest).write_bytes(data)
    return {"name": offer["name"], "media_type": offer["media_type"], "sha256": digest, "size": len(data)}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def against(pair: Pair, a: Path, b: Path) -> Comparison:
    return compare(pair.side(a), pair.side(b))


def row(made: Comparison, metric: str, method: str) -> Row:
    (found,) = [one for one in made.rows if one.metric == metric and dict(one.labels).get("method") == method]
    return found


def test_a_model_against_itself_under_another_seed_has_not_changed(pair: Pair, runs: dict[str, Ran]) -> None:
    made = against(pair, report(pair, 0, runs["first"]), report(pair, 1, runs["again"]))
    assert not made.missing
    assert {one.word for one in made.rows} == {"cannot_tell"}
    for metric in ("accuracy", "auroc"):
        same = row(made, metric, "md")
        # Of the closed form only the weight of the midpoint sees the seed.
        assert abs(same.difference.d) < 0.01
        assert same.seen.unpaired_because is None


def test_a_planted_loss_is_found_by_its_pairs(pair: Pair, runs: dict[str, Ran]) -> None:
    made = against(pair, report(pair, 0, runs["first"]), report(pair, 1, runs["twin"]))
    for metric in ("accuracy", "auroc"):
        lost = row(made, metric, "md")
        assert (lost.word, lost.seen.unpaired_because) == ("regressed", None)
        assert lost.interval is not None
        assert lost.interval[0] < lost.difference.d < lost.interval[1] < 0
        assert lost.p is not None
        assert lost.difference.p is not None
        assert lost.difference.p <= lost.p < 0.05
    # Every row of these planted pairs stands alone.
    assert row(made, "accuracy", "md").difference.method == "bonett_price"


def test_without_items_the_same_reports_are_not_paired(pair: Pair, runs: dict[str, Ran]) -> None:
    made = against(pair, report(pair, 0, runs["first"], items=False), report(pair, 1, runs["twin"]))
    alone = row(made, "accuracy", "md")
    assert (alone.difference.method, alone.seen.unpaired_because) == ("unpaired", "no_items")
