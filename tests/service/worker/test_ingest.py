"""What an ingest cell says is parsed as hostile; what it wrote is handed on by count and digest alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from assay import canonical
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import ResultRejected
from sandbox.ingest import SLOTS
from service.worker.ingest import parse_ingest, pass_on
from service.worker.record import model_refused
from service.worker.request import AskedCheck
from tests.service.worker.scripted import filled

NONCE = "5a" * 32
PATHS = ("config.json", "model.safetensors", "tokenizer.json")


def good(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "assay-ingest/v1",
        "nonce": NONCE,
        "refused": True,
        "decisions": [
            {"path": "config.json", "decision": "refused", "reason": "config_range", "at": {"key": "n_layer"}},
            {"path": "config.json", "decision": "dropped", "reason": None, "at": {"key": "dropout"}},
            {"path": "tokenizer.json", "decision": "refused", "reason": "tokenizer_merge", "at": {"line": 3}},
            {"path": "model.safetensors", "decision": "accepted", "reason": None, "at": None},
        ],
        "more": 2,
    } | changes


def parse(value: Any) -> Any:
    return parse_ingest(value if isinstance(value, bytes) else canonical.dumps(value), nonce=NONCE, paths=PATHS)


def code_of(value: Any) -> str:
    with pytest.raises(ResultRejected) as caught:
        parse(value)
    return caught.value.code


def test_a_good_document_is_accepted() -> None:
    """The negative control of everything below."""
    found = parse(good())
    assert (found.refused, found.more, found.reason) == (True, 2, "config_range")
    assert [one.path for one in found.decisions] == [
        "config.json",
        "config.json",
        "tokenizer.json",
        "model.safetensors",
    ]
    told = found.told().decisions
    assert told[:4] == found.decisions
    assert (told[4].decision, told[4].reason, told[4].at) == ("dropped", "ingest_limit", {"line": 2})
    assert 0 < found.output_bytes < 100


def first(**changes: Any) -> dict[str, Any]:
    decisions: list[dict[str, Any]] = good()["decisions"]
    return good(decisions=[decisions[0] | changes, *decisions[1:]])


LIES: list[tuple[Any, str]] = [
    (b"", "result_missing"),
    (b"{}", "result_schema"),
    (b"[]", "result_schema"),
    (b"\xef\xbb\xbf{}", "result_bom"),
    (b"\x80", "result_not_utf8"),
    (canonical.dumps(good()) + b"{}", "result_trailing"),
    (b'{"a":1,"a":1}', "result_duplicate_key"),
    (b"[" * 10**5 + b"]" * 10**5, "result_too_deep"),
    (b'{"more":1e999}', "result_number"),
    (b'{"more":' + b"9" * 10**5 + b"}", "result_number"),
    (b'{"nonce":"\\ud800"}', "result_surrogate"),
    (b" " * (2**18 + 1), "result_over_cap"),
    (good(nonce="00" * 32), "result_nonce"),
    (good(nonce=None), "result_nonce"),
    (good(schema="assay-cell-result/v1"), "result_schema"),
    (good(refused=False), "result_schema"),
    (good(refused=1), "result_schema"),
    (good(decisions=[]), "result_schema"),
    (good(decisions={}), "result_schema"),
    (good(decisions=[[]]), "result_schema"),
    (good(more=-1), "result_schema"),
    (good(more=True), "result_schema"),
    (good(extra=1), "result_schema"),
    (good(verdict="ok"), "host_field_claimed"),
    (first(seal={}), "host_field_claimed"),
    (first(extra=1), "result_schema"),
    (first(path="other.json"), "free_text"),
    (first(path="<b>"), "free_text"),
    (first(path=["config.json"]), "free_text"),
    (first(decision="ok"), "result_schema"),
    (first(decision=["refused"]), "result_schema"),
    (first(decision=None), "result_schema"),
    (first(reason=None), "result_schema"),
    (first(reason="the weights are 0x17"), "free_text"),
    (first(reason=["config_range"]), "free_text"),
    (first(at={}), "result_schema"),
    (first(at=[]), "result_schema"),
    (first(at={"key": "a", "line": 1}), "result_schema"),
    (first(at={"secret": "a"}), "result_schema"),
    (first(at={"key": 1}), "result_schema"),
    (first(at={"line": "1"}), "result_schema"),
    (first(at={"line": -1}), "result_schema"),
    (first(at={"offset": True}), "result_schema"),
    (first(at={"key": "two words"}), "free_text"),
    (first(at={"key": "x" * 161}), "free_text"),
    (first(at={"key": ""}), "free_text"),
    (first(at={"tensor": "=cmd()"}), "free_text"),
    (first(at={"key": "\x1b[31m"}), "free_text"),
]


@pytest.mark.parametrize(("value", "code"), LIES, ids=[str(number) for number in range(len(LIES))])
def test_a_document_that_lies_is_rejected_by_name(value: Any, code: str) -> None:
    assert code_of(value) == code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=5) | st.sampled_from(PATHS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(good())), JSON, st.sampled_from(sorted(good()["decisions"][0])), JSON)
def test_no_document_raises_anything_else(field: str, value: Any, inner: str, inner_value: Any) -> None:
    for document in (good(**{field: value}), first(**{inner: inner_value})):
        try:
            parse(json.dumps(document).encode())
        except ResultRejected as error:
            assert str(error).isascii()  # noqa: PT017 - not raised at all is right too


def test_every_word_that_is_not_ours_is_charged() -> None:
    short, long = parse(first(at={"key": "x"})), parse(first(at={"key": "x" * 101}))
    assert long.output_bytes - short.output_bytes >= 100


ASKED = (
    AskedCheck(name="a", version="1", params={"seeds": 3}),
    AskedCheck(name="b", version="2", params={}),
)


def test_a_refused_model_answers_every_check_as_the_cell_itself_did() -> None:
    """The form is that of `checks.run`, which answers where no cell read the files before."""
    result = model_refused([parse(good())], ASKED)
    assert [(one.check, one.version, dict(one.params)) for one in result.answers] == [
        ("a", "1", {"seeds": 3}),
        ("b", "2", {}),
    ]
    for one in result.answers:
        assert (one.outcome, one.reason, one.valid) == ("refused", "ingest:config_range", False)
        assert [(skip.item, skip.reason) for skip in one.skipped] == [
            ("config.json", "config_range"), ("tokenizer.json", "tokenizer_merge"),
        ]  # fmt: skip
    assert result.model_refused
    assert result.facts is None


def slots(**changes: bytes) -> tuple[Any, ...]:
    made = {"config.json": b"c", "tensors.json": b"t", "tokenizer.json": b"k", "generation_config.json": b""}
    named = {name.replace("_json", ".json"): content for name, content in changes.items()}
    return tuple(filled(name, content) for name, content in (made | named).items())


def test_slots_become_inputs_by_count_and_digest_alone(tmp_path: Path) -> None:
    passed = pass_on(slots(config_json=b"\x80 no JSON"), PATHS, tmp_path)
    assert set(passed.files) == {"config.json", "tokenizer.json"}
    given = passed.files["config.json"]
    assert (given.name, given.source.read_bytes(), given.size) == ("ingest.config.json", b"\x80 no JSON", 9)
    assert given.source.stat().st_mode & 0o777 == 0o444
    assert passed.tensors.source.read_bytes() == b"t"


def test_a_declaration_comes_in_the_config_slot(tmp_path: Path) -> None:
    passed = pass_on(slots(tokenizer_json=b""), ("architecture.json", "model.safetensors"), tmp_path)
    assert {path: one.source.read_bytes() for path, one in passed.files.items()} == {"architecture.json": b"c"}


@pytest.mark.parametrize(
    ("make", "code", "name"),
    [
        (lambda: slots(config_json=b""), "result_missing", "config.json"),
        (lambda: slots(tensors_json=b""), "result_missing", "tensors.json"),
        (lambda: slots(tokenizer_json=b""), "result_missing", "tokenizer.json"),
        (lambda: slots(generation_config_json=b"{}"), "unknown_slot", "generation_config.json"),
        (lambda: (), "result_missing", "config.json"),
        (lambda: slots(config_json=b"x" * (SLOTS["config.json"] + 1)), "slot_too_large", "config.json"),
    ],
)
def test_slots_that_do_not_fit_the_model_are_rejected(
    make: Callable[[], Any], code: str, name: str, tmp_path: Path
) -> None:
    with pytest.raises(ResultRejected) as caught:
        pass_on(make(), PATHS, tmp_path)
    assert (caught.value.code, caught.value.at) == (code, name)
