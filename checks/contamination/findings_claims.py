"""The sentence of a finding: what was found or not, at which rate, and what stays unseen (contamination, 1, 9.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from assay.result import Metric

from checks.contamination.reasons import WHY
from checks.contamination.recall import CODE
from checks.contamination.words import DETECTED, INCONCLUSIVE, INVALID, NOT_ASKED

CLAIM_MAX = 512
"""Letters of a claim: the report's limit."""


LANGUAGES_NAMED = 5
"""Languages named in a sentence: a tag has 16 letters at most, and the claim 512."""


def claim(
    of: Callable[..., Metric | None],
    word: str,
    why: str | None,
    tier: str,
    q: float,
    rests: Sequence[Metric],
    languages: Sequence[str] = ("en",),
) -> str:
    """Return one sentence.

    Args:
        of: reads a metric of the benchmark by name and labels.
        word: of the finding.
        why: its reason.
        tier: or "all".
        q: false discovery rate.
        rests: the recall that a silence rests on.
        languages: whose words were examined.
    """
    if word in (NOT_ASKED, INVALID, INCONCLUSIVE):
        begins = {NOT_ASKED: "not asked", INVALID: "not valid", INCONCLUSIVE: "could not tell"}[word]
        flagged = number(of("flagged", tier=tier))
        also = f"; {flagged} items are flagged at q {q:g}, which is no claim" if flagged not in ("0", "unknown") else ""
        # Of a silence that is not said: what was measured instead.
        of_others = [one for one in rests if word == INCONCLUSIVE and one.labels["source"].startswith("authored")]
        also += "".join(
            f"; recall of depth {one.labels['depth']} ({_whose(one)}) is {bounds(one)}" for one in of_others
        )
        return _cut(f"{begins}: {WHY.get(why or '', why or 'unknown')}{also}.")
    unseen = f"fewer than {number(of('min_flaggable'))} leaked items cannot be flagged"
    declared = number(of("shards_declared", whole=True))
    if declared not in ("0", "unknown"):
        unseen += f"; {declared} shards were scanned elsewhere, which is declared and not observed"
    if word == DETECTED:
        of_tier = "a gating tier" if tier == "all" else f"tier {tier}"
        found = f"{number(of('flagged', tier=tier))} of {number(of('items'))} items have a match of {of_tier}"
        share = bounds(of("share.raw", tier=tier))
        return _cut(
            f"{found} at false discovery rate {q:g} (share {share}); {unseen}. A match says nothing of a score."
        )
    planted = "".join(
        f"one planted rewrite of depth {one.labels['depth']} ({_whose(one)}) is flagged with probability {bounds(one)} "
        for one in rests
    )
    read, other = of("words", whole=True), of("words_other_language", whole=True)
    # Six digits are told of a count, so that of a large corpus the difference is rounded too.
    words = f"{float(read.value) - (float(other.value) if other else 0):.0f}" if read else "unknown"
    where = f"{words} words in {', '.join(languages[:LANGUAGES_NAMED])}"
    without = number(of("unflaggable" if tier == "exact" else "uncalibrated"))
    if without not in ("0", "unknown"):
        unseen += f"; nothing is said of {without} items that no match could flag"
    return _cut(f"not detected; {planted}at q {q:g}, over {where}; {unseen}.")


def _whose(metric: Metric) -> str:
    told = {"rewrites": "your own", "authored": "measured on authored items, not on yours"}
    source = metric.labels["source"]
    return told.get(source.removesuffix(CODE), "made by rule") + (", code" if source.endswith(CODE) else "")


def number(metric: Metric | None) -> str:
    """Return a metric's value."""
    return "unknown" if metric is None else metric.value


def bounds(metric: Metric | None) -> str:
    """Return a metric's value with its bounds, three digits each."""
    if metric is None:
        return "unknown"
    if metric.interval is None:
        return metric.value
    low, high = float(metric.interval.low), float(metric.interval.high)
    return f"{float(metric.value):.3f} [{low:.3f}, {high:.3f}]"


def _cut(text: str) -> str:
    return text if len(text) <= CLAIM_MAX else f"{text[: CLAIM_MAX - 3]}..."
