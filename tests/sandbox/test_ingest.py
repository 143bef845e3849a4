"""The ingest cell's program: what it passes on reads the same again, a hostile model passes nothing on, and a result
fits its cap."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import string
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sandbox
from sandbox import BubblewrapCell, Cell, CodeMount, Input, Order, ProcessCell, Slot, reader
from sandbox import ingest as program
from sandbox.cell import Filled, Outcome, canonical
from sandbox.reader import strict_json
from sandbox.reader.model import Decision, read_model

from .reader.test_model import ARCHITECTURES, CONFIG, HOSTILE, TOKENIZER, two_shards, write
from .reader.test_model import model as _model  # noqa: F401 - a fixture
from .reader.test_safetensors import pack, tensor

PACKAGE = Path(sandbox.__file__).parent


@pytest.fixture
def model(_model: Path) -> Path:  # noqa: F811
    return _model


def files_of(root: Path) -> dict[str, Path]:
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if not path.is_dir()}


def ingested(root: Path) -> tuple[bool, list[Decision], int, dict[str, bytes]]:
    return program.ingest(files_of(root), ARCHITECTURES)


def order_of(root: Path, aside: Path, **more: Any) -> Order:
    """Return the order of an ingest cell for a directory."""
    aside.mkdir(exist_ok=True)
    (aside / "architectures.json").write_text(json.dumps(ARCHITECTURES))
    inputs = [_input("architectures.json", aside / "architectures.json")]
    files = []
    for number, (path, source) in enumerate(files_of(root).items()):
        given = _input(f"model.{number}", source)
        inputs.append(given)
        files.append({"path": path, "input": given.name, "sha256": given.sha256, "size": given.size})
    nonce = secrets.token_hex(32)
    values: dict[str, Any] = {
        "kind": "ingest",
        "module": "sandbox.ingest",
        "arguments": (),
        "code": (CodeMount(name="sandbox", source=PACKAGE),),
        "inputs": tuple(inputs),
        "slots": tuple(Slot(name=name, max_bytes=cap, released=False) for name, cap in program.SLOTS.items()),
        "request": canonical({"schema": program.REQUEST_SCHEMA, "nonce": nonce, "files": files}),
        "nonce": nonce,
    }
    return Order(**{**values, **more})


def _input(name: str, source: Path) -> Input:
    data = source.read_bytes()
    return Input(name=name, source=source, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def slots_of(outcome: Outcome) -> Mapping[str, Filled]:
    return {one.name: one for one in outcome.slots}


@pytest.fixture(params=["bubblewrap", "process"])
def either(request: pytest.FixtureRequest, cell: BubblewrapCell, twin: ProcessCell) -> Cell:
    return cell if request.param == "bubblewrap" else twin


def test_a_cell_reads_a_model_and_passes_on_what_reads_the_same(either: Cell, model: Path, tmp_path: Path) -> None:
    write(model, "generation_config.json", {"temperature": 0.5, "chat_template": "{{ evil }}"})
    aside = tmp_path.parent / f"{tmp_path.name}-aside"
    ordered = order_of(model, aside)
    outcome = either.run(ordered)
    assert (outcome.ended, outcome.status, outcome.why) == ("exited", 0, None), outcome.log_tail
    said = strict_json.loads(outcome.result or b"", cap=program.RESULT_CAP)
    assert (said["schema"], said["nonce"], said["refused"], said["more"]) == (
        "assay-ingest/v1", ordered.nonce, False, 0,
    )  # fmt: skip
    assert outcome.seal.stage == "ingest"
    assert outcome.log_tail == ""
    slots = slots_of(outcome)
    assert {name: one.content for name, one in slots.items()} == ingested(model)[3]
    assert slots["config.json"].content == b'{"hidden_size":8,"model_type":"tiny","scale":0.5}'
    assert slots["generation_config.json"].content == b'{"temperature":0.5}'
    assert json.loads(slots["tokenizer.json"].content) == TOKENIZER
    (row,) = json.loads(slots["tensors.json"].content)
    assert row == {"name": "w", "file": "model.safetensors", "dtype": "U8", "shape": [4], "begin": 0, "end": 4}


def test_a_file_that_is_never_read_is_accepted_by_its_path_alone(either: Cell, model: Path, tmp_path: Path) -> None:
    asked = order_of(model, tmp_path.parent / f"{tmp_path.name}-aside")
    document = json.loads(asked.request)
    document["files"] += [{"path": "LICENSE.1"}, {"path": "LICENSE.2"}]
    outcome = either.run(replace(asked, request=canonical(document)))
    said = json.loads(outcome.result or b"{}")
    words = {one["path"]: one["decision"] for one in said["decisions"]}
    assert (said["refused"], words["LICENSE.1"], words["LICENSE.2"]) == (False, "accepted", "accepted")


@pytest.mark.parametrize("path", ["generation_config.json", "more.safetensors"])
def test_a_file_that_is_read_but_was_not_given_is_refused(model: Path, tmp_path: Path, path: str, twin: Cell) -> None:
    asked = order_of(model, tmp_path.parent / f"{tmp_path.name}-aside")
    document = json.loads(asked.request)
    document["files"] = [one for one in document["files"] if one["path"] != path] + [{"path": path}]
    said = json.loads(twin.run(replace(asked, request=canonical(document))).result or b"{}")
    assert said["refused"]
    assert ("file_unreadable", path) in {(one["reason"], one["path"]) for one in said["decisions"]}


def test_a_cell_that_refuses_leaves_every_slot_empty(either: Cell, model: Path, tmp_path: Path) -> None:
    write(model, "config.json", CONFIG | {"auto_map": {}})
    outcome = either.run(order_of(model, tmp_path.parent / f"{tmp_path.name}-aside"))
    said = strict_json.loads(outcome.result or b"", cap=program.RESULT_CAP)
    assert said["refused"] is True
    assert [one["reason"] for one in said["decisions"] if one["decision"] == "refused"] == ["config_key_forbidden"]
    assert {one.size for one in outcome.slots} == {0}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_passes_nothing_on(name: str, model: Path) -> None:
    plant, path, code = HOSTILE[name]
    plant(model)
    refused, decisions, _more, slots = ingested(model)
    assert (refused, slots) == (True, {})
    assert {(one.path, one.reason) for one in decisions if one.decision == "refused"} == {(path, code)}


def read_again(slots: Mapping[str, bytes], weights: Mapping[str, Path], folder: Path) -> Any:
    """Read what was passed on as the cell that measures does."""
    folder.mkdir()
    for name, content in slots.items():
        (folder / name).write_bytes(content)
    files = {name: folder / name for name in slots if name != "tensors.json"}
    return read_model({**files, **weights}, ARCHITECTURES, indexed=False)


def test_two_shards_need_no_index_once_a_table_is_passed_on(model: Path, tmp_path: Path) -> None:
    two_shards(model)
    write(model, "model.safetensors.index.json", {"weight_map": {"w": "model.safetensors", "v": "b.safetensors"}})
    refused, _decisions, _more, slots = ingested(model)
    assert not refused
    weights = {name: path for name, path in files_of(model).items() if name.endswith(".safetensors")}
    again = read_again(slots, weights, tmp_path / "again")
    assert not again.refused
    assert {one.decision for one in again.decisions} == {"accepted"}
    assert program.table(again.tensors) == slots["tensors.json"]
    assert canonical(again.config) == slots["config.json"]


VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12),
    st.integers(-(2**39), 2**39),
    st.text(string.printable.strip() + "\u00e9\u2028\U0001f600", max_size=8),
    st.booleans(),
    st.none(),
)


@settings(max_examples=200, deadline=None)
@given(scale=VALUES, names=st.lists(VALUES, max_size=4))
def test_every_accepted_config_is_accepted_again_unchanged(
    scale: Any, names: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("model")
    write(root, "config.json", CONFIG | {"scale": scale, "names": names})
    (root / "model.safetensors").write_bytes(pack({"w": tensor(0, 4)}, b"\0" * 4))
    refused, _decisions, _more, slots = ingested(root)
    if refused:
        return
    again = read_again(slots, {"model.safetensors": root / "model.safetensors"}, root / "again")
    assert {one.decision for one in again.decisions} == {"accepted"}
    assert canonical(again.config) == slots["config.json"]


def test_a_file_that_grows_beyond_its_cap_when_written_out_is_refused(model: Path) -> None:
    """`9e9` is `9000000000.0`: a tokenizer within its cap would leave as one that no reader takes."""
    numbers = b"[" + b",".join([b"9e15"] * 2_500_000) + b"]"
    write(model, "tokenizer.json", json.dumps(TOKENIZER).encode()[:-1] + b',"scores":' + numbers + b"}")
    refused, decisions, _more, slots = ingested(model)
    assert (refused, slots) == (True, {})
    (one,) = [one for one in decisions if one.path == "tokenizer.json"]
    assert (one.decision, one.reason, one.at) == ("refused", "size_cap", {"offset": 32 * 2**20})


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["merges", "objects"])
def test_the_largest_tokenizer_is_read_within_the_cells_limits(
    shape: str, cell: BubblewrapCell, model: Path, tmp_path: Path
) -> None:
    """32 MiB: a million tokens and as many merges, or what takes most memory, ten million empty objects."""
    if shape == "merges":
        vocab = {f"tok{number:07d}xyzw": number for number in range(10**6 - 3)} | {"a": 10**6, "b": 10**6 + 1}
        document = {"model": {"type": "BPE", "vocab": vocab | {"ab": 10**6 + 2}, "merges": []}}
        data = json.dumps(document, separators=(",", ":")).encode()
        room = (32 * 2**20 - len(data)) // len('"a b",')
        data = data.replace(b'"merges":[]', b'"merges":[' + b",".join([b'"a b"'] * room) + b"]")
    else:
        data = json.dumps(TOKENIZER).encode()[:-1] + b',"x":[' + b",".join([b"{}"] * (11 * 10**6)) + b"]}"
    assert 31 * 2**20 < len(data) <= 32 * 2**20
    write(model, "tokenizer.json", data)
    outcome = cell.run(order_of(model, tmp_path.parent / f"{tmp_path.name}-aside"))
    assert (outcome.status, outcome.why) == (0, None), outcome.log_tail
    assert json.loads(outcome.result or b"")["refused"] is False
    assert outcome.usage.cpu_s < 60
    assert outcome.usage.peak_bytes < 2 * 2**30


def test_a_result_over_its_cap_counts_what_it_leaves_out_and_keeps_a_refusal() -> None:
    accepted = [Decision(path=f"f{number}", decision="accepted") for number in range(5000)]
    decisions = [*accepted, Decision(path="g", decision="refused", reason="st_hole")]
    for cap in (program.RESULT_CAP, 4096, 700):
        document = program.result("00" * 32, True, decisions, 7, cap=cap)
        said = json.loads(document)
        assert len(document) <= cap
        assert len(said["decisions"]) + said["more"] == 5001 + 7
        assert said["decisions"][0]["reason"] == "st_hole"
    whole = json.loads(program.result("00" * 32, False, accepted[:3], 0))
    assert [one["path"] for one in whole["decisions"]] == ["f0", "f1", "f2"]


def test_decisions_beyond_the_readers_limit_are_counted_once(model: Path) -> None:
    write(model, "vocab.json", {f"t{index}": -1 for index in range(500)})
    _refused, decisions, more, _slots = ingested(model)
    assert more == 400
    assert "ingest_limit" not in {one.reason for one in decisions}


def test_every_code_of_the_readers_is_on_the_closed_list() -> None:
    source = "".join(path.read_text() for path in Path(reader.__file__).parent.glob("*.py"))
    used = set(re.findall(r'(?:ReaderError|refuse|note)\((?:[^"\n]*, )?"([a-z_]+)"', source))
    used -= {"refused", "dropped", "row_not_object", "line_cap"}  # words, and codes of data files
    assert len(used) > 30
    assert used <= program.CODES


def test_a_bug_is_no_result(either: Cell, model: Path, tmp_path: Path) -> None:
    """An order that the program does not know ends it with an error, and with an empty result."""
    ordered = order_of(model, tmp_path.parent / f"{tmp_path.name}-aside", request=b'{"schema":"other"}')
    outcome = either.run(ordered)
    assert (outcome.ended, outcome.status, outcome.result) == ("exited", 1, None)
    assert "ValueError" in outcome.log_tail


def test_the_program_imports_the_standard_library_alone(either: Cell, model: Path, tmp_path: Path) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import sys, os\nimport sandbox.ingest\n"
        "os.write(3, ' '.join(sorted({m.split('.')[0] for m in sys.modules})).encode())\n"
    )
    ordered = order_of(
        model,
        tmp_path.parent / f"{tmp_path.name}-aside",
        module="probe",
        code=(CodeMount(name="sandbox", source=PACKAGE), CodeMount(name="probe.py", source=probe)),
    )
    probe_out = either.run(ordered)
    loaded = set((probe_out.result or b"").decode().split()) - {"probe", "sandbox", "__mp_main__"}
    assert loaded
    assert not {one for one in loaded if not one.startswith("_")} - sys.stdlib_module_names
