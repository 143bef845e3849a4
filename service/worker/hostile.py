"""A cell's result document, parsed as hostile: strict JSON, closed schema, host-owned fields, then the catalogue.

The codes are those of specs: sandbox, section 9; the half that needs no vocabulary is `sandbox.result`. Nothing here
repairs anything: a document is accepted whole or rejected whole, because a cell that lies once is not believed twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from assay import canonical
from assay.errors import Malformed
from assay.predicate import Facts, Ingest
from assay.result import NAME, Answer, Value
from pydantic import ValidationError

from sandbox.budget import charge_bytes
from sandbox.cell import Filled
from sandbox.errors import ResultRejected
from sandbox.result import DEPTH, check_fields, document_of, read_result
from service.worker.artefacts import HandedOut, handed_out, promised_by
from service.worker.promises import Promise, check_layers, check_promise
from service.worker.request import AskedCheck

RESULT_CAP = 2**20
"""Bytes of a result document; the cell's own cap is the same."""

RESULT_SCHEMA = "assay-cell-result/v1"
RESULT_FIELDS = ("schema", "nonce", "answers", "ingest", "facts")
ARTEFACTS = "artefacts"
"""Key of what was handed out beside the document; left out where there is nothing."""

REFUSED, BASE_REFUSED = "ingest:", "ingest_base:"
"""How the reason begins of every answer of an audit whose model, or whose base model, was refused."""

ANSWER_FIELDS = frozenset(Answer.model_fields)

_PLACE = re.compile(r"[A-Za-z0-9._:/@+\\-]{0,160}")
"""Where in a file something was wrong, as the reader shows untrusted text: the name alphabet and `\\xNN`."""


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """An accepted document."""

    answers: tuple[Answer, ...]
    """One for each check asked, in the order asked."""
    ingest: Ingest
    facts: Facts | None
    artefacts: tuple[HandedOut, ...] = ()
    """Files beside the answers; `output_bytes` counts none of them before `service.worker.artefacts.within`."""
    base_ingest: Ingest | None = None
    """What the base model's own ingest cell decided; no cell that measures can say it."""

    @property
    def model_refused(self) -> bool:
        """Whether the model was refused, and with it every check."""
        return all(
            one.outcome == "refused" and (one.reason or "").startswith((REFUSED, BASE_REFUSED)) for one in self.answers
        )

    output_bytes: int
    """What the audit's output budget is charged: an upper bound on what the answers can carry (`sandbox.budget`)."""


def parse_result(
    data: bytes,
    *,
    nonce: str,
    asked: Sequence[AskedCheck],
    promises: Mapping[str, Promise],
    paths: Collection[str],
    slots: Sequence[Filled] = (),
) -> CellResult:
    """Accept or reject a result document.

    Args:
        data: everything the cell wrote.
        nonce: what this one cell was given.
        asked: the request's checks, in order.
        promises: what the catalogue says of each of them, by name.
        paths: the model's files.
        slots: what the cell left beside it, as the host took it.

    Raises:
        ResultRejected: with a code of specs: sandbox, section 9, and the place.
    """
    fields = (*RESULT_FIELDS, *_optional(data))
    document = read_result(data, schema=RESULT_SCHEMA, nonce=nonce, fields=fields, cap=RESULT_CAP)
    if not isinstance(document["answers"], list):
        raise ResultRejected("result_schema", "answers")
    answers = _answers(document["answers"], asked)
    for position, answer in enumerate(answers):
        check_promise(answer, promises[answer.check], f"answers.{position}")
    ingest = _value(Ingest, document["ingest"], "ingest")
    facts = None if document["facts"] is None else _value(Facts, document["facts"], "facts")
    for position, answer in enumerate(answers):
        check_layers(answer, facts.layers if facts else 0, f"answers.{position}")
    _check_words(ingest, facts, paths)
    told = [document["answers"], document["ingest"], document["facts"]]
    charge = charge_bytes(told, _known(asked, promises, paths))
    measured = [one.outcome == "measured" for one in answers]
    files = handed_out(document.get(ARTEFACTS, []), promised_by(asked, promises), slots, measured)
    return CellResult(answers=answers, ingest=ingest, facts=facts, artefacts=files, output_bytes=charge)


def _optional(data: bytes) -> tuple[str, ...]:
    """Return the keys that a document may leave out and this one has."""
    if f'"{ARTEFACTS}"'.encode() not in data:
        return ()
    document = document_of(data, cap=RESULT_CAP, depth=DEPTH)
    return (ARTEFACTS,) if isinstance(document, dict) and ARTEFACTS in document else ()


def _known(asked: Sequence[AskedCheck], promises: Mapping[str, Promise], paths: Collection[str]) -> set[str]:
    """Return every string that the schema, the catalogue, the request and the manifest gave: it carries no news."""
    known = set(paths) | _schema_words()
    for ask in asked:
        known |= _strings(dict(ask.params)) | _strings(promises[ask.name].raw)
    return known


@cache
def _schema_words() -> frozenset[str]:
    return frozenset().union(*(_strings(one.model_json_schema()) for one in (Answer, Ingest, Facts)))


def _strings(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    if isinstance(value, Mapping):
        return set(value).union(*map(_strings, value.values()))
    if isinstance(value, Sequence):
        return set().union(*map(_strings, value))
    return set()


def _answers(found: list[Any], asked: Sequence[AskedCheck]) -> tuple[Answer, ...]:
    if len(found) != len(asked):
        raise ResultRejected("result_schema", "answers")
    answers = []
    for position, (item, ask) in enumerate(zip(found, asked, strict=True)):
        at = f"answers.{position}"
        if not isinstance(item, dict):
            raise ResultRejected("result_schema", at)
        check_fields(item, ANSWER_FIELDS, f"{at}.")
        if item["check"] != ask.name or item["version"] != ask.version:
            raise ResultRejected("host_field_disagrees", f"{at}.check")
        if _encoded(item["params"]) != _encoded(ask.params):
            raise ResultRejected("host_field_disagrees", f"{at}.params")
        answers.append(_value(Answer, item, at))
    return tuple(answers)


def _check_words(ingest: Ingest, facts: Facts | None, paths: Collection[str]) -> None:
    """Refuse text that is neither ours nor of the name alphabet where the report's schema would let it pass."""
    for position, decision in enumerate(ingest.decisions):
        at = f"ingest.decisions.{position}"
        if decision.path is not None and decision.path not in paths:
            raise ResultRejected("free_text", f"{at}.path")
        for value in (decision.at or {}).values():
            if isinstance(value, str) and not _PLACE.fullmatch(value):
                raise ResultRejected("free_text", f"{at}.at")
    if facts is not None and not NAME.fullmatch(facts.torch):
        raise ResultRejected("free_text", "facts.torch")


def _encoded(params: Any) -> bytes:
    """Return a form in which true and 1 differ, as they do not in a comparison of values."""
    return json.dumps(params, sort_keys=True).encode()


Kind = TypeVar("Kind", bound=Value)


def _value(kind: type[Kind], item: Any, at: str) -> Kind:
    try:
        # Through JSON: values are strict, and only JSON input may turn arrays into tuples.
        return kind.model_validate_json(canonical.dumps(item))
    except Malformed as error:
        raise ResultRejected("result_schema", f"{at}{error.at.replace('/', '.')}"[:160]) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or NAME.fullmatch(part))
        raise ResultRejected(_code_of(first["msg"]), f"{at}.{place}".rstrip(".")) from None


def _code_of(message: str) -> str:
    """Return the code of a refused value from the vocabulary's own message (`assay.result`)."""
    if any(part in message for part in ("name alphabet", "free text")):
        return "free_text"
    if any(part in message for part in ("canonical form", "not a decimal", "step", "significant digits")):
        return "unquantised_number"
    return "result_schema"
