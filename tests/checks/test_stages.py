"""A check that reads a role in shards answers the same in one cell and in many, and names what was not read."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from assay.result import ControlResult, Finding, Measured, Metric

from checks.check import ROWS, DataRole, Evidence, MetricSpec, ModelFacts, Needs, Refusal
from checks.documents import Order, OrderedCheck, OrderedData, OrderedInput, OrderedModel, OrderedShards, Result
from checks.errors import OrderInvalid
from checks.local import run_local
from checks.run import carry_out
from checks.sharding import SHARDS_MAX, Planned, ShardedCheck, ShardFailed, ShardFile, ShardStep
from checks.stages import FAILED
from sandbox.reader.digest import file_sha256
from tests.checks.models import save


class Lines(ShardedCheck):
    """Counts a letter in files of lines, some lines a shard."""

    name: ClassVar[str] = "lines"
    version: ClassVar[str] = "1.0"
    source: ClassVar[str] = "a planted truth"
    controls: ClassVar[tuple[Any, ...]] = ()
    data_roles: ClassVar[tuple[DataRole, ...]] = (
        DataRole(name="text", required=True, media_type="application/vnd.assay.corpus", many=True, summary="Lines."),
        DataRole(name="letters", required=False, media_type=ROWS, summary="What is counted."),
    )
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec(name="count", unit="count", labels=(), better="none", determinism="exact", summary="Lines with it."),
        MetricSpec(name="drawn", unit="count", labels=(), better="none", determinism="exact", summary="A draw."),
    )
    words: ClassVar[tuple[str, ...]] = ()
    reasons: ClassVar[tuple[str, ...]] = ("no_letter",)
    shard_role: ClassVar[str] = "text"
    lines: int = 2
    """Of a shard."""

    def is_sharded(self, roles: Collection[str]) -> bool:
        return "text" in roles

    def needs(self, model: ModelFacts, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> Needs:
        return Needs(data_roles=("text", "letters"))

    def plan_shards(self, evidence: Evidence, files: Sequence[ShardFile]) -> Planned:
        if "letters" not in evidence.roles():
            raise Refusal("no_letter", ("role:letters",))
        cut = [
            [number, begin]
            for number, file in enumerate(files)
            for begin in range(0, len(file.path.read_text().splitlines()), self.lines)
        ]
        told = {"letter": evidence.data("letters")[0]["letter"], "cut": cut, "draw": int(evidence.rng("x").integers(9))}
        return Planned(document=json.dumps(told).encode(), carried=b"carried", shards=len(cut))

    def scan_shard(self, planned: Planned, shard: int, files: Sequence[ShardFile], on_step: ShardStep) -> bytes:
        told = json.loads(planned.document)
        number, begin = told["cut"][shard]
        found = 0
        for place, line in enumerate(files[number].path.read_text().splitlines()[begin : begin + self.lines]):
            if line == "broken":
                raise ShardFailed("bad_record", f"{files[number].name}:line:{begin + place + 1}")
            found += told["letter"] in line
            on_step(place, self.lines)
        return json.dumps({str(shard): found}).encode()

    def merge_parts(self, parts: Sequence[bytes]) -> bytes:
        whole: dict[str, int] = {}
        for part in parts:
            whole |= json.loads(part)
        return json.dumps(whole, sort_keys=True).encode()

    def measure(self, evidence: Evidence) -> Measured:
        seen = evidence.gathered()
        values = {"count": sum(json.loads(seen.merged).values()), "drawn": json.loads(seen.document)["draw"]}
        return Measured(
            metrics=tuple(
                Metric(name=name, value=str(value), step="1", unit="count", n=1, determinism="exact")
                for name, value in values.items()
            )
        )

    def judge(self, real: Measured, controls: Sequence[ControlResult]) -> tuple[Finding, ...]:
        return ()


CATALOGUE = {"lines": Lines}
LINES = ("an apple", "a pear", "plums", "a fig", "dates", "an orange", "grapes")
"""Six of the seven hold the letter a."""


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    save("gpt2", tmp_path / "model")
    (tmp_path / "one.txt").write_text("\n".join(LINES[:4]))
    (tmp_path / "two.txt").write_text("\n".join(LINES[4:]))
    (tmp_path / "letters.jsonl").write_text('{"letter": "a"}\n')
    return tmp_path


def in_one_cell(folder: Path, **more: Any) -> Result:
    data = {"text": [folder / "one.txt", folder / "two.txt"], "letters": folder / "letters.jsonl"}
    given: dict[str, Any] = {"data": data, "seed": 5} | more
    return run_local(folder / "model", [OrderedCheck(name="lines", version="1.0")], CATALOGUE, **given)


class Cells:
    """The stages as a worker orders them: what a cell leaves in slots is the next one's input."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inputs: dict[str, Path] = {}
        self.data = tuple(
            self.data_of(role, name)
            for role, name in (("text", "one.txt"), ("text", "two.txt"), ("letters", "letters.jsonl"))
        )

    def data_of(self, role: str, name: str) -> OrderedData:
        given = self.given(self.folder / name)
        return OrderedData(role=role, input=given.input, sha256=given.sha256, size=given.size)

    def given(self, path: Path) -> OrderedInput:
        self.inputs[path.name] = path
        return OrderedInput(input=path.name, sha256=file_sha256(path), size=path.stat().st_size)

    def run(self, stage: Any, shards: OrderedShards | None = None) -> tuple[Result, dict[str, bytes]]:
        slots: dict[str, bytes] = {}
        order = Order(
            schema="assay-cell-order/v1",
            nonce="0" * 64,
            seed=5,
            model=OrderedModel(manifest_sha256="0" * 64, files=()),
            data=self.data,
            checks=(OrderedCheck(name="lines", version="1.0"),),
            stage=stage,
            shards=shards,
        )
        return carry_out(order, self.inputs, CATALOGUE, on_artefact=slots.__setitem__), slots

    def kept(self, name: str, content: bytes) -> OrderedInput:
        path = self.folder / name
        path.write_bytes(content)
        return self.given(path)


def test_many_cells_answer_as_one_does(folder: Path) -> None:
    whole = in_one_cell(folder)
    (answer,) = whole.answers
    assert {one.name: one.value for one in answer.measured.metrics}["count"] == "6"  # type: ignore[union-attr]

    cells = Cells(folder)
    planned, slots = cells.run("plan")
    assert planned.answers == ()
    assert planned.staged is not None
    assert planned.staged.shards == 4
    assert {one.slot: one.size for one in planned.staged.files} == {name: len(told) for name, told in slots.items()}
    document = cells.kept("plan", slots["plan.document"])
    carried = cells.kept("carried", slots["plan.carried"])
    parts = []
    for number in (2, 0, 3, 1):  # whatever order they are scanned in
        asked = OrderedShards(check=0, document=document, carried=carried, shard=number)
        scanned, left = cells.run("scan", asked)
        assert scanned.staged is not None
        assert [one.slot for one in scanned.staged.files] == ["scan.part"]
        parts.append((number, left["scan.part"]))
        assert cells.run("scan", asked)[1] == left  # a retried scan leaves the same bytes
    inputs = tuple(cells.kept(f"part.{number}", part) for number, part in sorted(parts))
    assert Lines().merge_parts([part for _, part in parts]) == Lines().merge_parts([part for _, part in sorted(parts)])
    assert combined(cells, OrderedShards(check=0, document=document, parts=inputs)).answers == whole.answers


def combined(cells: Cells, shards: OrderedShards) -> Result:
    """Return the last cell's result; it has the model's files, which `run_local` knows how to order."""
    from checks.local import _model

    inputs: dict[str, Path] = {}
    order = Order(
        schema="assay-cell-order/v1",
        nonce="0" * 64,
        seed=5,
        model=_model(cells.folder / "model", "model", inputs),
        data=cells.data,
        checks=(OrderedCheck(name="lines", version="1.0"),),
        stage="combine",
        shards=shards,
    )
    return carry_out(order, {**inputs, **cells.inputs}, CATALOGUE)


def test_parts_are_joined_two_at_a_time_and_never_all_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "one.txt").write_text("an apple\n" * 150)
    whole = in_one_cell(folder)
    merges: list[int] = []
    alive: list[int] = []
    real_scan, real_merge = Lines.scan_shard, Lines.merge_parts

    def scan(self: Lines, *given: Any) -> bytes:
        alive.append((alive[-1] if alive else 0) + 1)
        return real_scan(self, *given)

    def merge(self: Lines, parts: Sequence[bytes]) -> bytes:
        merges.append(len(parts))
        alive.append(alive[-1] + 1 - len(parts))
        return real_merge(self, parts)

    monkeypatch.setattr(Lines, "scan_shard", scan)
    monkeypatch.setattr(Lines, "merge_parts", merge)
    told = in_one_cell(folder)
    assert told.answers == whole.answers
    assert len(merges) == 76  # of 77 shards
    assert set(merges) == {2}
    assert max(alive) <= 8  # 2 ** 7 > 77


def test_a_shard_that_cannot_be_read_is_named_and_nothing_is_measured(folder: Path) -> None:
    (folder / "two.txt").write_text("dates\nan orange\nbroken\ngrapes")
    (answer,) = in_one_cell(folder).answers
    assert (answer.outcome, answer.reason) == ("failed", "shard_failed")
    assert [one.item for one in answer.skipped] == ["bad_record:text.1:line:3"]

    cells = Cells(folder)
    document = cells.kept("plan", cells.run("plan")[1]["plan.document"])
    _, left = cells.run("scan", OrderedShards(check=0, document=document, shard=3))
    assert left["scan.part"].startswith(FAILED)
    part = cells.kept("part", left["scan.part"])
    told = combined(cells, OrderedShards(check=0, document=document, parts=(part,)))
    assert told.answers == (answer,)


def test_a_shard_that_died_is_named_and_nothing_is_measured(folder: Path) -> None:
    cells = Cells(folder)
    document = cells.kept("plan", cells.run("plan")[1]["plan.document"])
    (answer,) = combined(cells, OrderedShards(check=0, document=document, dead=(1, 3))).answers
    assert (answer.outcome, answer.reason) == ("failed", "shard_dead")
    assert [one.item for one in answer.skipped] == ["shard:1", "shard:3"]


def test_a_refused_plan_is_told_by_the_cell_that_answers(folder: Path) -> None:
    (answer,) = in_one_cell(folder, data={"text": folder / "one.txt"}).answers
    assert (answer.outcome, answer.reason) == ("refused", "no_letter")
    cells = Cells(folder)
    cells.data = cells.data[:2]
    planned, slots = cells.run("plan")
    assert planned.staged is not None
    assert (planned.staged.shards, slots) == (0, {})


def test_one_shard_is_not_worth_a_cell(folder: Path) -> None:
    cells = Cells(folder)
    cells.data = (*(one for one in cells.data if one.input == "letters.jsonl"), cells.data_of("text", "one.txt"))
    (folder / "one.txt").write_text("an apple")
    planned, slots = cells.run("plan")
    assert planned.staged is not None
    assert (planned.staged.shards, slots) == (1, {})


def test_too_many_shards_are_refused_with_their_number(folder: Path) -> None:
    (folder / "one.txt").write_text("a\n" * (2 * SHARDS_MAX))
    (answer,) = in_one_cell(folder).answers
    assert (answer.outcome, answer.reason) == ("refused", "shards_too_many")
    assert [one.item for one in answer.skipped] == [f"shards:{SHARDS_MAX + 2}", f"shards:most:{SHARDS_MAX}"]


@pytest.mark.parametrize("shards", [None, "no_shard", "no_check"])
def test_a_scan_of_nothing_is_no_order(folder: Path, shards: str | None) -> None:
    cells = Cells(folder)
    document = cells.kept("plan", b"{}")
    told = {
        None: None,
        "no_shard": OrderedShards(check=0, document=document),
        "no_check": OrderedShards(check=1, document=document, shard=0),
    }[shards]
    with pytest.raises(OrderInvalid, match="scan needs"):
        cells.run("scan", told)


def test_a_role_without_shards_is_sent_once(folder: Path) -> None:
    letters = folder / "letters.jsonl"
    with pytest.raises(OrderInvalid, match="letters: is given more than once"):
        in_one_cell(folder, data={"text": folder / "one.txt", "letters": [letters, letters]})
