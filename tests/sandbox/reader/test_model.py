"""A hostile model directory: one expected code each, all problems collected, and its valid neighbour accepted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox.reader import ReaderError, jsonl
from sandbox.reader.digest import tree_sha256
from sandbox.reader.error import shown
from sandbox.reader.model import INDEX, read_model
from sandbox.reader.names import check_path, check_paths, file_rule

from .test_safetensors import pack, tensor

ARCHITECTURES = {
    "schema": "assay-architectures/v1",
    "architectures": {"tiny": {"used": ["hidden_size", "scale", "names"], "ignorable": ["dropout"]}},
    "ignorable": ["transformers_version"],
    "forbidden": ["auto_map"],
}
CONFIG: dict[str, Any] = {"model_type": "tiny", "hidden_size": 8, "scale": 0.5, "dropout": 0.1, "odd": [1]}
TOKENIZER: dict[str, Any] = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}},
    "added_tokens": [{"id": 3, "content": "<s>"}],
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write(tmp_path, "config.json", CONFIG)
    write(tmp_path, "tokenizer.json", TOKENIZER)
    write(tmp_path, "tokenizer_config.json", {"model_max_length": 8, "chat_template": "{{ evil }}"})
    (tmp_path / "model.safetensors").write_bytes(pack({"w": tensor(0, 4)}, b"\0" * 4))
    (tmp_path / "README.md").write_bytes(b"\xff\xfe never read")
    return tmp_path


def write(root: Path, name: str, value: Any) -> None:
    (root / name).write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())


def read(root: Path) -> Any:
    files = {str(path.relative_to(root)): path for path in root.rglob("*") if not path.is_dir()}
    return read_model(files, ARCHITECTURES)


def refusals(root: Path) -> set[tuple[str | None, str | None]]:
    reading = read(root)
    found = {(one.path, one.reason) for one in reading.decisions if one.decision == "refused"}
    assert reading.refused == bool(found)
    return found


def test_twin_is_accepted_and_only_used_keys_reach_a_loader(model: Path) -> None:
    reading = read(model)
    assert not reading.refused
    assert reading.config == {"model_type": "tiny", "hidden_size": 8, "scale": 0.5}
    assert reading.documents == {"tokenizer_config.json": {"model_max_length": 8}}
    assert [one.name for one in reading.tensors] == ["w"]
    dropped = {(one.reason, str(one.at)) for one in reading.decisions if one.decision == "dropped"}
    assert dropped == {
        (None, "{'key': 'dropout'}"),
        ("config_key_unknown", "{'key': 'odd'}"),
        (None, "{'key': 'chat_template'}"),
    }
    accepted = {one.path for one in reading.decisions if one.decision == "accepted"}
    assert accepted == {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "README.md"}
    assert json.dumps([one.to_json() for one in reading.decisions])


def steps(*each: Callable[[Path], object]) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        for one in each:
            one(root)

    return plant


def put(name: str, value: Any) -> Callable[[Path], None]:
    return lambda root: write(root, name, value)


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda root: write(root, "config.json", CONFIG | changes)


def tokenizer(**changes: Any) -> Callable[[Path], None]:
    return lambda root: write(root, "tokenizer.json", TOKENIZER | {"model": TOKENIZER["model"] | changes})


def two_shards(root: Path) -> None:
    (root / "b.safetensors").write_bytes(pack({"v": tensor(0, 4)}, b"\0" * 4))


def index(places: dict[str, str]) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        two_shards(root)
        write(root, "model.safetensors.index.json", {"weight_map": places})

    return plant


GOOD_INDEX = {"w": "model.safetensors", "v": "b.safetensors"}
HOSTILE: dict[str, tuple[Callable[[Path], Any], str | None, str]] = {
    "auto_map at depth 3": (config(odd=[{"x": {"auto_map": {}}}]), "config.json", "config_key_forbidden"),
    "custom code": (config(custom_pipelines={}), "config.json", "config_key_forbidden"),
    "kernel by name": (config(_attn_implementation_internal="x"), "config.json", "config_key_forbidden"),
    "auto_map in a tokenizer": (
        put("tokenizer_config.json", {"auto_map": {"A": "x--y"}}),
        "tokenizer_config.json",
        "config_key_forbidden",
    ),
    "unknown architecture": (config(model_type="evil"), "config.json", "architecture_unknown"),
    "architecture a list": (config(model_type=["tiny"]), "config.json", "config_type"),
    "size a string": (config(hidden_size="8"), "config.json", "config_type"),
    "size 2^40": (config(hidden_size=2**40), "config.json", "config_range"),
    "size 0": (config(hidden_size=0), "config.json", "config_range"),
    "long string": (config(names=["x" * 300]), "config.json", "config_range"),
    "NaN": (put("config.json", b'{"model_type":NaN}'), "config.json", "json_number"),
    "33 levels": (put("config.json", b"[" * 33 + b"]" * 33), "config.json", "json_too_deep"),
    "config a list": (put("config.json", []), "config.json", "config_type"),
    "config over 1 MiB": (put("config.json", b" " * (2**20 + 1)), "config.json", "size_cap"),
    "no config": (lambda root: os.unlink(root / "config.json"), None, "missing_required"),
    "no weights": (lambda root: os.unlink(root / "model.safetensors"), None, "missing_required"),
    "two shards, no index": (two_shards, None, "missing_required"),
    "index out of the model": (index(GOOD_INDEX | {"w": "../config.json"}), INDEX, "index_path"),
    "index swaps shards": (index(GOOD_INDEX | {"w": "b.safetensors"}), INDEX, "index_mismatch"),
    "index leaves out": (index({"w": "model.safetensors"}), INDEX, "index_mismatch"),
    "one tensor in two shards": (
        steps(
            put("z.safetensors", pack({"w": tensor(0, 4)}, b"\0" * 4)),
            put("model.safetensors.index.json", {"weight_map": {"w": "model.safetensors"}}),
        ),
        "z.safetensors",
        "st_duplicate_tensor",
    ),
    "truncated weights": (
        lambda root: os.truncate(root / "model.safetensors", 60), "model.safetensors", "st_short",
    ),
    "pickle": (put("pytorch_model.bin", b"\x80\x04."), "pytorch_model.bin", "not_on_list"),
    "code": (put("modeling_x.py", b"import os"), "modeling_x.py", "not_on_list"),
    "config in a subfolder": (
        steps(lambda root: (root / "x").mkdir(), put("x/config.json", CONFIG)), "x/config.json", "not_on_list",
    ),
    "merge outside the vocabulary": (tokenizer(merges=["a a"]), "tokenizer.json", "tokenizer_merge"),
    "id twice": (tokenizer(vocab={"a": 0, "b": 0, "ab": 1}), "tokenizer.json", "tokenizer_ids"),
    "id negative": (tokenizer(vocab={"a": -1, "b": 0, "ab": 1}), "tokenizer.json", "tokenizer_ids"),
    "token of 2 KiB": (tokenizer(vocab={"a" * 2048: 0}, merges=[]), "tokenizer.json", "tokenizer_size"),
    "unknown component": (tokenizer(type="Pickled"), "tokenizer.json", "tokenizer_component"),
    "component type a list": (tokenizer(type=["BPE"]), "tokenizer.json", "tokenizer_component"),
    "component type an object": (tokenizer(type={}), "tokenizer.json", "tokenizer_component"),
    "component a string": (
        put("tokenizer.json", TOKENIZER | {"normalizer": "NFC"}), "tokenizer.json", "tokenizer_component",
    ),
    "nested component null": (
        put("tokenizer.json", TOKENIZER | {"normalizer": {"type": "Sequence", "normalizers": [None]}}),
        "tokenizer.json",
        "tokenizer_component",
    ),
    "regex of 5 KiB": (
        lambda root: write(
            root, "tokenizer.json", TOKENIZER | {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a" * 5000}}}
        ),
        "tokenizer.json",
        "tokenizer_regex",
    ),
    "added token takes an id": (
        put("tokenizer.json", TOKENIZER | {"added_tokens": [{"id": 0, "content": "x"}]}),
        "tokenizer.json",
        "tokenizer_ids",
    ),
    "merges.txt beyond vocab.json": (
        steps(put("vocab.json", {"a": 0}), put("merges.txt", b"#version: 0.2\na b\n")),
        "merges.txt",
        "tokenizer_merge",
    ),
    "FIFO": (
        steps(lambda root: os.unlink(root / "config.json"), lambda root: os.mkfifo(root / "config.json")),
        "config.json",
        "not_regular",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_each_hostile_model_has_its_code(name: str, model: Path) -> None:
    plant, path, code = HOSTILE[name]
    plant(model)
    assert refusals(model) == {(path, code)}


def test_good_index_is_accepted(model: Path) -> None:
    index(GOOD_INDEX)(model)
    assert refusals(model) == set()


def test_all_problems_are_collected_and_counted(model: Path) -> None:
    config(auto_map={}, hidden_size=0)(model)
    write(model, "evil.bin", b"")
    assert refusals(model) == {
        ("config.json", "config_key_forbidden"), ("config.json", "config_range"), ("evil.bin", "not_on_list"),
    }  # fmt: skip
    write(model, "vocab.json", {f"t{index}": -1 for index in range(500)})
    reading = read(model)
    assert reading.more == 400
    assert reading.decisions[-1].reason == "ingest_limit"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("config.json", None), ("sub/model.safetensors", None), ("a/b/c", "name_depth"),
        ("../config.json", "name_charset"),
        (".hidden", "name_charset"), ("", "name_charset"), ("a//b", "name_depth"), ("/etc", "name_charset"),
        ("a\nb", "name_charset"), ("a\0", "name_charset"), ("x" * 129, "name_charset"), ("\u0430", "name_charset"),
        ("config.json\n", "name_charset"),
    ],
)  # fmt: skip
def test_path_rule(path: str, code: str | None) -> None:
    assert check_path(path) == code


def test_case_clash_and_count_are_found() -> None:
    assert check_paths(["a.txt", "A.txt"]) == [("A.txt", "name_case_clash")]
    assert check_paths(f"f{index}" for index in range(4097))[-1][1] == "too_many_files"


@pytest.mark.parametrize(
    "path", ["model.bin", "model.pt", "model.gguf", "tokenizer.py", "model.safetensors.zip", "sub/config.json"]
)
def test_other_formats_are_not_on_the_list(path: str) -> None:
    assert file_rule(path) == "not_on_list"


def test_untrusted_text_is_shown_in_the_name_alphabet() -> None:
    assert shown("<b>\x1b[0m") == "\\x3cb\\x3e\\x1b\\x5b0m"
    assert len(shown("\u20ac" * 500)) <= 128


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (b'{"a":1}\n{"a":2}\nnot json\n', "json_invalid", 3), (b'{"a":1}\n\n{"a":2}\n', "json_invalid", 2),
        (b"[1]\n", "row_not_object", 1), (b'{"a":"' + b"x" * 100 + b'"}\n', "line_cap", 1),
        (b'{"a":1}\n{"a":1,"a":2}', "json_duplicate_key", 2),
    ],
)  # fmt: skip
def test_bad_row_is_named_by_line(content: bytes, code: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(ReaderError) as caught:
        list(jsonl.rows(path, line_cap=64))
    assert (caught.value.code, caught.value.at) == (code, f"line:{line}")


def test_rows_count_from_one_with_or_without_a_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for content in (b'{"a":0.5}\r\n{"a":2}', b'{"a":0.5}\n{"a":2}\n'):
        path.write_bytes(content)
        assert list(jsonl.rows(path)) == [(1, {"a": 0.5}), (2, {"a": 2})]


def test_tree_digest_depends_on_names_and_bytes_and_not_on_order(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    first = tree_sha256(tmp_path, ["a", "b"])
    assert first == tree_sha256(tmp_path, ["b", "a"])
    assert first != tree_sha256(tmp_path, ["a"])
    (tmp_path / "b").write_text("c")
    assert first != tree_sha256(tmp_path, ["a", "b"])
