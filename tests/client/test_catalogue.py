"""The catalogue's loader: an incomplete installation says so; an entry is named by its bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from assay import canonical, catalogue
from assay.errors import MachineFailed, Malformed
from assay.testing import forged_entry


def document(*entries: Any) -> bytes:
    return canonical.dumps({"schema": "assay-catalogue/v1", "checks": list(entries)})


def test_entries_are_found_by_name_and_named_by_their_bytes(tmp_path: Path) -> None:
    entry = forged_entry()
    path = tmp_path / "catalogue.json"
    path.write_bytes(json.dumps(json.loads(document(dict(entry.raw))), indent=2).encode() + b"\n")
    loaded = catalogue.load(path)
    found = loaded.entry("forged_probe")
    assert found is not None
    assert found == entry
    assert found.controls == ("ShuffledLabels", "PlantedTruth")
    assert found.sha256 == hashlib.sha256(found.data).hexdigest()
    assert catalogue.parse_entry(json.loads(found.data)) == found
    assert loaded.entry("other") is None
    assert loaded.sha256 == hashlib.sha256(document(dict(entry.raw))).hexdigest()  # of the canonical bytes


def test_an_absent_or_broken_catalogue_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    for content in (None, b"", b"{}", document({**forged_entry().raw}, {**forged_entry().raw}), b'{"a":1.5}'):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(MachineFailed, match="make catalogue"):
            catalogue.load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(MachineFailed, match="cannot read"):
        catalogue.load(path)


@pytest.mark.parametrize(
    "field", ["name", "version", "code_sha256", "params", "controls", "metrics", "access", "words"]
)
@pytest.mark.parametrize("value", [None, 7, [7]])
def test_an_entry_with_a_field_of_another_kind_is_refused(field: str, value: object) -> None:
    with pytest.raises(Malformed):
        catalogue.parse_entry({**forged_entry().raw, field: value})
    with pytest.raises(Malformed):
        catalogue.parse_entry({name: kept for name, kept in forged_entry().raw.items() if name != field})


@pytest.mark.parametrize("labels", [None, "layer", [["layer"]], {"layer": 1}])
def test_metric_labels_are_words(labels: object) -> None:
    metric = {**forged_entry().raw["metrics"][0], "labels": labels}
    with pytest.raises(Malformed):
        catalogue.parse_entry({**forged_entry().raw, "metrics": [metric]})


def test_the_shipped_catalogue_is_readable() -> None:
    loaded = catalogue.load()
    assert loaded.checks
    assert all(entry.controls for entry in loaded.checks)  # a check proves itself each time
