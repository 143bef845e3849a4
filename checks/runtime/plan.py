"""What all checks of an audit need together, so that every text is swept once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from checks.check import ModelFacts, Needs, Refusal, Text, TokenTrial
from checks.errors import NotAskedFor
from checks.passages import Passage
from checks.runtime.architectures import architecture

SITE = re.compile(r"resid\.(0|[1-9][0-9]{0,3})")
PASSAGE_SITE = re.compile(r"embed|(resid|mlp_out|attn_z)\.(0|[1-9][0-9]{0,3})")
NO_HEAD = "no_output_head"
"""Why nothing is scored: the model gives no token a probability."""
UNIT_SITE = re.compile(r"(mlp|heads|layer)\.(0|[1-9][0-9]{0,3})")


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
    trials: int = 0
    """Trials of all checks together; each check's run by themselves, under its own lesions."""
    sites: int = 0
    """Sites of passages of all checks together; a model is kept for them, and nothing of them is swept."""
    scored: int = 0
    """Texts whose every token is scored, of all checks together; see `checks.runtime.token_scores`."""

    @property
    def deepest(self) -> int | None:
        """The last layer that anyone asked for; no text whose words are not scored goes further."""
        return self.layers[-1] if self.layers else None

    @property
    def sweeps(self) -> bool:
        """Whether the model must be loaded at all."""
        return self.reads_or_scores or self.trials > 0 or self.sites > 0 or self.scored > 0

    @property
    def reads_or_scores(self) -> bool:
        """Whether there is a text to sweep, beside trials."""
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


@dataclass(frozen=True, kw_only=True)
class PassageSite:
    """A site of passages, taken apart."""

    name: str
    kind: str
    """"embed", "resid", "mlp_out" or "attn_z"."""
    layer: int
    """0 for "embed"."""


def passage_site_of(name: str, facts: ModelFacts) -> PassageSite:
    """Return a site of passages by its name.

    Raises:
        NotAskedFor: no such site in this model.
    """
    found = PASSAGE_SITE.fullmatch(name)
    layer = int(found[2]) if found and found[2] else 0
    if not found or layer >= facts.layers:
        last = facts.layers - 1
        raise NotAskedFor(
            f"site {name!r} is not in this model: it has embed, and resid, mlp_out and attn_z of layers 0 to {last}"
        )
    return PassageSite(name=name, kind=found[1] or "embed", layer=layer)


def units_of(site: str, facts: ModelFacts) -> int:
    """Return how many units a site has that lesions may hold.

    Raises:
        NotAskedFor: no such site in this model.
    """
    found = UNIT_SITE.fullmatch(site)
    kind, number = (found[1], int(found[2])) if found else ("", -1)
    model = facts.feedforward
    if model is not None:
        if kind != "layer" or number not in model.hidden:
            hidden = ", ".join(f"layer.{index}" for index in model.hidden)
            raise NotAskedFor(f"units {site!r} are not in this model: it has {hidden or 'none that are hidden'}")
        return model.units(number)
    if kind == "heads" and number < facts.layers:
        return facts.heads
    if kind == "mlp" and number < len(facts.mlp_out):
        name = facts.mlp_out[number]
        return facts.tensors[name][0 if name in facts.transposed else 1]
    raise NotAskedFor(
        f"units {site!r} are not in this model: it has mlp.0 to mlp.{facts.layers - 1} and heads.0 to "
        f"heads.{facts.layers - 1}"
    )


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
        NotAskedFor: an unknown site or tensor, two texts, continuations, trials, passages or contrasts of one id,
            replay or a twin without texts and sites to shift or to sweep, trials of another kind of model, lesions
            without trials or units, contrasts of a model without an output head, or gradients without sites.
        Refusal: `no_output_head`: texts are to be scored, and this model gives no token a probability.
    """
    _check_kind(needs, facts)
    for site in needs.sites:
        layer_of(site, facts)
    unknown = [name for name in needs.weights if name not in facts.tensors]
    if unknown:
        raise NotAskedFor(f"the model has no tensor {unknown[0]!r}")
    named = (needs.texts, needs.continuations, needs.trials, needs.passages, needs.contrasts, needs.scored)
    ids = [one.id for part in named for one in part]
    if len(set(ids)) != len(ids):
        raise NotAskedFor(
            "two texts, continuations, trials, passages, contrasts or scored texts share an id: each has its own"
        )
    if needs.replay < 0:
        raise NotAskedFor(f"a replay budget of {needs.replay} edits: it is a count")
    if (needs.replay or needs.twin) and not (needs.sites and needs.texts):
        raise NotAskedFor("replay and a twin need texts and sites: there is nothing to shift or to sweep")
    if not set(needs.twin) <= {text.id for text in needs.texts}:
        raise NotAskedFor("a twin sweeps texts of the needs: one of its ids is none")
    _check_lesions(needs, facts)
    _check_passages(needs, facts)
    _check_scored(needs, facts)


def _check_kind(needs: Needs, facts: ModelFacts) -> None:
    """A feed-forward model has no tokens, and a transformer takes nothing else."""
    tokens = facts.kind == "transformer"
    other = [one.id for one in needs.trials if isinstance(one, TokenTrial) != tokens]
    if other:
        raise NotAskedFor(f"the trial {other[0]!r} is not one that a {facts.kind} model can run")
    of_tokens = needs.sites or needs.texts or needs.continuations or needs.replay or needs.twin or needs.scored
    if not tokens and (of_tokens or needs.passages or needs.contrasts or needs.passage_sites or needs.gradients):
        raise NotAskedFor(
            "a feed-forward model has no tokens: no sites, texts, continuations, replay, twin, passages or gradients"
        )


def _check_lesions(needs: Needs, facts: ModelFacts) -> None:
    if needs.lesions < 0:
        raise NotAskedFor(f"a budget of {needs.lesions} lesions: it is a count")
    for site in needs.units:
        units_of(site, facts)
    if len(set(needs.units)) != len(needs.units):
        raise NotAskedFor("a site of units is named twice")
    if needs.units and not needs.trials:
        raise NotAskedFor("units need trials: their means and spread are taken over them")
    if needs.lesions and not (needs.trials and needs.units):
        raise NotAskedFor("lesions need trials and units: there is nothing to score or to hold")


def _check_passages(needs: Needs, facts: ModelFacts) -> None:
    for site in needs.passage_sites:
        passage_site_of(site, facts)
    if needs.passage_tokens < 0:
        raise NotAskedFor(f"a budget of {needs.passage_tokens} tokens of passages: it is a count")
    odd = [one.id for one in needs.passages if (one.text is None) == (one.tokens is None)]
    if odd:
        raise NotAskedFor(f"the passage {odd[0]!r} has neither text nor tokens, or both")
    backward = [one.id for one in needs.passages if not _reads_forward(one)]
    if backward:
        raise NotAskedFor(f"the passage {backward[0]!r} is read nowhere: an offset is a count, a range is not empty")
    if (needs.passages or needs.contrasts) and not needs.passage_sites:
        raise NotAskedFor("passages and contrasts need passage_sites: there is no place to ask of them")
    if needs.gradients and not needs.passage_sites:
        raise NotAskedFor("gradients need passage_sites: they are taken with respect to the states there")
    if needs.contrasts and not facts.causal:
        raise NotAskedFor("contrasts need a causal model with an output head: what follows has no probability here")
    if needs.passage_sites and "submitted" not in needs.passage_models:
        raise NotAskedFor('passage_models name whose states are asked: "submitted" is always one of them')


def _check_scored(needs: Needs, facts: ModelFacts) -> None:
    if not set(needs.scored_twin) <= {one.id for one in needs.scored}:
        raise NotAskedFor("a twin scores texts of the needs: one of its ids is none")
    if needs.scored and not (facts.causal and architecture(facts.architecture).head):
        raise Refusal(NO_HEAD, (f"architecture:{facts.architecture}",))


def _reads_forward(passage: Passage) -> bool:
    read = passage.read
    if isinstance(read, tuple):
        return 0 <= read[0] < read[1]
    return read == "last" or (isinstance(read, int) and read >= 0)


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
        trials=sum(len(need.trials) for need in needs),
        sites=sum(len(need.passage_sites) for need in needs),
        scored=sum(len(need.scored) for need in needs),
    )


def twin_plan(needs: Sequence[Needs], facts: ModelFacts) -> Plan:
    """Return what a randomly initialised twin is swept for: the states of those checks that ask for one.

    Args:
        needs: one entry a check, each held against the model by `check_needs`.
        facts: the model.
    """
    asked = [replace(need, texts=twin_texts(need)) for need in needs if need.twin]
    return replace(plan(asked, facts), weights=(), scores=(), trials=0, sites=0, scored=0)


def twin_texts(needs: Needs) -> tuple[Text, ...]:
    """Return the texts that the twin sweeps, in the order of the needs."""
    wanted = set(needs.twin)
    return tuple(text for text in needs.texts if text.id in wanted)
