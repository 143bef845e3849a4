"""An answer held against its check's catalogue entry: every name, word and reason is one that was promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from assay import promise as promises
from assay.errors import Malformed
from assay.result import Answer

from sandbox.errors import ResultRejected


class Promise(Protocol):
    """What the catalogue says of one check; `assay.catalogue.CheckEntry` is one."""

    @property
    def raw(self) -> Mapping[str, Any]:
        """The entry as plain JSON."""
        ...

    @property
    def version(self) -> str:
        """Version of the check."""
        ...

    @property
    def code_sha256(self) -> str:
        """Digest of the code that answers."""
        ...

    @property
    def sha256(self) -> str:
        """Digest of the entry itself."""
        ...


@dataclass(frozen=True)
class Entry:
    """The simplest promise: an entry's plain JSON and its digest."""

    raw: Mapping[str, Any]
    sha256: str

    @property
    def version(self) -> str:
        """See `Promise.version`."""
        return str(self.raw["version"])

    @property
    def code_sha256(self) -> str:
        """See `Promise.code_sha256`."""
        return str(self.raw["code_sha256"])


def check_promise(answer: Answer, promise: Promise, at: str) -> None:
    """Refuse an answer that says what its check never promised to say (`assay.promise`), or calls itself valid wrongly.

    Args:
        answer: a well-formed answer.
        promise: its check's entry.
        at: where the answer stands, for the error.

    Raises:
        ResultRejected: free_text for a word that is not in the catalogue, result_schema for a wrong form,
            host_field_disagrees where `valid` does not follow from the controls.
    """
    if answer.reason is not None:
        _check_reason(answer, promise, at)
    try:
        promises.check_promise(answer.to_json(), promise.raw)
    except Malformed as error:
        raise ResultRejected(error.code, f"{at}{error.at.replace('/', '.')}") from None
    promised = {one["name"] for one in promise.raw["controls"]}
    whole = promised <= {control.name for control in answer.controls} and all(one.held for one in answer.controls)
    if answer.valid != (answer.measured is not None and whole):
        raise ResultRejected("host_field_disagrees", f"{at}.valid")


def check_layers(answer: Answer, layers: int, at: str) -> None:
    """Refuse layers that the model does not have: what is owed is said by the cell, and this much the host knows.

    Args:
        answer: a well-formed answer.
        layers: of the model; 0 where nobody knows.
        at: where the answer stands, for the error.

    Raises:
        ResultRejected: result_schema.
    """
    for layer in answer.measured.coverage.get("layer", ()) if answer.measured and layers else ():
        if not (layer.isascii() and layer.isdecimal() and str(int(layer)) == layer and int(layer) < layers):
            raise ResultRejected("result_schema", f"{at}.measured.coverage.layer")


def _check_reason(answer: Answer, promise: Promise, at: str) -> None:
    reason = answer.reason or ""
    refused_model = answer.outcome == "refused" and reason.startswith("ingest:")
    if not refused_model and reason not in promise.raw["reasons"]:
        raise ResultRejected("free_text", f"{at}.reason")
