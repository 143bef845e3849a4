"""One check's part of the page: question, controls with their bands, findings, numbers, plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.catalogue import CheckEntry
from assay.render import metrics, plots, seek, svg
from assay.render.markup import Html, element, join

Answer = Mapping[str, Any]

RESTS_SHOWN = 6
"""Numbers repeated under a finding, as on the console (`assay findings`); the tables below have them all."""

PLOTS_MAX = 64
"""Plots of a page (specification, section 14)."""


def state_of(answer: Answer) -> str:
    """Return measured, inconclusive, refused or failed; what is unknown is inconclusive."""
    outcome = answer.get("outcome")
    if outcome == "measured":
        held = all(one.get("held") is True for one in seek.rows(answer.get("controls")))
        return "measured" if answer.get("valid") is True and held else "inconclusive"
    return str(outcome) if outcome in ("refused", "failed") else "inconclusive"


def name_of(answer: Answer) -> str:
    """Return check and version."""
    return f"{answer.get('check')} {answer.get('version')}"


def skipped(answer: Answer) -> list[Mapping[str, Any]]:
    """Return what was owed and left out, once: an answer and its measurement may both name an item."""
    told = [*seek.rows(answer.get("skipped")), *seek.rows(seek.table(answer.get("measured")).get("skipped"))]
    return list({(str(one.get("item")), str(one.get("reason"))): one for one in told}.values())


def all_plots(answers: list[Answer]) -> dict[tuple[int, int], plots.Drawing | str]:
    """Read every plot of a report: drawings, or the reason why one cannot be drawn."""
    found: dict[tuple[int, int], plots.Drawing | str] = {}
    for place, answer in enumerate(answers):
        for at, value in enumerate(seek.rows(seek.table(answer.get("measured")).get("plots"))):
            if len(found) >= PLOTS_MAX:
                found[place, at] = f"this page draws {PLOTS_MAX} plots"
                continue
            try:
                found[place, at] = plots.read(value)
            except plots.NotDrawn as reason:
                found[place, at] = str(reason)
    return found


def figures(answers: list[Answer]) -> dict[int, list[Html]]:
    """Return the plots of each answer, by its place in the report."""
    read = all_plots(answers)
    drawings = [key for key, one in read.items() if isinstance(one, plots.Drawing)]
    columns, left_out = svg.plan([one for one in read.values() if isinstance(one, plots.Drawing)])
    crowded = {drawings[at] for at in left_out}
    found: dict[int, list[Html]] = {}
    for (place, at), one in read.items():
        if isinstance(one, plots.Drawing) and (place, at) not in crowded:
            part = svg.figure(one, f"check-{place + 1}-plot-{at + 1}", columns)
        else:
            why = one if isinstance(one, str) else f"its {one.points} points are more than this page has room for"
            title = "" if isinstance(one, str) else f" ({one.title})"
            part = element("p", f"Plot {at + 1}{title} is not drawn: {why}. Its numbers are in the signed statement.")
        found.setdefault(place, []).append(part)
    return found


def section(answer: Answer, place: int, entry: CheckEntry | None, drawn: list[Html]) -> Html:
    """Return a check's section.

    Args:
        answer: as in the statement.
        place: of the answer in the report, from 0.
        entry: the check's catalogue entry; None where it neither travels with the report nor ships with this client.
        drawn: its plots.
    """
    name, state = f"check-{place + 1}", state_of(answer)
    numbers = seek.rows(seek.table(answer.get("measured")).get("metrics"))
    parts = [element("h3", f"{place + 1}. {name_of(answer)}", id=name), _state(answer, state), _question(answer, entry)]
    if state in ("measured", "inconclusive"):
        parts.append(_controls(seek.rows(answer.get("controls"))))
        parts.append(_findings(answer, numbers))
    if numbers:
        told = entry.raw["metrics"] if entry else []
        summaries = {str(one["name"]): str(one["summary"]) for one in told if one.get("summary")}
        parts.append(element("h4", f"Metrics ({len(numbers)})"))
        parts.append(metrics.tables(numbers, summaries, f"{name}-metric"))
    if drawn:
        parts += [element("h4", f"Plots ({len(drawn)})"), *drawn]
    return element("section", *parts, aria_labelledby=name)


def _state(answer: Answer, state: str) -> Html:
    if state == "measured":
        return element("p", "Measured; every control held.")
    if state == "inconclusive":
        return element("p", "INCONCLUSIVE: what follows supports no claim.", class_="warning")
    where = f" in step {answer['step']}" if answer.get("step") else ""
    return element("p", f"{state.upper()}{where}: ", seek.digest(answer.get("reason")), class_="warning")


def _question(answer: Answer, entry: CheckEntry | None) -> Html:
    asked = seek.table(answer.get("params"))
    told = join(
        *(join(" · " if at else "", key, " ", seek.digest(_plain(asked[key]))) for at, key in enumerate(sorted(asked)))
    )
    rows: list[tuple[object, object]] = [
        ("Question", entry.summary if entry else "the catalogue entry of this check is not at hand"),
        ("Parameters", told or "none"),
        ("Code", seek.digest(answer.get("code_sha256"))),
        ("Catalogue entry", seek.digest(answer.get("catalogue_sha256"))),
    ]
    for one in seek.rows(answer.get("artefacts")):
        about = join(one.get("name"), ", ", seek.count(one.get("size")), " bytes, ", seek.digest(one.get("sha256")))
        rows.append(("Handed out", about))
    return seek.pairs(rows)


def _plain(value: object) -> str:
    from assay import canonical

    return value if isinstance(value, str) else canonical.dumps(value).decode()


def _controls(controls: list[Mapping[str, Any]]) -> Html:
    missed = [one for one in controls if one.get("held") is not True]
    said = f"{len(controls) - len(missed)} of {len(controls)} control numbers lay in their bands."
    if not controls:
        return join(element("h4", "Controls"), element("p", "This answer carries no control."))
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for one in [*missed, *(one for one in controls if one.get("held") is True)]:
        key = (str(one.get("name")), str(one.get("kind")), str(one.get("metric")))
        groups.setdefault(key, []).append(one)
    parts = [_control(key, held) for key, held in groups.items()]
    return join(element("h4", "Controls"), element("p", said), element("div", *parts, class_="metrics"))


def _control(key: tuple[str, str, str], held: list[Mapping[str, Any]]) -> Html:
    """Return the numbers of one control; bands and outcomes that all of them share are said once."""
    name, kind, metric = key
    varying, fixed = metrics.split_labels(held)
    bands = [seek.band(*(seek.table(one.get("band")).get(end) for end in ("low", "high"))) for one in held]
    ends = ["held" if one.get("held") is True else "MISSED" for one in held]
    one_band, one_end = len(set(bands)) == 1, set(ends) == {"held"}
    shared = [*fixed, *([join("band ", bands[0])] if one_band else []), *(["held"] if one_end else [])]
    head = [*(varying or ["no."]), "value", *([] if one_band else ["band"]), *([] if one_end else ["outcome"])]
    lines: list[list[object]] = []
    for at, one in enumerate(held):
        first: list[object] = [metrics.label(one, key) for key in varying] or [str(at + 1)]
        band, end = [] if one_band else [bands[at]], [] if one_end else [element("span", ends[at], class_="own")]
        lines.append([*first, seek.number(one.get("value")), *band, *end])
    if len(held) == 1:
        shared = [
            join(seek.number(held[0].get("value")), " in ", bands[0]),
            *fixed,
            element("span", ends[0], class_="own"),
        ]
        told = element("p", kind, ", of ", element("code", metric), ": ", join(*shared, by="; "), ".")
        return element("section", element("h5", name), told, class_="short" if one_end else "short missed")
    about = element("p", kind, ", of ", element("code", metric), "; " if shared else "", join(*shared, by="; "), ".")
    missed = frozenset(at for at, end in enumerate(ends) if end == "MISSED")
    table = seek.grid(None, head, lines, aria_label=f"control {name}", marked=missed)
    return element("section", element("h5", name), about, table, class_=metrics.room(held))


def _findings(answer: Answer, numbers: list[Mapping[str, Any]]) -> Html:
    found = seek.rows(answer.get("findings"))
    known = {(str(one.get("name")), seek.labels_text(one.get("labels"))): one for one in numbers}
    parts = [_finding(answer, one, known) for one in found]
    if not found:
        parts = [element("p", "not detected; ", power(answer))]
    return join(element("h4", f"Findings ({len(found)})"), element("div", *parts, class_="metrics"))


def _finding(answer: Answer, one: Mapping[str, Any], known: Mapping[tuple[str, str], Mapping[str, Any]]) -> Html:
    severity = str(one.get("severity"))
    word = str(one.get("word")).replace("_", " ").replace("-", " ")
    labels = seek.labels_text(one.get("labels"))
    # A severity that this client does not know reads as the gravest.
    class_ = f"finding {severity if severity in ('note', 'concern') else 'breach'}"
    unmeasured = not any(name == "power" for name, _ in known)
    at = join("; ", power(answer)) if word.lower() == "not detected" and unmeasured else ""
    head = element("p", element("strong", word), f", {severity}: ", element("code", one.get("code")))
    parts = [join(head, element("p", labels, at, class_="soft") if labels or at else "")]
    if one.get("claim"):
        parts.append(element("p", one["claim"], class_="claim"))
    refs = [(str(ref.get("name")), seek.labels_text(ref.get("labels"))) for ref in seek.rows(one.get("rests_on"))]
    told = [
        join(element("code", ref[0]), " ", seek.range_text(known[ref]) if ref in known else "absent") for ref in refs
    ]
    if told:
        more = f" and {len(told) - RESTS_SHOWN} more below" if len(told) > RESTS_SHOWN else ""
        parts.append(element("p", "Rests on ", join(*told[:RESTS_SHOWN], by=", "), more, ".", class_="soft"))
    return element("div", *parts, class_=class_)


def power(answer: Answer) -> Html:
    """Return how much a check would have seen: "power P [low, high] at n"."""
    told = [
        join(
            f"power {one.get('value')} [{one.get('low')}, {one.get('high')}] at n {seek.count(one.get('n_planted'))} "
            f"({one.get('metric')}, {one.get('effect')}, false positives {one.get('fpr')})"
        )
        for one in seek.rows(answer.get("power"))
    ]
    return join(*told, by="; ") if told else Html("power not measured in this run")
