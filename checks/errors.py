"""What can go wrong in `checks` itself.

A check that cannot answer raises `checks.check.Refusal`: that is an answer with a reason, not an error. Here is
what is wrong rather than unanswerable:

    ChecksError
    ├── NotAskedFor      a check read evidence that its needs did not name: the check is wrong
    ├── OrderInvalid     the order names an unknown check, version, parameter or file: the caller is wrong
    ├── LoadRefused      the model's files do not make the model that its config describes
    └── OrganismFailed   a planted model could not be trained to show its planted property
"""

from __future__ import annotations

from collections.abc import Mapping


class ChecksError(Exception):
    """Root of all errors of this package."""


class NotAskedFor(ChecksError):
    """A check read something that its needs did not name."""


class OrderInvalid(ChecksError):
    """An order that no cell can carry out; the message names the item and what to do next."""


class OrganismFailed(ChecksError):
    """A planted model did not learn its plant in the tries its recipe allows."""


class LoadRefused(ChecksError):
    """The model cannot be loaded as its config describes it.

    Args:
        code: why, from the ingest table or `load_missing_key`, `load_unexpected_key`, `load_shape`, `load_failed`.
        at: where, by the keys `tensor`, `key`, `path`.
        items: every item of this kind, e.g. all missing tensors; shortened by the reader, never here.
    """

    def __init__(self, code: str, at: Mapping[str, str], items: tuple[str, ...] = ()) -> None:
        where = ", ".join(f"{key} {value}" for key, value in at.items())
        super().__init__(f"{code}: {where}" if where else code)
        self.code = code
        self.at = dict(at)
        self.items = items
