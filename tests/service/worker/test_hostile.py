"""Every hostile document is rejected with the code that names what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from assay import canonical
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.cell import Order
from sandbox.errors import ResultRejected
from service.worker.hostile import RESULT_CAP, CellResult, parse_result
from service.worker.request import AskedCheck
from tests.service.worker.scripted import answer, catalogue, document

NONCE = "5a" * 32
ORDER = Order(kind="check", module="checks", code=(), request=b"{}", nonce=NONCE)
ASKED = (AskedCheck(name="scripted", version="1.0", params={"seeds": 3, "bold": True}),)

Json = dict[str, Any]


def parse(data: bytes) -> CellResult:
    entry = catalogue().entry("scripted")
    assert entry is not None
    return parse_result(data, nonce=NONCE, asked=ASKED, promises={"scripted": entry}, paths={"config.json"})


def good() -> Json:
    decision = {"path": "config.json", "decision": "accepted", "reason": None, "at": None}
    return document(ORDER, ingest={"decisions": [decision]})


def test_a_good_document_is_accepted() -> None:
    """The negative control of everything below."""
    found = parse(canonical.dumps(good()))
    assert found.answers[0].valid
    assert 0 < found.output_bytes < len(canonical.dumps([answer()]))


DEEP: Any = "x"
for _ in range(40):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "result_missing"),
        (b" " * (RESULT_CAP + 1), "result_over_cap"),
        (b'{"schema":"\xff"}', "result_not_utf8"),
        (b"\xef\xbb\xbf{}", "result_bom"),
        (canonical.dumps(good()) + b"{}", "result_trailing"),
        (canonical.dumps(good()).replace(b'"facts":null', b'"facts":null,"facts":null'), "result_duplicate_key"),
        (
            canonical.dumps(good()).replace(b'"check":"scripted"', b'"check":"scripted","check":"x"'),
            "result_duplicate_key",
        ),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "result_too_deep"),
        (json.dumps(good() | {"facts": DEEP}).encode(), "result_too_deep"),
        (canonical.dumps(good()).replace(b'"n":10', b'"n":NaN'), "result_number"),
        (canonical.dumps(good()).replace(b'"n":10', b'"n":1e999'), "result_number"),
        (canonical.dumps(good()).replace(b'"n":10', b'"n":1.0'), "result_number"),
        (canonical.dumps(good()).replace(b'"n":10', b'"n":' + b"9" * 9000), "result_number"),
        (canonical.dumps(good()).replace(b'"detected"', rb'"\ud800"'), "result_surrogate"),
        (b"[]", "result_schema"),
        (b"{", "result_schema"),
        (b"null", "result_schema"),
    ],
)
def test_bytes_that_are_no_document(data: bytes, code: str) -> None:
    with pytest.raises(ResultRejected) as caught:
        parse(data)
    assert caught.value.code == code


def in_answer(**changes: Any) -> Callable[[Json], None]:
    return lambda value: value["answers"][0].update(changes)


def in_metric(**changes: Any) -> Callable[[Json], None]:
    return lambda value: value["answers"][0]["measured"]["metrics"][0].update(changes)


def at_top(**changes: Any) -> Callable[[Json], None]:
    return lambda value: value.update(changes)


def in_finding(**changes: Any) -> Callable[[Json], None]:
    return lambda value: value["answers"][0]["findings"][0].update(changes)


def in_control(**changes: Any) -> Callable[[Json], None]:
    return lambda value: value["answers"][0]["controls"][0].update(changes)


def decision(**changes: Any) -> Callable[[Json], None]:
    return lambda value: value["ingest"]["decisions"][0].update(changes)


PROMISED: Json = {
    "metrics": [{
        "name": "score", "unit": "fraction", "labels": ["layer"], "better": "higher", "determinism": "exact",
        "summary": "A number.", "tolerance": None, "margin": None,
    }],
    "controls": [{
        "name": "planted", "kind": "positive",
        "bands": [{"metric": "score", "low": "0.8", "high": "1", "fixed": True, "always": True}],
    }],
}  # fmt: skip
"""What the scripted check promises of its band, tolerance and margin."""


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda _value: None, None),
        (in_control(value="0.1", band={"low": "0", "high": "1"}), "result_schema"),
        (in_control(value="0.99", band={"low": "0", "high": "1"}), "result_schema"),
        (in_control(metric="anything"), "free_text"),
        (in_metric(tolerance={"abs": "1000", "rel": "0"}), "result_schema"),
        (in_metric(margin="9"), "result_schema"),
        (in_metric(p="0"), "result_schema"),
    ],
)
def test_a_subverted_cell_cannot_move_its_bands(change: Callable[[Json], None], code: str | None) -> None:
    entry = catalogue(**PROMISED).entry("scripted")
    assert entry is not None
    value = good()
    change(value)

    def read() -> CellResult:
        told = canonical.dumps(value)
        return parse_result(told, nonce=NONCE, asked=ASKED, promises={"scripted": entry}, paths={"config.json"})

    if code is None:
        assert read().answers[0].valid
        return
    with pytest.raises(ResultRejected) as caught:
        read()
    assert caught.value.code == code


FACTS = {
    "architecture": "gpt2", "layers": 1, "width": 8, "parameters": 9, "texts": 0, "tokens": 0, "dtype": "float32",
    "batch_size": 1, "threads": 1, "torch": "2.13.0+cpu",
}  # fmt: skip

REFUSED = {"outcome": "refused", "valid": False, "measured": None, "controls": [], "findings": []}


def covering(*layers: str) -> Json:
    """Return an answer that owes these layers."""
    told = answer(skipped=[{"item": f"layer:{layer}", "reason": "x"} for layer in layers[1:]])
    told["measured"]["coverage"] = {"layer": list(layers)}
    return told


def test_layers_that_the_model_has_are_accepted() -> None:
    assert parse(canonical.dumps(good() | {"facts": FACTS | {"layers": 7}, "answers": [covering("0", "6")]}))


def silenced(*, valid: bool) -> Json:
    value = good()
    answer = value["answers"][0]
    name = answer["controls"][0]["name"]
    answer["controls"] = [control for control in answer["controls"] if control["name"] != name]
    answer["skipped"] = [{"item": f"control:{name}", "reason": "no_band"}]
    answer["valid"] = valid
    return value


def test_a_control_that_could_not_run_is_told_and_nothing_is_valid() -> None:
    assert not parse(canonical.dumps(silenced(valid=False))).answers[0].valid
    with pytest.raises(ResultRejected) as caught:
        parse(canonical.dumps(silenced(valid=True)))
    assert caught.value.code == "host_field_disagrees"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (at_top(nonce="00" * 32), "result_nonce"),
        (at_top(schema="assay-cell-result/v2"), "result_schema"),
        (at_top(extra=1), "result_schema"),
        (at_top(answers=[]), "result_schema"),
        (at_top(answers=[answer(), answer()]), "result_schema"),
        (at_top(answers={}), "result_schema"),
        (at_top(answers=[7]), "result_schema"),
        (at_top(ingest=None), "result_schema"),
        (at_top(verdict="pass"), "host_field_claimed"),
        (at_top(seal={}), "host_field_claimed"),
        (at_top(usage={}), "host_field_claimed"),
        (in_answer(verdict="pass"), "host_field_claimed"),
        (in_answer(started_at="2026-01-01T00:00:00Z"), "host_field_claimed"),
        (in_answer(code_sha256="00" * 32), "host_field_claimed"),
        (in_answer(catalogue_sha256="00" * 32), "host_field_claimed"),
        (in_answer(check="other"), "host_field_disagrees"),
        (in_answer(version="2.0"), "host_field_disagrees"),
        (in_answer(params={"seeds": 4, "bold": True}), "host_field_disagrees"),
        (in_answer(params={"seeds": 3, "bold": 1}), "host_field_disagrees"),
        (in_answer(params={}), "host_field_disagrees"),
        (in_answer(valid=False), "host_field_disagrees"),
        (in_answer(mood="good"), "result_schema"),
        (in_answer(outcome="passed"), "result_schema"),
        (in_answer(controls=[]), "result_schema"),
        (in_answer(outcome="refused"), "result_schema"),
        (in_answer(**REFUSED, reason="because I say so"), "free_text"),
        (in_answer(**REFUSED, reason="unlisted"), "free_text"),
        (in_answer(**(REFUSED | {"outcome": "failed"}), reason="ingest:json_invalid"), "free_text"),
        (in_metric(name="unknown"), "free_text"),
        (in_metric(name="the weights are 1 2 3"), "free_text"),
        (in_metric(labels={"layer": "free text here"}), "free_text"),
        (in_metric(labels={"head": "0"}), "result_schema"),
        (in_metric(unit="nats"), "result_schema"),
        (in_metric(determinism="statistical"), "result_schema"),
        (in_metric(better="lower"), "result_schema"),
        (in_metric(labels={}), "result_schema"),
        (in_metric(labels={"layer": "0", "head": "0"}), "result_schema"),
        (lambda value: value["answers"][0]["measured"].update(coverage={}), "result_schema"),
        (at_top(facts=FACTS | {"layers": 7}, answers=[covering("0", "7")]), "result_schema"),
        (at_top(facts=FACTS | {"layers": 7}, answers=[covering("0", "embed")]), "result_schema"),
        (at_top(facts=FACTS | {"layers": 7}, answers=[covering("0", "01")]), "result_schema"),
        (in_metric(value="0.512345678"), "unquantised_number"),
        (in_metric(value="0.50"), "unquantised_number"),
        (in_metric(value="1e3"), "unquantised_number"),
        (in_metric(step="0.000000001"), "unquantised_number"),
        (in_metric(value=1), "result_schema"),
        (in_metric(n=-1), "result_schema"),
        (in_metric(n=True), "result_schema"),
        (in_control(name="invented"), "free_text"),
        (in_control(kind="null"), "free_text"),
        (in_control(value="0.1"), "result_schema"),
        (in_finding(word="clean"), "free_text"),
        (in_finding(claim="line\nbreak"), "free_text"),
        (in_finding(claim="x" * 513), "free_text"),
        (in_finding(rests_on=[{"name": "score", "labels": {"layer": "9"}}]), "result_schema"),
        (decision(path="../etc/passwd"), "result_schema"),
        (decision(path="not-in-the-manifest.json"), "free_text"),
        (decision(reason="made up of words"), "free_text"),
        (decision(at={"key": "free text"}), "free_text"),
        (at_top(facts=FACTS | {"torch": "some words"}), "free_text"),
        (at_top(facts=FACTS | {"gpu": "x"}), "result_schema"),
        (at_top(facts=FACTS | {"layers": "1"}), "result_schema"),
    ],
)
def test_a_document_that_lies(change: Callable[[Json], None], code: str) -> None:
    value = good()
    change(value)
    with pytest.raises(ResultRejected) as caught:
        parse(json.dumps(value).encode())
    assert caught.value.code == code, str(caught.value)
    assert len(caught.value.at) <= 160
    assert caught.value.at.isascii()


def test_facts_and_refusals_of_the_catalogue_are_accepted() -> None:
    value = good() | {"facts": FACTS}
    value["answers"][0].update(REFUSED | {"reason": "too_few_items"})
    value["ingest"]["decisions"][0]["at"] = {"key": "weird\\x20key", "line": 3}
    found = parse(json.dumps(value).encode())
    assert found.facts is not None
    assert not found.model_refused


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(ResultRejected):
        parse(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(["answers", "ingest", "facts", "nonce", "schema"]), JSON)
def test_no_value_in_any_place_raises_anything_else(field: str, value: Any) -> None:
    try:
        parse(json.dumps(good() | {field: value}).encode())
    except ResultRejected:
        return
    assert value in (None, good()[field])


@given(st.sampled_from(sorted(answer())), JSON)
def test_no_value_in_an_answer_raises_anything_else(field: str, value: Any) -> None:
    document = good()
    document["answers"][0][field] = value
    try:
        parse(json.dumps(document).encode())
    except ResultRejected:
        return


@given(st.binary(min_size=1, max_size=300))
@settings(max_examples=40, deadline=None)
def test_what_is_hidden_in_an_accepted_document_is_charged(data: bytes) -> None:
    """S38: digits, scales and lengths of a plot, and labels of metrics, in a document that nothing refuses."""
    series, labels = [], []
    for place in range(0, len(data), 6):
        piece = data[place : place + 6].ljust(6, b"\0")
        number = f"{'0' * (piece[0] >> 5)}{int.from_bytes(piece[1:5], 'big')}1"  # 18 digits at most
        series.append({"name": "s", "x": [f"0.{number}"], "y": ["0"], "low": None, "high": None})
        labels.append(f"{piece[0] & 31}-{piece[5]}-{place}")  # an instance stands once, so each has its place
    value = good()
    told = value["answers"][0]["measured"]
    told["metrics"] += [told["metrics"][0] | {"labels": {"layer": name}} for name in labels]
    axis = {"label": "score", "unit": "fraction"}
    told["plots"] = [
        {"title": "t", "kind": "line", "x": axis, "y": axis, "series": series[start : start + 12], "marks": []}
        for start in range(0, len(series), 12)
    ]
    found = parse(canonical.dumps(value))
    measured = found.answers[0].measured
    assert measured is not None
    back = b""
    for one, metric in zip((one for plot in measured.plots for one in plot.series), measured.metrics[1:], strict=True):
        part = one.x[0].split(".")[1][:-1]
        digits = part.lstrip("0")
        low, last = map(int, metric.labels["layer"].split("-")[:2])
        scale = len(part) - len(digits or "0")
        back += bytes([scale << 5 | low]) + int(digits or "0").to_bytes(4, "big") + bytes([last])
    assert back[: len(data)] == data, "the control: the bytes do come out"
    assert found.output_bytes >= len(data)
