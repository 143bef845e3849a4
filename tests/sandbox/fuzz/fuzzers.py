"""One fuzzer for each thing that strangers write: what it makes, and another judge of what was accepted.

A fuzzer returns whether its input was accepted. Any exception that is no refusal, and any accept that the other judge
does not share, is a finding and ends the run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from assay import canonical
from safetensors import SafetensorError, deserialize

from sandbox import SandboxError
from sandbox.reader import ReaderError, strict_json
from sandbox.reader.model import read_model
from sandbox.reader.safetensors import read_table
from sandbox.reader.tokenizer import COMPONENTS
from sandbox.result import NOWHERE
from service.rules.errors import Refusal
from service.rules.manifest import read_manifest
from service.worker.hostile import parse_result
from service.worker.ingest import parse_ingest
from tests.sandbox.reader import test_feedforward
from tests.sandbox.reader.test_model import ARCHITECTURES, CONFIG, TOKENIZER
from tests.sandbox.reader.test_safetensors import pack, tensor
from tests.service.worker.scripted import answer, catalogue
from tests.service.worker.test_hostile import ASKED, FACTS, NONCE, good

from .mutations import bytes_of, document_of, tree_of
from .orders import orders, plans

Fuzzer = Callable[[Random, Path], bool]


def plain(data: bytes) -> Any:
    """Return the value as Python's own reader has it, and fail on a key that comes twice: the other judge."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), "a key came twice"
        return dict(pairs)

    return json.loads(data, object_pairs_hook=once)


def keys_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


def strict_documents(chance: Random, _folder: Path) -> bool:
    data = document_of([good(), CONFIG, TOKENIZER, {"n": [1, -5, "\u00e9\\u00e9"]}][chance.randrange(4)], chance)
    try:
        found = strict_json.loads(data, cap=10**6, fractions=bool(chance.randrange(2)))
    except ReaderError:
        return False
    assert found == plain(data)
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
    return True


_FILES = [{"path": name, "sha256": "ab" * 32, "size": 9} for name in ("README.md", "config.json", "model.safetensors")]


def manifests(chance: Random, _folder: Path) -> bool:
    value = {"files": _FILES, "format": "assay-manifest/v1"}
    data = bytes_of(canonical.dumps(value), chance) if chance.randrange(2) else document_of(value, chance)
    try:
        found = read_manifest(data)
    except Refusal:
        return False
    judged = plain(data)
    assert found.data == data, "one manifest has one spelling"
    paths = [file["path"] for file in judged["files"]]
    assert len({path.casefold() for path in paths}) == len(paths)
    for file in judged["files"]:
        assert re.fullmatch(r"([\w-][\w.-]*/)?[\w-][\w.-]*", file["path"], re.ASCII), file
        assert re.fullmatch("[0-9a-f]{64}", file["sha256"])
        assert type(file["size"]) is int
        assert file["size"] >= 0
    return True


def _reading(folder: Path, name: str, data: bytes) -> Any:
    """Read a good model with one file of it replaced; what is good is written once."""
    files = {}
    for path, content in {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": _WEIGHTS}.items():
        files[path] = folder / f"good.{path}"
        if not files[path].exists():
            files[path].write_bytes(content)
    files[name] = folder / "spoilt"
    files[name].write_bytes(data)
    return read_model(files, ARCHITECTURES)


_WEIGHTS = pack({"w": tensor(0, 4)}, b"\0" * 4)


def configs(chance: Random, folder: Path) -> bool:
    name = chance.choice(("config.json", "config.json", "generation_config.json", "tokenizer_config.json"))
    data = document_of(CONFIG | {"names": ["a"], "nested": {"x": [{"y": 1}]}}, chance)
    reading = _reading(folder, name, data)
    if reading.refused:
        return False
    judged = plain(data)
    banned = re.compile(r"auto_map|custom_.*|_attn_implementation.*|trust_remote_code", re.DOTALL)
    assert not any(banned.fullmatch(key) for key in keys_of(judged))
    assert reading.config.keys() <= {"model_type", "hidden_size", "scale", "names"}
    if name == "config.json":
        assert all(judged[key] == value for key, value in reading.config.items())
        assert judged["model_type"] == "tiny"
        assert 1 <= judged.get("hidden_size", 1) <= 2**20
    canonical_again = json.dumps(reading.config, allow_nan=False).encode()
    assert strict_json.loads(canonical_again, cap=2**22, fractions=True) == reading.config
    return True


_TOKENIZERS: tuple[Any, ...] = (
    TOKENIZER,
    {"model": {"type": "Unigram", "vocab": [["a", -1.5], ["b", 0]], "unk_id": 0}, "normalizer": {"type": "NFC"}},
    {
        "model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "a": 1}},
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\s"}}, {"type": "Digits"}]},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "_"}, "content": " "}]},
    },
)  # fmt: skip


def tokenizers(chance: Random, folder: Path) -> bool:
    data = document_of(chance.choice(_TOKENIZERS), chance)
    reading = _reading(folder, "tokenizer.json", data)
    if reading.refused:
        return False
    judged = plain(data)
    _components(judged.get("normalizer"), judged.get("pre_tokenizer"), judged.get("decoder"))
    model = judged["model"]
    assert model.get("type") in {*COMPONENTS, None}
    vocabulary = model.get("vocab", {})
    if isinstance(vocabulary, dict):
        ids = list(vocabulary.values())
        assert all(type(one) is int and one >= 0 for one in ids)
        assert len(set(ids)) == len(ids)
        for merge in model.get("merges") or []:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            assert {left, right, left + right} <= vocabulary.keys()
    else:
        assert len({pair[0] for pair in vocabulary}) == len(vocabulary)
    return True


def _components(*parts: Any) -> None:
    """Judge components by their form, from the inside out."""
    for part in parts:
        if isinstance(part, list):
            _components(*part)
        elif isinstance(part, dict):
            assert part.get("type") in COMPONENTS, part
            if isinstance(part.get("pattern"), dict):
                assert len(part["pattern"].get("Regex", "").encode()) <= 4096
            _components(*(part.get(key) for key in ("normalizers", "pretokenizers", "processors", "decoders")))


_HEADERS = tuple(
    pack(header, b"\0" * size)
    for header, size in (
        ({"a": tensor(0, 4), "bb": tensor(4, 12, [1, 2], "F32"), "__metadata__": {"k": "v"}}, 12),
        ({"a": tensor(0, 0, [0]), "b": tensor(0, 8, [], "F64"), "c.d": tensor(8, 9, [1], "BOOL")}, 9),
        ({"x": tensor(0, 30, [1, 3, 5], "BF16")}, 30),
    )
)


def headers(chance: Random, folder: Path) -> bool:
    data = bytes_of(chance.choice(_HEADERS), chance)
    path = folder / "m.safetensors"
    path.write_bytes(data)
    try:
        ours = {one.name: (one.dtype, one.shape, one.end - one.begin) for one in read_table(path, "m.safetensors")}
    except ReaderError:
        return False
    read: Any = deserialize
    try:
        theirs = read(data)
    except SafetensorError as error:
        raise AssertionError(f"accepted, and refused by the library: {error}") from error
    assert ours == {name: (one["dtype"], tuple(one["shape"]), len(one["data"])) for name, one in theirs}
    return True


def declarations(chance: Random, folder: Path) -> bool:
    document, table = chance.choice(list(test_feedforward.ZOO.values()))()
    data = document_of(document, chance)
    shapes = tree_of([list(shape) for shape in table.values()], chance) if not chance.randrange(4) else None
    if shapes is not None:
        good_shapes = isinstance(shapes, list) and len(shapes) == len(table)
        if not good_shapes or not all(_is_shape(shape) for shape in shapes):
            return False
        table = dict(zip(table, map(tuple, shapes), strict=True))
    try:
        value = strict_json.loads(data, cap=2**20, fractions=True)
    except ReaderError:
        return False
    reading = test_feedforward.read((value, table))
    if reading.problems:
        assert reading.document == {}
        return False
    assert list(reading.shapes) == test_feedforward.torch_shapes(reading.document, table)
    again = test_feedforward.read((reading.document, table))
    assert (again.document, again.problems) == (reading.document, ())
    return True


def _is_shape(shape: Any) -> bool:
    """Say whether torch could hold a tensor of this shape here; the header's reader says the rest."""
    good_sizes = isinstance(shape, list) and all(type(one) is int and 0 <= one < 100 for one in shape)
    return good_sizes and len(shape) <= 6


_ENTRY = catalogue().entry("scripted")


def results(chance: Random, _folder: Path) -> bool:
    value = good() | chance.choice(({}, {"facts": FACTS}))
    value["answers"] = [answer()]
    data = document_of(value, chance)
    assert _ENTRY is not None
    try:
        found = parse_result(data, nonce=NONCE, asked=ASKED, promises={"scripted": _ENTRY}, paths={"config.json"})
    except SandboxError:
        return False
    judged = plain(data)
    assert judged["nonce"] == NONCE
    assert not NOWHERE & keys_of(judged)
    assert len(found.answers) == 1
    assert (found.answers[0].check, dict(found.answers[0].params)) == ("scripted", {"seeds": 3, "bold": True})
    told = json.dumps([one.to_json() for one in found.answers], ensure_ascii=False)
    assert "\x1b" not in told
    assert "\ud800" not in told
    assert found.output_bytes > 0
    return True


def ingest_results(chance: Random, _folder: Path) -> bool:
    decisions = [
        {"path": "config.json", "decision": "accepted", "reason": None, "at": None},
        {"path": "config.json", "decision": "dropped", "reason": "config_key_unknown", "at": {"key": "odd"}},
    ]
    value = {"schema": "assay-ingest/v1", "nonce": NONCE, "refused": False, "decisions": decisions, "more": 0}
    data = document_of(value, chance)
    try:
        found = parse_ingest(data, nonce=NONCE, paths={"config.json"})
    except SandboxError:
        return False
    judged = plain(data)
    assert [one.to_json() for one in found.decisions] == judged["decisions"]
    assert found.refused == any(one["decision"] == "refused" for one in judged["decisions"])
    assert {one.path for one in found.decisions} <= {"config.json", None}
    return True


FUZZERS: Mapping[str, Fuzzer] = {
    "strict JSON": strict_documents,
    "manifests": manifests,
    "configs": configs,
    "tokenizers": tokenizers,
    "safetensors headers": headers,
    "architecture.json": declarations,
    "orders": orders,
    "plans": plans,
    "results": results,
    "ingest results": ingest_results,
}
