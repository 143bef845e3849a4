"""The catalogue: which checks exist, as data. The file is generated from the checks and travels with this package.

A service validates requests against it, a signer demands that what ran is what it names, and a reader of a report
sees which controls and metrics were promised. The reader needs no check installed for that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from assay import bands, canonical, strict_json
from assay.errors import MachineFailed, Malformed

SCHEMA = "assay-catalogue/v1"
FILE = Path(__file__).with_name("catalogue.json")

BYTES_MAX = 4 * 1024 * 1024
"""A check's entry has about 5 KB."""

ARTEFACT_MAX = 16 * 1024 * 1024
"""Most bytes of one file that a check hands out, as a reader of reports takes it."""

_FLAT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", re.ASCII)

_SEGMENT = re.compile(r"[A-Za-z0-9_*-][A-Za-z0-9_.*-]{0,63}", re.ASCII)
"""Of a relative pattern of files; none begins with a point."""

_TEXTS = ("name", "version", "summary", "source", "code_sha256", "capability")
_LISTS = ("access", "data_roles", "metrics", "controls", "words", "reasons")


@dataclass(frozen=True)
class CheckEntry:
    """What one check promises."""

    raw: Mapping[str, Any]
    """The entry as plain JSON; `protos/report/v1.md` names its fields."""

    @property
    def name(self) -> str:
        """Name of the check."""
        return str(self.raw["name"])

    @property
    def version(self) -> str:
        """Version of the check; its numbers are comparable within one version."""
        return str(self.raw["version"])

    @property
    def summary(self) -> str:
        """One sentence for a person."""
        return str(self.raw["summary"])

    @property
    def params(self) -> Mapping[str, Any]:
        """JSON Schema of the parameters."""
        schema: Mapping[str, Any] = self.raw["params"]
        return schema

    @property
    def access(self) -> tuple[str, ...]:
        """Access levels that the check needs: weights, activations, gradients, training_data."""
        return tuple(self.raw["access"])

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the controls; a measured answer carries all of them."""
        return tuple(control["name"] for control in self.raw["controls"])

    @property
    def base_model(self) -> bool:
        """Whether the check can hold the model against a second one; an audit may name a base only then."""
        return bool(self.raw.get("base_model", False))

    @property
    def shard_role(self) -> str | None:
        """Role whose data the check reads in shards; it may be sent in many files. None for all other checks."""
        role = self.raw.get("shard_role")
        return None if role is None else str(role)

    @property
    def artefacts(self) -> tuple[Mapping[str, Any], ...]:
        """Files that the check may hand out: `name`, `media_type`, `max_bytes`, `summary`."""
        return tuple(self.raw.get("artefacts", ()))

    @property
    def code_sha256(self) -> str:
        """Digest of the code that answers under this name and version."""
        return str(self.raw["code_sha256"])

    @cached_property
    def data(self) -> bytes:
        """Canonical bytes of the entry: the artefact that a report carries."""
        return canonical.dumps(dict(self.raw))

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of `data`: `catalogue_sha256` of an answer."""
        return canonical.sha256(dict(self.raw))


@dataclass(frozen=True)
class Catalogue:
    """All checks of one release, in the catalogue's order."""

    checks: tuple[CheckEntry, ...]
    named: str = ""
    """Its digest, where it stands for other checks than these too; empty: it follows from them."""

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of the file's canonical bytes. Readers of reports never ask for it."""
        return self.named or canonical.sha256({"schema": SCHEMA, "checks": [dict(one.raw) for one in self.checks]})

    def entry(self, name: str) -> CheckEntry | None:
        """Return the check of this name, or None."""
        return next((check for check in self.checks if check.name == name), None)


def load(path: Path = FILE) -> Catalogue:
    """Read a catalogue, by default the one shipped with this package.

    Raises:
        MachineFailed: the file is absent, unreadable or broken: the installation is incomplete.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MachineFailed(f"no catalogue at {path}; run `make catalogue`, or install assay-client again") from None
    except OSError as error:
        raise MachineFailed(f"cannot read the catalogue {path}: {error.strerror}") from error
    try:
        return parse(data)
    except Malformed as error:
        raise MachineFailed(f"the catalogue {path} is broken ({error}); run `make catalogue`") from error


def parse(data: bytes) -> Catalogue:
    """Read a catalogue from bytes.

    Raises:
        Malformed: it has another form, or a name twice.
    """
    value = strict_json.loads(data, BYTES_MAX)
    if not isinstance(value, dict) or value.get("schema") != SCHEMA or not isinstance(value.get("checks"), list):
        raise Malformed("catalogue_form", "/schema", f'a catalogue is {{"schema":"{SCHEMA}","checks":[…]}}')
    checks = tuple(parse_entry(item, f"/checks/{index}") for index, item in enumerate(value["checks"]))
    names = [check.name for check in checks]
    if len(set(names)) != len(names):
        raise Malformed("catalogue_form", "/checks", "a check appears twice")
    return Catalogue(checks)


def parse_entry(value: Any, at: str = "") -> CheckEntry:
    """Read one entry, e.g. from a report's artefact.

    Raises:
        Malformed: a field is absent or has another type.
    """
    if not isinstance(value, dict):
        raise Malformed("catalogue_form", at, "an entry is an object")
    for field in _TEXTS:
        if not isinstance(value.get(field), str):
            raise Malformed("catalogue_form", f"{at}/{field}", "a text is missing")
    for field in _LISTS:
        if not isinstance(value.get(field), list):
            raise Malformed("catalogue_form", f"{at}/{field}", "a list is missing")
    if not isinstance(value.get("params"), dict):
        raise Malformed("catalogue_form", f"{at}/params", "a JSON Schema is missing")
    for field in ("access", "words", "reasons"):
        _check_words(value[field], f"{at}/{field}")
    for field in ("controls", "metrics", "data_roles"):
        for index, item in enumerate(value[field]):
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                raise Malformed("catalogue_form", f"{at}/{field}/{index}", "an object with a name is missing")
            _check_words(item.get("labels", []), f"{at}/{field}/{index}/labels")
            _check_words(item.get("optional", []), f"{at}/{field}/{index}/optional")
            if not isinstance(item.get("interval", False), bool):
                raise Malformed("catalogue_form", f"{at}/{field}/{index}/interval", "expected true or false")
            if field == "metrics":
                bands.check_spread(item, f"{at}/{field}/{index}")
            if field == "controls" and "bands" in item:
                bands.check_form(item["bands"], f"{at}/{field}/{index}/bands")
    _check_optional(value, at)
    return CheckEntry(value)


def _check_optional(value: Mapping[str, Any], at: str) -> None:
    """Hold the fields that an entry may leave out against their form."""
    if not isinstance(value.get("base_model", False), bool):
        raise Malformed("catalogue_form", f"{at}/base_model", "expected true or false")
    many = [role["name"] for role in value["data_roles"] if _is_many(role, at)]
    shard_role = value.get("shard_role")
    if many != ([] if shard_role is None else [shard_role]):
        raise Malformed("catalogue_form", f"{at}/shard_role", "expected the name of the one data role that is `many`")
    beside = value.get("beside", [])
    if not isinstance(beside, list) or not all(_is_pattern(one) for one in beside):
        raise Malformed("catalogue_form", f"{at}/beside", "expected patterns of files below checks/")
    handed_out = value.get("artefacts", [])
    if not isinstance(handed_out, list):
        raise Malformed("catalogue_form", f"{at}/artefacts", "a list is missing")
    for index, item in enumerate(handed_out):
        fits = (
            isinstance(item, dict)
            and isinstance(item.get("name"), str)
            and _FLAT.fullmatch(item["name"])
            and isinstance(item.get("media_type"), str)
            and type(item.get("max_bytes")) is int
            and 0 < item["max_bytes"] <= ARTEFACT_MAX
        )
        if not fits:
            told = f"expected a flat name, a media type and max_bytes of at most {ARTEFACT_MAX}"
            raise Malformed("catalogue_form", f"{at}/artefacts/{index}", told)
    if len({item["name"] for item in handed_out}) != len(handed_out):
        raise Malformed("catalogue_form", f"{at}/artefacts", "a name appears twice")


def _is_pattern(value: Any) -> bool:
    return isinstance(value, str) and all(_SEGMENT.fullmatch(part) for part in value.split("/"))


def _is_many(role: Mapping[str, Any], at: str) -> bool:
    told = role.get("many", False)
    if not isinstance(told, bool):
        raise Malformed("catalogue_form", f"{at}/data_roles", "`many` is true or false")
    return told


def _check_words(value: Any, at: str) -> None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Malformed("catalogue_form", at, "expected a list of words")
