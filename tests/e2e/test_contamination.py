"""A corpus read in shards by two workers, one of them killed while it reads: the same parts, and one signed report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checks.catalogue import CATALOGUE
from checks.contamination.check import Contamination
from checks.documents import Order, OrderedCheck, OrderedData, OrderedInput, OrderedModel, OrderedShards
from checks.run import carry_out
from tests.checks.contamination.audited import CANARY, benchmark_rows, corpus_file, docstrings, inside
from tests.e2e.conftest import Server, wait_for
from tests.e2e.test_truth_probe import payload

pytestmark = pytest.mark.e2e

FILES = 4
PARAMS = "embed=off,siblings=4"
"""Without embedding: what is tried here is the way through the service."""


@pytest.fixture(scope="module")
def two_workers(start_server: Callable[..., Server]) -> Server:
    return start_server("--lease-s", "6", "--workers", "2")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Items of a benchmark, two of which stand in the corpus word for word, and the corpus in several files."""
    folder = tmp_path_factory.mktemp("corpus")
    rows, _ = benchmark_rows(24)
    items = folder / "items.jsonl"
    items.write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = list(docstrings(6_000))
    for at, row in ((3, rows[0]), (-3, rows[1])):
        texts[at] = inside(texts[at], row["question"])
    parts = [corpus_file(folder, texts[number::FILES], f"part-{number}.jsonl") for number in range(FILES)]
    return {"benchmark": [items], "corpus": parts}


def submitted(server: Server, model: Path, given: dict[str, list[Path]]) -> str:
    data = [part for role, paths in given.items() for path in paths for part in ("--data", f"{role}={path}")]
    ran = server.assay("submit", model, "--check", f"contamination:{PARAMS}", *data, "--json")
    assert ran.status == 0, ran.text
    return str(ran.json()["audit"])


def running(server: Server, audit: str) -> set[str]:
    """Return the shards that are being read now."""
    attempts = server.assay("show", audit, "--json").json()["attempts"]
    return {one["job"] for one in attempts if one["exit_class"] is None and one["job"].startswith("shard:")}


class OneProcess:
    """The same stages in this process, one after the other, undisturbed."""

    def __init__(self, given: dict[str, list[Path]], seed: int, folder: Path) -> None:
        self.folder, self.seed = folder, seed
        self.inputs: dict[str, Path] = {}
        self.data = tuple(
            OrderedData(role=role, **self.take(path).model_dump()) for role, paths in given.items() for path in paths
        )

    def take(self, path: Path) -> OrderedInput:
        content = path.read_bytes()
        self.inputs[path.name] = path
        return OrderedInput(input=path.name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))

    def left(self, stage: Any, shards: OrderedShards | None = None) -> dict[str, bytes]:
        params = {"embed": "off", "siblings": 4}
        slots: dict[str, bytes] = {}
        order = Order(
            schema="assay-cell-order/v1",
            nonce="0" * 64,
            seed=self.seed,
            model=OrderedModel(manifest_sha256="0" * 64, files=()),
            data=self.data,
            checks=(OrderedCheck(name="contamination", version=Contamination.version, params=params),),
            stage=stage,
            shards=shards,
        )
        carry_out(order, self.inputs, CATALOGUE, on_artefact=slots.__setitem__)
        return slots

    def digests(self, count: int) -> dict[str, str]:
        """Return the digest of the plan and of each part, by job."""
        plan = self.left("plan")
        given: dict[str, OrderedInput] = {}
        for slot, content in plan.items():
            path = self.folder / slot
            path.write_bytes(content)
            given[slot] = self.take(path)
        document, carried = given["plan.document"], given["plan.carried"]
        found = {"whole": document.sha256}
        for shard in range(count):
            told = OrderedShards(check=0, document=document, carried=carried if carried.size else None, shard=shard)
            found[f"shard:{shard}"] = hashlib.sha256(self.left("scan", told)["scan.part"]).hexdigest()
        return found


@pytest.mark.slow  # small: tests/service/test_killed_between.py, a member killed before its join
def test_a_worker_killed_while_it_scans_changes_no_part(
    two_workers: Server, model: Path, given: dict[str, list[Path]], tmp_path: Path
) -> None:
    server = two_workers
    audit = submitted(server, model, given)
    # Both workers scan: whichever is killed is in the middle of it.
    wait_for(lambda: len(running(server, audit)) == 2, "two shards are read at once", 120)
    server.kill("worker")
    watched = server.assay("watch", audit)
    assert watched.status in (0, 2), watched.text + server.logs()
    assert f"planned: {FILES} shards" in watched.text
    assert f"shard {FILES} of {FILES} done" in watched.text
    report = tmp_path / "report"
    assert server.assay("report", audit, "--out", report).status in (0, 2)
    predicate = payload(report)["predicate"]
    (answer,) = predicate["answers"]
    assert answer["outcome"] == "measured", (answer["reason"], server.logs())
    assert {one["code"]: one["word"] for one in answer["findings"]}["leak.exact"] == "detected"
    attempts = predicate["attempts"]
    assert "WORKER_LOST" in {one["exit_class"] for one in attempts if one["job"].startswith("shard:")}
    assert [attempts[0]["job"], attempts[-1]["job"]] == ["whole", "combine"]
    decided = {one["job"]: one["result_sha256"] for one in attempts if one["result_sha256"]}
    (tmp_path / "slots").mkdir()
    alone = OneProcess(given, predicate["registration"]["seed"], tmp_path / "slots").digests(FILES)
    assert {job: digest for job, digest in decided.items() if job != "combine"} == alone
    for one in attempts:
        stages = [cell["stage"] for cell in one.get("cells", ())]
        wanted = {"whole": ["ingest", "check"], "combine": []}.get(one["job"], ["check"])
        assert stages == (wanted if one["result_sha256"] else [])
    verified = server.assay("verify", report, "--model", model, "--key", server.public_key)
    assert verified.status == 0, verified.text
    assert CANARY not in "".join(path.read_text("utf-8", "replace") for path in report.rglob("*") if path.is_file())


def test_one_shard_is_read_by_the_cell_that_answers(
    two_workers: Server, model: Path, given: dict[str, list[Path]], tmp_path: Path
) -> None:
    server, report = two_workers, tmp_path / "report"
    audit = submitted(server, model, {**given, "corpus": given["corpus"][3:]})
    watched = server.assay("watch", audit)
    assert watched.status in (0, 2), watched.text + server.logs()
    assert server.assay("report", audit, "--out", report).status in (0, 2)
    predicate = payload(report)["predicate"]
    assert [one["job"] for one in predicate["attempts"]] == ["whole"]
    assert predicate["answers"][0]["outcome"] == "measured", server.logs()
    assert [one["stage"] for one in predicate["sandbox"]["cells"]] == ["ingest", "check", "check"]
    assert server.assay("verify", report, "--key", server.public_key).status == 0


def test_cancel_kills_every_scan_before_it_says_so(
    two_workers: Server, model: Path, given: dict[str, list[Path]]
) -> None:
    server = two_workers
    audit = submitted(server, model, given)
    wait_for(lambda: len(running(server, audit)) == 2, "two shards are read at once", 120)
    assert server.assay("cancel", audit).status == 0
    assert "CANCELLED" in server.assay("watch", audit).text
    told = server.assay("show", audit, "--json").json()
    assert told["cancel_confirmation"] == "KILLED"
    assert all(one["exit_class"] for one in told["attempts"])
