"""The manifest: names count, nothing is skipped, nothing but the canonical form is read."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

import pytest
from assay import canonical, manifest
from assay.errors import MachineFailed, Malformed

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "vectors.json").read_bytes())


def t1(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in VECTORS["T1"]["files"]:
        (directory / name).write_bytes(bytes.fromhex(content))
    return directory


def test_vector_t1(tmp_path: Path) -> None:
    built = manifest.build(t1(tmp_path / "m"))
    assert len(built.data) == VECTORS["T1"]["size"]
    assert built.digest == VECTORS["T1"]["sha256"]
    assert manifest.parse(built.data) == built


@pytest.mark.parametrize("threads", [1, 7])
def test_threads_do_not_change_the_digest(tmp_path: Path, threads: int) -> None:
    directory = t1(tmp_path / "m")
    (directory / "onnx").mkdir()
    (directory / "onnx" / "big.bin").write_bytes(bytes(3_000_001))
    seen, lock = [], threading.Lock()

    def count(read: int) -> None:
        with lock:
            seen.append(read)

    built = manifest.build(directory, threads=threads, on_bytes=count)
    assert sum(seen) == built.size == 3_000_001 + 22 + 8 + 3
    big = next(file for file in built.files if file.path == "onnx/big.bin")
    assert big.sha256 == hashlib.sha256(bytes(3_000_001)).hexdigest()


def test_rename_keeps_root_digest(tmp_path: Path) -> None:
    directory = t1(tmp_path / "m")
    before = manifest.build(directory).digest
    (directory / "tokenizer.json").rename(directory / "tokeniser.json")
    assert manifest.build(directory).digest != before


def test_zero_byte_file_vanishes(tmp_path: Path) -> None:
    directory = t1(tmp_path / "m")
    (directory / "empty.txt").touch()
    assert any(file.path == "empty.txt" and file.size == 0 for file in manifest.build(directory).files)


@pytest.mark.parametrize(
    ("name", "code"),
    [(".gitattributes", "name_charset"), ("sp ace", "name_charset"), ("é", "name_charset"), ("a/b/c", "name_depth"),
     ("CONFIG.JSON", "name_case_clash"), ("x" * 129, "name_charset"), ("\x1b[31m", "name_charset")],
)  # fmt: skip
def test_unfit_names_are_refused_never_skipped(tmp_path: Path, name: str, code: str) -> None:
    directory = t1(tmp_path / "m")
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(b"")
    with pytest.raises(Malformed) as caught:
        manifest.build(directory)
    assert caught.value.code == code
    assert str(caught.value).isprintable()


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    directory = t1(tmp_path / "m")
    (directory / "link").symlink_to(directory / "config.json")
    with pytest.raises(Malformed, match="not_regular"):
        manifest.build(directory)
    with pytest.raises(MachineFailed):  # O_NOFOLLOW: a link put there between listing and hashing
        manifest.hash_file(directory, "link")
    (directory / "link").unlink()
    os.mkfifo(directory / "pipe")
    with pytest.raises(Malformed, match="not_regular"):
        manifest.build(directory)
    with pytest.raises(Malformed, match="not_regular"):  # and does not block for a writer
        manifest.hash_file(directory, "pipe")


def test_an_absent_or_empty_directory_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed, match="cannot read"):
        manifest.build(tmp_path / "nowhere")
    with pytest.raises(Malformed, match="at least one file"):
        manifest.build(tmp_path)


def _files(**change: object) -> dict[str, object]:
    return {"path": "a", "sha256": "0" * 64, "size": 1, **change}


@pytest.mark.parametrize(
    "files",
    [
        [],
        [_files(path="../a")],
        [_files(path="/a")],
        [_files(path="a/../b")],
        [_files(path="a\n")],
        [_files(path="")],
        [_files(path=7)],
        [_files(sha256="0" * 63)],
        [_files(sha256="A" * 64)],
        [_files(size=-1)],
        [_files(size=True)],
        [_files(size="1")],
        [_files(), _files()],
        [_files(path="b"), _files(path="a")],
        [_files(path="A"), _files(path="a")],
        [_files(path="A/x"), _files(path="a/y")],
        [_files(path="a"), _files(path="a/b")],
        [_files(mode=7)],
        [{"path": "a"}],
        ["a"],
        {},
    ],
)
def test_a_manifest_that_could_mislead_is_refused(files: object) -> None:
    with pytest.raises(Malformed):
        manifest.parse(canonical.dumps({"files": files, "format": "assay-manifest/v1"}))


def test_other_bytes_for_the_same_files_are_refused(tmp_path: Path) -> None:
    data = manifest.build(t1(tmp_path / "m")).data
    for mutant in (data + b"\n", b" " + data, data.replace(b'"format"', b'"x":1,"format"'), data[:-1], b"[]"):
        with pytest.raises(Malformed):
            manifest.parse(mutant)


def test_many_files_are_checked_in_linear_time() -> None:
    files = [_files(path=f"f{index:05d}") for index in range(15_000)]
    assert len(manifest.parse(canonical.dumps({"files": files, "format": "assay-manifest/v1"})).files) == 15_000
