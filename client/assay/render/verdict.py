"""What follows from the numbers: the registered policy's verdict, its waivers, and how a repeated report agrees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.render import seek
from assay.render.markup import Html, element, join
from assay.render.rules import UNDECIDED, Rules
from assay.render.source import Source
from assay.verify.outcome import ESTIMATE_ONLY, waiver_state

NO_POLICY = "No policy was registered, so there is no verdict."

REPEATED = {"replicated": "replicated", "not_replicated": "NOT replicated", "cannot_tell": "could not tell"}
"""What a replication came to, in words."""

ITEMS_SHOWN = 40
"""Left-out items named under one reason; the rest are counted, and the signed statement has them all."""

PLACES_SHOWN = 4
"""Instances named beside a waiver: a fingerprint stands for one, unless a check was asked more than once."""

WAIVERS_SHOWN = 500
"""Waivers on a page, used ones first; a file of 256 KiB holds up to 1,700, and a page has a cap of 1 MiB."""

ROWS_SHOWN = 200
"""Rows of a replication on a page; a report has up to 15,000 numbers, and a page a cap of 1 MiB."""


def verdict(source: Source) -> Html:
    """Return every assertion of the registered policy, decided."""
    predicate, rules = source.predicate, source.rules
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
                _asked(str(one.get("id")), rules),
                shown,
                str(one.get("reason")).replace("_", " "),
                seen,
                seek.count(one.get("selected")),
            ]
        )
    head = ["assertion", "asked", "outcome", "reason", "deciding", "looked at"]
    unread = rules.policy_unread
    said = "What the policy asks, and whether it looks at the estimate only, cannot be told here: "
    warned = element("p", said, unread, ".", class_="warning") if unread else ""
    return join(warned, seek.grid("Worst first.", head, lines))


def _asked(name: str, rules: Rules) -> str:
    asked = rules.asked.get(name)
    if asked is None:
        return ESTIMATE_ONLY if name in rules.estimate_only else "not told here"
    return asked


def _rank(outcome: object) -> int:
    order = ("fail", "inconclusive", "waived", "pass")
    return order.index(outcome) if isinstance(outcome, str) and outcome in order else 1


def waivers(source: Source) -> Html:
    """Return every waiver that was registered, used or not."""
    held, unread = source.rules.waivers, source.rules.waivers_unread
    if unread:
        said = "Which waivers were registered cannot be shown here: "
        return element("p", element("strong", said), unread, ".", class_="warning")
    if held is None:
        return element("p", "No waiver was registered.")
    if not held:
        return element("p", "A waiver file was registered, and it holds no waiver.")
    lines: list[list[object]] = [
        [
            _what(one),
            join(one.get("outcome"), " becomes waived"),
            one.get("reason"),
            one.get("approver"),
            join(element("span", one.get("expires"), class_="own"), _limited(one)),
            _state(one),
        ]
        for one in sorted(held, key=lambda one: one.get("state") not in ("used", UNDECIDED))[:WAIVERS_SHOWN]
    ]
    more = f" {len(held) - WAIVERS_SHOWN} more of them stand in waivers.json." if len(held) > WAIVERS_SHOWN else ""
    said = "Each turns exactly one outcome of what it names into “waived”; whoever signed the report did not check who "
    said += f"approved it. What failed stands in the tables above all the same.{more}"
    head = ["waiver", "accepts", "reason", "approver", "valid through", "state"]
    return join(element("p", said), seek.grid(None, head, lines))


def _what(one: Mapping[str, Any]) -> Html:
    named = [str(name) for name in seek.listed(one.get("on"))]
    more = f" and {len(named) - PLACES_SHOWN} more" if len(named) > PLACES_SHOWN else ""
    shown = join(*(element("code", name) for name in named[:PLACES_SHOWN]), by=", ")
    mark = element("code", one.get("fingerprint"))
    return join(shown, more, ", fingerprint ", mark) if named else join("fingerprint ", mark)


def _limited(one: Mapping[str, Any]) -> Html:
    return join(", for model ", element("code", one["model"]), " alone") if one.get("model") else Html()


def _state(one: Mapping[str, Any]) -> str:
    state, count = str(one.get("state")), one.get("count")
    if state == UNDECIDED:
        return "not decided: the verdict could not be recomputed"
    return waiver_state(state, count if type(count) is int else 0)


def comparison(source: Source) -> Html:
    """Return how this report agrees with the one that it repeats; a report holds no other comparison."""
    told = source.replicated
    if told is None:
        if seek.table(source.request.get("first")):
            return element("p", "This report repeats another one, and no signed replication of it was checked.")
        command = element("code", "assay compare")
        return element("p", "A report holds no comparison with another one; ", command, " makes one of two reports.")
    ranked = sorted(seek.rows(told.get("results")), key=lambda one: _agreement(one.get("word")))
    lines: list[list[object]] = []
    for one in ranked[:ROWS_SHOWN]:
        name = join(one.get("check"), "/", element("code", one.get("item") or "answer"), " ")
        values = [seek.number("-" if one.get(side) is None else one.get(side)) for side in ("first", "second")]
        word, reason = (str(one.get(key)).replace("_", " ") for key in ("word", "reason"))
        lines.append([join(name, seek.labels_text(one.get("labels"))), *values, one.get("rule"), word, reason])
    outcome = REPEATED.get(str(told.get("outcome")), "could not tell")
    why = join(" (", told["reason"], ")") if told.get("reason") else ""
    counts = seek.table(told.get("counts"))
    words = ", ".join(f"{seek.count(counts[key])} {str(key).replace('_', ' ')}" for key in sorted(counts, key=str))
    digest = seek.digest(seek.table(told.get("first")).get("statement_sha256"))
    said = element("p", "Held against the report that it repeats, statement ", digest, f": {outcome}", why, ".")
    parts = [said, element("p", words, "." if words else "", " Lack of a difference is not agreement.")]
    if lines:
        head = ["number", "first report", "this report", "rule", "word", "reason"]
        parts.append(seek.grid("What does not agree first.", head, lines))
    if len(ranked) > ROWS_SHOWN:
        parts.append(element("p", f"{len(ranked) - ROWS_SHOWN} more rows stand in the signed replication."))
    changed = len(seek.rows(told.get("environment_differences")))
    parts.append(element("p", f"Differences between both environments: {changed}.", class_="soft"))
    return join(*parts, *(element("p", one, class_="soft") for one in seek.listed(told.get("notes"))))


def _agreement(word: object) -> int:
    order = ("differs", "cannot_tell", "agrees")
    return order.index(word) if isinstance(word, str) and word in order else 1
