"""Carry out one order: read the model, sweep once for all checks, ask each, answer all.

Every check of the order is answered. What goes wrong with the model refuses every check; what goes wrong with one
check or its data is that check's answer alone.
"""

from __future__ import annotations

import hashlib
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

from checks.ask import Given, Told, as_name, ask, failed, listed, refused, unheard
from checks.base import NO_BASE, Base, read_base
from checks.check import ROWS, Check, ModelFacts, Needs, Refusal
from checks.documents import Decision, Facts, HandedOut, Ingest, Order, OrderedCheck, Result, slot_of
from checks.errors import LoadRefused
from checks.rereading import check_same
from checks.runtime.architectures import architectures_json
from checks.runtime.batches import BATCH_TEXTS
from checks.runtime.facts import model_facts_of
from checks.runtime.look import UNSEEN, Looked, look
from checks.runtime.plan import check_needs, plan
from checks.runtime.site_models import Source
from checks.runtime.site_passages import tokenise_passages
from checks.runtime.sites import Sites
from checks.runtime.sweep import Swept, evidence
from checks.runtime.weights import read_weights
from sandbox.reader import jsonl
from sandbox.reader.error import ReaderError
from sandbox.reader.model import Decision as ReaderDecision
from sandbox.reader.model import ModelReading, read_capped, read_model

STEPS = ("starting", "loading", "sweep", "measuring", "controls", "judging")
"""Steps of a run, in order; progress is told by their index."""

BLOB_CAP = 512 * 2**20
"""Bytes of a role that is not rows: a sparse dictionary of 32 Ki latents at width 2048, in float32."""

Rows = Sequence[Mapping[str, Any]]


@dataclass(kw_only=True)
class Asked:
    """One check on its way to an answer."""

    ordered: OrderedCheck
    check: Check | None = None
    needs: Needs | None = None
    rows: dict[str, Rows] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    answer: Answer | None = None
    """Set as soon as it is known: by a refusal, a failure, or at the end."""


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
        base = _base(asked, order, inputs, facts, files)
        decisions += base.decisions
        looked, weights = _look(asked, reading, files, facts, order, on_step, base.source)
    except LoadRefused as why:
        traceback.print_exc(file=sys.stderr)
        decisions += _told_of(why, files)
        return _all_refused(order, asked, decisions, why.code)
    handed = _Handed(asked, on_artefact)
    ran = _ask_all(asked, facts, looked, weights, order.seed, on_step, handed)
    return Result(
        nonce=order.nonce,
        answers=tuple(one.answer for one in asked if one.answer is not None),
        ingest=Ingest(decisions=tuple(decisions)),
        facts=_record(facts, looked.swept, ran, order.threads),
        artefacts=tuple(handed.told),
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
            here = [role for role in roles if role.name in given]
            one.rows = {role.name: _rows(given, role.name) for role in here if role.media_type == ROWS}
            one.blobs = {role.name: _blob(given, role.name) for role in here if role.media_type != ROWS}
            missing = [role.name for role in roles if role.required and role.name not in given]
            if missing:
                raise Refusal("data_missing", tuple(f"role:{name}" for name in missing))
            # Of a role that is bytes the check hears that it is there, and reads it when it measures.
            needs = one.check.needs(facts, {**one.rows, **dict.fromkeys(one.blobs, ())})
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


def _blob(given: Mapping[str, Path], role: str) -> bytes:
    try:
        return read_capped(given[role].resolve(), BLOB_CAP)
    except ReaderError as error:
        raise Refusal("data_invalid", (f"{role}:{error.at or 'file'}:{error.code}",)) from None


def _base(
    asked: Sequence[Asked], order: Order, inputs: Mapping[str, Path], facts: ModelFacts, files: Mapping[str, Path]
) -> Base:
    """Read the base model where one of the checks asks for it, and refuse those checks where it cannot be asked."""
    asking = [one for one in asked if one.needs is not None and "base" in one.needs.passage_models]
    if not asking:
        return NO_BASE
    base = read_base(order.base, inputs, facts, files)
    for one in asking:
        if base.refusal is not None and one.check is not None:
            one.needs, one.answer = None, refused(one.check, base.refusal)
    return base


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
    return bool(needs.sites or needs.continuations or needs.trials or needs.passage_sites)


def _ask_all(
    asked: Sequence[Asked],
    facts: ModelFacts,
    looked: Looked,
    weights: Mapping[str, Any],
    seed: int,
    on_step: Told,
    handed: _Handed,
) -> Ran:
    """Ask each check that is still without an answer; progress is told over all of them.

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
                sites = _sites(looked, needs, facts)
            except Refusal as refusal:
                one.answer = refused(check, refusal)
            else:
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
                    sites=sites,
                    blobs=one.blobs,
                )
                one.answer = ask(check, seen, on_step=told, on_artefact=handed.taker(one))
                ran.add(sites)
            before.update(measuring=1, judging=1, controls=len(check.controls))
    return ran


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


class _Handed:
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
