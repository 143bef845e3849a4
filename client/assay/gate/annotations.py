"""Standard output and workflow annotations. Text of a report stands behind a bar, where it can command nothing."""

from __future__ import annotations

from collections.abc import Iterator

from assay.gate import neutral, wording
from assay.gate.gate import GateResult

ANNOTATIONS_MAX = 10
"""The platform shows ten of each kind per step (specification, section 12); we stay at ten in all."""

_WORD = {"fail": "error", "inconclusive": "warning", "waived": "notice"}


def lines(result: GateResult) -> Iterator[str]:
    """Yield the lines that a person reads on a console."""
    yield wording.headline(result)
    policy = result.asked.policy
    yield neutral.behind_bar(f"policy {policy.name} {policy.sha256}")
    for name, value in wording.about(result).items():
        yield neutral.behind_bar(f"{name.replace('_', ' ')} {value}")
    for problem in result.problems:
        yield neutral.behind_bar(f"{problem.code}: {problem.detail}")
    for decision in result.decisions:
        level = "" if decision.level == "gate" else f" ({decision.level})"
        about = f"{decision.outcome}{level}  {wording.full_name(decision)}: {wording.subject(decision)}"
        yield neutral.behind_bar(f"{about}: {decision.reason}, {decision.selected} instances")
        for instance in decision.instances:
            if instance.outcome != "pass" or instance is decision.deciding:
                yield neutral.behind_bar(f"    {instance.outcome}: {wording.told(instance)}")
                if instance.fingerprint and instance.outcome != "pass":
                    yield neutral.behind_bar(f"    fingerprint {instance.fingerprint}")
                if accepted := wording.accepted(instance):
                    yield neutral.behind_bar(f"    {accepted}")
    for warning in result.warnings:
        yield neutral.behind_bar(f"warning: {warning}")


def commands(result: GateResult) -> list[str]:
    """Return at most ten workflow commands: problems first, then failing, inconclusive and waived entries."""
    found: list[str] = []
    kind = "error" if result.outcome == "wrong" else "warning"
    found += [_command(kind, "", f"{one.code}: {one.detail}") for one in result.problems]
    for outcome, word in _WORD.items():
        for decision in result.decisions:
            if decision.outcome == outcome:
                kind = word if decision.level == "gate" else "notice"
                place = f" file={neutral.annotation_property(result.asked.policy_file)},line={decision.line}"
                place += f",title={neutral.annotation_property(wording.full_name(decision))}"
                deciding = decision.deciding
                why = wording.told(deciding) if deciding else decision.reason
                found.append(_command(kind, place, f"{outcome}: {wording.subject(decision)}: {why}"))
    if len(found) > ANNOTATIONS_MAX:
        rest = len(found) - ANNOTATIONS_MAX + 1
        found = [*found[: ANNOTATIONS_MAX - 1], _command("warning", "", f"{rest} more; see the job summary")]
    return found


def _command(kind: str, place: str, message: str) -> str:
    return f"::{kind}{place}::{neutral.annotation(message)}"
