"""What must agree before numbers of two reports may be held against each other; each refusal names its field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assay import canonical
from assay.compare.sides import Side
from assay.errors import Misused, shown

Answer = Mapping[str, Any]

TOKENIZER_FILES = frozenset(
    {
        "added_tokens.json",
        "merges.txt",
        "special_tokens_map.json",
        "spiece.model",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    }
)
"""Files that decide which tokens a text becomes, by the names that model libraries give them."""

FIELD_MAX = 128
"""Longest name (`assay.result.NAME`)."""


class Incomparable(Misused):
    """The reports cannot be held against each other: they do not answer the same question.

    Args:
        field: what differs, in the name alphabet, e.g. "answers/truth_probe/version".
        a: what the first report has.
        b: what the second has.
    """

    def __init__(self, field: str, a: object, b: object) -> None:
        self.field = field_name(field)
        super().__init__(f"cannot compare: {self.field} is {shown(a)} in the first report, {shown(b)} in the second")


def field_name(text: str) -> str:
    """Return a field in the name alphabet, shortened."""
    return re.sub(r"[^A-Za-z0-9._:/@+-]", "_", text)[:FIELD_MAX]


def must_agree(field: str, a: object, b: object) -> None:
    """Refuse two values that differ.

    Raises:
        Incomparable: they do.
    """
    if a != b:
        raise Incomparable(field, a, b)


@dataclass(frozen=True)
class Pairing:
    """The answers that stand against each other."""

    pairs: tuple[tuple[Answer, Answer], ...]
    only_a: tuple[Answer, ...]
    only_b: tuple[Answer, ...]


def check_evidence(a: Side, b: Side) -> None:
    """Refuse other data, another base model or another tokenizer.

    Raises:
        Incomparable: naming `data/ROLE/sha256`, `base/manifest_sha256` or `tokenizer/FILE/sha256`.
    """
    check_data(a, b)
    must_agree("base/manifest_sha256", _base(a), _base(b))
    files_a, files_b = _tokenizer(a), _tokenizer(b)
    for name in sorted(files_a.keys() | files_b.keys()):
        must_agree(f"tokenizer/{name}/sha256", files_a.get(name), files_b.get(name))


def check_data(a: Side, b: Side) -> None:
    """Refuse other data.

    Raises:
        Incomparable: naming `data/ROLE/sha256`.
    """
    data_a, data_b = _data(a), _data(b)
    for role in sorted(data_a.keys() | data_b.keys()):
        must_agree(f"data/{role}/sha256", data_a.get(role), data_b.get(role))


def _data(side: Side) -> dict[str, tuple[str, ...]]:
    told: dict[str, tuple[str, ...]] = {}
    for one in side.predicate["data"]:
        told[one["role"]] = (*told.get(one["role"], ()), one["sha256"])
    return told


def _base(side: Side) -> str | None:
    base = side.predicate.get("base")
    return None if base is None else str(base["manifest_sha256"])


def _tokenizer(side: Side) -> dict[str, str]:
    """Return digests of tokenizer files by path; the manifest's files are the statement's subjects."""
    named = {one["name"]: one["digest"]["sha256"] for one in side.statement["subject"]}
    return {name: digest for name, digest in named.items() if name.rpartition("/")[2] in TOKENIZER_FILES}


def pair_answers(a: Side, b: Side) -> Pairing:
    """Pair the answers of two reports: same check, same version, same parameters.

    A check that only one report has is left over. Of a check that both have, answers with equal parameters belong
    together, whatever their order.

    Raises:
        Incomparable: naming `answers/CHECK/version` or `answers/CHECK/params`, or `answers` if no check is in both.
    """
    rest_a, rest_b = list(a.predicate["answers"]), list(b.predicate["answers"])
    pairs = []
    for one in [*rest_a]:
        same = next((other for other in rest_b if _question(other) == _question(one)), None)
        if same is not None:
            pairs.append((one, same))
            _drop(rest_a, one)
            _drop(rest_b, same)
    for one in rest_a:
        other = next((other for other in rest_b if other["check"] == one["check"]), None)
        if other is not None:
            must_agree(f"answers/{one['check']}/version", one["version"], other["version"])
            raise Incomparable(f"answers/{one['check']}/{_parameter(one, other)}", one["params"], other["params"])
    if not pairs:
        raise Incomparable("answers", [one["check"] for one in rest_a], [one["check"] for one in rest_b])
    return Pairing(tuple(pairs), tuple(rest_a), tuple(rest_b))


def _question(answer: Answer) -> tuple[str, str, str]:
    return answer["check"], answer["version"], canonical.sha256(answer["params"])


def _parameter(a: Answer, b: Answer) -> str:
    """Return the first parameter that differs; by canonical bytes, because to Python 1 equals true."""
    left, right = ({name: canonical.sha256(told) for name, told in one["params"].items()} for one in (a, b))
    differ = sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
    return f"params/{differ[0]}"


def _drop(answers: list[Answer], one: Answer) -> None:
    # By identity: two answers may be equal.
    del answers[next(at for at, other in enumerate(answers) if other is one)]


def unusable(answer: Answer) -> str | None:
    """Return why an answer has no numbers to rely on, as a reason; None for a measured and valid one."""
    if answer["outcome"] != "measured":
        return f"answer_{answer['outcome']}"
    return None if answer["valid"] and answer.get("measured") else "answer_not_valid"


def by_name(metrics: Sequence[Mapping[str, Any]]) -> dict[tuple[str, tuple[tuple[str, str], ...]], Mapping[str, Any]]:
    """Return metrics by name and sorted labels."""
    return {(one["name"], tuple(sorted(one["labels"].items()))): one for one in metrics}
