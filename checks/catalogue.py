"""Every check this build can answer, and the catalogue that tells others of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import assay.result
from assay.result import DECIMAL, D

from checks.ask import RUNTIME_REASONS
from checks.check import Access, Check, Needs, Refusal
from checks.clusterability.check import Clusterability
from checks.contamination.check import Contamination
from checks.errors import ChecksError
from checks.memory import model_facts
from checks.promises import PromiseMissing, told_control, told_metric
from checks.sae_features.check import SaeFeatures
from checks.sharding import ShardedCheck
from checks.truth_probe.check import TruthProbe
from sandbox.reader.digest import tree_sha256

CHECKS: tuple[type[Check], ...] = (
    Clusterability,
    Contamination,
    SaeFeatures,
    TruthProbe,
)

CATALOGUE: Mapping[str, type[Check]] = {check.name: check for check in CHECKS}
"""Checks by name: one name a line, no discovery."""

ROOT = Path(__file__).resolve().parent.parent
"""The project's folder; digests of code count from here."""

TIME_LIMIT_S = 3600
"""Wall time of one check, as the sandbox's `check` cell has it."""

EXAMPLES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "benchmark": tuple(
        {
            "benchmark": "example",
            "item": str(number),
            "kind": "prose",
            "question": f"How many are {number} and {other}?",
        }
        for number, other in enumerate((71, 8, 35, 2, 94, 16, 57, 43) * 8)
    ),
}
"""Rows of each role that some check requires, to ask that check what it needs."""

RATE = ("estimate", "low", "high", "n", "at")
"""Fields of a measured rate: estimate and 95 % bounds as decimal strings, trials, and what it was measured at."""


class CatalogueInvalid(ChecksError):
    """A check's class or its measured rates cannot stand in the catalogue."""


def catalogue_json(checks: Mapping[str, type[Check]] = CATALOGUE) -> dict[str, Any]:
    """Return the catalogue as plain JSON values; the same code gives the same bytes.

    Raises:
        CatalogueInvalid: a measured rate is malformed, a control promises no band, or the code lies outside the
            project's folder.
    """
    return {"schema": "assay-catalogue/v1", "checks": [_entry(checks[name]) for name in sorted(checks)]}


def catalogue_bytes(checks: Mapping[str, type[Check]] = CATALOGUE) -> bytes:
    """Return the catalogue file: indented for review, sorted, with a final newline."""
    return (json.dumps(catalogue_json(checks), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def plugin_bytes(checks: Mapping[str, type[Check]], nonce: str) -> bytes:
    """Return the entries of third-party checks, as a cell hands them out.

    Digest of the code and distribution are absent: those are the host's to say.

    Args:
        checks: what `checks.plugins.load` returned.
        nonce: of the order, so that no older answer passes for this one.

    Raises:
        CatalogueInvalid: a measured rate is malformed, a control promises no band, or an entry is not JSON.
    """
    entries = [_told(checks[name], _folder(checks[name])) for name in sorted(checks)]
    value = {"schema": "assay-plugin-entries/v1", "nonce": nonce, "checks": entries}
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise CatalogueInvalid(f"an entry of a third-party check is not JSON: {error}") from None


def _folder(check: type[Check]) -> Path:
    """Return where the module of a third-party check lies; its `measured.json` and `examples.json` lie beside it."""
    return Path(str(sys.modules[check.__module__].__file__)).resolve().parent


def family(check: type[Check]) -> Path:
    """Return the folder of a check's family."""
    return ROOT.joinpath(*check.__module__.split(".")[:-1])


def code_sha256(check: type[Check]) -> str:
    """Return the digest of all code that decides a check's answer: its family, the contract, the runtime, the readers.

    Raises:
        CatalogueInvalid: the vocabulary is not that of this project's folder.
    """
    vocabulary = Path(assay.result.__file__).resolve()
    if not vocabulary.is_relative_to(ROOT):
        raise CatalogueInvalid(f"assay.result is read from {vocabulary}: install the client from this project")
    parts = [vocabulary]
    for folder, patterns in (
        # Data sets are pinned by the digests in their index.
        (family(check), ("**/*.py", "**/*.json")),
        (ROOT / "checks", ("*.py", "architectures.json", *check.beside)),
        (ROOT / "checks" / "runtime", ("*.py",)),
        (ROOT / "sandbox", ("ingest.py",)),
        (ROOT / "sandbox" / "reader", ("*.py",)),
    ):
        parts += [path for pattern in patterns for path in folder.glob(pattern)]
    return tree_sha256(ROOT, [path.relative_to(ROOT).as_posix() for path in parts])


def _entry(check: type[Check]) -> dict[str, Any]:
    return {**_told(check, family(check)), "code_sha256": code_sha256(check)}


def _told(check: type[Check], folder: Path) -> dict[str, Any]:
    doc = (check.__doc__ or "").strip().splitlines()
    rates = _rates(folder / "measured.json")
    needs = _needs(check, _examples(folder), check.example)
    access = {*needs.access(), *(one for more in check.examples for one in _needs(check, EXAMPLES, more).access())}
    return {
        "name": check.name,
        "version": check.version,
        "summary": doc[0] if doc else check.name,
        "source": check.source,
        "access": [one for one in get_args(Access) if one in access],
        "params": _params(check),
        "data_roles": [
            {
                "name": one.name,
                "required": one.required,
                "media_type": one.media_type,
                "summary": one.summary,
                **({"many": True} if one.many else {}),
            }
            for one in check.data_roles
        ],
        **_promised(check),
        "words": list(check.words),
        "reasons": sorted({*check.reasons, *RUNTIME_REASONS}),
        **_beside(check, needs),
        "capability": "cpu",
        "time_limit_s": TIME_LIMIT_S,
        "power": rates["power"],
        "false_positive_rate": rates["false_positive_rate"],
    }


def _promised(check: type[Check]) -> dict[str, Any]:
    try:
        return {
            "metrics": [told_metric(one) for one in check.metrics],
            "controls": [told_control(one) for one in check.controls],
        }
    except PromiseMissing as missing:
        raise CatalogueInvalid(f"{check.name}: {missing}") from missing


def _examples(folder: Path) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Return rows of each role that a check requires: ours are tabled here, a third party's lie beside its module."""
    path = folder / "examples.json"
    return {**EXAMPLES, **(json.loads(path.read_text("utf-8")) if path.exists() else {})}


def _needs(check: type[Check], examples: Mapping[str, Sequence[Mapping[str, Any]]], params: Mapping[str, Any]) -> Needs:
    """Return what the check needs, on a small model with only the data of its examples; its access follows from them.

    They are never typed by hand: the check is asked what it needs.

    Raises:
        CatalogueInvalid: the check refuses even that, so nobody could say what it needs.
    """
    names = {kind: tuple(f"{kind}.{layer}" for layer in range(4)) for kind in ("mlp_in", "mlp_out")}
    shapes = dict.fromkeys(names["mlp_in"], (256, 64)) | dict.fromkeys(names["mlp_out"], (64, 256))
    rows = {role.name: examples[role.name] for role in check.data_roles if role.name in examples}
    rows |= {role.name: () for role in check.data_roles if role.many}  # what is read in shards is heard to be there
    try:
        return check(**params).needs(model_facts(**names, tensors=shapes, context=512), rows)
    except Refusal as refusal:
        raise CatalogueInvalid(f"{check.name} refuses the example of its data roles: {refusal}") from refusal


def _beside(check: type[Check], needs: Needs) -> dict[str, Any]:
    """Return what few checks have, and an entry leaves out of all others: a base model, shards, files to hand out."""
    found: dict[str, Any] = {}
    if "base" in needs.passage_models:
        found["base_model"] = True
    if issubclass(check, ShardedCheck):
        found["shard_role"] = check.shard_role
    if check.beside:
        found["beside"] = list(check.beside)
    if check.artefacts:
        found["artefacts"] = [
            {"name": one.name, "media_type": one.media_type, "max_bytes": one.max_bytes, "summary": one.summary}
            for one in check.artefacts
        ]
    return found


def _params(check: type[Check]) -> dict[str, Any]:
    """Return the JSON Schema of a check's parameters; fractions are decimal strings."""
    schema = check.model_json_schema()
    (decimal,) = get_args(D)[1:]
    for name, field in check.model_fields.items():
        if decimal in field.metadata:
            schema["properties"][name] |= {"format": "decimal", "pattern": f"^{DECIMAL.pattern}$"}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def _rates(path: Path) -> dict[str, Any]:
    """Return power and false-positive rate as they were measured; null where nobody has measured them."""
    if not path.exists():
        return {"power": None, "false_positive_rate": None}
    measured = json.loads(path.read_text("utf-8"))
    rates = {name: measured.get(name) for name in ("power", "false_positive_rate")}
    for name, rate in rates.items():
        if rate is None:
            continue
        if sorted(rate) != sorted(RATE) or not all(DECIMAL.fullmatch(str(rate[bound])) for bound in RATE[:3]):
            raise CatalogueInvalid(f"{path.parent.name}/measured.json: {name} needs {', '.join(RATE)}")
        if not all(isinstance(rate[bound], str) for bound in RATE[:3]) or not isinstance(rate["n"], int):
            raise CatalogueInvalid(f"{path.parent.name}/measured.json: {name} has decimal strings and a whole n")
    return rates
