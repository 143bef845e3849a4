"""The base model of an audit: read as the model is, and fit to be asked the same passages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from checks.check import ModelFacts, Refusal
from checks.documents import Decision, OrderedModel
from checks.errors import LoadRefused
from checks.rereading import check_same
from checks.runtime.architectures import architectures_json
from checks.runtime.facts import model_facts_of
from checks.runtime.loading import TOKENIZER, check_loadable
from checks.runtime.site_models import Source
from sandbox.reader.digest import file_sha256
from sandbox.reader.model import read_model

BASE_MISMATCH = "base_mismatch"
"""The base is another kind of model, or cuts text into other tokens: its states answer no question about this one."""

BASE_REFUSED = "base_refused"
"""The base's files make no model; items name the code of the refusal and the file or tensor."""

SAME = ("architecture", "layers", "width", "heads", "vocabulary", "context")
"""Facts that a base shares with the model: what a site is, and which tokens run."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """The base model of an audit, or why it cannot be asked."""

    source: Source | None = None
    refusal: Refusal | None = None
    """Of the checks that ask for it; the others go on."""
    decisions: tuple[Decision, ...] = ()
    """About its files, each under `base/`; none where an ingest cell has made them."""


NO_BASE = Base()
"""Of an audit that names none: checks hear that there is none, and go on."""


def read_base(
    ordered: OrderedModel | None, inputs: Mapping[str, Path], facts: ModelFacts, files: Mapping[str, Path]
) -> Base:
    """Read the base model's files and hold them against the model's.

    Args:
        ordered: the base, as ordered; None where the audit names none.
        inputs: path of each input of the order.
        facts: of the submitted model.
        files: the submitted model's files, by path.
    """
    if ordered is None:
        return NO_BASE
    own = {file.path: inputs[file.input] for file in ordered.files}
    reading = read_model(own, architectures_json(), indexed=ordered.tensors is None)
    decisions: tuple[Decision, ...] = ()
    if ordered.tensors is None:
        decisions = tuple(
            Decision(
                path=None if one.path is None else f"base/{one.path}",
                decision=one.decision,
                reason=one.reason,
                at=dict(one.at) if one.at else None,
            )
            for one in reading.decisions
        )
    try:
        check_same(ordered, reading, inputs)
        if reading.refused:
            bad = [one for one in reading.decisions if one.decision == "refused"]
            items = [f"{one.path or 'base'}:{one.reason}" for one in bad]
            return Base(refusal=Refusal(BASE_REFUSED, items), decisions=decisions)
        its = model_facts_of(reading.config, reading.tensors)
        if differ := _differ(its, own, facts, files):
            return Base(refusal=Refusal(BASE_MISMATCH, differ), decisions=decisions)
        check_loadable(reading.config, its, reading.tensors, own)
    except LoadRefused as why:
        where = [f"{value}:{why.code}" for value in why.at.values()] or [why.code]
        return Base(refusal=Refusal(BASE_REFUSED, where), decisions=decisions)
    return Base(source=Source(reading=reading, files=own, facts=its), decisions=decisions)


def _differ(its: ModelFacts, own: Mapping[str, Path], facts: ModelFacts, files: Mapping[str, Path]) -> tuple[str, ...]:
    """Return what a base has otherwise than the model."""
    found = [f"base:{name}" for name in SAME if getattr(its, name) != getattr(facts, name)]
    if TOKENIZER in files and (TOKENIZER not in own or file_sha256(own[TOKENIZER]) != file_sha256(files[TOKENIZER])):
        found.append(f"base:{TOKENIZER}")
    return tuple(found)
