"""Carry out one order: read the model, sweep once for all checks, ask each, answer all.

Every check of the order is answered. What goes wrong with the model refuses every check; what goes wrong with one
check or its data is that check's answer alone.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from math import prod
from pathlib import Path
from typing import Any

from checks.answering import Handed, Ran, ask_all
from checks.ask import Given, Told, as_name, failed, listed, unheard
from checks.check import Check, ModelFacts, Needs
from checks.documents import Decision, Facts, Ingest, Order, Result
from checks.errors import LoadRefused, OrderInvalid
from checks.hearing import Asked, asked_of, base_of, gather, not_asked
from checks.rereading import check_same
from checks.runtime.architectures import architectures_json
from checks.runtime.batches import BATCH_TEXTS
from checks.runtime.facts import model_facts_of
from checks.runtime.look import UNSEEN, Looked, look
from checks.runtime.plan import plan
from checks.runtime.site_models import Source
from checks.runtime.sweep import Swept
from checks.runtime.weights import read_weights
from checks.stages import carry_out_stage, gather_shards
from sandbox.reader.model import Decision as ReaderDecision
from sandbox.reader.model import ModelReading, read_model

STEPS = ("starting", "loading", "sweep", "measuring", "controls", "judging")
"""Steps of a run, in order; progress is told by their index."""


def carry_out(
    order: Order,
    inputs: Mapping[str, Path],
    catalogue: Mapping[str, type[Check]],
    *,
    on_step: Told = unheard,
    on_artefact: Given | None = None,
) -> Result:
    """Return the result of an order.

    Args:
        order: what is asked.
        inputs: path of each input of the order.
        catalogue: the checks that may be asked, by name.
        on_step: told (step, done, owed).
        on_artefact: takes the slot and the bytes of each file that a check hands out; where there is none, no check
            is asked for any.
    """
    if order.stage in ("plan", "scan"):
        return carry_out_stage(order, inputs, catalogue, on_step, on_artefact or _nowhere)
    on_step("starting", 0, 1)
    asked = [asked_of(one, catalogue) for one in order.checks]
    files = {file.path: inputs[file.input] for file in order.model.files}
    passed_on = order.model.tensors is not None
    reading = read_model(files, architectures_json(), indexed=not passed_on)
    decisions = [] if passed_on else [_decision(one) for one in reading.decisions]
    try:
        check_same(order.model, reading, inputs)
        facts = _facts(reading, decisions)
        on_step("starting", 1, 1)
        gather(asked, order, inputs, facts)
        gather_shards(asked, order, inputs, on_step)
        base = base_of(asked, order, inputs, facts, files)
        decisions += base.decisions
        looked, weights = _look(asked, reading, files, facts, order, on_step, base.source)
    except LoadRefused as why:
        traceback.print_exc(file=sys.stderr)
        decisions += _told_of(why, files)
        return _all_refused(order, asked, decisions, why.code)
    handed = Handed(asked, on_artefact)
    ran = ask_all(asked, facts, looked, weights, order.seed, on_step, handed)
    return Result(
        nonce=order.nonce,
        answers=tuple(one.answer for one in asked if one.answer is not None),
        ingest=Ingest(decisions=tuple(decisions)),
        facts=_record(facts, looked.swept, ran, order.threads),
        artefacts=tuple(handed.told),
    )


def _nowhere(slot: str, _content: bytes) -> None:
    raise OrderInvalid(f"there is no slot {slot}: a plan or a part has nowhere to go")


def _facts(reading: ModelReading, decisions: Sequence[Decision]) -> ModelFacts:
    if reading.refused:
        first = next(one for one in decisions if one.decision == "refused")
        raise LoadRefused(first.reason or "not_on_list", {})
    return model_facts_of(reading.config, reading.tensors)


def _look(
    asked: Sequence[Asked],
    reading: ModelReading,
    files: Mapping[str, Path],
    facts: ModelFacts,
    order: Order,
    on_step: Told,
    base: Source | None,
) -> tuple[Looked, Mapping[str, Any]]:
    """Capture what all checks need: tensors from the files, states and scores from one sweep, trials run."""
    needs = [one.needs for one in asked if one.needs is not None]
    merged = plan(needs, facts)
    weights = read_weights(merged.weights, reading.tensors, files, facts.transposed)
    if not merged.sweeps:
        return UNSEEN, weights
    try:
        looked = look(needs, reading, files, facts, seed=order.seed, threads=order.threads, on_step=on_step, base=base)
        return looked, weights
    except (LoadRefused, MemoryError):
        raise
    except Exception:
        # A check that needs weights alone is still answered.
        for one in asked:
            if one.answer is None and one.check is not None and one.needs is not None and _needs_pass(one.needs):
                one.answer = failed(one.check, "sweep")
        return UNSEEN, weights


def _needs_pass(needs: Needs) -> bool:
    return bool(needs.sites or needs.continuations or needs.trials or needs.passage_sites or needs.scored)


def _all_refused(order: Order, asked: Sequence[Asked], decisions: Sequence[Decision], code: str) -> Result:
    """The model is refused: so is every check, with each file's reason."""
    told = [(one.path or "model", one.reason or code) for one in decisions if one.decision == "refused"]
    skipped = tuple(part for path, reason in told for part in listed((path,), reason))
    answers = tuple(
        one.answer or not_asked(one.ordered, f"ingest:{code}", ()).model_copy(update={"skipped": skipped})
        for one in asked
    )
    return Result(nonce=order.nonce, answers=answers, ingest=Ingest(decisions=tuple(decisions)), facts=None)


def _decision(one: ReaderDecision) -> Decision:
    return Decision(path=one.path, decision=one.decision, reason=one.reason, at=dict(one.at) if one.at else None)


def _told_of(why: LoadRefused, files: Collection[str]) -> list[Decision]:
    """Return the decision that a refusal while loading adds; none where the reader has told it already."""
    if not why.at:
        return []
    path = why.at.get("path")
    at: dict[str, str | int] = {key: as_name(value) for key, value in why.at.items() if key != "path"}
    if path is not None and path not in files:  # a decision's path is one of the model's; this one is not there
        at.setdefault("key", as_name(path))
        path = None
    if len(why.items) > 1:
        at["more"] = len(why.items) - 1
    return [Decision(path=path, decision="refused", reason=why.code, at=at or None)]


def _record(facts: ModelFacts, swept: Swept, ran: Ran, threads: int) -> Facts:
    return Facts(
        architecture=facts.architecture,
        layers=facts.layers,
        width=facts.width,
        parameters=sum(prod(shape) for shape in facts.tensors.values()),
        texts=swept.texts + ran.texts,
        tokens=swept.tokens + ran.tokens,
        dtype=_dtype(facts),
        batch_size=BATCH_TEXTS,
        threads=threads,
        torch=metadata.version("torch"),
    )


def _dtype(facts: ModelFacts) -> str:
    """Return what the model runs in: an MLP in float64, all else in float32 (`checks.runtime.feedforward_pass`)."""
    model = facts.feedforward
    return "float32" if model is None or any(layer.op == "conv2d" for layer in model.layers) else "float64"


class Progress:
    """Writes progress lines to a descriptor: `<step index> <done> <owed>`.

    Args:
        descriptor: an open pipe's writing end.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._open = True

    def __call__(self, step: str, done: int, owed: int) -> None:
        """Tell one step; a host that no longer listens is not an error of the run."""
        if not self._open:
            return
        try:
            os.write(self._descriptor, f"{STEPS.index(step)} {done} {owed}\n".encode("ascii"))
        except OSError as error:
            self._open = False
            print(f"progress is no longer heard: {error}", file=sys.stderr)
