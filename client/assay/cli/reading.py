"""What a report says, without having verified it. For people to read; nothing is decided from it.

A reader is monotonic: a word, outcome or field that it does not know reads as inconclusive, never as a yes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay import bundle, statement
from assay.errors import CouldNotTell, Malformed, shown

Answer = dict[str, Any]


def read_predicate(report: Path) -> dict[str, Any]:
    """Return the predicate of a report directory or bundle; its signature is not looked at.

    Raises:
        CouldNotTell: absent, unreadable or malformed.
    """
    file = report / bundle.FILE_NAME if report.is_dir() else report
    try:
        with file.open("rb") as stream:
            data = stream.read(bundle.BYTES_MAX + 1)
    except OSError as error:
        raise CouldNotTell(f"cannot read the report {shown(str(file), 200)}: {error.strerror}") from None
    try:
        found: dict[str, Any] = statement.parse(bundle.read(data).payload)["predicate"]
    except Malformed as error:
        raise CouldNotTell(f"{shown(str(file), 200)} is no report: {error}") from None
    return found


def state_of(answer: Answer) -> str:
    """Return measured, inconclusive, refused or failed; what is unknown is inconclusive."""
    outcome = answer["outcome"]
    if outcome == "measured":
        return "measured" if answer["valid"] is True and all(c["held"] for c in answer["controls"]) else "inconclusive"
    return outcome if outcome in ("refused", "failed") else "inconclusive"


def outcome_of(answers: list[Answer]) -> str:
    """Return what the answers amount to, in the words of the service."""
    states = {state_of(answer) for answer in answers}
    if len(states) != 1:
        return "INCONCLUSIVE"
    return {"measured": "MEASURED", "refused": "REFUSED", "failed": "FAILED"}.get(states.pop(), "INCONCLUSIVE")


def why(answer: Answer, wall_s: int | None = None) -> str:
    """Return why a check was not answered, in one line."""
    name, state = shown(answer["check"]), state_of(answer)
    if state == "measured":
        return f"{name} measured, every control held"
    if state == "inconclusive":
        missed = [shown(control["name"]) for control in answer["controls"] if not control["held"]]
        return f"{name} inconclusive: " + (f"control {', '.join(missed)} missed its band" if missed else "not valid")
    reason = shown(answer["reason"] or "no reason given")
    limit = f" (wall limit {wall_s} s)" if reason == "TIME_LIMIT" and wall_s else ""
    step = f" in step {shown(answer['step'])}" if answer.get("step") else ""
    return f"{name} {state}: {reason}{limit}{step}"


def metrics(answer: Answer) -> list[dict[str, Any]]:
    """Return an answer's metrics in report order."""
    return list((answer["measured"] or {}).get("metrics", ()))


def resting_on(answer: Answer, finding: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the metrics that a finding points at."""
    for ref in finding["rests_on"]:
        for metric in metrics(answer):
            if (metric["name"], metric["labels"]) == (ref["name"], ref["labels"]):
                yield metric


def split_findings(answer: Answer) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return the findings about the model as a whole, and how often each word was said of a single instance."""
    spoken = set().union(*(one.get("labels") or {} for one in answer["findings"]))
    owed = set((answer["measured"] or {}).get("coverage", {})) & spoken
    # A finding of one instance names all that tells instances apart, e.g. set and layer; one of a set alone is none.
    whole = [one for one in answer["findings"] if not owed or not owed <= set(one.get("labels") or {})]
    return whole, Counter(one["word"] for one in answer["findings"] if one not in whole)


def skipped(answer: Answer) -> list[dict[str, Any]]:
    """Return what an answer owed and left out, with reasons."""
    return [*answer["skipped"], *(answer["measured"] or {}).get("skipped", ())]


def summary_json(predicate: dict[str, Any]) -> dict[str, Any]:
    """Return the findings as plain JSON, schema assay-findings/v1."""
    return {
        "schema": "assay-findings/v1",
        "verified": False,
        "audit": predicate["audit"]["name"],
        "model_sha256": predicate["model"]["manifest_sha256"],
        "base_sha256": predicate["base"]["manifest_sha256"] if predicate.get("base") else None,
        "outcome": outcome_of(predicate["answers"]),
        "answers": [
            {
                "check": answer["check"],
                "version": answer["version"],
                "params": answer["params"],
                "state": state_of(answer),
                "reason": answer["reason"],
                "step": answer.get("step"),
                "controls": answer["controls"],
                "findings": [{**one, "metrics": [*resting_on(answer, one)]} for one in answer["findings"]],
                "metrics": metrics(answer),
                "skipped": skipped(answer),
                "power": answer.get("power", []),
                "artefacts": answer.get("artefacts") or [],
            }
            for answer in predicate["answers"]
        ],
    }
