"""What a person reads first: the banner, and what was asked and is not answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.render import answers, seek
from assay.render.answers import Answer
from assay.render.markup import Html, element, join
from assay.render.rules import UNDECIDED
from assay.render.source import Source
from assay.render.verdict import ITEMS_SHOWN, NO_POLICY, REPEATED
from assay.verify.outcome import ESTIMATE_ONLY, counted

WORDS = {"pass": "PASS", "fail": "FAIL", "inconclusive": "INCONCLUSIVE"}


def banner(source: Source) -> Html:
    """Return verdict word, policy, model digest, dates, and what this page is."""
    predicate = source.predicate
    word, class_ = _verdict(predicate)
    word += _with_waivers(source)
    if source.doubts:
        # What nobody can rely on must not be read as a verdict in passing.
        word, class_ = f"NOT ESTABLISHED. The report states: {word}", "fail"
    audit, policy = seek.table(predicate.get("audit")), seek.table(predicate.get("policy"))
    base = seek.table(predicate.get("base"))
    rows: list[tuple[object, object]] = [
        ("Policy", join(policy.get("name"), ", ", seek.digest(policy.get("sha256"))) if policy else NO_POLICY),
        *_accepted(source),
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


def _with_waivers(source: Source) -> str:
    """Return " with 1 waiver" after a verdict that leans on one; nothing else may be read as the plain verdict."""
    if not seek.table(source.predicate.get("verdict")):
        return ""
    held = source.rules.waivers
    if held is None:
        # Nobody can see which; the statement itself counts what they turned into "waived".
        told = seek.table(seek.table(source.predicate.get("verdict")).get("counts")).get("waived")
        return " with waivers" if source.rules.waivers_unread and told != 0 else ""
    used = sum(one.get("state") == "used" for one in held)
    if any(one.get("state") == UNDECIDED for one in held):
        return f" with {counted(len(held), 'waiver')} registered"
    return f" with {counted(used, 'waiver')}" if used else ""


def _accepted(source: Source) -> list[tuple[object, object]]:
    """Return how many waivers were registered, wherever there is a policy for them to act on."""
    held, unread = source.rules.waivers, source.rules.waivers_unread
    if not seek.table(source.predicate.get("policy")) and held is None:
        return []
    if unread:
        return [("Waivers", "cannot be shown, see below")]
    if held is None:
        return [("Waivers", "none registered")]
    used = sum(one.get("state") == "used" for one in held)
    undecided = any(one.get("state") == UNDECIDED for one in held)
    return [("Waivers", f"{len(held)} registered" + (", not decided" if undecided else f", {used} used"))]


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
    outcome = REPEATED.get(source.replication or "", "no signed replication was checked")
    return [("Repeats statement", join(seek.digest(first.get("statement_sha256")), f": {outcome}"))]


def _warnings(source: Source) -> list[Html]:
    found = []
    if source.doubts:
        steps = ", ".join(f"{step} {status}" for step, status in source.doubts)
        said = f"This report did not pass verification when this page was made ({steps})."
        unsigned = any(step in ("V01", "V02", "V03") for step, _ in source.doubts)
        more = " Nothing below may be relied on" + (", not even who signed it." if unsigned else ".")
        found.append(element("p", element("strong", said), more, class_="warning"))
    if source.rules.estimate_only:
        named = join(*(element("code", one) for one in source.rules.estimate_only[:ITEMS_SHOWN]), by=", ")
        head = element("strong", f"{ESTIMATE_ONLY.capitalize()}: ")
        more = ". The value alone was held against the limit there, not its interval."
        found.append(element("p", head, named, more, class_="warning"))
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
