"""V09: the reader's own copy of the model, hashed and compared both ways."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from assay.errors import CouldNotTell, Malformed, Wrong, shown
from assay.manifest import HASH_THREADS, hash_file
from assay.verify.case import Case, NotAsked

BESIDE = (".md", ".jsonl", ".csv", ".parquet", ".log", ".pdf", ".png", ".jpg")
"""Suffixes of files that lie beside a model and that no loader reads. Everything else that was not audited is wrong:
weights in any format, code, and every settings or tokenizer file, because its mere presence changes what is loaded."""

BESIDE_NAMES = ("LICENSE", "LICENSE.txt", "NOTICE", "NOTICE.txt", "COPYING", "USE_POLICY")
"""Names, whole, of texts without a suffix of their own; those ending in .md are in `BESIDE`."""

HIDDEN = (".gitattributes", ".gitignore", ".gitmodules", ".DS_Store")
"""Hidden files that version control and file managers leave."""

HIDDEN_FOLDERS = (".git/",)
"""Where version control keeps its own."""

HUB_FOLDER = ".cache/huggingface/"
HUB_NAMES = (".metadata", ".lock", "/.gitignore", "/CACHEDIR.TAG")
"""What the model hub's download tool writes below its folder, by the end of its path."""

LOADABLE = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".keras", ".gguf", ".ggml", ".onnx"),
    *(".msgpack", ".npy", ".npz", ".tflite", ".pb", ".mlmodel", ".joblib", ".model", ".tiktoken", ".so", ".py", ".pyc"),
    *(".json", ".jinja", ".yaml", ".yml", ".toml"),
)
"""Suffixes of weights, code, tokenizers and settings: never beside a model, whatever their folder and the rest of their
name. Left out: what only version control itself writes below .git/, which has no suffix."""

PATHS_MAX = 100_000
"""A directory with more files is not a model; looking on would only take time."""


def check_model_files(case: Case) -> str:
    """V09: hash every file of the manifest, and find what else a loader could read."""
    if case.model_dir is None:
        raise NotAsked("model files not checked (pass --model DIR)")
    from concurrent.futures import ThreadPoolExecutor  # loads logging, for those alone who have the model

    assert case.manifest is not None
    owed = {file.path: file for file in case.manifest.files}
    present = _present(case.model_dir)
    if missing := sorted(owed.keys() - present):
        raise Wrong(f"{len(missing)} model files are missing, the first is {shown(missing[0])}")
    extra = sorted(present - owed.keys())
    if loadable := [path for path in extra if not _is_beside(path)]:
        raise Wrong(f"{len(loadable)} files are no part of the audited model, the first is {shown(loadable[0])}")
    directory = case.model_dir
    try:
        with ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="hash") as pool:
            found = list(pool.map(lambda path: hash_file(directory, path), owed))
    except Malformed as error:
        raise Wrong(f"the model directory is not the audited model: {error}") from None
    for file in found:
        if owed[file.path] != file:
            raise Wrong(f"{shown(file.path)} differs: {file.sha256[:16]}…, audited was {owed[file.path].sha256[:16]}…")
    if extra:
        case.open_questions.append(f"{len(extra)} files beside the model, which no loader reads: {shown(extra[0])}")
    return f"{len(found)} model files hashed, {sum(file.size for file in found)} bytes, all equal"


def _is_beside(path: str) -> bool:
    name = path.rpartition("/")[2]
    if name.lower().endswith(LOADABLE):
        return False
    if any(segment.startswith(".") for segment in path.split("/")):
        of_hub = path.startswith(HUB_FOLDER) and path.endswith(HUB_NAMES)
        return path in HIDDEN or path.startswith(HIDDEN_FOLDERS) or of_hub
    return name.lower().endswith(BESIDE) or name in BESIDE_NAMES


def _present(directory: Path) -> set[str]:
    try:
        found = set()
        for path in _walk(directory, ""):
            found.add(path)
            if len(found) > PATHS_MAX:
                raise CouldNotTell(f"{shown(str(directory))} holds more than {PATHS_MAX} files: no model directory")
        return found
    except OSError as error:
        raise CouldNotTell(f"cannot read the model directory: {error.strerror}") from None


def _walk(directory: Path, prefix: str) -> Iterator[str]:
    with os.scandir(directory / prefix) as entries:
        for entry in entries:
            path = f"{prefix}/{entry.name}" if prefix else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(directory, path)
            elif entry.is_symlink():
                raise Wrong(f"{shown(path)} is a link; put the file itself there")
            else:
                yield path
