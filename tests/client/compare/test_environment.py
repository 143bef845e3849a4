"""A tolerance holds between runs on one machine alone; a card that nobody names is no such machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from assay.compare.environment import GPU_STAGE, same_machine
from assay.testing import Forge


@pytest.fixture
def told(tmp_path: Path) -> dict[str, Any]:
    forge = Forge(tmp_path, seed=3)
    predicate: dict[str, Any] = forge.statement(forge.report())["predicate"]
    return predicate


def on_gpu(told: dict[str, Any], *models: str | None) -> dict[str, Any]:
    """Return the predicate of a run with leased GPUs; the models are what its environment says of them."""
    cells = [{**cell, "stage": GPU_STAGE} for cell in told["sandbox"]["cells"]]
    gpus = {"gpus": [{"model": model} for model in models]} if models else {}
    return {**told, "sandbox": {**told["sandbox"], "cells": cells}, "environment": {**told["environment"], **gpus}}


def test_two_cards_that_nobody_names_are_never_one_machine(told: dict[str, Any]) -> None:
    assert same_machine(told, told)
    unnamed = on_gpu(told)
    assert not same_machine(unnamed, unnamed)
    assert not same_machine(told, unnamed)
    assert not same_machine(on_gpu(told, None), on_gpu(told, None))
    assert not same_machine(on_gpu(told, "H100", None), on_gpu(told, "H100", None))


def test_an_attempt_on_a_card_counts_too(told: dict[str, Any]) -> None:
    cells = [{**cell, "stage": GPU_STAGE} for cell in told["sandbox"]["cells"]]
    tried = {**told, "attempts": [*told["attempts"], {**told["attempts"][0], "cells": cells}]}
    assert not same_machine(tried, tried)


def test_named_cards_are_compared(told: dict[str, Any]) -> None:
    assert same_machine(on_gpu(told, "H100"), on_gpu(told, "H100"))
    assert not same_machine(on_gpu(told, "H100"), on_gpu(told, "H200"))
    other = {**told, "environment": {**told["environment"], "lock_sha256": "0" * 64}}
    assert not same_machine(on_gpu(told, "H100"), on_gpu(other, "H100"))
