"""Reads a model's files as hostile and says, for each, accepted, dropped or refused.

All problems are collected, not the first alone, so that a sender corrects a model once. Nothing is executed and
nothing is repaired; the weights are never rewritten.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sandbox.reader import names, strict_json
from sandbox.reader.config import check_forbidden, split_config
from sandbox.reader.error import ReaderError, shown, unopened
from sandbox.reader.feedforward import FILE as DECLARATION
from sandbox.reader.feedforward import read_feedforward
from sandbox.reader.safetensors import TensorEntry, read_table
from sandbox.reader.tokenizer import check_merges, check_tokenizer, check_vocabulary

PER_FILE_MAX = 100
IN_ALL_MAX = 1000
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
DROPPED_SETTINGS = frozenset({"chat_template"})
"""A template is a program; no check needs one."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What became of a file, or of one key of it."""

    path: str | None
    """None: the model as a whole."""
    decision: Literal["accepted", "dropped", "refused"]
    reason: str | None = None
    at: Mapping[str, str | int] | None = None
    """{kind: value} with kind one of key, tensor, line, offset."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values as they stand in the report."""
        at = dict(self.at) if self.at else None
        return {"path": self.path, "decision": self.decision, "reason": self.reason, "at": at}


@dataclass(frozen=True, kw_only=True)
class ModelReading:
    """What a model's files say, as far as it was accepted."""

    config: dict[str, Any]
    """Of a transformer its keys that the architecture uses; of a feed-forward model the whole canonical
    `architecture.json`, known by its key `schema`. Empty when refused before that was known."""
    documents: dict[str, dict[str, Any]]
    """The other settings files by path, without what was dropped."""
    decisions: tuple[Decision, ...]
    tensors: tuple[TensorEntry, ...]
    """Sorted by name."""
    refused: bool
    more: int
    """Decisions left out because there were too many; none of them is the only refusal."""


@dataclass
class _Reader:
    files: Mapping[str, Path]
    architectures: Mapping[str, Any]
    indexed: bool
    config: dict[str, Any] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    vocabulary: dict[str, Any] | None = None
    tensors: dict[str, TensorEntry] = field(default_factory=dict)
    found: dict[str | None, list[Decision]] = field(default_factory=dict)

    def refuse(self, path: str | None, error: ReaderError) -> None:
        self.note(path, "refused", error.code, error.at)

    def note(self, path: str | None, decision: Literal["dropped", "refused"], reason: str | None, at: str) -> None:
        self.found.setdefault(path, []).append(
            Decision(path=None if path is None else shown(path), decision=decision, reason=reason, at=_at(at))
        )

    def read(self) -> None:
        """Read every file in an order in which later ones may lean on earlier ones."""
        for path, code in names.check_paths(self.files):
            self.note(path, "refused", code, "")
        self.check_declaration()
        readers: dict[str, Callable[[str], None]] = {
            "config": self.read_config,
            "settings": self.read_settings,
            "vocabulary": self.read_vocabulary,
            "merges": self.read_merges,
            "tokenizer": self.read_tokenizer,
            "weights": self.read_weights,
            "index": self.read_index,
            "architecture": self.read_architecture,
        }
        kinds = {path: names.file_kind(path) for path in self.files}
        for path in (one for one, kind in kinds.items() if kind is None and names.check_path(one) is None):
            self.note(path, "refused", "not_on_list", "")
        for kind, reader in readers.items():
            for path in sorted(one for one, its in kinds.items() if its == kind and one not in self.found):
                try:
                    reader(path)
                except ReaderError as error:
                    self.refuse(path, error)
        self.check_weights(sorted(one for one, kind in kinds.items() if kind == "weights"))

    def check_declaration(self) -> None:
        """A model says once what it is: as a transformer, or layer by layer."""
        if CONFIG in self.files and DECLARATION in self.files:
            self.note(DECLARATION, "refused", "not_on_list", f"key:{CONFIG}")
        elif CONFIG not in self.files and DECLARATION not in self.files:
            self.note(None, "refused", "missing_required", f"key:{CONFIG}")

    def load(self, path: str) -> Any:
        return strict_json.loads(self.take(path), cap=names.file_cap(path) or 0, fractions=True)

    def take(self, path: str) -> bytes:
        return read_capped(self.files[path], names.file_cap(path) or 0)

    def read_config(self, path: str) -> None:
        document = self.load(path)
        if not isinstance(document, dict):
            raise ReaderError("config_type")
        self.config, dropped, problems = split_config(document, self.architectures)
        for error in problems:
            self.refuse(path, error)
        for key, code in dropped:
            self.note(path, "dropped", code, f"key:{shown(key)}")

    def read_settings(self, path: str) -> None:
        document = self.load(path)
        if not isinstance(document, dict):
            raise ReaderError("config_type")
        for error in check_forbidden(document, tuple(self.architectures.get("forbidden", ()))):
            self.refuse(path, error)
        for key in sorted(DROPPED_SETTINGS & document.keys()):
            self.note(path, "dropped", None, f"key:{key}")
        self.documents[path] = {key: value for key, value in document.items() if key not in DROPPED_SETTINGS}

    def read_vocabulary(self, path: str) -> None:
        document = self.load(path)
        for error in check_vocabulary(document):
            self.refuse(path, error)
        self.vocabulary = document if isinstance(document, dict) else None

    def read_merges(self, path: str) -> None:
        try:
            lines = self.take(path).decode("utf-8", "strict").split("\n")
        except UnicodeDecodeError as error:
            raise ReaderError("tokenizer_merge", f"offset:{error.start}") from None
        for problem in check_merges(lines, self.vocabulary):
            self.refuse(path, problem)

    def read_tokenizer(self, path: str) -> None:
        for error in check_tokenizer(self.load(path)):
            self.refuse(path, error)

    def read_weights(self, path: str) -> None:
        for entry in read_table(self.files[path], path):
            if self.tensors.setdefault(entry.name, entry) is not entry:
                self.refuse(path, ReaderError("st_duplicate_tensor", f"tensor:{entry.name}"))

    def read_index(self, path: str) -> None:
        document = self.load(path)
        places = document.get("weight_map") if isinstance(document, dict) else None
        if not isinstance(places, dict) or not all(isinstance(one, str) for one in places.values()):
            raise ReaderError("index_path", "key:weight_map")
        for name, place in places.items():
            if place not in self.files or names.file_kind(place) != "weights":
                self.refuse(path, ReaderError("index_path", f"tensor:{shown(name)}"))
            elif name not in self.tensors or self.tensors[name].file != place:
                self.refuse(path, ReaderError("index_mismatch", f"tensor:{shown(name)}"))
        for name in sorted(self.tensors.keys() - places.keys()):
            self.refuse(path, ReaderError("index_mismatch", f"tensor:{name}"))

    def read_architecture(self, path: str) -> None:
        """Read after all weights; where those are refused, the tensors' absence is no second problem."""
        broken = any(names.file_kind(one) == "weights" for one in self.found if one is not None)
        reading = read_feedforward(self.load(path), None if broken else tuple(self.tensors.values()))
        for error in reading.problems:
            self.refuse(path, error)
        self.config = reading.document

    def check_weights(self, weights: list[str]) -> None:
        if not weights:
            self.note(None, "refused", "missing_required", "key:model.safetensors")
        elif self.indexed and len(weights) > 1 and INDEX not in self.files:
            self.note(None, "refused", "missing_required", f"key:{INDEX}")


def read_model(files: Mapping[str, Path], architectures: Mapping[str, Any], *, indexed: bool = True) -> ModelReading:
    """Read every file of a model.

    Args:
        files: manifest path to where its bytes lie.
        architectures: the whole document of `architectures.json`.
        indexed: whether several files of weights need an index. A cell that is given a table of all tensors gets none.

    Returns:
        Accepted contents, and every decision, the refusals first within each file.
    """
    reader = _Reader(files, architectures, indexed)
    reader.read()
    refused = any(one.decision == "refused" for found in reader.found.values() for one in found)
    decisions, more = _trimmed(reader)
    return ModelReading(
        config=reader.config,
        documents=reader.documents,
        decisions=decisions,
        tensors=tuple(reader.tensors[name] for name in sorted(reader.tensors)),
        refused=refused,
        more=more,
    )


def read_capped(path: Path, cap: int) -> bytes:
    """Return a regular file's bytes.

    Raises:
        ReaderError: not_regular, size_cap, file_unreadable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ReaderError("not_regular")
            data = stream.read(cap + 1)
    except OSError as error:
        raise unopened(error) from None
    if len(data) > cap:
        raise ReaderError("size_cap", f"offset:{cap}")
    return data


def _trimmed(reader: _Reader) -> tuple[tuple[Decision, ...], int]:
    """Return at most 100 decisions per file and 1000 in all, refusals first, and how many were left out."""
    kept: list[Decision] = []
    more = 0
    for path in (None, *sorted(reader.files)):
        found = sorted(reader.found.get(path, []), key=_dropped_last)
        if path is not None and not any(one.decision == "refused" for one in found):
            found = [Decision(path=shown(path), decision="accepted"), *found]
        kept += found[:PER_FILE_MAX]
        more += max(0, len(found) - PER_FILE_MAX)
    if len(kept) > IN_ALL_MAX:
        more += len(kept) - IN_ALL_MAX
        kept = sorted(kept, key=_dropped_last)[:IN_ALL_MAX]
    if more:
        kept.append(Decision(path=None, decision="dropped", reason="ingest_limit", at={"line": more}))
    return tuple(kept), more


def _dropped_last(decision: Decision) -> bool:
    return decision.decision != "refused"


def _at(text: str) -> dict[str, str | int] | None:
    kind, _, value = text.partition(":")
    if not kind:
        return None
    return {kind: int(value) if kind in ("line", "offset") else value}
