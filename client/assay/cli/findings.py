"""A report as lines of text: what was not answered first, then controls, findings and numbers with their intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from assay.cli import reading
from assay.cli.screen import clean

METRICS_SHOWN = 12
"""Metrics listed of an answer without findings; `--all` lists every one."""

RESTS_SHOWN = 6
"""Numbers listed under one finding; `--all` lists every one."""


def lines(predicate: dict[str, Any], place: str, *, everything: bool = False) -> Iterator[str]:
    """Yield the lines of a report."""
    answers = predicate["answers"]
    yield f"Report of {clean(predicate['audit']['name'])}, model sha256:{clean(predicate['model']['manifest_sha256'])}"
    if predicate.get("base"):
        yield f"held against base model sha256:{clean(predicate['base']['manifest_sha256'])}"
    yield f"This is a rendering and proves nothing: run `assay verify {clean(place, 200)}`."
    yield from fixed_seed(predicate)
    yield ""
    yield from not_answered(answers)
    for answer in answers:
        if reading.state_of(answer) in ("measured", "inconclusive"):
            yield from _answer(answer, everything)
    yield from handed_out(answers, place)
    for attempt in predicate["attempts"]:
        if attempt["exit_class"] != "OK":
            yield f"Attempt {attempt['n']} of job {clean(attempt['job'])} ended {clean(attempt['exit_class'])}."


def fixed_seed(predicate: dict[str, Any]) -> Iterator[str]:
    """Yield that the seed was fixed by whoever asked, where it was: nobody can try seeds that are derived."""
    registered = predicate.get("registration") or {}
    if registered.get("seed_mode") != "derived":
        yield f"Seed {clean(registered.get('seed'))} was FIXED by the auditor, as a replication's is."


def summary(predicate: dict[str, Any], place: str) -> Iterator[str]:
    """Yield what a person reads first: what was not answered, and each check's findings about the model as a whole."""
    answers = predicate["answers"]
    yield from fixed_seed(predicate)
    yield from not_answered(answers)
    for answer in answers:
        if reading.state_of(answer) not in ("measured", "inconclusive"):
            continue
        held = sum(control["held"] is True for control in answer["controls"])
        yield f"{clean(answer['check'])} {clean(answer['version'])}: {held} of {len(answer['controls'])} controls held"
        whole, parts = reading.split_findings(answer)
        for finding in whole or answer["findings"]:
            yield f"  {_finding(answer, finding)}"
            if finding.get("claim"):
                yield f"    | {clean(finding['claim'])}"
            if not whole:
                yield from (f"    {metric_line(metric)}" for metric in reading.resting_on(answer, finding))
        if whole and parts:
            counts = ", ".join(f"{count} {clean(word)}" for word, count in sorted(parts.items()))
            yield f"  by instance: {counts}"
    yield from handed_out(answers, place)
    yield f"All numbers, with intervals: assay findings {clean(place, 200)}"


def handed_out(answers: list[dict[str, Any]], place: str) -> Iterator[str]:
    """Yield where the files lie that checks handed out."""
    for answer in answers:
        for one in answer.get("artefacts") or ():
            file = f"{clean(place, 200)}/artefacts/{clean(one['sha256'])}"
            yield f"{clean(answer['check'])} handed out {clean(one['name'])}, {one['size']} bytes: {file}"


def not_answered(answers: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what was asked and is not answered, with its reason."""
    found = [f"  {reading.why(answer)}" for answer in answers if reading.state_of(answer) != "measured"]
    for answer in answers:
        for item in reading.skipped(answer):
            found.append(f"  {clean(answer['check'])} left out {clean(item['item'])}: {clean(item['reason'])}")
    if found:
        yield "Not answered:"
        yield from found
        yield ""


def _answer(answer: dict[str, Any], everything: bool) -> Iterator[str]:
    parameters = ", ".join(f"{key}={value}" for key, value in sorted(answer["params"].items()))
    yield f"{clean(answer['check'])} {clean(answer['version'])} ({clean(parameters, 300)})"
    if reading.state_of(answer) == "inconclusive":
        yield "  INCONCLUSIVE: what follows supports no claim."
    for control in answer["controls"]:
        yield f"  control {_control(control)}"
    told = list(answer["findings"])
    for finding in told:
        yield f"  finding {_finding(answer, finding)}"
        if finding.get("claim"):
            yield f"    | {clean(finding['claim'])}"
        rests = list(reading.resting_on(answer, finding))
        for metric in rests if everything else rests[:RESTS_SHOWN]:
            yield f"    {metric_line(metric)}"
        if len(rests) > RESTS_SHOWN and not everything:
            yield f"    … and {len(rests) - RESTS_SHOWN} more numbers; --all shows them"
    if not told:
        yield f"  not detected; {_power(answer)}"
    numbers = reading.metrics(answer)
    if everything or not told:
        shown = numbers if everything else numbers[:METRICS_SHOWN]
        for metric in shown:
            yield f"  {metric_line(metric)}"
        if len(shown) < len(numbers):
            yield f"  … {len(numbers) - len(shown)} more metrics; --all shows them"
    yield ""


def _control(control: dict[str, Any]) -> str:
    band = control.get("band") or {}
    where = f"[{clean(band.get('low', '?'))}, {clean(band.get('high', '?'))}]"
    held = "held  " if control["held"] is True else "MISSED"
    name = f"{clean(control['name'])} ({clean(control.get('kind', '?'))})"
    number = f"{clean(control.get('metric', '?'))}{_labels(control)} = {clean(control.get('value', '?'))}"
    return f"{held} {name}: {number}, band {where}"


def _finding(answer: dict[str, Any], finding: dict[str, Any]) -> str:
    word = clean(finding["word"]).replace("_", " ").replace("-", " ")
    text = f"{clean(finding.get('severity', 'breach'))}: {clean(finding['code'])}{_labels(finding)} {word}"
    if word.lower() != "not detected" or any(one["name"] == "power" for one in reading.metrics(answer)):
        return text  # power, where it was measured for an instance, is among its numbers
    return f"{text}; {_power(answer)}"


def _power(answer: dict[str, Any]) -> str:
    powers = answer.get("power") or []
    if not powers:
        return "power not measured in this run"
    return "; ".join(
        f"power {clean(one.get('value', '?'))} [{clean(one.get('low', '?'))}, {clean(one.get('high', '?'))}] "
        f"at n {clean(one.get('n_planted', '?'))} ({clean(one.get('effect', '?'))}, "
        f"false positives {clean(one.get('fpr', '?'))})"
        for one in powers
    )


def metric_line(metric: dict[str, Any]) -> str:
    """Return one number with everything that belongs to it."""
    text = f"{clean(metric['name'])}{_labels(metric)} = {clean(metric.get('value', '?'))}"
    interval = metric.get("interval")
    if interval:
        text += f" [{clean(interval.get('low', '?'))}, {clean(interval.get('high', '?'))}]"
        text += f" level {clean(interval.get('level', '?'))} {clean(interval.get('method', '?'))}"
    else:
        text += " (no interval)"
    unit = clean(metric.get("unit", "?"))
    text += f"{'' if unit == '1' else ' ' + unit}, n {clean(metric.get('n', '?'))}"
    null = metric.get("null")
    if null:
        text += f", null {clean(null.get('kind', '?'))} {clean(null.get('mean', '?'))} ± {clean(null.get('sd', '?'))}"
    if metric.get("p") is not None:
        text += f", p {clean(metric['p'])}{_multiplicity(metric)}"
    return text


def _multiplicity(metric: dict[str, Any]) -> str:
    many = metric.get("multiplicity")
    if not many:
        return ""
    return f" (one of {clean(many.get('m', '?'))} tests, corrected: {clean(many.get('corrected', '?'))})"


def _labels(item: dict[str, Any]) -> str:
    labels = item.get("labels") or {}
    return "{" + ", ".join(f"{clean(key)}={clean(labels[key])}" for key in sorted(labels)) + "}" if labels else ""
