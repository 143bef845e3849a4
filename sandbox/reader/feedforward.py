"""Reads the declaration of a feed-forward model (MLP, CNN), `architecture.json`, against its tensors.

    {"schema": "assay.feedforward/1", "input": [64] or [C, H, W], "layers": [{"op": ...}, ...], "heads": [...]?}

Layers run in sequence. What a layer does not know is refused, never dropped: a field that is left out of the
computation would make another model. Specification: clusterability, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

from sandbox.reader.error import ReaderError, shown
from sandbox.reader.feedforward_heads import OUTPUT, SHOWN_MAX, read_heads
from sandbox.reader.feedforward_shapes import Shape, walk
from sandbox.reader.safetensors import TensorEntry

FILE = "architecture.json"
SCHEMA = "assay.feedforward/1"

LAYERS_MAX = 256
"""Layers of one model (section 3)."""

VALUES_MAX = 2**24
"""Values of one example after any layer, and of its input: 128 MiB in float64. A declaration of a few bytes cannot ask
for more memory than a cell has; the first layers of VGG-16 at 224x224 have 3.2 million."""

FLOATS = frozenset({"F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2"})
"""Dtypes of weights: every one is a real number by value, which integers of an unknown scale are not."""

_TOP = ("schema", "input", "layers", "heads")


@dataclass(frozen=True)
class _Field:
    kind: Literal["tensor", "count", "number", "form"]
    required: bool = True
    default: int | None = None
    low: int = 0
    """Counts start here."""


_TENSOR, _BIAS, _EPS = _Field("tensor"), _Field("tensor", required=False), _Field("number")
_SIZE, _POOL_STRIDE = _Field("count", low=1), _Field("count", required=False, low=1)
_AFFINE = {"weight": _TENSOR, "bias": _TENSOR}

OPS: Mapping[str, Mapping[str, _Field]] = {
    "linear": {"weight": _TENSOR, "bias": _BIAS},
    "conv2d": {
        "weight": _TENSOR,
        "bias": _BIAS,
        "stride": _Field("count", required=False, default=1, low=1),
        "padding": _Field("count", required=False, default=0),
    },
    "batchnorm": {**_AFFINE, "mean": _TENSOR, "var": _TENSOR, "eps": _EPS},
    "layernorm": {**_AFFINE, "eps": _EPS},
    "relu": {},
    "leaky_relu": {"slope": _Field("number")},
    "gelu": {"form": _Field("form")},
    "silu": {},
    "tanh": {},
    "maxpool2d": {"size": _SIZE, "stride": _POOL_STRIDE},
    "avgpool2d": {"size": _SIZE, "stride": _POOL_STRIDE},
    "global_avg_pool": {},
    "flatten": {},
}
"""What a layer may do, and the fields that it then has: no others."""

FORMS = ("erf", "tanh")
"""GELU by the error function, or by its approximation with tanh (Hendrycks & Gimpel, arXiv 1606.08415)."""


@dataclass(frozen=True, kw_only=True)
class FeedForwardReading:
    """What a declaration says, or why it is refused."""

    document: dict[str, Any]
    """Canonical, with every default filled in; it reads as itself. Empty when refused."""
    shapes: tuple[Shape, ...]
    """Shape of one example's values after each layer, [features] or [channels, height, width]; empty when refused."""
    problems: tuple[ReaderError, ...]
    """All of them, in the order of the document; empty when accepted."""


def read_feedforward(document: Any, tensors: Sequence[TensorEntry] | None) -> FeedForwardReading:
    """Hold a declaration against its schema and against the model's tensors.

    Args:
        document: what the file holds, parsed strictly.
        tensors: table of all tensors of the model's files; None where they could not be read, and then only the
            document itself is judged.

    Returns:
        The canonical document and the shapes, or the problems. Codes: config_type, config_range, config_key_unknown,
        missing_required, architecture_unknown (schema, op), load_missing_key, load_unexpected_key,
        st_duplicate_tensor (named by two fields), st_dtype, st_shape.
    """
    if not isinstance(document, dict):
        return _refused([ReaderError("config_type")])
    reader = _Reader(document, None if tensors is None else {one.name: one for one in tensors})
    reader.read()
    if reader.problems or tensors is None:
        return _refused(reader.problems)
    return FeedForwardReading(document=reader.canonical(), shapes=tuple(reader.shapes), problems=())


def _refused(problems: Sequence[ReaderError]) -> FeedForwardReading:
    return FeedForwardReading(document={}, shapes=(), problems=tuple(problems))


@dataclass
class _Reader:
    document: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry] | None
    problems: list[ReaderError] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    """Each with its op and its good fields; one that cannot be known is empty."""
    shapes: list[Shape] = field(default_factory=list)
    input: Shape | None = None
    heads: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, code: str, at: str) -> None:
        self.problems.append(ReaderError(code, at))

    def read(self) -> None:
        """Read from the outside in: keys, layers, tensors, shapes, heads."""
        for key in sorted(self.document.keys() - set(_TOP)):
            self.refuse("config_key_unknown", f"key:{shown(key)}")
        for key in ("schema", "input", "layers"):
            if key not in self.document:
                self.refuse("missing_required", f"key:{key}")
        self.read_schema()
        self.read_input()
        self.read_layers()
        self.read_tensors()
        self.read_shapes()
        self.read_heads()

    def read_schema(self) -> None:
        schema = self.document.get("schema", SCHEMA)
        if schema != SCHEMA:
            self.refuse("architecture_unknown" if isinstance(schema, str) else "config_type", "key:schema")

    def read_input(self) -> None:
        if "input" not in self.document:
            return
        sizes = self.document["input"]
        if not isinstance(sizes, list) or not all(type(one) is int for one in sizes):
            self.refuse("config_type", "key:input")
        elif len(sizes) not in (1, 3) or min(sizes) < 1 or prod(sizes) > VALUES_MAX:
            self.refuse("config_range", "key:input")
        else:
            self.input = tuple(sizes)

    def read_layers(self) -> None:
        layers = self.document.get("layers")
        if not isinstance(layers, list):
            if "layers" in self.document:
                self.refuse("config_type", "key:layers")
        elif not 1 <= len(layers) <= LAYERS_MAX:
            self.refuse("config_range", "key:layers")
        else:
            self.layers = [self.read_layer(f"key:layers.{index}", layer) for index, layer in enumerate(layers)]
            ops = [layer.get("op") for layer in self.layers]
            if None not in ops and "linear" not in ops and "conv2d" not in ops:
                self.refuse("missing_required", "key:layers")

    def read_layer(self, at: str, layer: Any) -> dict[str, Any]:
        """Return the op and those of its fields that are good, defaults filled in."""
        if not isinstance(layer, dict):
            self.refuse("config_type", at)
            return {}
        op = layer.get("op")
        if not isinstance(op, str) or op not in OPS:
            why = "architecture_unknown" if isinstance(op, str) else "config_type"
            self.refuse(why if "op" in layer else "missing_required", f"{at}.op")
            return {}
        for key in sorted(layer.keys() - {"op"} - OPS[op].keys()):
            self.refuse("config_key_unknown", f"{at}.{shown(key)}"[:SHOWN_MAX])
        found: dict[str, Any] = {"op": op}
        for name, rule in OPS[op].items():
            default = found.get("size") if rule is _POOL_STRIDE else rule.default
            value = layer.get(name, default)
            code = _problem(name, rule, value) if name in layer else "missing_required" if rule.required else None
            if code is not None:
                self.refuse(code, f"{at}.{name}")
            elif value is not None:
                found[name] = float(value) if rule.kind == "number" else value
        return found

    def read_tensors(self) -> None:
        """Every tensor is named by exactly one field."""
        if self.tensors is None:
            return
        named: set[str] = set()
        for index, key, name in self.named():
            at = f"key:layers.{index}.{key}"
            if name in named:
                self.refuse("st_duplicate_tensor", at)
                del self.layers[index][key]  # its shape is another field's
            elif name not in self.tensors:
                self.refuse("load_missing_key", at)
            elif self.tensors[name].dtype not in FLOATS:
                self.refuse("st_dtype", f"tensor:{shown(name)}")
            named.add(name)
        if self.problems:  # a tensor may be unnamed because of that mistake: it is told, the tensor is not
            return
        for name in sorted(self.tensors.keys() - named):
            self.refuse("load_unexpected_key", f"tensor:{shown(name)}")

    def named(self) -> list[tuple[int, str, str]]:
        """Return (layer, field, tensor) of every tensor that is named."""
        return [
            (index, key, layer[key])
            for index, layer in enumerate(self.layers)
            for key, rule in OPS.get(layer.get("op", ""), {}).items()
            if rule.kind == "tensor" and key in layer
        ]

    def read_shapes(self) -> None:
        """Follow one example through the layers."""
        if self.tensors is None or self.input is None or not self.layers:
            return
        table = {name: entry.shape for name, entry in self.tensors.items()}
        outputs, problems = walk(self.input, self.layers, table, VALUES_MAX)
        self.problems += problems
        if outputs[-1] is not None and len(outputs[-1]) != 1:
            self.refuse("st_shape", f"key:layers.{len(outputs) - 1}")
        self.shapes = [shape for shape in outputs if shape is not None]

    def read_heads(self) -> None:
        whole = [{"name": OUTPUT, "slice": [0, self.outputs or 1]}]
        self.heads, problems = read_heads(self.document.get("heads", whole), self.outputs)
        self.problems += problems

    @property
    def outputs(self) -> int | None:
        """Number of the model's outputs; None where it is not known."""
        return self.shapes[-1][0] if self.shapes and len(self.shapes) == len(self.layers) else None

    def canonical(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "input": list(self.input or ()), "layers": self.layers, "heads": self.heads}


def _problem(name: str, rule: _Field, value: Any) -> str | None:
    """Return the code of a field's value that is wrong by itself."""
    if rule.kind in ("tensor", "form"):
        if not isinstance(value, str):
            return "config_type"
        return "config_range" if rule.kind == "form" and value not in FORMS else None
    if type(value) is not int and (rule.kind == "count" or type(value) is not float):
        return "config_type"
    good = value > 0
    if rule.kind == "count":
        good = rule.low <= value <= VALUES_MAX
    elif name == "slope":
        good = 0 <= value < 1
    return None if good else "config_range"
