"""Digests of what will be sent."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from assay import manifest
from assay.client_errors import refuse
from assay.errors import Malformed
from assay.preflight.model import CheckedModel, check_model, select


@dataclass(frozen=True, kw_only=True)
class HashedModel:
    """A model that may be sent, with its digest."""

    chosen: CheckedModel
    manifest: manifest.Manifest


def hash_model(
    directory: Path, *, preflight: bool = True, on_hashed: Callable[[int], None] | None = None
) -> HashedModel:
    """Choose and hash a model's files; nothing is sent.

    Args:
        directory: Hugging Face style model directory.
        preflight: look into the files for what can never be audited; False leaves all of that to the service.
        on_hashed: called from the hashing threads with the number of bytes just read.

    Raises:
        LocalInputRefused: with every problem.
        MachineFailed: a file could not be read.
    """
    return hash_chosen(check_model(directory) if preflight else select(directory), on_hashed)


def hash_chosen(chosen: CheckedModel, on_hashed: Callable[[int], None] | None = None) -> HashedModel:
    """Hash files that were chosen already; as `hash_model`."""
    directory = chosen.directory
    if not chosen.files:
        raise refuse(str(directory), "holds no file of a model")
    try:
        with ThreadPoolExecutor(manifest.HASH_THREADS, thread_name_prefix="hash") as pool:
            entries = pool.map(lambda path: manifest.hash_file(directory, path, on_hashed), chosen.files)
            return HashedModel(chosen=chosen, manifest=manifest.Manifest(tuple(entries)))
    except Malformed as error:
        raise refuse(str(directory), error.message) from None
