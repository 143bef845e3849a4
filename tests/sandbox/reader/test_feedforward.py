"""A declared MLP or CNN is accepted as torch would compute it, or refused with the layer or the tensor named."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.reader import strict_json
from sandbox.reader.feedforward import LAYERS_MAX, VALUES_MAX, FeedForwardReading, read_feedforward
from sandbox.reader.model import ModelReading, read_model
from sandbox.reader.safetensors import ITEM_BYTES, TensorEntry
from tests.sandbox.reader.test_safetensors import pack, tensor

Table = dict[str, tuple[int, ...]]
Case = tuple[dict[str, Any], Table]


def norm(prefix: str) -> dict[str, Any]:
    parts = {"weight": "g", "bias": "b", "mean": "m", "var": "v"}
    return {"op": "batchnorm", **{field: f"{prefix}.{part}" for field, part in parts.items()}, "eps": 1e-5}


def norm_table(prefix: str, size: int) -> Table:
    return {f"{prefix}.{part}": (size,) for part in "gbmv"}


def mlp() -> Case:
    layers = [
        {"op": "linear", "weight": "a.w", "bias": "a.b"},
        norm("n"),
        {"op": "relu"},
        {"op": "linear", "weight": "c.w"},
        {"op": "layernorm", "weight": "l.w", "bias": "l.b", "eps": 1e-5},
        {"op": "gelu", "form": "tanh"},
        {"op": "linear", "weight": "d.w", "bias": "d.b"},
    ]
    table: Table = {"a.w": (8, 6), "a.b": (8,), "c.w": (7, 8), "l.w": (7,), "l.b": (7,), "d.w": (4, 7), "d.b": (4,)}
    heads = [{"name": "x", "slice": [0, 1]}, {"name": "y", "slice": [1, 4]}]
    return {"schema": "assay.feedforward/1", "input": [6], "layers": layers, "heads": heads}, table | norm_table("n", 8)


def cnn() -> Case:
    layers = [
        {"op": "conv2d", "weight": "a.w", "bias": "a.b", "stride": 2, "padding": 1},
        norm("n"),
        {"op": "leaky_relu", "slope": 0.1},
        {"op": "maxpool2d", "size": 2},
        {"op": "conv2d", "weight": "c.w"},
        {"op": "silu"},
        {"op": "avgpool2d", "size": 2, "stride": 1},
        {"op": "flatten"},
        {"op": "linear", "weight": "d.w"},
        {"op": "tanh"},
    ]
    table: Table = {"a.w": (4, 3, 3, 3), "a.b": (4,), "c.w": (5, 4, 2, 1), "d.w": (3, 5 * 2 * 3)}
    return {"schema": "assay.feedforward/1", "input": [3, 16, 16], "layers": layers}, table | norm_table("n", 4)


def pooled() -> Case:
    layers = [{"op": "conv2d", "weight": "a.w"}, {"op": "global_avg_pool"}, {"op": "linear", "weight": "d.w"}]
    return {"schema": "assay.feedforward/1", "input": [2, 5, 4], "layers": layers}, {"a.w": (6, 2, 3, 3), "d.w": (2, 6)}


ZOO: Mapping[str, Callable[[], Case]] = {"mlp": mlp, "cnn": cnn, "pooled": pooled}


def entries(table: Table, dtype: str = "F32") -> list[TensorEntry]:
    return [
        TensorEntry(name=name, file="model.safetensors", dtype=dtype, shape=shape, begin=0, end=0)
        for name, shape in table.items()
    ]


def read(case: Case, dtype: str = "F32") -> FeedForwardReading:
    document, table = case
    return read_feedforward(document, entries(table, dtype))


def torch_shapes(document: Mapping[str, Any], table: Table) -> list[tuple[int, ...]]:
    """Return what torch computes on one example, layer by layer: the independent answer."""
    value = torch.zeros(1, *document["input"])
    shapes = []
    for layer in document["layers"]:
        given = {field: torch.zeros(table[name]) for field, name in layer.items() if name in table and field != "op"}
        value = _torch(layer, value, given)
        shapes.append(tuple(value.shape[1:]))
    return shapes


def _torch(layer: Mapping[str, Any], value: torch.Tensor, given: Mapping[str, torch.Tensor]) -> torch.Tensor:
    functional = torch.nn.functional
    op = layer["op"]
    if op == "linear":
        return functional.linear(value, given["weight"], given.get("bias"))
    if op == "conv2d":
        steps = {"stride": layer["stride"], "padding": layer["padding"]}
        return functional.conv2d(value, given["weight"], given.get("bias"), **steps)
    if op == "batchnorm":
        return functional.batch_norm(
            value, given["mean"], given["var"], given["weight"], given["bias"], False, 0.0, layer["eps"]
        )
    if op == "layernorm":
        return functional.layer_norm(value, given["weight"].shape, given["weight"], given["bias"], layer["eps"])
    if op in ("maxpool2d", "avgpool2d"):
        pool = functional.max_pool2d if op == "maxpool2d" else functional.avg_pool2d
        pooled_value: torch.Tensor = pool(value, layer["size"], layer["stride"])
        return pooled_value
    if op == "global_avg_pool":
        return functional.adaptive_avg_pool2d(value, 1).flatten(1)
    return value.flatten(1) if op == "flatten" else value


@pytest.mark.parametrize("name", ZOO)
def test_what_is_declared_is_what_torch_computes(name: str) -> None:
    case = ZOO[name]()
    reading = read(case)
    assert reading.problems == ()
    assert list(reading.shapes) == torch_shapes(reading.document, case[1])


@pytest.mark.parametrize("name", ZOO)
def test_the_canonical_document_reads_as_itself(name: str) -> None:
    case = ZOO[name]()
    before = copy.deepcopy(case[0])
    reading = read(case)
    assert case[0] == before, "the caller's document is left as it is"
    again = read((reading.document, case[1]))
    assert (again.document, again.shapes, again.problems) == (reading.document, reading.shapes, ())
    assert strict_json.loads(json.dumps(reading.document).encode(), cap=2**20, fractions=True) == reading.document


def test_defaults_are_filled_in() -> None:
    document = read(cnn()).document
    assert document["heads"] == [{"name": "out", "slice": [0, 3]}]
    assert document["layers"][3] == {"op": "maxpool2d", "size": 2, "stride": 2}
    assert document["layers"][4] == {"op": "conv2d", "weight": "c.w", "stride": 1, "padding": 0}


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2"])
def test_every_float_dtype_is_taken(dtype: str) -> None:
    assert read(mlp(), dtype).problems == ()


@pytest.mark.parametrize("dtype", sorted(one for one in ITEM_BYTES if "F" not in one))
def test_integers_are_no_weights(dtype: str) -> None:
    problems = read(pooled(), dtype).problems
    assert {(one.code, one.at) for one in problems} == {("st_dtype", "tensor:a.w"), ("st_dtype", "tensor:d.w")}


def layer(index: int, **changes: Any) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        case[0]["layers"][index].update(changes)

    return change


def without(index: int, field: str) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        del case[0]["layers"][index][field]

    return change


def top(**changes: Any) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        case[0].update(changes)

    return change


def table(**changes: Any) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        case[1].update({name.replace("__", "."): shape for name, shape in changes.items()})

    return change


def heads(*each: Any) -> Callable[[Case], None]:
    return top(heads=[{"name": name, "slice": part} for name, part in each])


def insert(index: int, what: Any) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        case[0]["layers"].insert(index, what)

    return change


def both(*each: Callable[[Case], Any]) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        for one in each:
            one(case)

    return change


def unfloated(case: Case) -> None:
    """Leave only what needs no tensor."""
    case[0].update(layers=[{"op": "relu"}], heads=[{"name": "a", "slice": [0, 6]}])
    case[1].clear()


BAD: dict[str, tuple[Callable[[], Case], Callable[[Case], Any], str, str]] = {
    "no schema": (mlp, lambda case: case[0].pop("schema"), "missing_required", "key:schema"),
    "another schema": (mlp, top(schema="assay.feedforward/2"), "architecture_unknown", "key:schema"),
    "schema a list": (mlp, top(schema=[]), "config_type", "key:schema"),
    "unknown key": (mlp, top(notes="x"), "config_key_unknown", "key:notes"),
    "key of code": (mlp, top(auto_map={}), "config_key_unknown", "key:auto_map"),
    "no input": (cnn, lambda case: case[0].pop("input"), "missing_required", "key:input"),
    "input a number": (mlp, top(input=6), "config_type", "key:input"),
    "input of fractions": (mlp, top(input=[6.0]), "config_type", "key:input"),
    "input true": (mlp, top(input=[True]), "config_type", "key:input"),
    "input of nothing": (mlp, top(input=[0]), "config_range", "key:input"),
    "input of two axes": (mlp, top(input=[2, 3]), "config_range", "key:input"),
    "input too large": (cnn, top(input=[3, 2**20, 2**20]), "config_range", "key:input"),
    "no layers": (mlp, lambda case: case[0].pop("layers"), "missing_required", "key:layers"),
    "layers an object": (mlp, top(layers={}), "config_type", "key:layers"),
    "layers empty": (mlp, top(layers=[]), "config_range", "key:layers"),
    "too many layers": (mlp, top(layers=[{"op": "relu"}] * (LAYERS_MAX + 1)), "config_range", "key:layers"),
    "layer a string": (mlp, insert(2, "relu"), "config_type", "key:layers.2"),
    "layer without op": (mlp, insert(2, {}), "missing_required", "key:layers.2.op"),
    "op a number": (mlp, insert(2, {"op": 1}), "config_type", "key:layers.2.op"),
    "unknown op": (mlp, insert(2, {"op": "add"}), "architecture_unknown", "key:layers.2.op"),
    "op in capitals": (mlp, layer(2, op="ReLU"), "architecture_unknown", "key:layers.2.op"),
    "unknown field": (mlp, layer(0, groups=1), "config_key_unknown", "key:layers.0.groups"),
    "field of another op": (mlp, layer(2, slope=0.1), "config_key_unknown", "key:layers.2.slope"),
    "odd field": (mlp, layer(2, **{"<b>": 1}), "config_key_unknown", "key:layers.2.\\x3cb\\x3e"),
    "no weight": (mlp, without(0, "weight"), "missing_required", "key:layers.0.weight"),
    "no mean": (mlp, without(1, "mean"), "missing_required", "key:layers.1.mean"),
    "no eps": (mlp, without(4, "eps"), "missing_required", "key:layers.4.eps"),
    "no form": (mlp, without(5, "form"), "missing_required", "key:layers.5.form"),
    "no slope": (cnn, without(2, "slope"), "missing_required", "key:layers.2.slope"),
    "no size": (cnn, without(3, "size"), "missing_required", "key:layers.3.size"),
    "bias null": (mlp, layer(3, bias=None), "config_type", "key:layers.3.bias"),
    "weight a number": (mlp, layer(3, weight=1), "config_type", "key:layers.3.weight"),
    "eps zero": (mlp, layer(1, eps=0), "config_range", "key:layers.1.eps"),
    "eps negative": (mlp, layer(4, eps=-1e-5), "config_range", "key:layers.4.eps"),
    "eps a string": (mlp, layer(4, eps="1e-5"), "config_type", "key:layers.4.eps"),
    "eps true": (mlp, layer(4, eps=True), "config_type", "key:layers.4.eps"),
    "form unknown": (mlp, layer(5, form="fast"), "config_range", "key:layers.5.form"),
    "slope one": (cnn, layer(2, slope=1), "config_range", "key:layers.2.slope"),
    "slope negative": (cnn, layer(2, slope=-0.1), "config_range", "key:layers.2.slope"),
    "stride zero": (cnn, layer(0, stride=0), "config_range", "key:layers.0.stride"),
    "stride of two axes": (cnn, layer(0, stride=[2, 2]), "config_type", "key:layers.0.stride"),
    "padding negative": (cnn, layer(0, padding=-1), "config_range", "key:layers.0.padding"),
    "padding of the kernel's size": (cnn, layer(0, padding=3), "config_range", "key:layers.0.padding"),
    "padding over the narrow side": (cnn, layer(4, padding=1), "config_range", "key:layers.4.padding"),
    "padding same": (cnn, layer(0, padding="same"), "config_type", "key:layers.0.padding"),
    "pool of nothing": (cnn, layer(3, size=0), "config_range", "key:layers.3.size"),
    "pool over the image": (cnn, layer(3, size=9), "config_range", "key:layers.3.size"),
    "kernel over the image": (pooled, table(a__w=(6, 2, 3, 5)), "config_range", "key:layers.0.weight"),
    "tensor not there": (mlp, layer(3, weight="absent"), "load_missing_key", "key:layers.3.weight"),
    "tensor named twice": (cnn, layer(4, weight="a.w"), "st_duplicate_tensor", "key:layers.4.weight"),
    "tensor twice in a layer": (mlp, layer(1, var="n.m"), "st_duplicate_tensor", "key:layers.1.var"),
    "tensor unnamed": (mlp, table(more=(3,)), "load_unexpected_key", "tensor:more"),
    "bias unnamed": (mlp, without(0, "bias"), "load_unexpected_key", "tensor:a.b"),
    "linear turned round": (mlp, table(a__w=(6, 8)), "st_shape", "key:layers.0.weight"),
    "linear of rank 3": (mlp, table(a__w=(8, 6, 1)), "st_shape", "key:layers.0.weight"),
    "linear of no outputs": (mlp, table(a__w=(0, 6)), "st_shape", "key:layers.0.weight"),
    "linear bias too long": (mlp, table(a__b=(9,)), "st_shape", "key:layers.0.bias"),
    "linear on an image": (cnn, lambda case: case[0]["layers"].pop(7), "st_shape", "key:layers.7"),
    "conv on a flat value": (cnn, insert(4, {"op": "flatten"}), "st_shape", "key:layers.5"),
    "pool on a flat value": (mlp, insert(2, {"op": "maxpool2d", "size": 2}), "st_shape", "key:layers.2"),
    "global pool on a flat value": (mlp, insert(2, {"op": "global_avg_pool"}), "st_shape", "key:layers.2"),
    "conv of rank 2": (cnn, table(c__w=(5, 4)), "st_shape", "key:layers.4.weight"),
    "groups of two": (cnn, table(c__w=(5, 2, 2, 1)), "st_shape", "key:layers.4.weight"),
    "depthwise": (cnn, table(c__w=(4, 1, 2, 1), d__w=(3, 24)), "st_shape", "key:layers.4.weight"),
    "kernel of nothing": (cnn, table(c__w=(5, 4, 0, 1)), "st_shape", "key:layers.4.weight"),
    "conv bias too short": (cnn, table(a__b=(3,)), "st_shape", "key:layers.0.bias"),
    "norm of another width": (mlp, table(n__v=(7,)), "st_shape", "key:layers.1.var"),
    "norm over an image's area": (cnn, table(n__g=(4, 8, 8)), "st_shape", "key:layers.1.weight"),
    "layer norm on an image": (
        cnn,
        both(insert(1, {"op": "layernorm", "weight": "l.w", "bias": "l.b", "eps": 1}), table(l__w=(4,), l__b=(4,))),
        "st_shape",
        "key:layers.1",
    ),
    "linear after the wrong flatten": (cnn, table(d__w=(3, 31)), "st_shape", "key:layers.8.weight"),
    "last value an image": (
        pooled,
        both(lambda case: case[0]["layers"].__delitem__(slice(1, 3)), lambda case: case[1].pop("d.w")),
        "st_shape",
        "key:layers.0",
    ),
    "no weighted layer": (mlp, unfloated, "missing_required", "key:layers"),
    "more values than a machine holds": (
        cnn,
        both(top(input=[3, 2300, 2300]), layer(0, stride=1)),
        "config_range",
        "key:layers.0",
    ),
    "heads an object": (mlp, top(heads={}), "config_type", "key:heads"),
    "heads null": (mlp, top(heads=None), "config_type", "key:heads"),
    "heads empty": (mlp, top(heads=[]), "config_range", "key:heads"),
    "head a list": (mlp, top(heads=[["x", [0, 4]]]), "config_type", "key:heads.0"),
    "head with more": (
        mlp, top(heads=[{"name": "x", "slice": [0, 4], "task": 1}]), "config_key_unknown", "key:heads.0.task",
    ),
    "head without a slice": (mlp, top(heads=[{"name": "x"}]), "missing_required", "key:heads.0.slice"),
    "head without a name": (mlp, top(heads=[{"slice": [0, 4]}]), "missing_required", "key:heads.0.name"),
    "head named by a number": (mlp, heads((1, [0, 4])), "config_type", "key:heads.0.name"),
    "head named by nothing": (mlp, heads(("", [0, 4])), "config_range", "key:heads.0.name"),
    "head with a space": (mlp, heads(("a b", [0, 4])), "config_range", "key:heads.0.name"),
    "head with a newline": (mlp, heads(("a\n", [0, 4])), "config_range", "key:heads.0.name"),
    "head of 65 characters": (mlp, heads(("a" * 65, [0, 4])), "config_range", "key:heads.0.name"),
    "heads of one name": (mlp, heads(("a", [0, 2]), ("a", [2, 4])), "config_range", "key:heads.1.name"),
    "slice of one number": (mlp, heads(("a", [2])), "config_type", "key:heads.0.slice"),
    "slice of fractions": (mlp, heads(("a", [0.0, 2.0])), "config_type", "key:heads.0.slice"),
    "slice empty": (mlp, heads(("a", [2, 2])), "config_range", "key:heads.0.slice"),
    "slice backwards": (mlp, heads(("a", [3, 1])), "config_range", "key:heads.0.slice"),
    "slice from the end": (mlp, heads(("a", [-2, 4])), "config_range", "key:heads.0.slice"),
    "slice beyond the outputs": (mlp, heads(("a", [0, 5])), "config_range", "key:heads.0.slice"),
    "slices overlap": (mlp, heads(("a", [1, 4]), ("b", [0, 2])), "config_range", "key:heads.0.slice"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_each_bad_document_is_refused_and_the_item_named(name: str) -> None:
    make, spoil, code, at = BAD[name]
    case = make()
    spoil(case)
    reading = read(case)
    assert {(one.code, one.at) for one in reading.problems} == {(code, at)}
    assert (reading.document, reading.shapes) == ({}, ())


@pytest.mark.parametrize("document", [None, 1, "x", [], [{}]])
def test_a_document_that_is_no_object_is_refused(document: Any) -> None:
    assert [(one.code, one.at) for one in read_feedforward(document, []).problems] == [("config_type", "")]


def test_all_problems_are_collected() -> None:
    case = cnn()
    both(layer(0, groups=2), layer(2, slope=2), insert(9, {"op": "mish"}), table(c__w=(5, 2, 2, 1)))(case)
    assert {one.at for one in read(case).problems} == {
        "key:layers.0.groups", "key:layers.2.slope", "key:layers.4.weight", "key:layers.9.op",
    }  # fmt: skip


def test_the_largest_model_that_is_allowed_is_allowed() -> None:
    ops = [{"op": "linear", "weight": "w"}, *[{"op": "relu"}] * (LAYERS_MAX - 1)]
    document = {"schema": "assay.feedforward/1", "input": [VALUES_MAX], "layers": ops}
    assert read((document, {"w": (2, VALUES_MAX)})).problems == ()


# Arbitrary documents: read or refused, and what is read is what torch computes.

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.sampled_from([2**24, 2**53 - 1, 0.5, 1e300, "", "a.w", "d.w"]),
    st.sampled_from(["relu", "flatten", "linear", "conv2d", "maxpool2d", "global_avg_pool", "\u20ac"]),
    st.lists(st.integers(0, 5), max_size=4), st.just({}), st.just([{}]),
)  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything inside a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, one in items for path in ((*at, key), *places(one, (*at, key)))]


def parent(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


def mutate(draw: st.DrawFn, case: Case) -> None:
    document, sizes = case
    kind = draw(st.sampled_from(["set", "drop", "swap", "copy", "shape"]))
    path = draw(st.sampled_from(places(document) or [("schema",)]))
    within = parent(document, path)
    if kind == "shape":
        sizes[draw(st.sampled_from(sorted(sizes)))] = tuple(draw(st.lists(st.integers(0, 9), max_size=5)))
    elif kind == "drop" and path[-1] in (within if isinstance(within, dict) else range(len(within))):
        del within[path[-1]]
    elif kind == "set" or not isinstance(within, list):
        within[path[-1]] = copy.deepcopy(draw(ODD))
    elif kind == "swap":
        within.insert(draw(st.integers(0, len(within))), within.pop(path[-1]))
    else:
        within.insert(path[-1], copy.deepcopy(within[path[-1]]))


@st.composite
def mutants(draw: st.DrawFn) -> Case:
    case = ZOO[draw(st.sampled_from(sorted(ZOO)))]()
    for _ in range(draw(st.integers(0, 4))):
        mutate(draw, case)
    return case


@given(mutants())
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_no_document_raises_and_an_accepted_one_is_what_torch_computes(case: Case) -> None:
    reading = read(case)
    if reading.problems:
        assert (reading.document, reading.shapes) == ({}, ())
        assert all(len(one.at) <= 128 + len("tensor:") for one in reading.problems)
        return
    assert read((reading.document, case[1])).document == reading.document
    assert list(reading.shapes) == torch_shapes(reading.document, case[1])


# As a directory of files.


def write(folder: Path, case: Case, dtype: str = "F32") -> Path:
    folder.mkdir(exist_ok=True)
    document, sizes = case
    header: dict[str, Any] = {}
    place = 0
    for name, shape in sizes.items():
        length = torch.Size(shape).numel() * ITEM_BYTES[dtype]
        header[name] = tensor(place, place + length, list(shape), dtype)
        place += length
    (folder / "architecture.json").write_text(json.dumps(document))
    (folder / "model.safetensors").write_bytes(pack(header, bytes(place)))
    return folder


def read_folder(folder: Path) -> ModelReading:
    return read_model({path.name: path for path in folder.iterdir()}, {"architectures": {}})


def refusals(reading: ModelReading) -> set[tuple[str | None, str | None, str]]:
    assert reading.refused == any(one.decision == "refused" for one in reading.decisions)
    told = (one for one in reading.decisions if one.decision == "refused")
    return {(one.path, one.reason, ":".join(map(str, *(one.at or {"": ""}).items()))) for one in told}


@pytest.mark.parametrize("name", ZOO)
def test_a_directory_without_config_and_tokenizer_is_read(name: str, tmp_path: Path) -> None:
    reading = read_folder(write(tmp_path / "model", ZOO[name]()))
    assert not reading.refused, reading.decisions
    assert reading.config == read(ZOO[name]()).document
    assert [one.path for one in reading.decisions] == ["architecture.json", "model.safetensors"]


def test_a_model_has_one_declaration(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", mlp())
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    assert ("architecture.json", "not_on_list", "key:config.json") in refusals(read_folder(folder))


def test_no_declaration_at_all_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", mlp())
    (folder / "architecture.json").unlink()
    assert refusals(read_folder(folder)) == {(None, "missing_required", "key:config.json")}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'{"schema": NaN}', "json_number"), (b'{"input": [1e999]}', "json_number"), (b"", "json_invalid"),
        (b'{"input": [6], "input": [7]}', "json_duplicate_key"), (b" " * (2**20 + 1), "size_cap"),
        (b"[" * 33 + b"]" * 33, "json_too_deep"), (b"[]", "config_type"),
    ],
)  # fmt: skip
def test_what_is_no_strict_json_is_refused(content: bytes, code: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", mlp())
    (folder / "architecture.json").write_bytes(content)
    assert {(path, reason) for path, reason, _ in refusals(read_folder(folder))} == {("architecture.json", code)}


def test_weights_that_cannot_be_read_are_the_only_problem(tmp_path: Path) -> None:
    """Not also every tensor of the declaration, as missing."""
    folder = write(tmp_path / "model", mlp())
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert {(path, code) for path, code, _ in refusals(read_folder(folder))} == {("model.safetensors", "st_tail")}


def test_shards_need_their_index_and_are_read_with_it(tmp_path: Path) -> None:
    document, sizes = mlp()
    folder = write(tmp_path / "model", (document, {name: sizes[name] for name in sizes if name[0] < "c"}))
    other = write(tmp_path / "other", (document, {name: sizes[name] for name in sizes if name[0] >= "c"}))
    (other / "model.safetensors").rename(folder / "second.safetensors")
    index = "model.safetensors.index.json"
    assert refusals(read_folder(folder)) == {(None, "missing_required", f"key:{index}")}
    files = {name: "model.safetensors" if name[0] < "c" else "second.safetensors" for name in sizes}
    (folder / index).write_text(json.dumps({"weight_map": files}))
    assert refusals(read_folder(folder)) == set()
