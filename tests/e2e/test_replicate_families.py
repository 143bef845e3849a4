"""The two families with long runs, replicated: a trained dictionary, and a corpus that is read in shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Ran, Server
from tests.e2e.test_contamination import PARAMS, given
from tests.e2e.test_sae_features import FEW, corpus

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

__all__ = ["corpus", "given"]


def repeated(server: Server, first: Path, tmp_path: Path) -> Ran:
    ran = server.assay("replicate", first, "--out", tmp_path / "again", "--json", timeout=800)
    assert ran.status == 0, ran.text + server.logs()
    told = ran.json()
    assert [row for row in told["results"] if row["word"] != "agrees"] == []
    assert (told["outcome"], told["signed"], told["verify"]["outcome"]) == ("replicated", "replicated", "verified")
    return ran


def test_a_dictionary_that_is_trained_again_comes_out_again(
    server: Server, model: Path, corpus: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    ran = server.assay(
        "submit", model, "--check", f"sae_features:site=resid.0,{FEW}", "--data", f"corpus={corpus}",
        "--wait", "--report", first, timeout=800,
    )  # fmt: skip
    assert ran.status in (0, 2), ran.text + server.logs()  # an untrained model says nothing: its controls may miss
    assert len(repeated(server, first, tmp_path).json()["results"]) > 10


def test_a_corpus_that_is_read_in_shards_again_gives_the_same_numbers(
    server: Server, model: Path, given: dict[str, list[Path]], tmp_path: Path
) -> None:
    first = tmp_path / "first"
    data = [part for role, paths in given.items() for path in paths for part in ("--data", f"{role}={path}")]
    ran = server.assay(
        "submit", model, "--check", f"contamination:{PARAMS}", *data, "--wait", "--report", first, timeout=800
    )
    assert ran.status in (0, 2), ran.text + server.logs()
    assert len(repeated(server, first, tmp_path).json()["results"]) > 5
