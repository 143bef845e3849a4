"""The signer decides by the policy that was registered, with the client's own engine, and signs the companions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from assay import bundle
from assay.gate import established, gate
from assay.policy import language, loader, registered, waivers
from assay.verify import verify

from service.signer.refusal import Refused
from tests.client.test_verify_verdict import FAILS, PASSES, WAIVED, failed_print
from tests.service.signer.planting import World


class Ruled(World):
    """A world whose request registers a policy, and waivers if any."""

    def __init__(self, root: Path, policy: bytes, accepted: bytes | None = None) -> None:
        self._documents = (policy, accepted)
        super().__init__(root)

    def _request(self, checks: int) -> dict[str, Any]:
        policy, accepted = self._documents
        digests = {
            "policy_sha256": self.put(policy),
            "waivers_sha256": None if accepted is None else self.put(accepted),
        }
        return {**super()._request(checks), **digests}


def policy(text: str) -> bytes:
    return language.parse(loader.read(text.encode(), "policy.yaml")).data


def accepted(created: str, expires: str) -> bytes:
    text = WAIVED % (failed_print(), created, expires)
    return registered.waivers_data(waivers.parse(loader.read(text.encode(), "waivers.yaml")))


def sealed(world: World) -> dict[str, Any]:
    world.register()
    world.finish()
    return world.sealed()


def look(world: World, answer: dict[str, Any]) -> Any:
    place = Path(answer["directory"])
    return verify(place, keys=[world.desk.public_file], catalogue=world.desk.catalogue, now=world.now)


@pytest.mark.parametrize(("text", "outcome"), [(PASSES, "pass"), (FAILS, "fail")])
def test_a_report_carries_its_policy_its_verdict_and_its_companions(tmp_path: Path, text: str, outcome: str) -> None:
    world = Ruled(tmp_path, policy(text))
    answer = sealed(world)
    seen = look(world, answer)
    assert (seen.outcome, seen.verdict) == ("verified", outcome), seen.render_text()
    assert (seen.step("V13").status, seen.step("V14").status) == ("ok", "ok")
    listed = {file["path"] for file in answer["files"]}
    assert {registered.POLICY_FILE, *bundle.COMPANIONS} <= listed
    assert registered.WAIVERS_FILE not in listed
    report = Path(answer["directory"])
    told = json.loads(bundle.read((report / bundle.FILE_NAME).read_bytes()).payload)["predicate"]
    assert (told["policy"]["name"], told["verdict"]["outcome"]) == ("release", outcome)


def test_a_registered_waiver_acts_and_an_expired_one_does_not(tmp_path: Path) -> None:
    for place, dates, outcome in (
        ("held", ("2026-01-01", "2026-01-02"), "pass"),
        ("over", ("2025-12-01", "2026-01-01"), "fail"),
    ):
        world = Ruled(tmp_path / place, policy(FAILS), accepted(*dates))
        answer = sealed(world)
        assert look(world, answer).verdict == outcome
        assert registered.WAIVERS_FILE in {file["path"] for file in answer["files"]}


def test_sealing_again_gives_the_same_files(tmp_path: Path) -> None:
    world = Ruled(tmp_path, policy(PASSES))
    first = sealed(world)
    assert world.sealed()["files"] == first["files"]


def test_without_a_policy_there_is_no_verdict(tmp_path: Path) -> None:
    world = World(tmp_path)
    answer = sealed(world)
    assert look(world, answer).verdict is None
    assert not {registered.POLICY_FILE, *bundle.COMPANIONS} & {file["path"] for file in answer["files"]}


@pytest.mark.parametrize("data", [b"{}", policy(PASSES) + b"\n", b"schema: assay-policy/v1\n"])
def test_bytes_that_are_no_policy_are_never_registered(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Refused) as refused:
        Ruled(tmp_path, data).register()
    assert refused.value.code == "REQUEST_REJECTED"


def test_a_policy_that_changed_on_disk_is_never_signed(tmp_path: Path) -> None:
    world = Ruled(tmp_path, policy(PASSES))
    world.register()
    world.finish()
    digest = world.request["policy_sha256"]
    world.blob(digest).write_bytes(policy(FAILS))
    with pytest.raises(Refused) as refused:
        world.sealed()
    assert refused.value.code == "BLOB_CORRUPT"


def test_the_gate_takes_the_registered_policy_and_no_other(tmp_path: Path) -> None:
    world = Ruled(tmp_path, policy(PASSES))
    answer = sealed(world)
    assert world.journal is not None
    looked = established.look(
        Path(answer["directory"]),
        keys=[world.desk.public_file],
        log_vkeys=[world.journal.vkey.text],
        now=world.now,
        catalogue=world.desk.catalogue,
    )
    for text, code in ((PASSES.replace("report: {max_age_days: 30, attempts_max: 3}", ""), 2), (FAILS, 2)):
        asked = registered.read_policy(policy(text))
        wanted = gate.Asked(policy=asked, now=world.now, registered_policy_sha256=established.registered_policy(looked))
        result = gate.decide(looked, wanted)
        assert (result.exit_code, result.problems[0].code) == (code, "policy_not_registered")
