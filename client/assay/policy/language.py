"""The policy language: what may be asked of a report, as frozen values, and the digest under which it is registered.

Source: section 11 of the report's specification. Comments, key order, quoting and trailing zeros do not change the
digest; every default is filled in before it is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, cast

from assay import canonical
from assay.catalogue import Catalogue
from assay.decimals import canonical_decimal
from assay.policy.fields import Fields, Labels
from assay.policy.loader import Document, Node, Refused

SCHEMA = "assay-policy/v1"

AGE_DAYS_MAX = 36_500
"""A century: more is a slip of the pen, and no moment of this calendar overflows under it."""

ATTEMPTS_MAX = 1_000
"""Far above what a service grants; more would be no condition."""

Operator = Literal["<=", "<", ">=", ">", "within"]
Level = Literal["gate", "advisory"]
OnInconclusive = Literal["inconclusive", "fail"]
OPERATORS = ("<=", "<", ">=", ">", "within")

_VERSION = re.compile(r"(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8}))?", re.ASCII)
_POLICY = ("schema", "name", "require", "assertions", "findings", "report", "compare")
_COMMON = ("id", "check", "metric", "where", "quantifier", "op", "value", "min_instances", "level", "on_inconclusive")
_ASSERTION = (*_COMMON, "bound", "min_power", "min_n")


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A check that must have been asked and answered."""

    check: str
    version: str | None
    """Major, or major.minor; None takes any."""
    answered: Literal["measured", "any"]
    """`measured` asks for a valid answer; `any` also takes a refusal or a failure."""
    line: int = field(compare=False, default=1)


@dataclass(frozen=True, kw_only=True)
class Assertion:
    """A bound on every or some instance of one metric, or on its difference from a baseline."""

    id: str
    check: str
    metric: str
    where: Labels
    quantifier: Literal["every", "some"]
    op: Operator
    value: tuple[Decimal, ...]
    """One number; two under `within`."""
    bound: Literal["worst", "estimate"] = "worst"
    min_power: Decimal | None = None
    min_n: int | None = None
    min_instances: int
    level: Level
    on_inconclusive: OnInconclusive
    compared: bool = False
    """True for an entry of `compare`: it bounds candidate minus baseline."""
    line: int = field(compare=False, default=1)


@dataclass(frozen=True, kw_only=True)
class FindingRule:
    """The worst severity that a check's findings may have."""

    id: str
    check: str
    max_severity: Literal["note", "concern"]
    level: Level
    on_inconclusive: OnInconclusive
    line: int = field(compare=False, default=1)


@dataclass(frozen=True, kw_only=True)
class ReportConditions:
    """What the report as a whole must be; None asks nothing."""

    max_age_days: int | None = None
    access: tuple[str, ...] | None = None
    """Levels that the audit must have had."""
    sandbox: tuple[str, ...] | None = None
    """Backends that may have run a cell."""
    seed: Literal["derived"] | None = None
    attempts_max: int | None = None
    """Most attempts of one job."""
    line: int = field(compare=False, default=1)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A release criterion, fixed before the run."""

    name: str
    require: tuple[Requirement, ...]
    assertions: tuple[Assertion, ...]
    findings: tuple[FindingRule, ...]
    report: ReportConditions
    compare: tuple[Assertion, ...]

    @property
    def entries(self) -> tuple[Assertion | FindingRule, ...]:
        """Everything that is decided under an id."""
        return (*self.assertions, *self.findings, *self.compare)

    def to_json(self) -> dict[str, Any]:
        """Return the normalised form: defaults filled, decimals canonical."""
        report = self.report
        return {
            "schema": SCHEMA,
            "name": self.name,
            "require": [{"check": r.check, "version": r.version, "answered": r.answered} for r in self.require],
            "assertions": [_plain(entry) for entry in self.assertions],
            "findings": [
                {
                    "id": rule.id,
                    "check": rule.check,
                    "max_severity": rule.max_severity,
                    "level": rule.level,
                    "on_inconclusive": rule.on_inconclusive,
                }
                for rule in self.findings
            ],
            "report": {
                "max_age_days": report.max_age_days,
                "access": None if report.access is None else list(report.access),
                "sandbox": None if report.sandbox is None else list(report.sandbox),
                "seed": report.seed,
                "attempts_max": report.attempts_max,
            },
            "compare": [_plain(entry) for entry in self.compare],
        }

    @cached_property
    def data(self) -> bytes:
        """The canonical bytes: `policy.json` of a report."""
        return canonical.dumps(self.to_json())

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of `data`: the digest that a request registers."""
        return canonical.sha256(self.to_json())


def decimal_text(value: Decimal) -> str:
    """Return the canonical decimal string of a finite decimal of the grammar."""
    return canonical_decimal(format(value, "f"))


def _plain(entry: Assertion) -> dict[str, Any]:
    numbers = [decimal_text(number) for number in entry.value]
    plain = {
        "id": entry.id,
        "check": entry.check,
        "metric": entry.metric,
        "where": dict(entry.where),
        "quantifier": entry.quantifier,
        "op": entry.op,
        "value": numbers if entry.op == "within" else numbers[0],
        "min_instances": entry.min_instances,
        "level": entry.level,
        "on_inconclusive": entry.on_inconclusive,
    }
    if entry.compared:
        return plain
    power = None if entry.min_power is None else decimal_text(entry.min_power)
    return plain | {"bound": entry.bound, "min_n": entry.min_n, "min_power": power}


def parse(document: Document) -> Policy:
    """Read a policy.

    Raises:
        Refused: an unknown or missing field, a value of another kind, an id twice, or nothing at level `gate`.
    """
    top = Fields.of(document, document.root, "a policy", _POLICY)
    if (found := top.need("schema", top.scalar("schema"))).text != SCHEMA:
        top.refuse("schema", f"is {SCHEMA}; this client reads no other")
    policy = Policy(
        name=top.need("name", top.name("name")) if found else "",
        require=top.each("require", lambda node: _requirement(document, node)),
        assertions=top.each("assertions", lambda node: _assertion(document, node, compared=False)),
        findings=top.each("findings", lambda node: _finding(document, node)),
        report=_report(document, top.table.fields.get("report")),
        compare=top.each("compare", lambda node: _assertion(document, node, compared=True)),
    )
    seen: set[str] = set()
    for entry in policy.entries:
        if entry.id in seen:
            raise Refused(document.file, entry.line, f"the id {entry.id} appears twice")
        seen.add(entry.id)
    if not any(entry.level == "gate" for entry in policy.entries):
        document.refuse(document.root, "nothing here is at level `gate`, so this policy could never say no")
    return policy


def _requirement(document: Document, node: Node) -> Requirement:
    fields = Fields.of(document, node, "an entry of require", ("check", "version", "answered"))
    version = fields.scalar("version")
    if version is not None and not _VERSION.fullmatch(version.text):
        fields.refuse("version", 'is "major" or "major.minor"')
    return Requirement(
        check=fields.need("check", fields.name("check")),
        version=None if version is None else version.text,
        answered=cast(Any, fields.choice("answered", ("measured", "any")) or "measured"),
        line=node.line,
    )


def _assertion(document: Document, node: Node, *, compared: bool) -> Assertion:
    named = "an entry of compare" if compared else "an assertion"
    fields = Fields.of(document, node, named, _COMMON if compared else _ASSERTION)
    op = cast(Operator, fields.need("op", fields.choice("op", OPERATORS)))
    value = fields.pair("value") if op == "within" else (fields.need("value", fields.decimal("value")),)
    power = fields.decimal("min_power")
    if power is not None and not 0 <= power <= 1:
        fields.refuse("min_power", "lies from 0 to 1")
    return Assertion(
        id=fields.need("id", fields.name("id")),
        check=fields.need("check", fields.name("check")),
        metric=fields.need("metric", fields.name("metric")),
        where=fields.labels("where"),
        quantifier=cast(Any, fields.choice("quantifier", ("every", "some")) or "every"),
        op=op,
        value=value,
        bound=cast(Any, fields.choice("bound", ("worst", "estimate")) or "worst"),
        min_power=power,
        min_n=fields.count("min_n", 1),
        min_instances=fields.count("min_instances", 1) or 1,
        level=_level(fields),
        on_inconclusive=_on_inconclusive(fields),
        compared=compared,
        line=node.line,
    )


def _finding(document: Document, node: Node) -> FindingRule:
    fields = Fields.of(
        document, node, "an entry of findings", ("id", "check", "max_severity", "level", "on_inconclusive")
    )
    return FindingRule(
        id=fields.need("id", fields.name("id")),
        check=fields.need("check", fields.name("check")),
        # `breach` would be a rule that nothing can violate.
        max_severity=cast(Any, fields.need("max_severity", fields.choice("max_severity", ("note", "concern")))),
        level=_level(fields),
        on_inconclusive=_on_inconclusive(fields),
        line=node.line,
    )


def _level(fields: Fields) -> Level:
    return cast(Level, fields.choice("level", ("gate", "advisory")) or "gate")


def _on_inconclusive(fields: Fields) -> OnInconclusive:
    return cast(OnInconclusive, fields.choice("on_inconclusive", ("inconclusive", "fail")) or "inconclusive")


def _report(document: Document, node: Node | None) -> ReportConditions:
    if node is None:
        return ReportConditions()
    fields = Fields.of(document, node, "report", ("max_age_days", "access", "sandbox", "seed", "attempts_max"))
    return ReportConditions(
        max_age_days=fields.count("max_age_days", 1, AGE_DAYS_MAX),
        access=fields.names("access"),
        sandbox=fields.names("sandbox"),
        seed=cast(Any, fields.choice("seed", ("derived",))),
        attempts_max=fields.count("attempts_max", 1, ATTEMPTS_MAX),
        line=node.line,
    )


def unknown_names(policy: Policy, catalogue: Catalogue) -> Iterator[tuple[int, str]]:
    """Yield line and message of everything that the catalogue does not know; a submission is refused for it."""
    for asked in (*policy.require, *policy.entries):
        entry = catalogue.entry(asked.check)
        if entry is None:
            yield asked.line, f"the catalogue has no check {asked.check}"
        elif isinstance(asked, Assertion):
            metric = next((one for one in entry.raw["metrics"] if one["name"] == asked.metric), None)
            if metric is None:
                yield asked.line, f"{asked.check} has no metric {asked.metric}"
                continue
            for key, _ in asked.where:
                if key not in metric.get("labels", ()):
                    yield asked.line, f"{asked.check} {asked.metric} has no label {key}"
