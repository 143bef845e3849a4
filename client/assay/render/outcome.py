"""What a person reads first, and what follows from the numbers: banner, unanswered questions, waivers, comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.render import answers, seek
from assay.render.answers import Answer
from assay.render.markup import Html, element, join
from assay.render.source import Source

WORDS = {"pass": "PASS", "fail": "FAIL", "inconclusive": "INCONCLUSIVE"}

NO_POLICY = "No policy was registered, so there is no verdict."

ITEMS_SHOWN = 40
"""Left-out items named under one reason; the rest are counted, and the signed statement has them all."""


def banner(source: Source) -> Html:
    """Return verdict word, policy, model digest, dates, and what this page is."""
    predicate = source.predicate
    word, class_ = _verdict(predicate)
    if source.doubts:
        # What nobody can rely on must not be read as a verdict in passing.
        word, class_ = f"NOT ESTABLISHED. The report states: {word}", "fail"
    audit, policy = seek.table(predicate.get("audit")), seek.table(predicate.get("policy"))
    base = seek.table(predicate.get("base"))
    rows: list[tuple[object, object]] = [
        ("Policy", join(policy.get("name"), ", ", seek.digest(policy.get("sha256"))) if policy else NO_POLICY),
        ("Answers", _counts(seek.rows(predicate.get("answers")))),
        ("Model manifest", seek.digest(seek.table(predicate.get("model")).get("manifest_sha256"))),
        *([("Held against base", seek.digest(base.get("manifest_sha256")))] if base else []),
        ("Audit", seek.digest(audit.get("name"))),
        *((name, audit.get(field)) for name, field in _DATES),
        ("Seed", _seed(seek.table(predicate.get("registration")))),
        *_repeats(source),
        ("Bundle, SHA-256", seek.digest(source.bundle_sha256)),
    ]
    proves = join("This page is a rendering and proves nothing: run ", element("code", "assay verify"), ".")
    parts = [element("p", word, class_="verdict"), *_warnings(source), element("p", proves), seek.pairs(rows)]
    return element("div", *parts, class_=f"banner {class_}")


_DATES = (
    ("Submitted", "submitted_at"),
    ("Registered", "registered_at"),
    ("Measured", "started_at"),
    ("Ended", "ended_at"),
    ("Composed", "composed_at"),
)


def _verdict(predicate: Mapping[str, Any]) -> tuple[str, str]:
    verdict = seek.table(predicate.get("verdict"))
    if not verdict or not seek.table(predicate.get("policy")):
        return "NO VERDICT", "none"
    outcome = str(verdict.get("outcome"))
    # A word that this client does not know is no pass.
    known = outcome if outcome in WORDS else "inconclusive"
    return WORDS[known], known


def _counts(held: list[Answer]) -> str:
    states = [answers.state_of(one) for one in held]
    told = [
        f"{states.count(word)} {word}" for word in ("measured", "inconclusive", "refused", "failed") if word in states
    ]
    return f"{len(held)} asked: {', '.join(told)}" if held else "nothing was asked"


def _seed(registered: Mapping[str, Any]) -> str:
    mode = str(registered.get("seed_mode"))
    said = {"derived": "drawn after registration", "fixed": "FIXED by the auditor, as a replication is"}
    return f"{registered.get('seed')}, {said.get(mode, mode)}"


def _repeats(source: Source) -> list[tuple[object, object]]:
    """Return which report this one repeats, and what came of it; nothing for a report that repeats none."""
    first = seek.table(source.request.get("first"))
    if not first:
        return []
    said = {"replicated": "replicated", "not_replicated": "NOT replicated", "cannot_tell": "could not tell"}
    outcome = said.get(source.replication or "", "no signed replication was checked")
    return [("Repeats statement", join(seek.digest(first.get("statement_sha256")), f": {outcome}"))]


def _warnings(source: Source) -> list[Html]:
    found = []
    if source.doubts:
        steps = ", ".join(f"{step} {status}" for step, status in source.doubts)
        said = f"This report did not pass verification when this page was made ({steps})."
        unsigned = any(step in ("V01", "V02", "V03") for step, _ in source.doubts)
        more = " Nothing below may be relied on" + (", not even who signed it." if unsigned else ".")
        found.append(element("p", element("strong", said), more, class_="warning"))
    if seek.table(source.predicate.get("signer")).get("profile") != "production":
        said = "Signed under a development key: good for trying things out, no ground for anyone else to rely on."
        found.append(element("p", said, class_="warning"))
    return found


def unanswered(held: list[Answer]) -> Html:
    """Return what was asked and is not answered, refused or left out."""
    lines: list[list[object]] = []
    reasons: list[Html] = []
    for place, one in enumerate(held):
        link = element("a", f"{place + 1}. {answers.name_of(one)}", href=f"#check-{place + 1}")
        state = answers.state_of(one)
        if state != "measured":
            why = _missed(one) if state == "inconclusive" else one.get("reason")
            lines.append([link, element("span", state, class_="own"), why])
        grouped: dict[str, list[str]] = {}
        for item in answers.skipped(one):
            grouped.setdefault(str(item.get("reason")), []).append(str(item.get("item")))
        for reason, items in grouped.items():
            more = f" and {len(items) - ITEMS_SHOWN} more" if len(items) > ITEMS_SHOWN else ""
            listed = join(*(element("code", item) for item in items[:ITEMS_SHOWN]), by=", ")
            reasons.append(
                element("p", link, f" left out {len(items)}, reason ", element("code", reason), ": ", listed, more)
            )
    if not lines and not reasons:
        return element("p", "Every check that was asked is measured, every control held, and nothing was left out.")
    return join(seek.grid(None, ["check", "state", "reason"], lines) if lines else "", *reasons)


def _missed(one: Answer) -> Html:
    names = dict.fromkeys(str(c.get("name")) for c in seek.rows(one.get("controls")) if c.get("held") is not True)
    return join("control missed its band: ", *names, by=" ") if names else Html("not valid")


def verdict(predicate: Mapping[str, Any]) -> Html:
    """Return every assertion of the registered policy, decided."""
    held = seek.rows(seek.table(predicate.get("verdict")).get("assertions"))
    if not seek.table(predicate.get("policy")):
        return element("p", NO_POLICY)
    lines: list[list[object]] = []
    for one in sorted(held, key=lambda one: _rank(one.get("outcome"))):
        deciding = seek.table(one.get("deciding"))
        seen = "; ".join(
            part for part in (seek.labels_text(deciding.get("labels")), str(deciding.get("detail") or "")) if part
        )
        outcome = str(one.get("outcome"))
        shown = outcome if outcome in ("pass", "fail", "inconclusive", "waived") else "inconclusive"
        lines.append(
            [
                element("code", one.get("id")),
                shown,
                str(one.get("reason")).replace("_", " "),
                seen,
                seek.count(one.get("selected")),
            ]
        )
    return seek.grid("Worst first.", ["assertion", "outcome", "reason", "deciding", "looked at"], lines)


def _rank(outcome: object) -> int:
    order = ("fail", "inconclusive", "waived", "pass")
    return order.index(outcome) if isinstance(outcome, str) and outcome in order else 1


def waivers(predicate: Mapping[str, Any]) -> Html:
    """Return every waiver that was registered, used or not."""
    held = seek.rows(predicate.get("waivers"))
    if not held:
        return element("p", "No waiver was registered.")
    head = ["fingerprint", "outcome", "reason", "approver", "expires", "state"]
    fields = ("outcome", "reason", "approver", "expires")
    lines: list[list[object]] = [
        [element("code", one.get("fingerprint")), *(one.get(field) for field in fields), one.get("state", "not told")]
        for one in held
    ]
    return seek.grid(None, head, lines)


def comparison(predicate: Mapping[str, Any]) -> Html:
    """Return the differences to another report, where the statement holds them."""
    held = seek.table(predicate.get("comparison"))
    if not held:
        return element("p", "This report was not compared with another one.")
    lines: list[list[object]] = []
    for one in seek.rows(held.get("metrics")):
        name = join(one.get("check"), "/", element("code", one.get("metric")), " ", seek.labels_text(one.get("labels")))
        d = join(one.get("d"), " ", seek.band(one.get("low"), one.get("high")))
        lines.append(
            [name, one.get("value_a"), one.get("value_b"), d, one.get("method"), str(one.get("word")).replace("_", " ")]
        )
    said = f"B less A, level {held.get('level')}, {seek.count(held.get('compared'))} metrics tested together. "
    more = "Lack of a difference is not agreement."
    table = seek.grid(said + more, ["metric", "A", "B", "difference", "method", "word"], lines)
    notes = [element("p", one, class_="soft") for one in seek.listed(held.get("notes"))]
    return join(table, *notes)
