"""Small feed-forward organisms as model directories, with the rows to lesion them on and what is known of them.

Specification: clusterability, sections 3 and 8 (organisms D and E).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from checks.errors import OrganismFailed
from checks.organisms import cnn, nets, small_nets
from checks.organisms.enmeshment import DIMS, block_maps, enmeshment, train
from checks.organisms.nets import Examples
from checks.organisms.small_nets import KnownNet
from checks.organisms.store import MODEL, Say, copied, write_rows
from sandbox.reader.feedforward import FILE, SCHEMA

HEADS = ("left", "right")
"""Of nets that read two digits: the heads' names, and the tasks'."""


@dataclass(frozen=True)
class Declared:
    """A model directory, and what stands beside it."""

    document: Mapping[str, Any]
    """What `architecture.json` holds."""
    tensors: Mapping[str, np.ndarray]
    """Float32."""
    rows: Sequence[Mapping[str, Any]]
    """Of the role `lesion`."""
    params: Mapping[str, Any]
    """Of the check `clusterability`, at which the known answer holds."""
    about: str
    """What is planted and what is known."""
    truth: Sequence[np.ndarray] = ()
    """Group of every node by layer, inputs first; empty where nothing was planted."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is told of a committed net."""

    summary: str
    k: int
    """Clusters that the known answer is about."""
    about: str


NETS: Mapping[str, Known] = {
    "d1": Known(
        summary="two digit nets side by side in one",
        k=2,
        about="""Two nets 64-32-32-10 that share no weight, their hidden neurons shuffled together; each reads its own
digit. Network partition at k=2: both nets found whole. Each cluster is important and specialised: without it its own
task loses .85 to .90 in accuracy, the other nothing.""",
    ),
    "d2": Known(
        summary="one net that reads two digits",
        k=2,
        about="""One net 128-64-64-20 that learned both tasks at once; nothing is planted. Network partition at k=2:
both clusters serve both tasks; neither is found important or specialised.""",
    ),
    "d3": Known(
        summary="one plain digit net, whose clusters specialise all the same",
        k=4,
        about="""A plain net 64-64-64-10; nothing is planted. Network partition at k=4, a task for each digit: two of
four clusters are specialised, so a monolith is no negative control.""",
    ),
    "e1": Known(
        summary="a digit net trained to look clustered inside",
        k=4,
        about="""A net 64-64-64-64-10 whose two hidden matrices were trained to be four blocks (C at least .999), at no
cost in accuracy. Structure is detected; no cluster is specialised.""",
    ),
    "e2": Known(
        summary="a digit net trained to be clustered throughout",
        k=4,
        about="""A net 64-64-64-64-10 whose four matrices were all trained to be four blocks (C at least .998). All
four clusters are specialised; none is important beyond a random set of its size.""",
    ),
}
"""The committed nets (section 8)."""

CNN_ABOUT = """A small CNN: two convolutions with batch norms and two linear layers, trained on digits. Nothing is
planted and no answer is known; it is there to be audited end to end."""

SUMMARIES: Mapping[str, str] = {name: known.summary for name, known in NETS.items()} | {"cnn": "a small CNN on digits"}
"""What each organism of this module is, for the command line."""

SOURCE = """Digits: "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, UCI; CC BY 4.0), those that the
net was not trained on; pixels from 0 to 1."""


def committed(name: str) -> Declared:
    """Return a committed organism: a name of `SUMMARIES`."""
    if name == "cnn":
        return of_cnn(cnn.load())
    known = NETS[name]
    return of_net(name, small_nets.load(name), known.k, known.about)


def of_net(name: str, known: KnownNet, k: int, about: str) -> Declared:
    """Return a plain ReLU net on one digit, or on two with a head for each.

    Args:
        name: what it is called.
        known: the net, and what was planted.
        k: clusters at which the answer is known.
        about: what is known.
    """
    net, last = known.net, len(known.net.weights) - 1
    layers: list[dict[str, Any]] = []
    tensors: dict[str, np.ndarray] = {}
    for weight, bias in zip(net.weights, net.biases, strict=True):
        at = f"layers.{len(layers)}"
        tensors |= {f"{at}.weight": weight, f"{at}.bias": bias}
        layers.append({"op": "linear", "weight": f"{at}.weight", "bias": f"{at}.bias"})
        layers += [{"op": "relu"}] if len(layers) < 2 * last else []
    document: dict[str, Any] = {"schema": SCHEMA, "input": [net.weights[0].shape[1]], "layers": layers}
    if len(net.heads) > 1:
        document["heads"] = [{"name": n, "slice": list(part)} for n, part in zip(HEADS, net.heads, strict=True)]
    rows = _head_rows(small_nets.held_out_pairs()) if len(net.heads) > 1 else _class_rows(small_nets.held_out())
    return Declared(document, tensors, rows, {"k": [k]}, _page(name, about), known.truth)


def enmeshed(lam: float, matrices: Sequence[int], k: int, seed: int, steps: int, say: Say) -> Declared:
    """Train a digit net to look clustered, and tell its C and its accuracy.

    Args:
        lam: weight of C in the objective; 0 trains the plain net.
        matrices: numbers of the matrices that are made clustered.
        k: blocks.
        seed: of the starting weights and the batches.
        steps: batches.
        say: told of C and accuracy in one line.

    Raises:
        OrganismFailed: a value out of range, or the digits are not installed.
    """
    if not 0 <= lam < np.inf:
        raise OrganismFailed(f"--lam {lam}: a number from 0")
    if not 2 <= k <= nets.CLASSES:
        raise OrganismFailed(f"--k {k}: from 2 blocks to {nets.CLASSES}, one for each output")
    for name, value in (("--seed", seed), ("--steps", steps)):
        if value < 0:
            raise OrganismFailed(f"{name} {value}: from 0")
    try:
        data = nets.digits(small_nets.SPLIT_SEED)
    except ModuleNotFoundError:
        raise OrganismFailed("enmeshed: install the development packages, scikit-learn has the digits") from None
    maps = block_maps(DIMS, k, np.random.default_rng(small_nets.MAPS_SEED))
    net = train(DIMS, data.train, lam, matrices, maps, steps=steps, seed=seed)
    c = enmeshment([net.weights[index] for index in matrices], [maps[index] for index in matrices])
    right, which = nets.accuracy(net, data.test)[0], ", ".join(str(index) for index in matrices)
    told = f"C {c:.4f} over matrices {which}; accuracy {right:.3f}"
    say(told)
    sizes = "-".join(str(size) for size in DIMS)
    about = f"A net {sizes} trained towards {k} blocks: lam {lam:g}, seed {seed}, {steps} steps.\n{told}."
    truth = (maps[0].columns, *(at.rows for at in maps))
    return of_net("enmeshed", KnownNet(net, truth), k, about)


def of_cnn(tensors: Mapping[str, np.ndarray]) -> Declared:
    """Return the CNN with these tensors."""
    document = {"schema": SCHEMA, "input": [1, cnn.SIDE, cnn.SIDE], "layers": list(cnn.LAYERS)}
    return Declared(document, tensors, _class_rows(small_nets.held_out()), {"k": [4]}, _page("cnn", CNN_ABOUT))


def write(one: Declared, out: Path) -> Path:
    """Write an organism's folder: `model/`, its rows, parameters, what is known, and the truth where one was planted.

    Raises:
        OrganismFailed: the folder holds something else.
    """
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        (stage / MODEL).mkdir()
        _write_json(stage / MODEL / FILE, one.document)
        tensors = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in one.tensors.items()}
        save_file(tensors, stage / MODEL / "model.safetensors")
        write_rows(stage / "lesion.jsonl", one.rows)
        _write_json(stage / "params.json", one.params)
        (stage / "README.md").write_text(one.about, encoding="utf-8")
        if one.truth:
            _write_json(stage / "truth.json", [layer.tolist() for layer in one.truth])
        return copied(stage, out)


def _head_rows(data: Examples) -> list[dict[str, Any]]:
    """Return every input once for each head, which is its task."""
    return [
        {"id": f"{head}-{number:03d}", "task": head, "head": head, "input": values.tolist(), "label": int(labels[at])}
        for at, head in enumerate(HEADS)
        for number, (values, labels) in enumerate(zip(data.inputs, data.labels, strict=True))
    ]


def _class_rows(data: Examples) -> list[dict[str, Any]]:
    """Return every input once, by digit; each digit is a task."""
    rows = [
        {"id": f"digit-{number:03d}", "task": f"digit{label}", "input": values.tolist(), "label": int(label)}
        for number, (values, label) in enumerate(zip(data.inputs, data.labels[:, 0], strict=True))
    ]
    return sorted(rows, key=lambda row: str(row["task"]))


def _page(name: str, about: str) -> str:
    return f"# {name.upper()}\n\n{about}\n\n{SOURCE}\n"


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
