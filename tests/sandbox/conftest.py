"""Cells for the tests: real ones. A program is a few lines that run as the untrusted module."""

from __future__ import annotations

import hashlib
import secrets
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sandbox import BubblewrapCell, BubblewrapSettings, CodeMount, Input, Order, ProcessCell, Slot

MakeOrder = Callable[..., Order]


@pytest.fixture(scope="session")
def cell() -> Iterator[BubblewrapCell]:
    made = BubblewrapCell(BubblewrapSettings(site_packages=()))
    yield made
    made.close()


@pytest.fixture(scope="session")
def twin() -> Iterator[ProcessCell]:
    made = ProcessCell(unsafe=True)
    yield made
    made.close()


@pytest.fixture
def order(tmp_path: Path) -> MakeOrder:
    """Make an order from a program's text."""

    def make(
        program: str,
        *,
        inputs: Mapping[str, bytes] | None = None,
        slots: tuple[Slot, ...] = (),
        limits: Mapping[str, int] | None = None,
        **more: Any,
    ) -> Order:
        source = tmp_path / f"program-{secrets.token_hex(4)}.py"
        source.write_text("import os, sys\n" + textwrap.dedent(program))
        named = []
        for name, content in (inputs or {}).items():
            path = tmp_path / f"input-{name}"
            path.write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            named.append(Input(name=name, source=path, sha256=digest, size=len(content)))
        values: dict[str, Any] = {
            "kind": "check",
            "module": "program",
            "arguments": (),
            "code": (CodeMount(name="program.py", source=source),),
            "inputs": tuple(named),
            "slots": slots,
            "request": b'{"hello":"cell"}',
            "nonce": secrets.token_hex(32),
            "limits": {"wall_s": 20, **(limits or {})},
        }
        return Order(**{**values, **more})

    return make
