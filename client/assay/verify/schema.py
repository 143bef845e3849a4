"""The predicate's full schema as a table, for readers.

It is `assay.predicate` without its schema library, which takes longer to import than a report takes to verify. A test
holds both against one another, field by field and over altered reports. Unknown fields are ignored here.
"""

from __future__ import annotations

import re
from typing import Any

from assay import decimals
from assay.manifest import check_path
from assay.shape import (
    COUNT,
    FLAG,
    MOMENT,
    OBJECT,
    SEED_MODE,
    SHA256,
    TEXT,
    Absent,
    Each,
    Kind,
    Maybe,
    Null,
    Ruled,
    Shape,
    Some,
    one_of,
)
from assay.tlog.notes import is_origin
from assay.verify import numbers

_AUDIT = re.compile(r"audits/[0-9a-f]{32}", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9a-f]{32}", re.ASCII)
_VERSION = re.compile(r"1\.[0-9]+", re.ASCII)

TEXT_MAX = 512
"""Characters of a free text (specification, section 3)."""


def _is_free(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= TEXT_MAX and value.isprintable()


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | str)


def _matching(name: str, form: re.Pattern[str]) -> Kind:
    return Kind(name, lambda value: isinstance(value, str) and form.fullmatch(value) is not None)


NAME = _matching("a name of at most 128 of A-Z a-z 0-9 . _ : / @ + -", decimals.NAME)
FREE = Kind(f"printable text of at most {TEXT_MAX} characters", _is_free)
DECIMAL = Kind("a decimal string in canonical form", decimals.is_canonical)
POSITIVE = Kind("a whole number from 1 on", lambda value: type(value) is int and value >= 1)
ORIGIN = Kind("a log's name", lambda value: isinstance(value, str) and is_origin(value))
PATH = Kind("a path of one or two segments", lambda value: check_path(value) is None)
PLAIN = Kind("a text, a whole number, true, false or null", _is_plain)
LAYER = Kind(
    "texts, a text, a whole number, true, false or null",
    lambda value: all(map(_is_free, value)) if isinstance(value, list) else _is_plain(value),
)
PLACE = Kind("a text or a whole number", lambda value: _is_free(value) or COUNT.fits(value))

_LABELS = Each(NAME, NAME)
_SKIPPED = [{"item": NAME, "reason": NAME}]
_INTERVAL = Ruled({"low": DECIMAL, "high": DECIMAL, "level": DECIMAL, "method": NAME}, numbers.interval)
_METRIC = Ruled(
    {
        "name": NAME,
        "labels": Absent(_LABELS),
        "value": DECIMAL,
        "step": DECIMAL,
        "unit": NAME,
        "n": COUNT,
        "interval": Maybe(_INTERVAL),
        "null": Maybe({"kind": NAME, "mean": DECIMAL, "sd": DECIMAL, "n": COUNT, "p95": Maybe(DECIMAL)}),
        "p": Maybe(DECIMAL),
        "multiplicity": Maybe({"family": NAME, "m": COUNT, "corrected": one_of("none", "bonferroni", "holm", "bh")}),
        "better": Absent(one_of("higher", "lower", "none")),
        "determinism": one_of("exact", "tolerance", "statistical"),
        "tolerance": Maybe({"abs": DECIMAL, "rel": DECIMAL}),
        "margin": Maybe(DECIMAL),
        "items_sha256": Maybe(TEXT),
    },
    numbers.metric,
)
_POINTS = Some(DECIMAL, most=2000)
_SERIES = Ruled(
    {"name": NAME, "x": _POINTS, "y": _POINTS, "low": Maybe([DECIMAL]), "high": Maybe([DECIMAL])}, numbers.series
)
_AXIS = {"label": FREE, "unit": NAME}
_PLOT = Ruled(
    {
        "title": FREE,
        "kind": one_of("line", "bar", "scatter", "heatmap", "histogram"),
        "x": _AXIS,
        "y": _AXIS,
        "series": Some(_SERIES, most=64),
        "marks": Absent([{"axis": one_of("x", "y"), "at": DECIMAL, "label": FREE}]),
    },
    numbers.plot,
)
_MEASURED = {
    "coverage": Absent(Each(NAME, [NAME])),
    "metrics": Absent([_METRIC]),
    "plots": Absent([_PLOT]),
    "skipped": Absent(_SKIPPED),
}
_CONTROL = Ruled(
    {
        "name": NAME,
        "kind": one_of("positive", "negative", "null"),
        "metric": NAME,
        "labels": Absent(_LABELS),
        "value": DECIMAL,
        "band": {"low": DECIMAL, "high": DECIMAL},
        "held": FLAG,
    },
    numbers.control,
)
_FINDING = {
    "code": NAME,
    "word": NAME,
    "severity": one_of("note", "concern", "breach"),
    "claim": FREE,
    "labels": Absent(_LABELS),
    "rests_on": [{"name": NAME, "labels": Absent(_LABELS)}],
    "fingerprint": Maybe(_matching("32 lower-case hexadecimal digits", _FINGERPRINT)),
}
_POWER = Ruled(
    {
        "metric": NAME,
        "effect": NAME,
        "value": DECIMAL,
        "low": DECIMAL,
        "high": DECIMAL,
        "n_planted": POSITIVE,
        "fpr": DECIMAL,
    },
    numbers.power,
)
_ANSWER = Ruled(
    {
        "check": NAME,
        "version": NAME,
        "params": OBJECT,
        "outcome": one_of("measured", "refused", "failed"),
        "valid": Absent(FLAG),
        "reason": Maybe(NAME),
        "step": Maybe(NAME),
        "measured": Maybe(_MEASURED),
        "controls": Absent([_CONTROL]),
        "findings": Absent([_FINDING]),
        "skipped": Absent(_SKIPPED),
        "power": Absent([_POWER]),
        "code_sha256": SHA256,
        "catalogue_sha256": SHA256,
        "artefacts": Absent([{"name": NAME, "media_type": FREE, "sha256": SHA256, "size": COUNT}]),
    },
    numbers.answer,
)
_DECISION = {
    "path": Null(PATH),
    "decision": one_of("accepted", "dropped", "refused"),
    "reason": Null(NAME),
    "at": Null(Each(NAME, PLACE)),
}
_INGEST = Null({"decisions": [_DECISION]})
_OUTPUT = {"bytes": COUNT, "cap": COUNT}
_CELL = {
    "stage": NAME,
    "backend": NAME,
    "version": FREE,
    "policy_sha256": SHA256,
    "layers": Each(NAME, LAYER),
    "limits": [{"name": NAME, "value": COUNT, "by": NAME, "aggregate": FLAG}],
    "statements": [NAME],
    "selfcheck_sha256": Null(SHA256),
    "network": NAME,
    "output": _OUTPUT,
}
_ATTEMPT = {
    "job": NAME,
    "n": POSITIVE,
    "started_at": MOMENT,
    "ended_at": MOMENT,
    "exit_class": NAME,
    "result_sha256": Null(SHA256),
    "cells": Absent([_CELL]),
}
_LEVELS = [one_of("weights", "activations", "gradients", "training_data")]
_FACTS = {
    "architecture": NAME,
    **dict.fromkeys(("layers", "width", "parameters", "texts", "tokens"), COUNT),
    "dtype": NAME,
    **dict.fromkeys(("batch_size", "threads"), COUNT),
    "torch": FREE,
}
_ASSERTION = {
    "id": NAME,
    "outcome": one_of("pass", "fail", "inconclusive", "waived"),
    "reason": NAME,
    "selected": COUNT,
    "deciding": Null({"labels": _LABELS, "detail": FREE}),
}
PREDICATE: Shape = {
    "schema_version": _matching("a version of the form 1.0", _VERSION),
    "audit": {
        "name": _matching("audits/ and 32 lower-case hexadecimal digits", _AUDIT),
        "nonce": SHA256,
        **dict.fromkeys(("submitted_at", "registered_at", "started_at", "ended_at", "composed_at"), MOMENT),
    },
    "registration": {
        "log_origin": ORIGIN,
        "request_index": COUNT,
        "request_sha256": SHA256,
        "leaf_sha256": SHA256,
        "tree_size": COUNT,
        "root_sha256": SHA256,
        "seed_mode": SEED_MODE,
        "seed": COUNT,
        "tag_salt": SHA256,
    },
    "model": {"manifest_sha256": SHA256, "ingest": _INGEST},
    "base": Maybe({"manifest_sha256": SHA256, "ingest": _INGEST, "lifetime_output": Maybe(_OUTPUT)}),
    "parties": Maybe(
        {
            "auditor": FREE,
            "owner": FREE,
            "approvals": [{"name": FREE, "key_id": SHA256, "envelope_sha256": SHA256}],
        }
    ),
    "access": {"derived": _LEVELS, "granted": Maybe(_LEVELS), "grant": Maybe(SHA256)},
    "data": [{"role": NAME, "sha256": SHA256, "rows": Null(COUNT), "media_type": Maybe(FREE)}],
    "answers": [_ANSWER],
    "facts": Null(_FACTS),
    "attempts": Some(_ATTEMPT, least=1),
    "environment": {
        "python": FREE,
        "packages": Each(FREE, FREE),
        "lock_sha256": SHA256,
        "cpu": FREE,
        "kernel": FREE,
        "dtype": Null(NAME),
        "batch_size": Null(COUNT),
        "deterministic_flags": Each(NAME, PLAIN),
    },
    "sandbox": {"cells": [_CELL], "lifetime_output": Maybe(_OUTPUT)},
    "policy": Maybe({"sha256": SHA256, "name": NAME}),
    "verdict": Maybe(
        {
            "outcome": one_of("pass", "fail", "inconclusive"),
            "assertions": [_ASSERTION],
            "counts": Each(NAME, COUNT),
        }
    ),
    "signer": {"profile": one_of("development", "production")},
}
