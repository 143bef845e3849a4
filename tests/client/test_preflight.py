"""What cannot be audited is refused on the user's machine, naming file, line, key or size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from assay.client_errors import LocalInputRefused
from assay.preflight import check_data, check_model, hash_model, select
from assay.preflight.model import ALLOWED, FILES_MAX, OPS, SCHEMA, rule

from sandbox.reader import feedforward, jsonl, names, safetensors
from sandbox.reader.error import ReaderError
from tests.client.planted import write_model

DECLARATION = {"schema": "assay.feedforward/1", "input": [4], "layers": [{"op": "linear", "weight": "w"}]}


def pickle_only(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def truncated(model: Path) -> None:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:-10])


def too_long(model: Path) -> None:
    with (model / "model.safetensors").open("ab") as file:
        file.write(b"more")


def a_pickle_in_disguise(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\x80\x04\x95" + bytes(range(200)))


def no_header(model: Path) -> None:
    (model / "model.safetensors").write_bytes((20).to_bytes(8, "little") + b"[" * 20)


def few_bytes(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\x01\x00")


def backwards(model: Path) -> None:
    header = b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}'
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def broken_header(model: Path) -> None:
    (model / "model.safetensors").write_bytes((9).to_bytes(8, "little") + b'{"w":1,,}')


def no_config(model: Path) -> None:
    (model / "config.json").unlink()


def auto_map(model: Path) -> None:
    (model / "config.json").write_text('{"model_type":"gpt2","deep":[{"auto_map":{"AutoModel":"mine.Model"}}]}')


def custom_code_in_the_tokenizer(model: Path) -> None:
    (model / "tokenizer_config.json").write_text('{"custom_pipelines":{}}')


def nan(model: Path) -> None:
    (model / "config.json").write_text('{"model_type":"gpt2","rate":NaN}')


def twice(model: Path) -> None:
    (model / "config.json").write_text('{"model_type":"gpt2","model_type":"bert"}')


def no_type(model: Path) -> None:
    (model / "config.json").write_text("{}")


def huge_config(model: Path) -> None:
    (model / "config.json").write_text('{"model_type":"gpt2","x":"' + "a" * 2**20 + '"}')


def linked(model: Path) -> None:
    (model / "model.safetensors").rename(model.parent / "elsewhere")
    (model / "model.safetensors").symlink_to(model.parent / "elsewhere")


def missing_shard(model: Path) -> None:
    (model / "model.safetensors.index.json").write_text('{"weight_map":{"w":"model-00002.safetensors"}}')


def odd_name(model: Path) -> None:
    (model / "my weights.safetensors").write_bytes((model / "model.safetensors").read_bytes())


def case_twins(model: Path) -> None:
    (model / "Model.safetensors").write_bytes((model / "model.safetensors").read_bytes())


def two_declarations(model: Path) -> None:
    (model / "architecture.json").write_text(json.dumps(DECLARATION))


def declared(text: str | None = None, **changes: object) -> Callable[[Path], None]:
    """Return what makes a feed-forward model of a directory, with this text or these changes."""

    def spoil(model: Path) -> None:
        (model / "config.json").unlink()
        (model / "architecture.json").write_text(json.dumps(DECLARATION | changes) if text is None else text)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (pickle_only, ["pytorch_model.bin", "safetensors"]),
        (truncated, ["model.safetensors", "truncated", "expected 134 bytes", "found 124"]),
        (too_long, ["model.safetensors", "expected 134", "found 138"]),
        (a_pickle_in_disguise, ["model.safetensors", "another format"]),
        (no_header, ["model.safetensors", "no JSON header"]),
        (few_bytes, ["model.safetensors", "2 bytes"]),
        (backwards, ["model.safetensors", "tensor:w"]),
        (broken_header, ["model.safetensors", "header"]),
        (no_config, ["no config.json", "architecture.json (MLP, CNN)", "not both"]),
        (two_declarations, ["config.json and architecture.json", "not both"]),
        (declared("{"), ["architecture.json", "json_invalid"]),
        (declared('{"schema":NaN}'), ["architecture.json", "json_number"]),
        (declared("[]"), ["architecture.json", "no object"]),
        (declared(schema="assay.feedforward/2"), ["architecture.json", 'write "schema": "assay.feedforward/1"']),
        (declared(layers=[]), ["architecture.json", "no layers"]),
        (
            declared(layers=[{"op": "relu"}, {"op": "add\x1b"}]),
            ["unknown op add\\x1b in layer 1", "known are avgpool2d"],
        ),
        (declared(layers=[{}]), ["architecture.json", "no op in layer 0"]),
        (declared(layers=["relu"]), ["architecture.json", "no op in layer 0"]),
        (declared(notes="x" * 2**20), ["architecture.json", "1048576"]),
        (auto_map, ["config.json", "auto_map"]),
        (custom_code_in_the_tokenizer, ["tokenizer_config.json", "custom_pipelines"]),
        (nan, ["config.json", "json_number"]),
        (twice, ["config.json", "json_duplicate_key", "model_type"]),
        (no_type, ["config.json", "model_type"]),
        (huge_config, ["config.json", "1048576"]),
        (linked, ["model.safetensors", "link"]),
        (missing_shard, ["model-00002.safetensors", "not there"]),
        (odd_name, ["my weights.safetensors"]),
        (case_twins, ["Model.safetensors", "case"]),
    ],
)
def test_it_is_refused_and_named(tmp_path: Path, spoil: Callable[[Path], None], named: list[str]) -> None:
    model = write_model(tmp_path / "model")
    check_model(model)
    spoil(model)
    with pytest.raises(LocalInputRefused) as caught:
        check_model(model)
    for word in named:
        assert word in str(caught.value)


def test_a_feed_forward_model_is_chosen_without_config_and_tokenizer(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    declared()(model)
    assert check_model(model).files == ("architecture.json", "model.safetensors")


def test_the_declarations_schema_and_ops_are_the_cells() -> None:
    assert feedforward.SCHEMA == SCHEMA
    assert feedforward.OPS.keys() == OPS


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    auto_map(model)
    truncated(model)
    custom_code_in_the_tokenizer(model)
    with pytest.raises(LocalInputRefused) as caught:
        check_model(model)
    assert len(caught.value.problems) == 3


def test_what_is_not_part_of_a_model_is_left_out_by_name(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    for name in (".gitattributes", "training_args.bin", "run.py", "odd name.txt"):
        (model / name).write_text("x")
    (model / ".git").mkdir()
    (model / "a" / "b").mkdir(parents=True)
    (model / "a" / "config.json").write_text("{}")
    (model / "a" / "LICENSE").write_text("x")
    chosen = check_model(model)
    assert chosen.files == ("a/LICENSE", "config.json", "model.safetensors")
    assert chosen.left_out == (
        ".git/", ".gitattributes", "a/b/", "a/config.json", "odd name.txt", "run.py", "training_args.bin",
    )  # fmt: skip


def test_names_are_printed_without_control_characters(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    (model / "evil\x1b[2J\n.safetensors").write_bytes(b"x")
    with pytest.raises(LocalInputRefused) as caught:
        check_model(model)
    assert "\x1b" not in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_no_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalInputRefused, match="nowhere"):
        check_model(tmp_path / "nowhere")


def test_digest_is_that_of_the_chosen_files_only(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    before = hash_model(model).manifest.digest
    (model / "notes.txt").write_text("mine")
    assert hash_model(model).manifest.digest == before
    assert [one.path for one in hash_model(model).manifest.files] == ["config.json", "model.safetensors"]


def test_a_careless_client_may_skip_the_look_into_files(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    auto_map(model)
    assert hash_model(model, preflight=False).manifest.digest


@pytest.mark.parametrize(
    ("lines", "number", "named"),
    [
        (['{"id":1}', '{"id":2}', '{"id":'], 3, "json_invalid"),
        (['{"id":1}', ""], 2, "empty"),
        (["[1]"], 1, "no object"),
        (['{"id":1}', '{"a":1,"a":2}'], 2, "json_duplicate_key"),
        (['{"a":NaN}'], 1, "json_number"),
        (['{"a":1e999}'], 1, "json_number"),
        (['{"a":"\\ud800"}'], 1, "json_surrogate"),
        (['{"id":1}', '{"a":"' + "x" * 2**20 + '"}'], 2, "1048576"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, lines: list[str], number: int, named: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(LocalInputRefused) as caught:
        check_data("pairs", file)
    assert f"pairs.jsonl, line {number}: " in str(caught.value)
    assert named in str(caught.value)


def test_good_data_is_counted_and_fractions_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"p":0.5}\r\n{"p":1e-3}')
    assert check_data("pairs", file).rows == 2


@pytest.mark.parametrize("content", [None, b""])
def test_absent_and_empty_data_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "pairs.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(LocalInputRefused, match=r"pairs\.jsonl"):
        check_data("pairs", file)


def test_bad_lines_are_not_told_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("no\n" * 1000)
    with pytest.raises(LocalInputRefused) as caught:
        check_data("pairs", file)
    assert len(caught.value.problems) == 20


# The cell judges again with its own readers. The client may be laxer, never stricter, and the lists are equal.


def test_the_list_of_files_is_the_cells_list() -> None:
    assert [(pattern, cap) for pattern, cap, _ in ALLOWED] == [(p, cap) for p, _, cap in names.ALLOWED_FILES]
    assert FILES_MAX == names.FILES_MAX
    for pattern, _, _ in ALLOWED:
        for folder in ("", "sub/", "a/b/", ".x/"):
            path = folder + pattern.replace("*", "x")
            assert (rule(path) is None) == (names.file_rule(path) is not None), path


@pytest.mark.parametrize("spoil", [truncated, too_long, a_pickle_in_disguise, no_header, few_bytes, backwards])
def test_what_the_client_refuses_the_cell_refuses_too(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    model = write_model(tmp_path / "model")
    safetensors.read_table(model / "model.safetensors", "model.safetensors")
    spoil(model)
    with pytest.raises(ReaderError):
        safetensors.read_table(model / "model.safetensors", "model.safetensors")


@pytest.mark.parametrize("line", ['{"a":0.5}', "", "[1]", '{"a":1,"a":2}', '{"a":-0}', ' {"a":1}', '{"a":1} ', "{}"])
def test_client_and_cell_agree_on_lines(tmp_path: Path, line: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(line + "\n")

    def refuses(read: Callable[[], object], kind: type[Exception]) -> bool:
        try:
            read()
        except kind:
            return True
        return False

    assert refuses(lambda: check_data("pairs", file), LocalInputRefused) == refuses(
        lambda: list(jsonl.rows(file)), ReaderError
    )


def test_select_looks_at_names_only(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    (model / "config.json").write_text(json.dumps({"auto_map": 1}))
    assert select(model).files == ("config.json", "model.safetensors")
