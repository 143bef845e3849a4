"""An answer held against its check's catalogue entry: every name, word and number is of the kind that was promised.

One rule for all who ask: the worker, of what a cell says; the signer, before it composes; the reader, in step V10.
Pure, and over plain JSON, so that a reader needs no schema library. Fields of the entry that an answer is held to:
`metrics` (name, unit, labels less `optional` ones, better, determinism, tolerance, margin, and `interval`: true where
each instance has one, false where none has), `controls` (name, kind, bands) and `words`. A number without an interval
decides nothing under `worst` unless its entry promises it to be exact (`assay.policy.bounds`), so an interval that is
left out never helps. An entry of before tolerances, margins or bands were promised leaves them out, and nothing is held
against it there (docs/adr/0020).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

from assay import bands
from assay.catalogue import CheckEntry
from assay.errors import Malformed, shown

LEVELS = ("weights", "activations", "gradients", "training_data")
"""Levels of access, in the order in which a report names them."""

LEFT_AWAY: Mapping[tuple[str, str], Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        ("sae_features", "1.0"): MappingProxyType(
            {
                "*": frozenset({"site", "dictionary"}),
                "ev": frozenset({"model"}),
                "auroc": frozenset({"shift"}),
                "concept_rows": frozenset({"shift"}),
                "concept_groups": frozenset({"shift"}),
                "diff_p": frozenset({"concept"}),
                "diff_rate": frozenset({"concept"}),
            }
        )
    }
)
"""Labels that checks leave away where they say nothing, by check and version, by metric or "*"; for entries that do not
say so themselves with `optional`. Source: the head of `checks.sae_features.metric_specs`, and what it tells of a base
model and of shifts. A next version of the check says it in its entry."""

_SHARD = re.compile(r"shard:(0|[1-9][0-9]*)", re.ASCII)

NAME_MAX = 128
"""Characters of a name (`assay.result.NAME`); what is longer is cut there."""

_SPREAD = ("tolerance", "margin")
"""Of a metric: how far a re-run may be off, and which difference matters; equal where the entry names them."""


def check_promise(answer: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    """Refuse an answer that says what its check never promised to say, or leaves out what tells instances apart.

    Whether it is `valid`, and why it was refused or failed, is not looked at here.

    Args:
        answer: as plain JSON.
        entry: its check's catalogue entry, as plain JSON.

    Raises:
        Malformed: free_text for a name or word that is not in the entry, result_schema for anything else; `at` is a
            JSON pointer into the answer.
    """
    if answer.get("outcome") != "measured":
        for field in ("controls", "findings", "power"):
            if answer.get("outcome") in ("refused", "failed") and answer.get(field):
                _refuse("result_schema", f"/{field}", "nothing was measured, and yet something is told")
        return
    measured = answer.get("measured")
    measured = measured if isinstance(measured, Mapping) else {}
    metrics = _tables(measured.get("metrics"))
    promised = {str(one["name"]): one for one in reversed(entry["metrics"])}
    for position, metric in enumerate(metrics):
        left_away = _left_away(entry, str(metric.get("name")))
        _check_metric(metric, promised, left_away, f"/measured/metrics/{position}")
    seen = [(str(metric.get("name")), _labels(metric)) for metric in metrics]
    if len(set(seen)) != len(seen):
        twice = next(one for one, count in Counter(seen).items() if count > 1)
        _refuse("result_schema", "/measured/metrics", f"an instance of {shown(twice[0])} is told twice")
    if any(metric.get("labels") for metric in metrics) and not measured.get("coverage"):
        _refuse(
            "result_schema", "/measured/coverage", "metrics have instances, but coverage does not say which were owed"
        )
    _check_controls(answer, measured, entry)
    _check_findings(answer, metrics, entry)
    for position, row in enumerate(_tables(answer.get("power"))):
        if row.get("metric") not in promised:
            told = f"power of {shown(row.get('metric'))}, which the catalogue does not promise"
            _refuse("free_text", f"/power/{position}/metric", told)


def access(entries: Iterable[CheckEntry]) -> list[str]:
    """Return how deep an audit looked: what its checks need, in the order of `LEVELS`."""
    needed = {level for entry in entries for level in entry.access}
    return [level for level in LEVELS if level in needed]


def unread_shards(attempts: Iterable[tuple[str, str | None]]) -> list[int]:
    """Return the shards of which no attempt has left a part.

    Args:
        attempts: job and digest of the result of each.
    """
    done: dict[int, bool] = {}
    for job, result in attempts:
        if found := _SHARD.fullmatch(job):
            number = int(found.group(1))
            done[number] = done.get(number, False) or result is not None
    return sorted(number for number, there in done.items() if not there)


def check_unread(answer: Mapping[str, Any], entry: CheckEntry, unread: Sequence[int]) -> None:
    """Refuse numbers of a check that reads its data in shards where one was never read and the answer does not say so.

    Raises:
        Malformed: result_schema.
    """
    if entry.shard_role is None or answer.get("outcome") != "measured":
        return
    named = skipped_items(answer)
    for shard in unread:
        if f"shard:{shard}" not in named:
            told = f"{shown(entry.name)} was measured, but shard {shard} was never read, and `skipped` does not name it"
            _refuse("result_schema", "/measured", told)


def skipped_items(answer: Mapping[str, Any]) -> frozenset[str]:
    """Return what an answer names as skipped, in its own list and in that of its numbers."""
    measured = answer.get("measured")
    inner = measured.get("skipped") if isinstance(measured, Mapping) else ()
    items = (one.get("item") for one in (*_tables(answer.get("skipped")), *_tables(inner)))
    return frozenset(item for item in items if isinstance(item, str))


def stray_item(items: Iterable[str], label: str, owed: Iterable[str]) -> str | None:
    """Return a skipped item that names an instance of a label that is not owed: it was, and was taken off the list.

    "layer:3" names an instance, "layer:3:pair-7" and "concept:x/shift" a part of one, and "dictionary:trained" all of
    "trained-0" and "trained-1". An item of 128 characters may have been cut.
    """
    there = sorted(set(owed))
    known = {one[:end] for one in there for end in (*_ends(one, "-"), len(one))}
    for item in sorted(items):
        key, _, value = item[:NAME_MAX].partition(":")
        if key != label or not value:
            continue
        value = value if value[0].isalnum() else f"x{value}"  # so the label has it: a name begins with one
        if not known.isdisjoint({value, *(value[:end] for end in _ends(value, ":/"))}):
            continue
        at = bisect_left(there, value)
        cut = len(item) >= NAME_MAX and at < len(there) and there[at].startswith(value)
        if not cut:
            return item
    return None


def _ends(text: str, joints: str) -> Iterator[int]:
    return (end for end, letter in enumerate(text[:NAME_MAX]) if letter in joints)


def _left_away(entry: Mapping[str, Any], metric: str) -> frozenset[str]:
    """Return the labels that an instance may leave away: the entry says so, or it is from before entries could."""
    optional = [label for one in entry["metrics"] if one["name"] == metric for label in one.get("optional", ())]
    before = LEFT_AWAY.get((str(entry.get("name")), str(entry.get("version"))), {})
    return before.get("*", frozenset()) | before.get(metric, frozenset()) | frozenset(optional)


def _check_metric(
    metric: Mapping[str, Any], promised: Mapping[str, Mapping[str, Any]], left_away: frozenset[str], at: str
) -> None:
    name = str(metric.get("name"))
    told = promised.get(name)
    if told is None:
        _refuse("free_text", f"{at}/name", f"{shown(name)} is no metric that the catalogue promises")
    for field in ("unit", "better", "determinism"):
        if metric.get(field) != told.get(field):
            said = (
                f"{shown(name)}: {field} is {shown(metric.get(field))}, the catalogue promises {shown(told.get(field))}"
            )
            _refuse("result_schema", f"{at}/{field}", said)
    labels, owed = set(metric.get("labels") or ()), set(told.get("labels", ()))
    if not owed - left_away <= labels <= owed:
        said = f"{shown(name)}: labels are {shown(sorted(labels))}, the catalogue promises {shown(sorted(owed))}"
        _refuse("result_schema", f"{at}/labels", said)
    for field in _SPREAD:
        if field in told and metric.get(field) != told[field]:
            said = f"{shown(name)}: {field} is {shown(metric.get(field))}, the catalogue promises {shown(told[field])}"
            _refuse("result_schema", f"{at}/{field}", said)
    if told.get("interval") is not None and told["interval"] == (metric.get("interval") is None):
        said = "no interval, and the catalogue promises one" if told["interval"] else "an interval that nobody promised"
        _refuse("result_schema", f"{at}/interval", f"{shown(name)} has {said}")
    if metric.get("p") is not None and not bands.is_p(metric["p"]):
        _refuse("result_schema", f"{at}/p", f"{shown(name)}: p is {shown(metric['p'])}, not from 10^-12 to 1")


def _check_controls(answer: Mapping[str, Any], measured: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    promised = {str(one["name"]): one for one in entry["controls"]}
    controls = _tables(answer.get("controls"))
    present = set()
    for position, control in enumerate(controls):
        at, name = f"/controls/{position}", str(control.get("name"))
        told = promised.get(name)
        if told is None:
            _refuse("free_text", f"{at}/name", f"{shown(name)} is no control that the catalogue promises")
        present.add(name)
        if control.get("kind") != told.get("kind"):
            said = f"control {shown(name)}: kind is {shown(control.get('kind'))}, not what the catalogue promises"
            _refuse("free_text", f"{at}/kind", said)
        bands.check_bands(control, told, at)
    named = skipped_items(answer)
    # A control that could not run is named as skipped, and the answer is then not valid.
    absent = [name for name in promised if name not in present and f"control:{name}" not in named]
    if absent:
        _refuse("result_schema", "/controls", f"control {shown(absent[0])} is promised by the catalogue and absent")
    for name, told in promised.items():
        if metric := bands.unstated(controls, told):
            said = f"control {shown(name)} states no {shown(metric)}, and the catalogue promises that each run does"
            _refuse("result_schema", "/controls", said)


def _check_findings(answer: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], entry: Mapping[str, Any]) -> None:
    present = {(metric.get("name"), _labels(metric)) for metric in metrics}
    for position, finding in enumerate(_tables(answer.get("findings"))):
        at = f"/findings/{position}"
        if finding.get("word") not in entry["words"]:
            _refuse("free_text", f"{at}/word", f"{shown(finding.get('word'))} is no word that the catalogue promises")
        for ref in _tables(finding.get("rests_on")):
            if (ref.get("name"), _labels(ref)) not in present:
                said = f"finding {shown(finding.get('code'))} rests on {shown(ref.get('name'))}, which is not there"
                _refuse("result_schema", f"{at}/rests_on", said)


def _labels(value: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    labels = value.get("labels")
    return (
        frozenset((str(key), str(one)) for key, one in labels.items()) if isinstance(labels, Mapping) else frozenset()
    )


def _tables(value: object) -> list[Mapping[str, Any]]:
    """Return a list of objects; what is no object counts as an empty one, so that it is never overlooked."""
    return [one if isinstance(one, Mapping) else {} for one in value] if isinstance(value, list | tuple) else []


def _refuse(code: str, at: str, message: str) -> NoReturn:
    raise Malformed(code, at, message)
