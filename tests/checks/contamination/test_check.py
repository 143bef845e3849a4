"""The check as an audit asks it: roles, shards, words, what is handed out, and every wrong input by its name."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from assay.result import Answer

from checks.catalogue import CATALOGUE
from checks.contamination.check import Contamination
from checks.contamination.controls import CORPUS_CONTROLS
from checks.documents import OrderedCheck, Result, write_result
from checks.local import run_local
from tests.checks.contamination.audited import CANARY, benchmark_rows, docstrings
from tests.checks.models import save
from tests.checks.promised import hold_to_promise, unreached

ROWS, REWORDED = benchmark_rows(24)
LEAKED = (0, 3, 7)
"""Items that stand in the corpus word for word."""


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    save("gpt2", folder / "model")
    lines(folder / "benchmark.jsonl", ROWS)
    documents = [{"id": f"d{n}", "text": f"{text} {CANARY}"} for n, text in enumerate(docstrings(14000))]
    for n in LEAKED:
        documents.insert(5 * n, {"id": f"leak{n}", "text": f"{CANARY} Before.\n\n{ROWS[n]['question']}\n\nAfter it."})
    lines(folder / "corpus.jsonl", [{**one, "source": CANARY} for one in documents])
    (folder / "key").write_bytes(b"k" * 32)
    return folder


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(folder: Path, data: dict[str, Any] | None = None, **params: Any) -> Answer:
    (answer,) = ran(folder, data, **params).answers
    return answer


def ran(folder: Path, data: dict[str, Any] | None = None, seed: int = 3, **params: Any) -> Result:
    given = {"benchmark": folder / "benchmark.jsonl", "corpus": folder / "corpus.jsonl"} if data is None else data
    check = OrderedCheck(name="contamination", version=Contamination.version, params={"embed": "off", **params})
    return run_local(folder / "model", [check], CATALOGUE, data=given, seed=seed, artefacts=folder / "out")


def words(answer: Answer) -> dict[str, str]:
    return {one.code: one.word for one in answer.findings}


def test_leaked_items_are_flagged_and_handed_out_without_a_word_of_the_corpus(folder: Path) -> None:
    data = {name: folder / f"{name}.jsonl" for name in ("benchmark", "corpus")} | {"commitment_key": folder / "key"}
    result = ran(folder, data, siblings=20)
    (answer,) = result.answers
    assert answer.valid, [one for one in answer.controls if not one.held]
    assert words(answer)["leak.exact"] == "detected"
    assert words(answer)["leak.semantic"] == "not_asked"
    assert answer.measured is not None
    assert answer.measured.find("flagged", benchmark="demo", tier="exact").value == "3"  # type: ignore[union-attr]
    handed = (folder / "out" / "contamination.matches.json").read_bytes()
    told = json.loads(handed)
    assert {row["item"] for row in told["rows"]} == {f"demo/q{n}" for n in LEAKED}
    assert all(len(row["commitment"]) == 64 for row in told["rows"])
    for document in (handed, write_result(result)):
        assert CANARY.encode() not in document
        assert not any(row["question"][:24].encode() in document for row in ROWS)


def test_seven_shards_find_what_one_finds(folder: Path) -> None:
    one, many = asked(folder, siblings=4), asked(folder, siblings=4, shard_bytes=65536)
    assert one.measured is not None
    assert many.measured is not None
    assert len(one.measured.coverage["sketch"]) == 1
    assert one.measured.coverage["sketch"] != many.measured.coverage["sketch"]  # of another plan
    flagged = [[m.value for m in answer.measured.named("flagged")] for answer in (one, many)]  # type: ignore[union-attr]
    assert flagged[0] == flagged[1]
    assert words(one)["leak.exact"] == words(many)["leak.exact"] == "detected"


def test_the_same_audit_gives_the_same_bytes_and_another_seed_another_plan(folder: Path) -> None:
    first = write_result(ran(folder, siblings=4))
    assert write_result(ran(folder, siblings=4)) == first
    assert write_result(ran(folder, siblings=4, seed=4)) != first


def test_a_corpus_of_several_files_and_forms(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    half = len(rows) // 2
    tables = []
    for n, part in enumerate((rows[:half], rows[half:])):
        tables.append(folder / f"part{n}.parquet")
        pq.write_table(pa.Table.from_pylist(part), tables[-1], row_group_size=20)
    data = {"benchmark": folder / "benchmark.jsonl", "corpus": tables}
    answer = asked(folder, data, corpus_format="parquet", siblings=4)
    assert words(answer)["leak.exact"] == "detected", (answer.reason, answer.skipped)
    assert answer.measured is not None
    assert answer.measured.find("docs").value == str(len(rows))  # type: ignore[union-attr]


def test_code_and_corpus_without_numbers_do_not_pass(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.jsonl").write_text('{"text": "ten words"}\n')
    data = {"benchmark": folder / "benchmark.jsonl", "corpus": tmp_path / "tiny.jsonl"}
    answer = asked(folder, data, siblings=4)
    assert (answer.outcome, answer.reason) == ("refused", "empty_corpus")
    assert [one.item for one in answer.skipped] == ["corpus:words:2", "corpus:least:1000"]


@pytest.mark.parametrize(
    ("role", "content", "reason", "items"),
    [
        ("benchmark", [ROWS[0], ROWS[1], ROWS[0]], "role_invalid", "benchmark:line:3"),
        ("benchmark", [ROWS[0] | {"question": " "}], "role_invalid", "benchmark:line:1:question:empty"),
        ("benchmark", [ROWS[0] | {"colour": "red"}], "role_invalid", "benchmark:line:1:colour"),
        ("benchmark", [], "role_invalid", "benchmark:no_rows"),
        ("placebo", [ROWS[0] | {"item": "p"}], "role_invalid", "placebo:line:1:origin:missing"),
        (
            "rewrites",
            [{"benchmark": "demo", "item": "none", "text": "x", "depth": 5}],
            "role_invalid",
            "rewrites:line:1",
        ),
    ],
)
def test_a_role_with_a_fault_is_refused_by_line_and_field(
    folder: Path, tmp_path: Path, role: str, content: list[dict[str, Any]], reason: str, items: str
) -> None:
    data = {name: folder / f"{name}.jsonl" for name in ("benchmark", "corpus")}
    data[role] = lines(tmp_path / "wrong.jsonl", content)
    answer = asked(folder, data)
    assert (answer.outcome, answer.reason) == ("refused", reason)
    assert any(one.item.startswith(items) for one in answer.skipped), answer.skipped


def test_a_corpus_that_cannot_be_read_fails_by_file_and_record(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "corpus.jsonl").read_bytes()
    cut = gzip.compress(whole)[:-2000]
    (tmp_path / "cut.gz").write_bytes(cut)
    pq.write_table(pa.Table.from_pylist([{"text": "word " * 400}] * 40), tmp_path / "t.parquet", row_group_size=10)
    table = bytearray((tmp_path / "t.parquet").read_bytes())
    table[60:140] = bytes(80)
    (tmp_path / "hurt.parquet").write_bytes(table)
    (tmp_path / "long.jsonl").write_bytes(b'{"text": "' + b"a " * 50_000_000 + b'"}\n')
    (tmp_path / "bad.jsonl").write_bytes(whole + b"no json\n" * 20)
    for name, form in (
        ("cut.gz", "jsonl.gz"),
        ("hurt.parquet", "parquet"),
        ("long.jsonl", "jsonl"),
        ("bad.jsonl", "jsonl"),
    ):
        data = {"benchmark": folder / "benchmark.jsonl", "corpus": tmp_path / name}
        answer = asked(folder, data, siblings=4, corpus_format=form)
        assert (answer.outcome, answer.reason) == ("failed", "shard_failed"), (name, answer.outcome, answer.reason)
        assert "corpus.0" in answer.skipped[0].item, (name, answer.skipped)


def test_bad_bytes_are_counted_and_the_rest_is_read(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "corpus.jsonl").read_bytes()
    (tmp_path / "corpus.jsonl").write_bytes(whole + b'{"text": "caf\xe9 and more"}\n{"id": "no text"}\n')
    data = {"benchmark": folder / "benchmark.jsonl", "corpus": tmp_path / "corpus.jsonl"}
    answer = asked(folder, data, siblings=4, max_bad_share="0.05")
    assert answer.measured is not None
    assert answer.measured.find("bad_records").value == "2"  # type: ignore[union-attr]
    assert words(answer)["leak.exact"] == "detected"


def test_the_asked_side_needs_its_role(folder: Path) -> None:
    answer = asked(folder, {"benchmark": folder / "benchmark.jsonl"})
    assert (answer.outcome, answer.reason) == ("refused", "data_missing")
    assert [one.item for one in answer.skipped] == ["role:corpus", "or:plan_and_sketches"]


def test_a_key_of_another_length_hands_nothing_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    data = {name: folder / f"{name}.jsonl" for name in ("benchmark", "corpus")} | {"commitment_key": tmp_path / "key"}
    answer = asked(folder, data, siblings=4)
    assert answer.outcome == "refused"
    assert (answer.reason, answer.skipped[0].item) == ("key_invalid", "commitment_key:bytes:5")


def test_sketches_that_were_brought_along_are_declared(folder: Path, tmp_path: Path) -> None:
    from checks.contamination.cli import main

    corpus, plan, sketch = str(folder / "corpus.jsonl"), str(tmp_path / "p"), str(tmp_path / "s")
    told = ["plan", "--benchmark", str(folder / "benchmark.jsonl"), "--corpus", corpus, "--embed", "off", "--out", plan]
    assert main([*told, "--siblings", "4"]) == 0
    assert main(["scan", "--plan", plan, "--corpus", corpus, "--out", sketch]) == 0
    data = {"benchmark": folder / "benchmark.jsonl", "plan": Path(plan), "sketches": Path(sketch)}
    answer = asked(folder, data, siblings=4)
    assert answer.measured is not None, (answer.reason, answer.skipped)
    assert answer.measured.find("shards_declared").value == "1"  # type: ignore[union-attr]
    assert words(answer)["leak.exact"] == "detected"
    other = asked(folder, data, siblings=4, q="0.2")
    assert (other.outcome, other.reason) == ("refused", "other_plan")
    assert "plan:asked" in [one.item for one in other.skipped]
    # A sketch cannot call itself observed.
    text = Path(sketch).read_text()
    (tmp_path / "claimed").write_text(text.replace('"origin":"declared"', '"origin":"observed"'))
    claimed = asked(folder, data | {"sketches": tmp_path / "claimed"}, siblings=4)
    assert claimed.measured is not None
    assert claimed.measured.find("shards_declared").value == "1"  # type: ignore[union-attr]


def test_a_brought_plan_of_another_benchmark_or_seed_is_refused(folder: Path, tmp_path: Path) -> None:
    """Sixty other items under the audit's name for its benchmark, or a seed that was tried until nothing showed."""
    from checks.contamination.cli import main

    corpus, plan, sketch = str(folder / "corpus.jsonl"), str(tmp_path / "p"), str(tmp_path / "s")
    strangers = lines(tmp_path / "strangers.jsonl", benchmark_rows(24, seed=77)[0])
    spaced = tmp_path / "spaced.jsonl"
    spaced.write_text("".join(json.dumps(dict(reversed(row.items()))) + "\n" for row in ROWS))
    data = {"benchmark": folder / "benchmark.jsonl", "plan": Path(plan), "sketches": Path(sketch)}
    for benchmark, more, differs in (
        (strangers, [], "plan:digests"),
        (folder / "benchmark.jsonl", ["--seed", "9"], "plan:seed"),
        (folder / "benchmark.jsonl", ["--param", "near_lcs=0.9"], "plan:parameters"),
        (spaced, [], None),
    ):
        told = ["plan", "--benchmark", str(benchmark), "--corpus", corpus, "--embed", "off", "--out", plan]
        assert main([*told, "--siblings", "4", *more]) == 0
        assert main(["scan", "--plan", plan, "--corpus", corpus, "--out", sketch]) == 0
        answer = asked(folder, data, siblings=4)
        if differs is None:  # other bytes, the same rows
            assert answer.outcome == "measured", (answer.reason, answer.skipped)
            hold_to_promise(answer)
            own = {one.name for one in CORPUS_CONTROLS}
            left = {metric for name, metric in unreached(answer) if name in own}
            # Nothing was embedded, so that no authored family was planted: `test_end_to_end` has these.
            assert left == {"asked/asked:no", "largest_difference", "recall_families", "passed_as_same"}
        else:
            assert (answer.outcome, answer.reason) == ("refused", "other_plan")
            assert differs in [one.item for one in answer.skipped]


@pytest.mark.parametrize("given", [("corpus", "sketches"), ("corpus", "plan"), ("plan",), ("sketches",)])
def test_a_mix_of_corpus_plan_and_sketches_is_refused(folder: Path, given: tuple[str, ...]) -> None:
    data = {"benchmark": folder / "benchmark.jsonl"} | {
        role: folder / ("corpus.jsonl" if role == "corpus" else "key") for role in given
    }
    answer = asked(folder, data)
    assert (answer.outcome, answer.reason) == ("refused", "role_invalid"), (answer.reason, answer.skipped)
