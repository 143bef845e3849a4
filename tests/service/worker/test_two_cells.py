"""Whole attempts in real bubblewrap cells: a model is read in one and measured in the next, a hostile one never gets
that far, and a first cell that was taken over cannot change the weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from assay import canonical
from assay.catalogue import parse
from safetensors.numpy import load_file, save_file

import checks
import sandbox
from checks.catalogue import catalogue_bytes
from sandbox import BubblewrapCell, BubblewrapSettings, CodeMount
from sandbox.cell import Cancelled, OnStep, Order, Outcome, Proof, ignore, never
from sandbox.inputs import Held
from sandbox.reader.names import file_rule
from service.store.audits import register
from service.worker.attempt import Attempts
from service.worker.code import Guest
from tests.sandbox.reader.test_model import ARCHITECTURES, CONFIG, HOSTILE, TOKENIZER, write
from tests.sandbox.reader.test_safetensors import pack, tensor
from tests.service.store.planting import audit_id, new_store, registration, submit
from tests.service.worker.guest_checks import GUESTS
from tests.service.worker.scripted import House, house
from tests.service.worker.test_attempt import classes, record

HERE = Path(__file__).parent
CODE = (
    CodeMount(name="checks", source=Path(checks.__file__).parent),
    CodeMount(name="sandbox", source=Path(sandbox.__file__).parent),
    CodeMount(name="assay", source=HERE.parents[2] / "client" / "assay"),
    CodeMount(name="guest_checks.py", source=HERE / "guest_checks.py"),
)
"""The reader, the runtime and the vocabulary as they are; only the checks are ours."""
CATALOGUE = parse(catalogue_bytes(GUESTS))

GPT2 = {
    "model_type": "gpt2", "n_embd": 4, "n_layer": 1, "n_head": 1, "n_positions": 8, "vocab_size": 4,
    "torch_dtype": "float32",
}  # fmt: skip
LAYER = {"op": "linear", "weight": "w", "bias": "b"}


@dataclass
class Watched:
    """A real cell; remembers every order, and can have its first cell taken over by another program."""

    inner: BubblewrapCell
    orders: list[Order]
    outcomes: list[Outcome]
    taken_over: CodeMount | None = None
    limits: Mapping[str, int] | None = None

    def prove(self) -> Proof:
        return self.inner.prove()

    def run(
        self, order: Order, *, on_step: OnStep = ignore, cancelled: Cancelled = never, held: Held | None = None
    ) -> Outcome:
        self.orders.append(order)
        if order.kind == "ingest":
            if self.taken_over is not None:
                order = replace(order, module="evil", code=(*order.code, self.taken_over))
            order = replace(order, limits={**order.limits, **(self.limits or {})})
        outcome = self.inner.run(order, on_step=on_step, cancelled=cancelled, held=held)
        self.outcomes.append(outcome)
        return outcome

    @property
    def kinds(self) -> list[str]:
        return [order.kind for order in self.orders]


@dataclass
class Site:
    """A house with real cells, and a way to send a directory to it."""

    house: House
    cell: Watched
    folder: Path
    sent: int = 0

    def audit(self, model: Path, check: str = "norm", **params: Any) -> dict[str, Any]:
        """Audit a directory; return the host's record."""
        self.sent += 1
        files = {one.relative_to(model).as_posix(): one.read_bytes() for one in model.rglob("*") if one.is_file()}
        manifest = self.house.put_model(files)
        entry = self.house.bench.catalogue.entry(check)
        request = {
            "schema": "assay-request/v1",
            "audit": audit_id(self.sent),
            "nonce": "11" * 32,
            "model": {"manifest_sha256": manifest.digest},
            "checks": [{"name": check, "version": entry.version if entry else "1.0", "params": params}],
            "data": [],
            "limits": {"attempts_max": 3, "output_bytes": 65_536, "wall_s": 60},
            "seed_mode": "derived",
            "submitted_at": "2026-11-21T00:00:00Z",
        }
        sha256 = self.house.put(canonical.dumps(request))
        with self.house.store.begin() as connection:
            key = submit(connection, self.sent, request_sha256=sha256)
            register(connection, key, registration(sha256, seed=77))
        Attempts(self.house.bench).attempt(key)
        self.classes = classes(self.house, key)
        try:
            return record(self.house, key)
        except Exception:
            return {}

    def take_over(self, program: str) -> None:
        """Let another program run in the first cell: the real one's code is there, and it may do as it likes."""
        path = self.folder / "evil.py"
        path.write_text(program)
        self.cell.taken_over = CodeMount(name="evil.py", source=path)


@pytest.fixture(scope="module")
def bubblewrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BubblewrapCell]:
    made = BubblewrapCell(BubblewrapSettings(work_dir=tmp_path_factory.mktemp("cells"), cpus=1))
    yield made
    made.close()


@pytest.fixture
def site(tmp_path: Path, bubblewrap: BubblewrapCell) -> Iterator[Site]:
    store = new_store(tmp_path)
    made = house(store, tmp_path)
    cell = Watched(bubblewrap, [], [])
    made.bench = replace(made.bench, cell=cell, guest=Guest(module="guest_checks", code=CODE), catalogue=CATALOGUE)
    yield Site(made, cell, tmp_path)
    store.close()
    assert not list((bubblewrap.settings.work_dir or tmp_path).iterdir()), "a cell's folder was left"


def gpt2(folder: Path) -> Path:
    """Write a GPT-2 of one layer and 1.3 KB of weights that load."""
    import numpy as np

    folder.mkdir()
    draw = np.random.default_rng(0)
    shapes = {
        "wte.weight": (4, 4), "wpe.weight": (8, 4), "ln_f.weight": (4,), "ln_f.bias": (4,),
        "h.0.ln_1.weight": (4,), "h.0.ln_1.bias": (4,), "h.0.ln_2.weight": (4,), "h.0.ln_2.bias": (4,),
        "h.0.attn.c_attn.weight": (4, 12), "h.0.attn.c_attn.bias": (12,),
        "h.0.attn.c_proj.weight": (4, 4), "h.0.attn.c_proj.bias": (4,),
        "h.0.mlp.c_fc.weight": (4, 16), "h.0.mlp.c_fc.bias": (16,),
        "h.0.mlp.c_proj.weight": (16, 4), "h.0.mlp.c_proj.bias": (4,),
    }  # fmt: skip
    tensors = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    write(folder, "config.json", GPT2)
    write(folder, "tokenizer.json", TOKENIZER)
    write(folder, "generation_config.json", {"temperature": 0.5})
    return folder


def mlp(folder: Path) -> Path:
    import numpy as np

    folder.mkdir()
    tensors = {"w": np.eye(2, 3, dtype=np.float32), "b": np.zeros(2, np.float32)}
    save_file(tensors, folder / "model.safetensors")
    write(folder, "architecture.json", {"schema": "assay.feedforward/1", "input": [3], "layers": [LAYER]})
    return folder


def check_two_seals(stored: Mapping[str, Any]) -> None:
    cells = stored["sandbox"]["cells"]
    assert [cell["stage"] for cell in cells] == ["ingest", "check"]
    for cell in cells:
        assert (cell["backend"], cell["network"]) == ("bubblewrap", "none")
        assert len(cell["layers"]["seccomp_sha256"]) == 2
        assert cell["layers"]["no_new_privs"] is True
    assert cells[0]["policy_sha256"] != cells[1]["policy_sha256"]


@pytest.mark.parametrize(("make", "value"), [(gpt2, None), (mlp, "0")])
def test_a_small_model_is_read_in_one_cell_and_measured_in_the_next(site: Site, make: Any, value: str | None) -> None:
    stored = site.audit(make(site.folder / "model"))
    assert site.classes == ["OK"], [one.log_tail for one in site.cell.outcomes]
    check_two_seals(stored)
    (told,) = stored["answers"]
    assert (told["outcome"], told["valid"]) == ("measured", True)
    if value is not None:
        assert told["measured"]["metrics"][0]["value"] == value
    words = {(one["path"], one["decision"]) for one in stored["ingest"]["decisions"]}
    assert {("model.safetensors", "accepted")} <= words
    assert {word for _path, word in words} <= {"accepted", "dropped"}
    inputs = {one.name for one in site.cell.orders[1].inputs}
    assert inputs <= {
        "ingest.config.json", "ingest.architecture.json", "ingest.generation_config.json", "ingest.tokenizer.json",
        "ingest.tensors.json", *(f"model.{n}.safetensors" for n in range(4)),
    }  # fmt: skip
    assert len([name for name in inputs if name.startswith("model.")]) == 1, "the weights alone come as they were sent"


def test_the_checks_own_program_takes_what_the_first_cell_passed_on(site: Site) -> None:
    """`python -m checks run` with the code that its catalogue names: truth_probe says why an MLP is none of its own."""
    from checks.truth_probe.check import TruthProbe

    every = parse(catalogue_bytes())
    site.house.bench = replace(site.house.bench, guest=Guest(code=CODE[:3]), catalogue=every)
    stored = site.audit(mlp(site.folder / "model"), "truth_probe", **json.loads(TruthProbe().model_dump_json()))
    assert site.classes == ["OK"], [one.log_tail for one in site.cell.outcomes]
    check_two_seals(stored)
    (told,) = stored["answers"]
    assert (told["outcome"], told["reason"]) == ("refused", "model_kind")
    entry = every.entry("truth_probe")
    assert entry is not None
    assert told["code_sha256"] == entry.code_sha256


@pytest.mark.slow
def test_a_loaded_model_answers_the_same_with_and_without_a_first_cell(site: Site) -> None:
    """What the first cell passes on makes the same model as what was sent: metrics are equal to the last digit."""
    from checks.documents import OrderedCheck
    from checks.local import run_local
    from tests.checks.models import save

    model = site.folder / "model"
    save("gpt2", model)
    for path in list(model.iterdir()):
        if file_rule(path.name) is not None:
            path.unlink()
    stored = site.audit(model, "state")
    check_two_seals(stored)
    assert stored["answers"][0]["outcome"] == "measured", (stored["answers"], site.cell.outcomes[1].log_tail)
    local = run_local(model, (OrderedCheck(name="state", version="1.0"),), GUESTS, seed=77)
    assert stored["answers"][0]["measured"]["metrics"] == local.to_json()["answers"][0]["measured"]["metrics"]


def tiny(folder: Path) -> Path:
    """Write the neighbour of the hostile models that the readers' own tests plant."""
    folder.mkdir()
    write(folder, "config.json", CONFIG)
    write(folder, "tokenizer.json", TOKENIZER)
    (folder / "model.safetensors").write_bytes(pack({"w": tensor(0, 4)}, b"\0" * 4))
    return folder


def test_a_hostile_model_is_refused_by_name_and_no_second_cell_sees_it(site: Site) -> None:
    refused_in_a_cell(site, "auto_map at depth 3", "regex of 5 KiB", "truncated weights", "no config")


@pytest.mark.slow
def test_each_hostile_model_is_refused_by_name_and_no_second_cell_sees_it(site: Site) -> None:
    refused_in_a_cell(site, *(name for name in HOSTILE if name != "FIFO"))  # a manifest holds regular files


def refused_in_a_cell(site: Site, *names: str) -> None:
    table = site.folder / "table"
    table.mkdir()
    (table / "architectures.json").write_text(json.dumps(ARCHITECTURES))
    code = (CodeMount(name="checks", source=table), *CODE[1:])
    site.house.bench = replace(site.house.bench, guest=Guest(module="guest_checks", code=code))
    for number, name in enumerate(names):
        model = tiny(site.folder / f"model-{number}")
        plant, path, reason = HOSTILE[name]
        plant(model)
        stored = site.audit(model)
        assert site.classes == ["REFUSED"], name
        (told,) = stored["answers"]
        assert (told["outcome"], told["reason"]) == ("refused", f"ingest:{reason}"), name
        refusals = [one for one in stored["ingest"]["decisions"] if one["decision"] == "refused"]
        assert {(one["path"], one["reason"]) for one in refusals} == {(path, reason)}, name
        assert [cell["stage"] for cell in stored["sandbox"]["cells"]] == ["ingest"]
    assert site.cell.kinds == ["ingest"] * len(names)


HONEST = """
import json, os, sandbox.ingest as program
def swap(name, change):
    path = "out/" + name
    value = change(json.load(open(path)))
    with open(os.open(path, os.O_WRONLY | os.O_TRUNC), "w") as out:
        json.dump(value, out, sort_keys=True, separators=(",", ":"))
program.main()
"""


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ("swap('tensors.json', lambda rows: rows[1:])", {"key": "tensors.json"}),
        ("swap('tensors.json', lambda rows: [{**rows[0], 'begin': 1}, *rows[1:]])", {"key": "tensors.json"}),
        ("swap('tensors.json', lambda rows: [{**r, 'file': 'tokenizer.json'} for r in rows])", {"key": "tensors.json"}),
        ("swap('config.json', lambda c: {**c, 'auto_map': {}})", {"key": "config_key_forbidden"}),
        ("swap('config.json', lambda c: {**c, 'harmless': 1})", {"key": "config_key_unknown"}),
        ("swap('config.json', lambda c: {**c, 'n_embd': 2**40})", {"key": "config_range"}),
        ("swap('config.json', lambda c: [c])", {"key": "config_type"}),
        ("swap('tokenizer.json', lambda t: t | {'model': t['model'] | {'type': 'x'}})", {"key": "tokenizer_component"}),
        ("open('out/config.json', 'a').write(' ')", None),
    ],
)  # fmt: skip
def test_a_first_cell_that_was_taken_over_is_caught_by_the_second(
    site: Site, change: str, at: dict[str, str] | None
) -> None:
    site.take_over(HONEST + change)
    stored = site.audit(gpt2(site.folder / "model"))
    assert (site.cell.kinds, site.classes) == (["ingest", "check"], ["REFUSED"])
    (told,) = stored["answers"]
    assert told["reason"] == "ingest:ingest_disagrees"
    last = stored["ingest"]["decisions"][-1]
    assert (last["decision"], last["reason"]) == ("refused", "ingest_disagrees")
    if at is not None:
        assert last["at"] == at


def test_a_first_cell_that_was_taken_over_cannot_change_a_weight(site: Site) -> None:
    """It may choose among what the second cell's readers accept; the norm that is measured is that of the file."""
    import numpy as np

    model = gpt2(site.folder / "model")
    site.take_over(HONEST + "swap('config.json', lambda c: {**c, 'n_head': 2})")
    stored = site.audit(model)
    assert site.classes == ["OK"]
    tensors = load_file(model / "model.safetensors")
    (metric,) = stored["answers"][0]["measured"]["metrics"]
    assert float(metric["value"]) == pytest.approx(float(np.linalg.norm(tensors[min(tensors)])), abs=1e-5)


WRITES = """
import os
names = os.listdir("in")
for name in names:
    try:
        os.write(os.open("in/" + name, os.O_RDWR), b"evil")
    except OSError as error:
        assert error.errno in (13, 30), error
    else:
        raise SystemExit(9)
"""


def test_a_first_cell_cannot_write_what_the_second_is_given(site: Site) -> None:
    site.take_over(WRITES + HONEST)
    site.audit(gpt2(site.folder / "model"))
    assert site.classes == ["OK"]


ENDS = {
    "nothing": ("pass", "RESULT_REJECTED", ""),
    "no result": ("open('out/config.json', 'w').write('{}')", "RESULT_REJECTED", ""),
    "an exception": ("raise KeyError", "CELL_CRASHED", ""),
    "memory": ("x = []\nwhile True: x.append(bytearray(2**20))", "MEMORY_LIMIT", "memory"),
    "a spin": ("while True: pass", "TIME_LIMIT", "cpu"),
    "a sleep": ("import time\ntime.sleep(60)", "TIME_LIMIT", "wall"),
    "a flood": ("import os\nwhile True: os.write(2, b'x' * 65536)", "LIMIT_HIT", "log_flood"),
    "a long result": ("import os\nos.write(3, b' ' * (2**18 + 1))", "LIMIT_HIT", "output_cap"),
    "a slot over its cap": (
        HONEST + "os.ftruncate(os.open('out/config.json', os.O_WRONLY), 2**20 + 1)", "RESULT_REJECTED", None,
    ),
    "a FIFO": ("import os\nos.unlink('out/config.json')", "CELL_CRASHED", ""),
    "a process": ("import os\nos.fork()", "CELL_CRASHED", ""),
    "an older result": (
        HONEST.replace("program.main()", "") +
        "import os\nos.write(3, b'{\"schema\":\"assay-ingest/v1\",\"nonce\":\"' + b'0' * 64 + "
        "b'\",\"refused\":false,\"decisions\":[],\"more\":0}')",
        "RESULT_REJECTED", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_a_first_cell_that_misbehaves_is_an_end_of_its_own_class(site: Site, name: str) -> None:
    program, exit_class, why = ENDS[name]
    site.take_over(program)
    site.cell.limits = {"cpu_s": 1} if why == "cpu" else {"wall_s": 2} if why == "wall" else {"memory_bytes": 2**28}
    stored = site.audit(gpt2(site.folder / "model"))
    assert (site.cell.kinds, site.classes) == (["ingest"], [exit_class])
    if why is not None:
        assert site.cell.outcomes[0].why == (why or None), site.cell.outcomes[0].log_tail
    if stored:
        assert stored["ingest"] is None
        assert [one["outcome"] for one in stored["answers"]] == ["failed"]


def test_two_shards_pass_without_their_index(site: Site) -> None:
    model = gpt2(site.folder / "model")
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    shards = {"a.safetensors": names[:8], "b.safetensors": names[8:]}
    for file, held in shards.items():
        save_file({name: tensors[name] for name in held}, model / file)
    (model / "model.safetensors").unlink()
    places = {name: file for file, held in shards.items() for name in held}
    write(model, "model.safetensors.index.json", {"weight_map": places})
    site.audit(model)
    assert site.classes == ["OK"], site.cell.outcomes[-1].log_tail
    shutil.rmtree(model)
