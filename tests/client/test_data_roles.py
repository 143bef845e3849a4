"""Data of a role is what the catalogue says: a pickle never, rows where rows are wanted, bytes where bytes are."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assay import media
from assay.client_errors import LocalInputRefused
from assay.preflight import check_data, media_types, shipped_types
from assay.testing import forged_entry


def safetensors(header: dict[str, Any] | None = None) -> bytes:
    told = json.dumps(header or {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return len(told).to_bytes(8, "little") + told + bytes(8)


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, w=np.zeros(3, dtype=np.float32))
    return file.getvalue()


def torch_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"w": 1}))
        archive.writestr("archive/data/0", bytes(8))
    return file.getvalue()


ROWS, DOCUMENT = b'{"a":1}\n{"a":2}\n', b'{\n "a": 0.5\n}\n'


def refusal(folder: Path, name: str, content: bytes, media_type: str) -> str:
    file = folder / name
    file.write_bytes(content)
    with pytest.raises(LocalInputRefused) as caught:
        check_data("sae", file, media_type)
    assert name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("media_type", ["", media.ROWS, media.BYTES, media.JSON, media.SAFETENSORS, "text/x-other"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((f"sae{ending}", safetensors()) for ending in media.PICKLES),
        ("sae.PT", b"anything"),
        *((f"p{protocol}.safetensors", pickle.dumps({"w": [1.0]}, protocol)) for protocol in (2, 3, 4, 5)),
        ("sae.npz", torch_zip()),
        ("rows.jsonl", torch_zip()),
    ],
)
def test_a_pickle_is_refused_whatever_it_is_called_or_sent_as(
    tmp_path: Path, name: str, content: bytes, media_type: str
) -> None:
    said = refusal(tmp_path, name, content, media_type)
    assert "pickle_format" in said
    assert "export the tensors as safetensors" in said


def test_a_safetensors_file_whose_length_looks_like_a_pickle_is_none(tmp_path: Path) -> None:
    """A header of 0x0280 bytes begins with the mark of a pickle of protocol 2."""
    entry: dict[str, Any] = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"a": ""}}
    entry["__metadata__"]["a"] = "x" * (0x0280 - len(json.dumps(entry)))
    content = safetensors(entry)
    assert content[:2] == b"\x80\x02"
    file = tmp_path / "sae.safetensors"
    file.write_bytes(content)
    assert check_data("sae", file, media.BYTES).media_type == media.BYTES


@pytest.mark.parametrize(
    ("name", "content", "media_type", "words"),
    [
        ("sae.safetensors", safetensors(), media.ROWS, ["is a safetensors file", "takes rows"]),
        ("renamed.jsonl", safetensors(), media.ROWS, ["is a safetensors file", "takes rows"]),
        ("sae.npz", npz(), media.ROWS, ["is an npz file", "takes rows"]),
        ("rows.jsonl", ROWS, media.BYTES, ["is text", "takes tensors as safetensors or npz"]),
        ("rows", ROWS, media.BYTES, ["is text", media.BYTES]),
        ("rows.csv", b"a,b\n1,2\n", media.BYTES, ["is text"]),
        ("rows.jsonl", ROWS, media.SAFETENSORS, ["is text", "takes a safetensors file"]),
        ("sae.npz", npz(), media.SAFETENSORS, ["is an npz file", "takes a safetensors file"]),
        ("sae.safetensors", safetensors(), media.NPZ, ["is a safetensors file", "takes an npz file"]),
        ("noise", bytes(range(64)), media.NPZ, ["is of another format"]),
        ("cut.safetensors", safetensors()[:9], media.SAFETENSORS, ["another format"]),
        ("sae.npy", b"\x93NUMPY" + bytes(90), media.BYTES, ["is a npy file"]),
        ("sae.safetensors", b"", media.BYTES, ["is empty"]),
        ("cfg.json", b"", media.JSON, ["is empty", "one document"]),
        ("cfg.json", ROWS, media.JSON, ["not one strict JSON document"]),
        ("cfg.json", b'{"a":1,"a":2}', media.JSON, ["json_duplicate_key"]),
        ("cfg.json", b'{"a":NaN}', media.JSON, ["json_number"]),
        ("cfg.json", safetensors(), media.JSON, ["is a safetensors file", "one JSON document"]),
        ("cfg.json", b'"' + b"x" * 10**6 + b'"', media.JSON, ["1000002 bytes", "at most 1000000"]),
    ],
)
def test_what_a_role_does_not_take_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: bytes, media_type: str, words: list[str]
) -> None:
    said = refusal(tmp_path, name, content, media_type)
    assert all(word in said for word in words), said


def test_a_file_over_its_cap_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "sae.safetensors"
    with file.open("wb") as out:
        out.write(safetensors())
        out.truncate(media.BYTES_MAX + 1)  # a hole: no byte of it is on the disk
    with pytest.raises(
        LocalInputRefused, match=rf"{media.BYTES_MAX + 1} bytes; role sae takes at most {media.BYTES_MAX}"
    ):
        check_data("sae", file, media.BYTES)


@pytest.mark.parametrize(
    ("name", "content", "media_type", "told", "rows"),
    [
        ("sae.safetensors", safetensors(), media.BYTES, media.BYTES, 0),
        ("sae.safetensors", safetensors(), media.SAFETENSORS, media.SAFETENSORS, 0),
        ("sae.npz", npz(), media.BYTES, media.BYTES, 0),
        ("sae.npz", npz(), media.NPZ, media.NPZ, 0),
        ("cfg.json", DOCUMENT, media.JSON, media.JSON, 0),
        ("rows.jsonl", ROWS, media.ROWS, media.ROWS, 2),
        ("rows.jsonl", ROWS, "", media.ROWS, 2),
        ("sae.safetensors", safetensors(), "", "", 0),
        ("noise", safetensors(), "", "", 0),
        ("cfg.json", DOCUMENT, "", "", 0),
        ("noise", bytes(range(64)), media.BYTES, media.BYTES, 0),
        ("rows.jsonl", ROWS, "text/x-other", "text/x-other", 0),
    ],
)
def test_what_a_role_takes_is_taken_and_called_as_the_catalogue_calls_it(
    tmp_path: Path, name: str, content: bytes, media_type: str, told: str, rows: int
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    seen = check_data("sae", file, media_type)
    assert (seen.media_type, seen.rows) == (told, rows)


def test_two_checks_that_disagree_about_a_role_say_nothing_of_it() -> None:
    def entry(name: str, media_type: str) -> Any:
        role = {"name": "x", "required": False, "media_type": media_type, "summary": "."}
        return forged_entry(name=name, data_roles=[role])

    assert media_types([entry("a", media.ROWS), entry("b", media.ROWS)]) == {"x": media.ROWS}
    assert media_types([entry("a", media.ROWS), entry("b", media.BYTES), entry("c", media.ROWS)])["x"] == ""


def test_the_shipped_catalogue_tells_the_roles_of_the_asked_checks() -> None:
    assert shipped_types(["truth_probe"])["pairs"] == media.ROWS
    assert shipped_types(["no_such"]) == {}


def test_the_limits_are_those_of_the_readers_in_the_cell() -> None:
    # Here, because they bring torch along.
    from checks.sae_features.dictionary.formats import CONFIG_MAX
    from checks.sae_features.dictionary.npz import TOTAL_MAX
    from checks.sae_features.dictionary.tensors import PICKLE_ENDINGS

    assert media.JSON_MAX == CONFIG_MAX
    assert media.BYTES_MAX == TOTAL_MAX
    assert set(media.PICKLES) == set(PICKLE_ENDINGS)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sae.safetensors"
    file.write_bytes(safetensors())

    def broken(_path: Path) -> Callable[[], None]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(media, "container_of", broken)
    with pytest.raises(LocalInputRefused, match="cannot be read: Input/output error"):
        check_data("sae", file, media.BYTES)
