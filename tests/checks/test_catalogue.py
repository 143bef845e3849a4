"""The catalogue tells what the code does, in the same bytes each time."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import pytest

from checks.catalogue import CATALOGUE, CatalogueInvalid, _rates, catalogue_bytes, catalogue_json, code_sha256
from checks.check import Check, PromisedBand
from checks.runtime.architectures import ARCHITECTURES, IGNORABLE, architectures_json
from tests.checks.toy import TOYS, Silenced, Toy

ROOT = Path(__file__).parents[2]


def test_the_same_code_gives_the_same_bytes() -> None:
    assert catalogue_bytes() == catalogue_bytes()
    run = [sys.executable, "-m", "checks", "catalogue", "--out", "-"]
    again = subprocess.run(run, cwd=ROOT, capture_output=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert again.stdout == catalogue_bytes()


def test_access_follows_from_what_the_checks_need() -> None:
    access = {entry["name"]: entry["access"] for entry in catalogue_json()["checks"]}
    assert access["clusterability"] == ["weights"]


def test_an_entry_tells_parameters_metrics_and_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CatalogueInvalid, match="toy"):
        catalogue_json(TOYS)  # nobody has said what its role's rows look like
    monkeypatch.setattr("checks.catalogue.EXAMPLES", {"words": [{"id": "a", "text": "b"}]})
    (entry,) = catalogue_json(TOYS)["checks"]
    band = {"metric": "mean", "low": "-10", "high": "0.5", "fixed": False, "always": True}
    assert (entry["name"], entry["controls"]) == ("toy", [{"kind": "negative", "name": "silenced", "bands": [band]}])
    assert entry["metrics"][0]["tolerance"] == {"abs": "0.0001", "rel": "0"}
    assert {"no_texts", "data_missing", "check_error"} <= set(entry["reasons"])
    jsonschema.Draft202012Validator.check_schema(entry["params"])
    jsonschema.validate({"control_low": "-0.25"}, entry["params"])
    for wrong in ({"control_low": 0.5}, {"control_low": "1e3"}, {"control_low": ".5"}, {"misspelt": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, entry["params"])
    assert entry["power"] is None, "nobody has measured it"


def test_every_entry_has_parameters_that_its_own_schema_accepts() -> None:
    for entry in catalogue_json()["checks"]:
        check = CATALOGUE[entry["name"]]
        defaults = json.loads(check(**check.example).model_dump_json())
        jsonschema.validate(defaults, entry["params"])


def test_a_control_without_a_band_cannot_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checks.catalogue.EXAMPLES", {"words": [{"id": "a", "text": "b"}]})

    class Open(Silenced):
        @property
        def promises(self) -> Sequence[PromisedBand]:
            return ()

    class Unbound(Toy):
        """A toy whose control may state any band."""

        controls = (Open(),)

    with pytest.raises(CatalogueInvalid, match="toy: control silenced promises no band"):
        catalogue_json({"toy": Unbound})


def test_a_metric_that_is_exact_has_no_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checks.catalogue.EXAMPLES", {"words": [{"id": "a", "text": "b"}]})

    class Loose(Toy):
        """A toy whose number is exact and may move."""

        metrics = (dataclasses.replace(Toy.metrics[0], determinism="exact"),)

    with pytest.raises(CatalogueInvalid, match="mean is exact and has a tolerance"):
        catalogue_json({"toy": Loose})


def test_every_control_has_a_band_and_every_metric_a_tolerance_decision() -> None:
    for entry in catalogue_json()["checks"]:
        for control in entry["controls"]:
            assert control["bands"], (entry["name"], control["name"])
        for metric in entry["metrics"]:
            assert (metric["tolerance"] is None) == (metric["determinism"] == "exact"), (entry["name"], metric["name"])
            assert "margin" in metric
            some = metric.get("interval") is not True and metric["determinism"] != "exact"
            pooled = entry["name"] == "sae_features" and "interval" not in metric  # the guide says which have none
            assert not some or pooled or "interval" in metric["summary"] or "none" in metric["summary"], metric["name"]


def test_a_band_that_holds_any_share_is_no_band() -> None:
    """Of what lies between 0 and 1 no null or negative control may state all: it would hold whatever was measured."""
    for entry in catalogue_json()["checks"]:
        for control in entry["controls"]:
            for band in control["bands"]:
                if control["kind"] != "positive" and band["metric"] != "flagged":  # a count, of ten
                    assert not (float(band["low"]) <= 0 and float(band["high"]) == 1), (control["name"], band)


def test_the_code_digest_changes_with_the_code() -> None:
    checks: list[type[Check]] = [*CATALOGUE.values(), Toy]
    assert len({code_sha256(check) for check in checks}) == len(checks)


def test_measured_rates_are_decimal_strings(tmp_path: Path) -> None:
    rate = {"estimate": "0.95", "low": "0.764", "high": "0.991", "n": 20, "at": "effect 2.12"}
    (tmp_path / "measured.json").write_text(json.dumps({"power": rate}))
    assert _rates(tmp_path / "measured.json") == {"power": rate, "false_positive_rate": None}
    for wrong in ({"estimate": 0.95}, {"n": "20"}, {"more": 1}):
        (tmp_path / "measured.json").write_text(json.dumps({"power": rate | wrong}))
        with pytest.raises(CatalogueInvalid, match="power"):
            _rates(tmp_path / "measured.json")


def test_no_config_key_is_both_used_and_ignored() -> None:
    for name, entry in architectures_json()["architectures"].items():
        assert not set(entry["used"]) & set(entry["ignorable"]), name
    # A key that is used somewhere and ignorable everywhere is used where it is tabled: the reader asks `used` first.
    assert {key for entry in ARCHITECTURES.values() for key in entry.used} & set(IGNORABLE) == {"pad_token_id"}


BLOCK_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "transformer_lens", "tokenizers", "safetensors"):
            raise ImportError(f"blocked: {name}")
sys.meta_path.insert(0, Blocked())
import checks.__main__, checks.ask, checks.catalogue, checks.check, checks.local, checks.memory, checks.organisms.store
checks.catalogue.catalogue_bytes()
from assay.result import Measured
for check in checks.catalogue.CATALOGUE.values():
    check(**check.example)
"""


def test_contract_catalogue_and_checks_import_without_torch() -> None:
    """So that anyone can judge a report's numbers again: `judge` needs no tensor."""
    run = subprocess.run([sys.executable, "-c", BLOCK_TORCH], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_committed_table_of_architectures_is_not_stale() -> None:
    committed = (ROOT / "checks" / "architectures.json").read_text()
    assert json.loads(committed) == architectures_json(), "run `python -m checks catalogue --architectures ...` again"
