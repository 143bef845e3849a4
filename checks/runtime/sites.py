"""Sites of passages: every state of a batch, what the output says with states replaced, and gradients.

One `Sites` answers one check, with one budget of tokens for all its sites, models and controls. Passages run in the
order they are asked, as many neighbours at once as `BATCH_TOKENS` allows; nothing is kept from batch to batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from checks.check import ModelFacts, Needs
from checks.errors import NotAskedFor
from checks.passages import Change, Gradients, Spliced, States, Which
from checks.runtime import site_gradients
from checks.runtime.loading import Loaded
from checks.runtime.plan import PassageSite, passage_site_of
from checks.runtime.site_batches import Budget, Part, asked_of, followed_of, given_of, parts_of
from checks.runtime.site_models import Models
from checks.runtime.site_outputs import Reference, margins
from checks.runtime.site_passages import Tokenised
from checks.runtime.site_passes import Batch, Unedited, changed, final_with, unedited

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Float64, Int64


class Sites:
    """Answers for the sites of one check; implements `checks.memory.Sites`.

    Args:
        models: the submitted model, its twin and the base.
        tokenised: the check's passages and contrasts.
        needs: what the check asked for.
        facts: of the submitted model; the others' are the same.
    """

    def __init__(self, models: Models, tokenised: Tokenised, needs: Needs, facts: ModelFacts) -> None:
        self.models = models
        self.tokenised = tokenised
        self.budget = Budget(needs.passage_tokens)
        self.gradients = needs.gradients
        self.ran = np.zeros(len(tokenised.numbers), dtype=np.bool_)
        """Passages and prompts that ran at least once, in any model."""
        self._facts = facts
        self._names = needs.passage_sites
        self._which = needs.passage_models

    def __call__(self, name: str, which: Which) -> ModelSite:
        """Return a site of a model.

        Raises:
            NotAskedFor: the needs did not name it.
        """
        if name not in self._names:
            raise NotAskedFor(f"the site {name!r} is not among those that the needs name: {self._names}")
        if which not in self.there:
            raise NotAskedFor(f"the {which} model is not among those that can be asked: {self.there}")
        return ModelSite(self, passage_site_of(name, self._facts), which)

    @property
    def there(self) -> tuple[Which, ...]:
        """Models of the needs that are there."""
        return tuple(which for which in self._which if which in self.models.there)


class ModelSite:
    """A site of one model; implements `checks.passages.Site`.

    Args:
        sites: what the check's sites share.
        place: where it is.
        which: whose.
    """

    def __init__(self, sites: Sites, place: PassageSite, which: Which) -> None:
        self.name = place.name
        self.which = which
        self.width = sites.models.width(place)
        self._sites, self._place = sites, place

    def states(self, ids: Sequence[str]) -> Iterator[States]:
        """Yield the states of passages, or of the prompts of contrasts."""
        return self._states(self._sites.tokenised.numbers_of(ids))

    def splice(self, ids: Sequence[str], changes: Sequence[Change]) -> Iterator[Spliced]:
        """Yield the output under each change."""
        self._needs_head()
        return self._splice(self._sites.tokenised.numbers_of(ids), changes)

    def margins(self, ids: Sequence[str], changes: Sequence[Change]) -> Float64[np.ndarray, "edit contrast"]:
        """Return each contrast's margin (nats): row 0 unedited, row 1 + i under the i-th change; NaN where lost."""
        numbers = self._contrasts(ids)
        found = np.full((1 + len(changes), len(ids)), np.nan)
        for part, batch in self._running(numbers, 1 + len(changes)):
            loaded = self._loaded()
            first = unedited(loaded, self._place, batch, final=True)
            ends, answers = asked_of(self._sites.tokenised, part, batch)
            given = given_of(self._sites.tokenised, part, batch, first)
            for row, final in enumerate(self._finals(loaded, batch, first, given, changes)):
                own = found[0, part.asked] if final is None else margins(loaded.bridge.unembed, final[ends], answers)
                found[row, part.asked] = own
        return found

    def margin_gradients(self, ids: Sequence[str], change: Change | None = None) -> Iterator[Gradients]:
        """Yield the gradient of each contrast's margin; with a change, at what it puts in place."""
        self._needs_gradients()
        return self._margin_gradients(self._contrasts(ids), change)

    def divergence_gradients(self, ids: Sequence[str], change: Change) -> Iterator[Gradients]:
        """Yield the gradient of the summed KL(unedited || edited) over scored tokens; `value` is each passage's sum."""
        self._needs_gradients()
        self._needs_head()
        return self._divergence_gradients(self._sites.tokenised.numbers_of(ids), change)

    def logit_weights(self) -> Float[np.ndarray, "vocabulary width"]:
        """Return the unembedding with the final norm's gain folded in, rows centred over the vocabulary, float32."""
        self._needs_head()
        bridge = self._loaded().bridge
        head = bridge.unembed.original_component.weight.detach().double()
        folded = head * bridge.ln_final.original_component.weight.detach().double()
        centred: np.ndarray = (folded - folded.mean(dim=0)).float().numpy()
        return centred

    def lengths(self, ids: Sequence[str]) -> Int64[np.ndarray, " passage"]:
        """Return how many tokens that are not special each passage has, after cutting; nothing runs for it."""
        tokenised = self._sites.tokenised
        numbers = tokenised.numbers_of(ids)
        plain = np.concatenate([[0], np.cumsum(~tokenised.special[tokenised.tokens])])
        counts: np.ndarray = plain[tokenised.starts[numbers + 1]] - plain[tokenised.starts[numbers]]
        return counts

    def cut(self) -> int:
        """Return how many passages were cut at `CONTEXT_MAX` or at the model's own context."""
        return self._sites.tokenised.cut

    def _loaded(self) -> Loaded:
        return self._sites.models.use(self.which)

    def _needs_head(self) -> None:
        if not self._sites.models.head:
            raise NotAskedFor(f"{self.name} of a model without an output head: it says nothing of what follows")

    def _needs_gradients(self) -> None:
        if not self._sites.gradients:
            raise NotAskedFor(f"gradients at {self.name}, which the needs did not ask for")

    def _contrasts(self, ids: Sequence[str]) -> Int64[np.ndarray, " id"]:
        self._needs_head()
        other = [one for one in ids if one not in self._sites.tokenised.contrasts]
        if other:
            raise NotAskedFor(f"the margin of {other[0]!r}, which is no contrast of the needs")
        return self._sites.tokenised.numbers_of(ids)

    def _parts(self, numbers: Int64[np.ndarray, " id"], passes: int) -> Iterator[Part]:
        """Yield batches, each charged before it runs."""
        sites = self._sites
        return parts_of(sites.tokenised, numbers, passes, sites.budget, sites.ran)

    def _running(self, numbers: Int64[np.ndarray, " id"], passes: int) -> Iterator[tuple[Part, Batch]]:
        """Yield the batches of which something runs."""
        for part in self._parts(numbers, passes):
            if part.batch is not None:
                yield part, part.batch

    def _states(self, numbers: Int64[np.ndarray, " id"]) -> Iterator[States]:
        for part, batch in self._running(numbers, 1):
            yield given_of(
                self._sites.tokenised, part, batch, unedited(self._loaded(), self._place, batch, final=False)
            )

    def _splice(self, numbers: Int64[np.ndarray, " id"], changes: Sequence[Change]) -> Iterator[Spliced]:
        for part, batch in self._running(numbers, 1 + len(changes)):
            loaded = self._loaded()
            first = unedited(loaded, self._place, batch, final=True)
            given = given_of(self._sites.tokenised, part, batch, first)
            followed, following, scored = followed_of(batch, given)
            places = batch.rows[followed], batch.positions[followed]
            reference: Reference | None = None
            found = []
            for final in self._finals(loaded, batch, first, given, changes):
                if reference is None:
                    reference = Reference(loaded.bridge.unembed, _there(final)[places], following)
                    found.append(reference.itself())
                else:
                    found.append(found[0] if final is None else reference.against(final[places]))
            yield Spliced(
                passage=given.passage[followed],
                position=given.position[followed],
                scored=scored,
                cross_entropy=np.stack([one.cross_entropy for one in found]),
                divergence=np.stack([one.divergence for one in found]),
                same_top=np.stack([one.same_top for one in found]),
                variation=np.stack([one.variation for one in found]),
            )

    def _finals(
        self, loaded: Loaded, batch: Batch, first: Unedited, given: States, changes: Sequence[Change]
    ) -> Iterator[torch.Tensor | None]:
        """Yield what the head reads, unedited and under each change; None where a change changes nothing."""
        import torch

        yield first.final
        for number, change in enumerate(changes):
            put = changed(change, number, given, batch, first.states)
            with torch.no_grad():
                yield None if put is None else final_with(loaded, self._place, batch, first, put)

    def _margin_gradients(self, numbers: Int64[np.ndarray, " id"], change: Change | None) -> Iterator[Gradients]:
        for part in self._parts(numbers, 3):
            value = np.full(part.end - part.begin, np.nan)
            if part.batch is None:
                yield site_gradients.nothing(self.width, value)
                continue
            loaded = self._loaded()
            first = unedited(loaded, self._place, part.batch, final=True)
            given = given_of(self._sites.tokenised, part, part.batch, first)
            put = None if change is None else changed(change, 0, given, part.batch, first.states)
            ends, answers = asked_of(self._sites.tokenised, part, part.batch)
            of_rows, gradient = site_gradients.of_margins(loaded, self._place, part.batch, first, put, ends, answers)
            value[part.asked - part.begin] = of_rows
            yield Gradients(states=given, gradient=gradient, value=value)

    def _divergence_gradients(self, numbers: Int64[np.ndarray, " id"], change: Change) -> Iterator[Gradients]:
        for part in self._parts(numbers, 3):
            value = np.full(part.end - part.begin, np.nan)
            if part.batch is None:
                yield site_gradients.nothing(self.width, value)
                continue
            loaded = self._loaded()
            first = unedited(loaded, self._place, part.batch, final=True)
            given = given_of(self._sites.tokenised, part, part.batch, first)
            put = changed(change, 0, given, part.batch, first.states)
            follows = followed_of(part.batch, given)
            of_rows, gradient = site_gradients.of_divergence(loaded, self._place, part.batch, first, put, follows)
            value[part.asked - part.begin] = of_rows
            yield Gradients(states=given, gradient=gradient, value=value)


def _there(final: torch.Tensor | None) -> torch.Tensor:
    assert final is not None, "the unedited pass was asked for what the head reads"
    return final
