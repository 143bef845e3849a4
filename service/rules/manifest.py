"""Which manifests may become a model: names and sizes only. What is in the files is a cell's business."""

from __future__ import annotations

import hashlib

from assay import manifest
from assay.errors import Malformed
from assay.manifest import Manifest

from sandbox.reader import names as reader
from service.rules.errors import Violation, refuse_fields
from service.rules.names import shown

FILES_MAX = reader.FILES_MAX
"""Most files of one model: what the ingest cell accepts, so that nothing is taken in that can never be measured."""

BYTES_MAX = manifest.BYTES_MAX

WEIGHTS = ".safetensors"
"""Suffix of the one format of weights."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Suffixes of files that execute code when they are loaded; no reader of them exists here."""

_ONE_OF_TWO = "give config.json (transformers) or architecture.json (MLP, CNN), not both"

_WORDS = {
    "not_on_list": "is no file of a model (config, architecture, tokenizer, README, LICENSE and *.safetensors)",
    "name_charset": "is not made of segments of [A-Za-z0-9._-] without a leading dot",
    "name_depth": "lies deeper than one folder",
    "name_case_clash": "clashes with another name that differs only in case",
    "too_many_files": f"is one too many: a model has at most {FILES_MAX} files",
}


def read_manifest(data: bytes) -> Manifest:
    """Read an uploaded manifest and hold every entry against the allow-list.

    Raises:
        Refusal: BAD_MANIFEST, with one violation per entry that is wrong.
    """
    try:
        found = manifest.parse(data)
    except Malformed as error:
        raise refuse_fields([Violation(_field(error.at), error.message.rstrip("."), "BAD_MANIFEST")]) from None
    wrong = [*_wrong_names(found), *_wrong_sizes(found), *_absent(found)]
    if wrong:
        raise refuse_fields(wrong)
    return found


def weights_sha256(found: Manifest) -> str:
    """Return what a model's weights are known by, whatever their names and the files beside them: the ledger's key.

    It is the SHA-256 over the sorted digests, in hexadecimal and one a line, of the files of weights, each once. Who
    uploads the same weights with another licence, configuration or name has told of the same model; who changes a byte
    of them has not.
    """
    digests = sorted({file.sha256 for file in found.files if file.path.endswith(WEIGHTS)})
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def _wrong_names(found: Manifest) -> list[Violation]:
    index = {file.path: position for position, file in enumerate(found.files)}
    wrong = dict(reader.check_paths(file.path for file in found.files))
    for file in found.files:
        code = reader.file_rule(file.path)
        if code is not None:
            wrong.setdefault(file.path, code)
    return [_violation(index[path], f"{shown(path)!r} {_word(path, code)}") for path, code in wrong.items()]


def _wrong_sizes(found: Manifest) -> list[Violation]:
    wrong = []
    for position, file in enumerate(found.files):
        cap = reader.file_cap(file.path)
        # A name off the list has cap 0 and is told about already.
        if cap and file.size > cap:
            text = f"{shown(file.path)!r} has {file.size} bytes, the limit for such a file is {cap}"
            wrong.append(_violation(position, text))
    return wrong


def _absent(found: Manifest) -> list[Violation]:
    paths = {file.path for file in found.files}
    wrong = []
    declared = paths & {"config.json", "architecture.json"}
    if not declared:
        wrong.append(Violation("files", f"config.json is missing: {_ONE_OF_TWO}", "BAD_MANIFEST"))
    elif len(declared) > 1:
        wrong.append(Violation("files", f"there are two declarations of the model: {_ONE_OF_TWO}", "BAD_MANIFEST"))
    if not any(path.endswith(WEIGHTS) for path in paths):
        wrong.append(Violation("files", "there is no .safetensors file, the one format of weights", "BAD_MANIFEST"))
    return wrong


def _word(path: str, code: str) -> str:
    if code == "not_on_list" and path.lower().endswith(_PICKLES):
        return "is a pickle, which runs code when it is loaded: convert the weights to safetensors"
    return _WORDS.get(code, f"is refused ({code})")


def _violation(position: int, text: str) -> Violation:
    return Violation(f"files[{position}]", text, "BAD_MANIFEST")


def _field(at: str) -> str:
    """Turn a JSON pointer into a field path: "/files/3/sha256" becomes "files[3].sha256"."""
    field = ""
    for part in at.strip("/").split("/"):
        field += f"[{part}]" if part.isdigit() else f".{part}" if field else part
    return shown(field) or "manifest"
