"""Model directories: which files are sent, which are left out, and what can never be audited."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from assay import strict_json
from assay.client_errors import LocalInputRefused, Problem, refuse
from assay.errors import Malformed, shown
from assay.manifest import check_path
from assay.preflight.weights import weights_problem

MIB = 2**20

ALLOWED: tuple[tuple[str, int | None, bool], ...] = (
    ("config.json", MIB, False),
    ("architecture.json", MIB, False),
    ("generation_config.json", MIB, False),
    ("special_tokens_map.json", MIB, False),
    ("tokenizer_config.json", MIB, False),
    ("tokenizer.json", 32 * MIB, False),
    ("vocab.json", 32 * MIB, False),
    ("merges.txt", 32 * MIB, False),
    ("model.safetensors.index.json", 16 * MIB, False),
    ("*.safetensors", None, True),
    ("README.md", 32 * MIB, True),
    ("LICENSE*", 32 * MIB, True),
    ("added_tokens.json", 32 * MIB, True),
    ("chat_template.*", 32 * MIB, True),
    ("tokenizer.model", 32 * MIB, True),
)
"""(file name pattern, most bytes or None, may lie in a subfolder). A copy of the ingest cell's list, which this package
may not import; a test holds the two equal. What is not here is left out, never sent."""

FOREIGN = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".keras", ".gguf", ".ggml", ".onnx", ".msgpack")
"""Suffixes of weights in formats that can run code when they are read, or that no reader here exists for."""

FORBIDDEN = ("auto_map", "custom_*", "_attn_implementation*", "trust_remote_code")
"""Keys, at any depth of any settings file, that ask a loader to run code that comes with the model."""

DECLARATION = "architecture.json"
"""Says layer by layer what a feed-forward model is; `config.json` says what a transformer is."""

ONE_OF_TWO = "give config.json (transformers) or architecture.json (MLP, CNN), not both"

SCHEMA = "assay.feedforward/1"
# fmt: off
OPS = frozenset({
    "linear", "conv2d", "batchnorm", "layernorm", "relu", "leaky_relu", "gelu", "silu", "tanh",
    "maxpool2d", "avgpool2d", "global_avg_pool", "flatten",
})
# fmt: on
"""What a layer may do; a copy of the ingest cell's, held equal by a test, like the schema."""

SETTINGS = ("config.json", "generation_config.json", "special_tokens_map.json", "tokenizer_config.json")
INDEX = "model.safetensors.index.json"
FILES_MAX = 4096


@dataclass(frozen=True, kw_only=True)
class CheckedModel:
    """Which files of a directory make the model."""

    directory: Path
    files: tuple[str, ...]
    """Relative paths, sorted: what is hashed and sent."""
    left_out: tuple[str, ...]
    """Everything else that lies there; not part of the model, not in the report."""


def select(directory: Path) -> CheckedModel:
    """Choose the files by their names alone.

    Raises:
        LocalInputRefused: the directory cannot be read.
    """
    if not directory.is_dir():
        raise refuse(
            str(directory),
            "is no directory; give the folder that holds config.json or architecture.json, and *.safetensors",
        )
    try:
        found = sorted(_walk(directory, ""))
    except OSError as error:
        raise refuse(str(directory), f"cannot be read: {error.strerror}") from None
    files = tuple(path for path in found if rule(path) is not None)
    return CheckedModel(directory=directory, files=files, left_out=tuple(p for p in found if rule(p) is None))


def check_model(directory: Path) -> CheckedModel:
    """Choose the files and look at what can be known about them.

    Raises:
        LocalInputRefused: with every problem found; nothing was sent.
    """
    model = select(directory)
    problems = [*_absent(model), *_odd_names(model)]
    for path in model.files:
        try:
            problems += [Problem(item=str(directory / path), message=text) for text in _wrong(directory, path)]
        except OSError as error:
            problems.append(Problem(item=str(directory / path), message=f"cannot be read: {error.strerror}"))
    if len(model.files) > FILES_MAX:
        problems.append(Problem(item=str(directory), message=f"has more than {FILES_MAX} files of a model"))
    if problems:
        raise LocalInputRefused(problems)
    return model


def rule(path: str) -> tuple[str, int | None, bool] | None:
    """Return the row of `ALLOWED` that a relative path falls under, or None."""
    folder, _, name = path.rpartition("/")
    if check_path(path):
        return None
    row = next((row for row in ALLOWED if fnmatchcase(name, row[0])), None)
    return row if row and (row[2] or not folder) else None


def _walk(directory: Path, prefix: str) -> Iterator[str]:
    """Yield files and links, two levels deep; what lies deeper is yielded as its folder, ending in a slash."""
    with os.scandir(directory / prefix) as entries:
        for entry in entries:
            path = f"{prefix}/{entry.name}" if prefix else entry.name
            if not entry.is_dir(follow_symlinks=False):
                yield path
            elif prefix or entry.name.startswith("."):
                yield f"{path}/"
            else:
                yield from _walk(directory, path)


def _absent(model: CheckedModel) -> Iterator[Problem]:
    declared = {"config.json", DECLARATION} & set(model.files)
    if not declared:
        yield Problem(item=str(model.directory), message=f"has no config.json and no {DECLARATION}; {ONE_OF_TWO}")
    elif len(declared) > 1:
        yield Problem(item=str(model.directory), message=f"has config.json and {DECLARATION}; {ONE_OF_TWO}")
    if any(path.endswith(".safetensors") for path in model.files):
        return
    foreign = [path for path in model.left_out if path.lower().endswith(FOREIGN)]
    for path in foreign:
        yield Problem(
            item=str(model.directory / path),
            message="holds weights in a format that is never read here (it can run code, or has no strict reader): "
            "convert the weights to safetensors, e.g. with save_pretrained(..., safe_serialization=True)",
        )
    if not foreign:
        yield Problem(item=str(model.directory), message="has no *.safetensors file, the one format of weights")


def _odd_names(model: CheckedModel) -> Iterator[Problem]:
    """Weights must not be left out silently because of their name."""
    for path in model.left_out:
        if path.endswith(".safetensors"):
            yield Problem(
                item=str(model.directory / path),
                message="is weights under a name that a manifest cannot hold: at most one folder deep, "
                "letters, digits, dot, dash and underscore, no leading dot; rename or remove it",
            )
    folded: dict[str, str] = {}
    for path in model.files:
        other = folded.setdefault(path.casefold(), path)
        if other != path:
            yield Problem(item=path, message=f"differs only in case from {other}; rename or remove one of them")


def _wrong(directory: Path, path: str) -> Iterator[str]:
    full = directory / path
    if full.is_symlink():
        yield "is a link; copy the directory with its files, e.g. cp -rL"
        return
    if not full.is_file():
        yield "is no regular file; remove it"
        return
    row = rule(path)
    cap = row[1] if row else None
    if cap is not None and full.stat().st_size > cap:
        yield f"has {full.stat().st_size} bytes, the limit for such a file is {cap}"
    elif path.endswith(".safetensors"):
        wrong = weights_problem(full)
        if wrong:
            yield wrong
    elif path == DECLARATION:
        yield from _declaration_problems(full.read_bytes())
    elif path in SETTINGS:
        yield from _settings_problems(full.read_bytes(), path)
    elif path == INDEX:
        yield from _index_problems(full.read_bytes(), directory)


def _declaration_problems(data: bytes) -> Iterator[str]:
    """Say what no service could read; whether layers and tensors fit is left to the cell."""
    try:
        value = strict_json.loads(data, MIB, fractions=True)
    except Malformed as error:
        yield f"is not strict JSON: {error.message} [{error.code} at {error.at or 'the document'}]"
        return
    if not isinstance(value, dict):
        yield "is JSON, but no object"
        return
    if value.get("schema") != SCHEMA:
        yield f'has another schema than "{SCHEMA}"; write "schema": "{SCHEMA}"'
    layers = value.get("layers")
    if not isinstance(layers, list) or not layers:
        yield 'has no layers; write "layers": [{"op": "linear", ...}, ...]'
        return
    for index, layer in enumerate(layers):
        op = layer.get("op") if isinstance(layer, dict) else None
        if not isinstance(op, str) or op not in OPS:
            named = f"the unknown op {shown(op)}" if isinstance(op, str) else "no op"
            yield f"has {named} in layer {index} (counted from 0); known are {', '.join(sorted(OPS))}"


def _settings_problems(data: bytes, path: str) -> Iterator[str]:
    try:
        value = strict_json.loads(data, MIB, fractions=True)
    except Malformed as error:
        yield f"is not strict JSON: {error.message} [{error.code} at {error.at or 'the document'}]"
        return
    if not isinstance(value, dict):
        yield "is JSON, but no object"
        return
    for key in _forbidden_keys(value):
        yield f"holds the key {shown(key)}: code that comes with a model is never run; remove the key"
    if path == "config.json" and not isinstance(value.get("model_type"), str):
        yield "has no model_type; a loader could not know the architecture"


def _forbidden_keys(root: Any) -> list[str]:
    found, pending = [], [root]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            found += [key for key in value if any(fnmatchcase(key, pattern) for pattern in FORBIDDEN)]
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return sorted(set(found))


def _index_problems(data: bytes, directory: Path) -> Iterator[str]:
    try:
        value = strict_json.loads(data, 16 * MIB, fractions=True)
    except Malformed as error:
        yield f"is not strict JSON: {error.message} [{error.code} at {error.at or 'the document'}]"
        return
    shards = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        yield "has no weight_map from tensor names to files"
        return
    for name in sorted(set(shards.values())):
        if check_path(name) or not (directory / name).is_file():
            yield f"names the file {shown(name)}, which is not there; download it too"
