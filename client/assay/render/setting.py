"""Under which circumstances the numbers came about: attempts, access, data, environment, sandbox, bytes that left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.render import seek
from assay.render.markup import Html, element, join

Rows = list[tuple[object, object]]


def attempts(predicate: Mapping[str, Any]) -> Html:
    """Return every attempt, the failed ones too."""
    held = seek.rows(predicate.get("attempts"))
    lines: list[list[object]] = [
        [
            join(one.get("job"), f" {one.get('n')}"),
            one.get("exit_class"),
            one.get("started_at"),
            one.get("ended_at"),
            seek.digest(one["result_sha256"]) if one.get("result_sha256") else "none",
        ]
        for one in held
    ]
    failed = sum(one.get("exit_class") != "OK" for one in held)
    said = f"{len(held)} in all, {failed} of them did not end OK. None may be left out of a report."
    return seek.grid(said, ["attempt", "ended as", "started", "ended", "result"], lines)


def access(predicate: Mapping[str, Any]) -> Html:
    """Return how deep the audit looked, and how the model's files were read."""
    held = seek.table(predicate.get("access"))
    rows: Rows = [("Read", ", ".join(map(str, seek.listed(held.get("derived")))) or "nothing")]
    if seek.listed(held.get("granted")):
        rows.append(("Granted", ", ".join(map(str, held["granted"]))))
    if held.get("grant"):
        rows.append(("Granted by envelope", seek.digest(held["grant"])))
    rows += _parties(seek.table(predicate.get("parties")))
    facts = seek.table(predicate.get("facts"))
    if facts:
        told = ", ".join(f"{key} {facts[key]}" for key in sorted(facts, key=str))
        rows.append(("Said by the cell", told))
    parts = [seek.pairs(rows)]
    for name, part in (("model", "model"), ("base model", "base")):
        found = seek.table(seek.table(predicate.get(part)).get("ingest"))
        parts.append(_decisions(name, seek.rows(found.get("decisions"))))
    return join(*parts)


def _parties(held: Mapping[str, Any]) -> Rows:
    """Return who asked, whose model it is, and under which consents; nothing for reports of before owners approved."""
    named: Rows = [(key.capitalize(), held[key]) for key in ("auditor", "owner") if held.get(key)]
    for one in seek.rows(held.get("approvals")):
        named.append(("Approved by", join(one.get("name"), ", key ", seek.digest(one.get("key_id")))))
    return named


def _decisions(name: str, held: list[Mapping[str, Any]]) -> Html:
    if not held:
        return Html()
    groups: dict[tuple[str, str, str], list[str]] = {}
    for one in held:
        at = seek.table(one.get("at"))
        where = ", ".join(str(at[key]) for key in sorted(at, key=str))
        path = str(one["path"]) if one.get("path") else "the model as a whole"
        key = (str(one.get("decision")), path if where else "", str(one.get("reason") or ""))
        groups.setdefault(key, []).append(where or path)
    lines: list[list[object]] = [
        [
            decision,
            join(f"in {path}: " if path else "", *(element("code", one) for one in names), by=" "),
            reason or "-",
        ]
        for (decision, path, reason), names in groups.items()
    ]
    return seek.grid(f"What was read of the {name}, and what was not", ["decision", "what", "reason"], lines)


def data(predicate: Mapping[str, Any]) -> Html:
    """Return every data set that was read."""
    lines: list[list[object]] = [
        [
            one.get("role"),
            "-" if one.get("rows") is None else seek.count(one.get("rows")),
            one.get("media_type") or "-",
            seek.digest(one.get("sha256")),
        ]
        for one in seek.rows(predicate.get("data"))
    ]
    if not lines:
        return element("p", "No data set was read.")
    return seek.grid(None, ["role", "rows", "media type", "SHA-256"], lines)


def environment(predicate: Mapping[str, Any]) -> Html:
    """Return where the deciding attempt ran."""
    held = seek.table(predicate.get("environment"))
    packages, flags = seek.table(held.get("packages")), seek.table(held.get("deterministic_flags"))
    rows: Rows = [
        (key.replace("_", " "), seek.digest(held[key]) if key.endswith("_sha256") else held[key])
        for key in sorted(held, key=str)
        if key not in ("packages", "deterministic_flags") and not isinstance(held[key], Mapping | list | tuple)
    ]
    rows.append(("deterministic flags", ", ".join(f"{key} {flags[key]}" for key in sorted(flags, key=str)) or "none"))
    listed = join(*(join(element("code", key), f" {packages[key]}") for key in sorted(packages, key=str)), by=", ")
    rows.append((f"packages ({len(packages)})", listed))
    return seek.pairs(rows)


def sandbox(predicate: Mapping[str, Any]) -> Html:
    """Return the seal of each isolated run, and the bytes that left."""
    held = seek.table(predicate.get("sandbox"))
    parts = [_cell(at, one) for at, one in enumerate(seek.rows(held.get("cells")))]
    lifetime = seek.table(held.get("lifetime_output"))
    said = _bytes(lifetime) if lifetime else "not told in this report"
    parts.append(seek.pairs([("All reports about this model so far", said)]))
    return join(*parts)


def _cell(at: int, cell: Mapping[str, Any]) -> Html:
    layers = seek.table(cell.get("layers"))
    limits = [_limit(one) for one in seek.rows(cell.get("limits"))]
    weak = [str(one).replace("_", " ") for one in seek.listed(cell.get("statements"))]
    rows: Rows = [
        ("Isolation", join(cell.get("backend"), " ", cell.get("version"))),
        ("Weaker than it should be", element("strong", ", ".join(weak)) if weak else "nothing is stated"),
        ("Network", cell.get("network")),
        ("Output bytes", _bytes(seek.table(cell.get("output")))),
        ("Policy", seek.digest(cell.get("policy_sha256"))),
        ("Self-check", seek.digest(cell["selfcheck_sha256"]) if cell.get("selfcheck_sha256") else "none"),
        ("Layers", join(*(join(key, " ", _layer(layers[key])) for key in sorted(layers, key=str)), by=", ")),
        ("Limits", join(*limits, by=", ")),
    ]
    return join(element("h4", f"Cell {at + 1}: {cell.get('stage')}"), seek.pairs(rows))


def _limit(one: Mapping[str, Any]) -> str:
    each = "" if one.get("aggregate") else " for each process"
    return f"{one.get('name')} {seek.count(one.get('value'))} by {one.get('by')}{each}"


def _layer(value: object) -> Html:
    if isinstance(value, list | tuple):
        return join(*(element("code", one) for one in value), by=" ") if value else Html("none")
    return element("code", value)


def _bytes(held: Mapping[str, Any]) -> str:
    return f"{seek.count(held.get('bytes'))} of at most {seek.count(held.get('cap'))}"
