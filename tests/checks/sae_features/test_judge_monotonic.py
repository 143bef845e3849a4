from __future__ import annotations

import pytest
from assay.result import Finding
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.sae_features.words import INCONCLUSIVE
from tests.checks.sae_features.judge_reported import CONTROLS, VARIANTS, judged, key, without


def _weaker(found: tuple[Finding, ...], full: dict[tuple[object, ...], str]) -> None:
    for one in found:
        assert one.word in (full.get(key(one), INCONCLUSIVE), INCONCLUSIVE), (key(one), one.word)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_taking_numbers_away_only_moves_a_word_to_inconclusive(data: st.DataObject) -> None:
    metrics = data.draw(st.sampled_from(VARIANTS))
    full = {key(one): one.word for one in judged(metrics)}
    share = data.draw(st.sampled_from((0.02, 0.1, 0.5)))
    kept = [one for one in metrics if data.draw(st.floats(0, 1)) > share]
    missed = data.draw(st.lists(st.sampled_from(CONTROLS), unique=True, max_size=2))
    _weaker(judged(kept, missed=missed), full)


@pytest.mark.parametrize("variant", range(len(VARIANTS)))
def test_no_single_number_dictionary_concept_or_name_is_needed_to_hold_a_word_down(variant: int) -> None:
    metrics = VARIANTS[variant]
    full = {key(one): one.word for one in judged(metrics)}
    for place in range(0, len(metrics), 1 if variant == 0 else 3):
        _weaker(judged(metrics[:place] + metrics[place + 1 :]), full)
    for name in {one.name for one in metrics}:
        _weaker(judged(without(metrics, lambda one, name=name: one.name == name)), full)  # type: ignore[misc]
    for label in ("dictionary", "concept", "probe", "form", "edit", "place"):
        for at in {one.labels[label] for one in metrics if label in one.labels}:
            _weaker(judged(without(metrics, lambda one, k=label, v=at: one.labels.get(k) == v)), full)  # type: ignore[misc]
