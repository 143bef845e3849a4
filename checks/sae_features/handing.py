"""What the check hands out beside its answer: feature cards of the latents that findings cite, and of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from assay.result import Finding

from checks.check import Evidence
from checks.sae_features.cause_metrics import causes
from checks.sae_features.diff_metrics import comparison, largest
from checks.sae_features.probes.behaviour import EditsRefused
from checks.sae_features.probes.cards import cards
from checks.sae_features.probes.concept_values import ConceptTable
from checks.sae_features.probes.diffing import Conditional
from checks.sae_features.session import Session

if TYPE_CHECKING:
    from checks.sae_features.check import SaeFeatures


def feature_cards(check: SaeFeatures, evidence: Evidence, findings: Sequence[Finding]) -> bytes:
    """Return the cards of the first dictionary that is judged.

    Args:
        check: the question; it says how many cards of how many bytes.
        evidence: what `measure` saw.
        findings: their codes are told of the latents that they cite.
    """
    session = Session.of(check, evidence)
    name, dictionary = next(iter(session.judged.items()))
    others = [one for label, one in session.judged.items() if label not in (name, "supplied")]
    written = check.site.startswith(("resid", "mlp_out", "embed")) and evidence.facts.causal
    return cards(
        dictionary,
        session.held,
        session.site().logit_weights() if written else None,
        cited(session, name, {one.code for one in findings}),
        others[0] if others else None,
        check.cards,
        check.export_contexts,
        session.rng("cards"),
        cap=check.cards_bytes,
    )


def cited(session: Session, name: str, codes: set[str]) -> Mapping[int, str]:
    """Return the latents that findings of these codes rest on, the most important first."""
    found: dict[int, str] = {}
    if "causal" in codes:
        for (dictionary, _), one in causes(session).items():
            if dictionary == name and not isinstance(one, EditsRefused):
                found |= {latent: "causal" for latent in one.latents if latent not in found}
    if "concept" in codes:
        for table in session.tables.values():
            if isinstance(table, ConceptTable):
                found |= {latent: "concept" for latent in table.read[name].latents if latent not in found}
    if "diff" in codes:
        for compared in comparison(session).concepts.values():
            if isinstance(compared, Conditional):
                found |= {latent: "diff" for latent in largest(compared.swapped) if latent not in found}
    return found
