"""What all checks of an audit need together, so that every text is swept once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from checks.check import ModelFacts, Needs, Text
from checks.errors import NotAskedFor

SITE = re.compile(r"resid\.(0|[1-9][0-9]{0,3})")


@dataclass(frozen=True, kw_only=True, order=True)
class Read:
    """One state to read: a text, and the character before which it is read."""

    text: str
    read_at: int
    """Read at the last token that ends at or before this character."""


@dataclass(frozen=True, kw_only=True, order=True)
class Score:
    """One continuation to score: the text that stands before, and the words after it."""

    after: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The merged needs."""

    reads: tuple[Read, ...]
    """Without duplicates, sorted."""
    layers: tuple[int, ...]
    """Layers whose residual stream is captured, ascending."""
    weights: tuple[str, ...]
    scores: tuple[Score, ...] = ()
    """Without duplicates, sorted."""

    @property
    def deepest(self) -> int | None:
        """The last layer that anyone asked for; no text whose words are not scored goes further."""
        return self.layers[-1] if self.layers else None

    @property
    def sweeps(self) -> bool:
        """Whether the model must run at all."""
        return bool((self.reads and self.layers) or self.scores)


def layer_of(site: str, facts: ModelFacts) -> int:
    """Return the layer of a site's name.

    Raises:
        NotAskedFor: no such site in this model.
    """
    found = SITE.fullmatch(site)
    if not found or int(found[1]) >= facts.layers:
        raise NotAskedFor(f"site {site!r} is not in this model: it has resid.0 to resid.{facts.layers - 1}")
    return int(found[1])


def reads_of(needs: Needs) -> tuple[Read, ...]:
    """Return the reads of one check, in the order of its texts; a null `read_at` is the end of the text."""
    return tuple(
        Read(text=text.text, read_at=len(text.text) if text.read_at is None else text.read_at) for text in needs.texts
    )


def scores_of(needs: Needs) -> tuple[Score, ...]:
    """Return the continuations of one check, in their order."""
    return tuple(Score(after=one.after, text=one.text) for one in needs.continuations)


def check_needs(needs: Needs, facts: ModelFacts) -> None:
    """Hold one check's needs against the model, before anything is loaded for them.

    Raises:
        NotAskedFor: an unknown site or tensor, two texts or continuations of one id, replay or a twin without texts
            and sites to shift or to sweep, or gradients, which nothing here can give yet.
    """
    for site in needs.sites:
        layer_of(site, facts)
    unknown = [name for name in needs.weights if name not in facts.tensors]
    if unknown:
        raise NotAskedFor(f"the model has no tensor {unknown[0]!r}")
    ids = [text.id for text in needs.texts] + [one.id for one in needs.continuations]
    if len(set(ids)) != len(ids):
        raise NotAskedFor("two texts or continuations share an id: every one of a check has its own")
    if needs.replay < 0:
        raise NotAskedFor(f"a replay budget of {needs.replay} edits: it is a count")
    if (needs.replay or needs.twin) and not (needs.sites and needs.texts):
        raise NotAskedFor("replay and a twin need texts and sites: there is nothing to shift or to sweep")
    if not set(needs.twin) <= {text.id for text in needs.texts}:
        raise NotAskedFor("a twin sweeps texts of the needs: one of its ids is none")
    if needs.gradients:
        raise NotAskedFor("gradients are not captured by this runtime")


def plan(needs: Sequence[Needs], facts: ModelFacts) -> Plan:
    """Merge the needs of all checks of an audit.

    Args:
        needs: one entry a check, each held against the model by `check_needs`.
        facts: the model.
    """
    swept = [need for need in needs if need.sites]
    return Plan(
        reads=tuple(sorted({read for need in swept for read in reads_of(need)})),
        layers=tuple(sorted({layer_of(site, facts) for need in swept for site in need.sites})),
        weights=tuple(sorted({name for need in needs for name in need.weights})),
        scores=tuple(sorted({score for need in needs for score in scores_of(need)})),
    )


def twin_plan(needs: Sequence[Needs], facts: ModelFacts) -> Plan:
    """Return what a randomly initialised twin is swept for: the states of those checks that ask for one.

    Args:
        needs: one entry a check, each held against the model by `check_needs`.
        facts: the model.
    """
    asked = [replace(need, texts=twin_texts(need)) for need in needs if need.twin]
    return replace(plan(asked, facts), weights=(), scores=())


def twin_texts(needs: Needs) -> tuple[Text, ...]:
    """Return the texts that the twin sweeps, in the order of the needs."""
    wanted = set(needs.twin)
    return tuple(text for text in needs.texts if text.id in wanted)
