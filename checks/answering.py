"""Each check put to what was captured for it, and the files that it hands out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from checks.ask import Given, Told, ask, failed, refused
from checks.check import Check, ModelFacts, Needs, Refusal
from checks.documents import HandedOut, slot_of
from checks.hearing import Asked
from checks.memory import InMemoryEvidence
from checks.runtime.look import Looked
from checks.runtime.site_passages import tokenise_passages
from checks.runtime.sites import Sites
from checks.runtime.sweep import evidence


def ask_all(
    asked: Sequence[Asked],
    facts: ModelFacts,
    looked: Looked,
    weights: Mapping[str, Any],
    seed: int,
    on_step: Told,
    handed: Handed,
) -> Ran:
    """Ask each check that is still without an answer; progress is told over all of them.

    Args:
        asked: the checks; each gets its answer here.
        facts: of the model.
        looked: what was captured for all of them.
        weights: tensors that any of them asked for.
        seed: the audit's seed.
        on_step: told (step, done, owed).
        handed: takes the files that they hand out.

    Returns:
        What ran of passages.
    """
    ran = Ran()
    still = [(one, one.check, one.needs) for one in asked if one.answer is None]
    ready = [(one, check, needs) for one, check, needs in still if check is not None and needs is not None]
    owed = Counter({"measuring": len(ready), "judging": len(ready)})
    owed["controls"] = sum(len(check.controls) for _, check, _ in ready)
    before: Counter[str] = Counter()

    def told(step: str, done: int, _owed: int) -> None:
        on_step(step, before[step] + done, owed[step])

    # One BLAS thread: the same bytes whatever the number of cores, and on matrices of a few hundred rows two threads
    # are slower than one (benchmarks/README.md).
    with threadpool_limits(limits=1, user_api="blas"):
        for one, check, needs in ready:
            try:
                if refusal := looked.scored.refusal_of(needs):
                    raise refusal
                sites = _sites(looked, needs, facts)
            except Refusal as refusal:
                one.answer = refused(check, refusal)
            except MemoryError:
                raise
            except Exception:  # a text that the tokenizer itself cannot take
                one.answer = failed(check, "sweep")
            else:
                seen = _seen(one, check, needs, facts, looked, weights, seed, sites)
                one.answer = ask(check, seen, on_step=told, on_artefact=handed.taker(one))
                ran.add(sites)
            before.update(measuring=1, judging=1, controls=len(check.controls))
    return ran


def _seen(
    one: Asked,
    check: Check,
    needs: Needs,
    facts: ModelFacts,
    looked: Looked,
    weights: Mapping[str, Any],
    seed: int,
    sites: Sites | None,
) -> InMemoryEvidence:
    """Return exactly what a check's needs named."""
    return evidence(
        facts,
        check=check.name,
        seed=seed,
        needs=needs,
        swept=looked.swept,
        weights=weights,
        rows=one.rows,
        twin=looked.twin,
        loaded=looked.loaded,
        sites=sites,
        blobs=one.blobs,
        gathered=one.gathered,
    )


@dataclass
class Ran:
    """What ran of passages, for the record."""

    texts: int = 0
    tokens: int = 0

    def add(self, sites: Sites | None) -> None:
        """Add one check's."""
        if sites is not None:
            self.texts += int(sites.ran.sum())
            self.tokens += sites.budget.spent


def _sites(looked: Looked, needs: Needs, facts: ModelFacts) -> Sites | None:
    """Return what answers a check's sites; None where it names none.

    Raises:
        Refusal: a passage cannot run.
    """
    if not needs.passage_sites or looked.models is None:
        return None
    return Sites(looked.models, tokenise_passages(looked.models.tokenizer, needs, facts), needs, facts)


class Handed:
    """Hands files of checks on, and keeps their digests.

    Args:
        asked: all checks, in the order of their answers.
        give: takes a slot and bytes; None where nobody does.
    """

    def __init__(self, asked: Sequence[Asked], give: Given | None) -> None:
        self.told: list[HandedOut] = []
        self._give = give
        names = [one.ordered.name for one in asked]
        self._nth = {id(one): names[: number + 1].count(one.ordered.name) for number, one in enumerate(asked)}

    def taker(self, one: Asked) -> Given | None:
        """Return what takes the files of one check."""
        give, check = self._give, one.ordered.name
        if give is None:
            return None

        def take(name: str, content: bytes) -> None:
            slot = slot_of(check, self._nth[id(one)], name)
            give(slot, content)
            digest = hashlib.sha256(content).hexdigest()
            self.told.append(HandedOut(check=check, name=name, slot=slot, sha256=digest, size=len(content)))

        return take
