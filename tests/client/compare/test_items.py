"""The items artefact: one form, nothing repaired."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from assay import canonical
from assay.compare.items import in_order, read, read_all, write, write_all
from assay.errors import Malformed

from tests.client.compare.planted import items

GOOD = items([0, 1, 1], step="1", clusters=[5, 5, 9], labels=(("layer", "3"),))
AREA = items([0, 1, 1], step="0.1", reducer="auc", targets=[0, 1, 0])


def raw(**changed: Any) -> bytes:
    return canonical.dumps({**json.loads(write(GOOD)), **changed})


@pytest.mark.parametrize(
    ("data", "code", "at"),
    [
        (b"", "json_invalid", ""),
        (write(GOOD) + b"\n\n", "json_invalid", ""),
        (write(GOOD).replace(b'"step":"1"', b'"step": "1"'), "json_not_canonical", ""),
        (raw(format="assay-items/v2"), "shape", "/format"),
        (raw(extra=1), "items_fields", "/extra"),
        (raw(reducer="median"), "shape", "/reducer"),
        (raw(ids_sha256="ab"), "shape", "/ids_sha256"),
        (raw(scores=[0, True, 1]), "shape", "/scores"),
        (raw(scores=[]), "items_length", "/scores"),
        (raw(clusters=[1]), "items_length", "/clusters"),
        (raw(clusters=[1, 2, -3]), "shape", "/clusters/2"),
        (raw(targets=[0, 1, 0]), "items_targets", "/targets"),
        (raw(reducer="auc"), "items_targets", "/targets"),
        (raw(reducer="auc", targets=[1, 1, 1]), "items_targets", "/targets"),
        (raw(reducer="auc", targets=[0, 1, 2]), "items_targets", "/targets"),
        (raw(step="0.2"), "items_step", "/step"),
        (raw(step="0.10"), "items_step", "/step"),
        (raw(step="0"), "items_step", "/step"),
        (raw(step="-1"), "items_step", "/step"),
        (raw(step="1e-3"), "items_step", "/step"),
        (raw(check="a b"), "items_name", "/check"),
        (raw(labels={"layer": "<3>"}), "items_name", "/labels"),
    ],
)
def test_refuses_and_names_the_field(data: bytes, code: str, at: str) -> None:
    with pytest.raises(Malformed) as refused:
        read(data)
    assert (refused.value.code, refused.value.at) == (code, at) or (code, at) == (refused.value.code, "")


def test_a_missing_field_is_named() -> None:
    value = json.loads(write(GOOD))
    del value["clusters"]
    with pytest.raises(Malformed, match="clusters"):
        read(canonical.dumps(value))


def test_numbers_beyond_every_reader_are_refused() -> None:
    with pytest.raises(Malformed):
        write(replace(GOOD, scores=(0, 1, 2**53)))


def test_reads_what_it_writes() -> None:
    for one in (GOOD, AREA):
        assert read(write(one)) == one
        assert write(read(write(one))) == write(one)
    assert read_all(write_all([GOOD, AREA])) == (GOOD, AREA)
    assert read_all(write(GOOD)) == (GOOD,)
    assert GOOD.groups == ([0, 0, 1], 2)


def test_a_file_names_the_line_that_is_wrong() -> None:
    with pytest.raises(Malformed) as refused:
        read_all(write(GOOD) + b"\n" + raw(step="2") + b"\n")
    assert refused.value.at == "line:2/step"
    with pytest.raises(Malformed) as refused:
        read_all(write_all([GOOD, GOOD]))
    assert (refused.value.code, refused.value.at) == ("items_twice", "line:2")


def test_items_are_ordered_by_the_hash_of_their_id() -> None:
    ids = ["b", "a", "c"]
    order, digest = in_order(ids)
    told = sorted(ids, key=lambda one: hashlib.sha256(one.encode()).hexdigest())
    assert [ids[at] for at in order] == told
    assert digest == hashlib.sha256("\n".join(told).encode()).hexdigest()
    assert in_order(["c", "b", "a"])[1] == digest
    for wrong in ([], ["a", "a"], ["a\nb", "c"]):
        with pytest.raises(Malformed):
            in_order(wrong)
