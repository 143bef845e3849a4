"""Carry out one order: read the model, sweep once for all checks, ask each, answer all.

Every check of the order is answered. What goes wrong with the model refuses every check; what goes wrong with one
check or its data is that check's answer alone.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from math import prod
from pathlib import Path
from typing import Any

from assay.result import Answer
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from checks.ask import Told, as_name, ask, failed, listed, refused, unheard
from checks.check import Check, ModelFacts, Needs, Refusal
from checks.documents import Decision, Facts, Ingest, Order, OrderedCheck, Result
from checks.errors import LoadRefused
from checks.rereading import check_same
from checks.runtime.architectures import architectures_json
from checks.runtime.batches import BATCH_TEXTS
from checks.runtime.facts import model_facts_of
from checks.runtime.look import UNSEEN, Looked, look
from checks.runtime.plan import check_needs, plan
from checks.runtime.sweep import Swept, evidence
from checks.runtime.weights import read_weights
from sandbox.reader import jsonl
from sandbox.reader.error import ReaderError
from sandbox.reader.model import Decision as ReaderDecision
from sandbox.reader.model import ModelReading, read_model

STEPS = ("starting", "loading", "sweep", "measuring", "controls", "judging")
"""Steps of a run, in order; progress is told by their index."""

Rows = Sequence[Mapping[str, Any]]


@dataclass(kw_only=True)
class Asked:
    """One check on its way to an answer."""

    ordered: OrderedCheck
    check: Check | None = None
    needs: Needs | None = None
    rows: dict[str, Rows] = field(default_factory=dict)
    answer: Answer | None = None
    """Set as soon as it is known: by a refusal, a failure, or at the end."""


def carry_out(
    order: Order, inputs: Mapping[str, Path], catalogue: Mapping[str, type[Check]], *, on_step: Told = unheard
) -> Result:
    """Return the result of an order.

    Args:
        order: what is asked.
        inputs: path of each input of the order.
        catalogue: the checks that may be asked, by name.
        on_step: told (step, done, owed).
    """
    on_step("starting", 0, 1)
    asked = [_asked(one, catalogue) for one in order.checks]
    files = {file.path: inputs[file.input] for file in order.model.files}
    passed_on = order.model.tensors is not None
    reading = read_model(files, architectures_json(), indexed=not passed_on)
    decisions = [] if passed_on else [_decision(one) for one in reading.decisions]
    try:
        check_same(order.model, reading, inputs)
        facts = _facts(reading, decisions)
        on_step("starting", 1, 1)
        _gather(asked, order, inputs, facts)
        looked, weights = _look(asked, reading, files, facts, order, on_step)
    except LoadRefused as why:
        traceback.print_exc(file=sys.stderr)
        decisions += _told_of(why, files)
        return _all_refused(order, asked, decisions, why.code)
    _ask_all(asked, facts, looked, weights, order.seed, on_step)
    return Result(
        nonce=order.nonce,
        answers=tuple(one.answer for one in asked if one.answer is not None),
        ingest=Ingest(decisions=tuple(decisions)),
        facts=_record(facts, looked.swept, order.threads),
    )


def _asked(ordered: OrderedCheck, catalogue: Mapping[str, type[Check]]) -> Asked:
    """Return the check of an order, or its refusal where this build has no such check or parameter."""
    kind = catalogue.get(ordered.name)
    if kind is None or ordered.version != kind.version:
        have = [f"{name}:{one.version}" for name, one in sorted(catalogue.items())]
        return Asked(ordered=ordered, answer=_not_asked(ordered, "check_unknown", have))
    try:
        # Through JSON, so that arrays become tuples while all else stays strict.
        return Asked(ordered=ordered, check=kind.model_validate_json(json.dumps(ordered.params)))
    except ValidationError as error:
        fields = [".".join(map(str, one["loc"])) for one in error.errors(include_url=False)]
        return Asked(
            ordered=ordered, answer=_not_asked(ordered, "params_invalid", [f"params.{name}" for name in fields])
        )


def _not_asked(ordered: OrderedCheck, reason: str, items: Sequence[str]) -> Answer:
    """Return a refused answer that records the parameters as they were given."""
    return Answer(
        check=ordered.name,
        version=ordered.version,
        params=ordered.params,
        outcome="refused",
        reason=reason,
        skipped=listed(items, reason),
    )


def _facts(reading: ModelReading, decisions: Sequence[Decision]) -> ModelFacts:
    if reading.refused:
        first = next(one for one in decisions if one.decision == "refused")
        raise LoadRefused(first.reason or "not_on_list", {})
    return model_facts_of(reading.config, reading.tensors)


def _gather(asked: Sequence[Asked], order: Order, inputs: Mapping[str, Path], facts: ModelFacts) -> None:
    """Parse each check's data and hear its needs; a check whose data or needs are wrong is answered here."""
    given = {data.role: inputs[data.input] for data in order.data}
    for one in asked:
        if one.check is None:
            continue
        try:
            if facts.kind not in one.check.kinds:
                raise Refusal("model_kind", (f"kind:{facts.kind}",))
            roles = one.check.data_roles
            one.rows = {role.name: _rows(given, role.name) for role in roles if role.name in given}
            missing = [role.name for role in roles if role.required and role.name not in given]
            if missing:
                raise Refusal("data_missing", tuple(f"role:{name}" for name in missing))
            needs = one.check.needs(facts, one.rows)
            check_needs(needs, facts)
            one.needs = needs
        except Refusal as refusal:
            one.answer = refused(one.check, refusal)
        except MemoryError:  # the cell's limit, not the check's fault: the host names it
            raise
        except Exception:
            one.answer = failed(one.check, "needs")


def _rows(given: Mapping[str, Path], role: str) -> Rows:
    try:
        return tuple(row for _number, row in jsonl.rows(given[role]))
    except ReaderError as error:
        raise Refusal("data_invalid", (f"{role}:{error.at or 'file'}:{error.code}",)) from None


def _look(
    asked: Sequence[Asked],
    reading: ModelReading,
    files: Mapping[str, Path],
    facts: ModelFacts,
    order: Order,
    on_step: Told,
) -> tuple[Looked, Mapping[str, Any]]:
    """Capture what all checks need: tensors from the files, states and scores from one sweep, trials run."""
    needs = [one.needs for one in asked if one.needs is not None]
    merged = plan(needs, facts)
    weights = read_weights(merged.weights, reading.tensors, files, facts.transposed)
    if not merged.sweeps:
        return UNSEEN, weights
    try:
        return look(needs, reading, files, facts, seed=order.seed, threads=order.threads, on_step=on_step), weights
    except (LoadRefused, MemoryError):
        raise
    except Exception:
        # A check that needs weights alone is still answered.
        for one in asked:
            needs_pass = one.needs is not None and (one.needs.sites or one.needs.continuations or one.needs.trials)
            if one.answer is None and one.check is not None and needs_pass:
                one.answer = failed(one.check, "sweep")
        return UNSEEN, weights


def _ask_all(
    asked: Sequence[Asked],
    facts: ModelFacts,
    looked: Looked,
    weights: Mapping[str, Any],
    seed: int,
    on_step: Told,
) -> None:
    """Ask each check that is still without an answer; progress is told over all of them."""
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
            seen = evidence(
                facts,
                check=check.name,
                seed=seed,
                needs=needs,
                swept=looked.swept,
                weights=weights,
                rows=one.rows,
                twin=looked.twin,
                loaded=looked.loaded,
            )
            one.answer = ask(check, seen, on_step=told)
            before.update(measuring=1, judging=1, controls=len(check.controls))


def _all_refused(order: Order, asked: Sequence[Asked], decisions: Sequence[Decision], code: str) -> Result:
    """The model is refused: so is every check, with each file's reason."""
    told = [(one.path or "model", one.reason or code) for one in decisions if one.decision == "refused"]
    skipped = tuple(part for path, reason in told for part in listed((path,), reason))
    answers = tuple(
        one.answer or _not_asked(one.ordered, f"ingest:{code}", ()).model_copy(update={"skipped": skipped})
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


def _record(facts: ModelFacts, swept: Swept, threads: int) -> Facts:
    return Facts(
        architecture=facts.architecture,
        layers=facts.layers,
        width=facts.width,
        parameters=sum(prod(shape) for shape in facts.tensors.values()),
        texts=swept.texts,
        tokens=swept.tokens,
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
