"""The strict reader: what PyYAML's defaults read wrongly is read as written, or refused with its line."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
from assay.cli import codes
from assay.policy import loader
from assay.policy.loader import Refused, Scalar, Table


def fields(text: str, file: str = "p.yaml") -> dict[str, Any]:
    root = loader.read(text.encode(), file).root
    assert isinstance(root, Table)
    return dict(root.fields)


@pytest.mark.parametrize("word", ["no", "on", "yes", "off", "1:30", "017", "1e3", "0x10", "2026-01-02", "~", "1.10"])
def test_norway_key(word: str) -> None:
    found = fields(f"{word}: {word}\n")
    assert list(found) == [word]
    assert (found[word].text, found[word].plain) == (word, True)


BAD = {
    "a: 1\nb: 2\na: 3\n": 3,
    "a: &x 1\n": 1,
    "a: 1\nb: *x\n": 2,
    "a: !!str 1\n": 1,
    "a: ! 1\n": 1,
    "a:\n  <<: {b: 1}\n": 2,
    "a: 1\n---\nb: 2\n": 2,
    "%YAML 1.1\n---\na: 1\n": 1,
    "": 1,
    "? [a]\n: 1\n": 1,
    "a: [1, 2\n": 2,
    "a: 1\n\x07": 2,
    "a: " + "[" * 40 + "]" * 40: 1,
    "a: 1\n" + "b" * (256 * 1024): 1,
    "\ufeffa: 1\n": 1,
    "a: 1\n\x00": 2,
}


@pytest.mark.parametrize(("text", "line"), BAD.items(), ids=range(len(BAD)))
def test_what_two_readers_could_read_differently_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(Refused) as caught:
        loader.read(text.encode(), "p.yaml")
    assert caught.value.line == line
    assert f"line {line}" in str(caught.value)
    assert codes.of_error(caught.value) == 3


BAD_JSON = {
    '{"a":1,\n"a":2}': 2,
    '{"a":1e3}': 1,
    '{"a":NaN}': 1,
    '{"a":01}': 1,
    '{"a":1}{}': 1,
    '{"a":1,}': 1,
    '{"a":"\\ud800"}': 1,
    '{"a":"\\u0000"}': 1,
    '{"a"\n\n1}': 3,
    "[" * 40: 1,
    "": 1,
    '{"a": [1 2]}': 1,
    '{"a":"x\n"}': 1,
    "{'a':1}": 1,
    '{"a":': 1,
    '["': 1,
}


@pytest.mark.parametrize(("text", "line"), BAD_JSON.items(), ids=range(len(BAD_JSON)))
def test_json_is_read_as_strictly(text: str, line: int) -> None:
    with pytest.raises(Refused) as caught:
        loader.read(text.encode(), "p.json")
    assert caught.value.line == line


def test_not_utf8_is_refused() -> None:
    with pytest.raises(Refused, match="line 2: not UTF-8"):
        loader.read(b"a: 1\n\xff", "p.yaml")


def test_json_and_yaml_give_the_same_nodes() -> None:
    text = '{"a": [1, 0.50, "x", {"b": null}], "c": {}, "d": []}'
    assert loader.read(text.encode(), "p.json").root == loader.read(text.encode(), "p.yaml").root
    assert fields('{"a":\n "1"}', "p.json")["a"] == Scalar("1", False, 2)


def test_without_pyyaml_a_policy_can_still_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "yaml":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert list(fields('{"a":1}', "p.json")) == ["a"]
    with pytest.raises(Refused, match="PyYAML"):
        fields("a: 1\n")
