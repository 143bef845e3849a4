"""The signer names each finding itself: what the host's record calls it is overwritten."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.service.signer.planting import World


@pytest.mark.parametrize("claimed", [None, "0" * 32])
def test_a_finding_is_named_by_the_signer(tmp_path: Path, claimed: str | None) -> None:
    world = World(tmp_path)
    world.register()
    record = world.record()
    for answer in record["answers"]:
        for finding in answer["findings"]:
            finding["fingerprint"] = claimed
    world.finish(record)
    [answer] = world.forge.statement(Path(world.sealed()["directory"]))["predicate"]["answers"]
    [finding] = answer["findings"]
    named = {"check": answer["check"], "finding": finding["code"], "labels": finding["labels"], "v": 1}
    data = json.dumps(named, sort_keys=True, separators=(",", ":")).encode()
    assert finding["fingerprint"] == hashlib.sha256(data).hexdigest()[:32]
