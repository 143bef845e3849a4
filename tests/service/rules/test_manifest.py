"""A manifest is one model: the files that say what it is, and its weights."""

from __future__ import annotations

import hashlib

import pytest
from assay.manifest import FileEntry, Manifest

from service.rules.errors import Refusal
from service.rules.manifest import read_manifest


def manifest(*paths: str, size: int = 2) -> bytes:
    digest = hashlib.sha256(b"{}").hexdigest()
    return Manifest(tuple(FileEntry(path=path, sha256=digest, size=size) for path in sorted(paths))).data


@pytest.mark.parametrize("declaration", ["config.json", "architecture.json"])
def test_either_declaration_makes_a_model(declaration: str) -> None:
    found = read_manifest(manifest(declaration, "model.safetensors"))
    assert [file.path for file in found.files] == [declaration, "model.safetensors"]


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (("config.json", "architecture.json"), "two declarations of the model: give config.json (transformers) or"),
        ((), "config.json is missing: give config.json (transformers) or architecture.json (MLP, CNN), not both"),
        (("config.json", "sub/architecture.json"), "'sub/architecture.json' is no file of a model"),
    ],
)
def test_a_model_says_once_what_it_is(paths: tuple[str, ...], words: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_manifest(manifest("model.safetensors", *paths))
    assert words in str(caught.value)


def test_a_declaration_has_a_cap() -> None:
    with pytest.raises(Refusal, match="limit for such a file is 1048576"):
        read_manifest(manifest("architecture.json", "model.safetensors", size=2**20 + 1))
