"""A receipt that does not stand for what was asked is refused at once, and kept apart from the report."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from assay import canonical, receipt, request
from assay.api.v1 import audits_pb2
from assay.errors import Wrong
from assay.receipt import Expected
from assay.testing import Forge
from assay.tlog import proofs
from assay.tlog.leaves import LogKey

from tests.client.conftest import Assay
from tests.client.fakes import AUDIT, Fake, event

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def pair(forge: Forge) -> tuple[bytes, bytes]:
    place = forge.report()
    return (place / request.FILE_NAME).read_bytes(), (place / proofs.REQUEST_PROOF).read_bytes()


def expected(data: bytes) -> Expected:
    told = json.loads(data)
    return Expected(
        audit=f"audits/{told['audit']}",
        model_sha256=told["model"]["manifest_sha256"],
        checks=[(one["name"], {"layers": 2}) for one in told["checks"]],
        data=[(one["role"], one["sha256"]) for one in told["data"]],
        nonce=bytes.fromhex(told["nonce"]),
    )


def logs(forge: Forge) -> list[LogKey]:
    return [LogKey(vkey=forge.logged.log.vkey)]


def test_a_receipt_of_what_was_asked_is_sound(forge: Forge, pair: tuple[bytes, bytes]) -> None:
    assert receipt.check(*pair, expected(pair[0]), logs(forge), NOW).startswith("entry 0 of log")
    assert "not known here" in receipt.check(*pair, expected(pair[0]), [], NOW)


def test_a_fraction_is_registered_as_its_decimal_text() -> None:
    assert receipt._plain(0.05) == receipt._plain("0.05") == receipt._plain("0.050")
    assert receipt._plain(True) != receipt._plain(1)
    assert receipt._plain([1, 0.5]) == receipt._plain([1, "0.5"])


OTHER: dict[str, dict[str, Any]] = {
    "audit": {"audit": "audits/" + "0" * 32},
    "model": {"model_sha256": "0" * 64},
    "base model": {"base_sha256": "0" * 64},
    "list of checks": {"checks": []},
    "forged_probe.layers": {"checks": [("forged_probe", {"layers": 3})]},
    "data": {"data": []},
    "policy": {"policy_sha256": "0" * 64},
    "waivers": {"waivers_sha256": "0" * 64},
    "nonce": {"nonce": bytes(32)},
    "seed": {"seed": 5},
    "first report": {"first_sha256": "0" * 64},
}


@pytest.mark.parametrize("what", OTHER)
def test_another_registration_than_was_asked_is_refused(forge: Forge, pair: tuple[bytes, bytes], what: str) -> None:
    with pytest.raises(Wrong, match=f"another {what}"):
        receipt.check(*pair, replace(expected(pair[0]), **OTHER[what]), logs(forge), NOW)


def test_a_proof_of_another_request_is_refused(forge: Forge, pair: tuple[bytes, bytes]) -> None:
    other = (forge.report() / proofs.REQUEST_PROOF).read_bytes()
    for keys in (logs(forge), []):
        with pytest.raises(Wrong, match=proofs.REQUEST_PROOF):
            receipt.check(pair[0], other, expected(pair[0]), keys, NOW)
    with pytest.raises(Wrong, match="malformed"):
        receipt.check(pair[0], b"c2sp", expected(pair[0]), [], NOW)


def test_a_log_of_a_stranger_is_refused(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    stranger = Forge(tmp_path / "stranger", seed=5)
    with pytest.raises(Wrong, match="no trusted key"):
        receipt.check(*pair, expected(pair[0]), logs(stranger), NOW)


def test_the_first_receipt_is_kept(pair: tuple[bytes, bytes], tmp_path: Path) -> None:
    folder = receipt.place_beside(tmp_path / "report")
    assert folder.name == "report.receipt"
    receipt.store(folder, *pair)
    receipt.store(folder, *pair)
    with pytest.raises(Wrong, match="another registration"):
        receipt.store(folder, b"{}", pair[1])
    assert sorted(one.name for one in folder.iterdir()) == [request.FILE_NAME, proofs.REQUEST_PROOF]
    assert (folder / request.FILE_NAME).read_bytes() == pair[0]


def registered(fake: Fake, forge: Forge, **changes: Any) -> Any:
    """Return the event of a registration of what the fake was asked."""
    asked = fake.audits.requests[-1].audit
    told = {
        "schema": request.SCHEMA,
        "audit": AUDIT.removeprefix("audits/"),
        "nonce": asked.nonce.hex(),
        "model": {"manifest_sha256": asked.model.removeprefix("models/")},
        "checks": [{"name": "forged_probe", "version": "1.0", "params": {"layers": 2}}],
        "data": [],
        "limits": {"attempts_max": 3, "output_bytes": 1, "wall_s": 1},
        "seed_mode": "derived",
        "submitted_at": "2026-01-02T03:04:05Z",
        **changes,
    }
    data = canonical.dumps(told)
    logged = forge.logged.register(data, told["model"]["manifest_sha256"], "2026-01-02T03:04:06Z")
    return event(2, registered=audits_pb2.Registered(request_json=data, request_proof=logged.proof))


class Late(list[Any]):
    """A scripted connection whose event is made when it is watched: only then the request is known."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def __iter__(self) -> Any:
        return iter([self.make()])


def test_submit_keeps_the_receipt_before_there_are_results(
    fake: Fake, assay: Assay, model: Path, forge: Forge, tmp_path: Path
) -> None:
    fake.audits.connections = [Late(lambda: registered(fake, forge))]
    ran = assay("submit", model, "--check", "forged_probe:layers=2")
    assert ran.code == 0, ran.err
    kept = tmp_path / "assay-reports" / f"{AUDIT.removeprefix('audits/')}.receipt"
    assert sorted(one.name for one in kept.iterdir()) == [request.FILE_NAME, proofs.REQUEST_PROOF]
    assert "receipt: entry 0" in ran.err


def test_submit_refuses_a_registration_of_something_else_loudly(
    fake: Fake, assay: Assay, model: Path, forge: Forge, tmp_path: Path
) -> None:
    fake.audits.connections = [Late(lambda: registered(fake, forge, policy_sha256="0" * 64))]
    ran = assay("submit", model, "--check", "forged_probe:layers=2")
    assert ran.code == 1
    assert "another policy" in ran.err
    assert f"assay cancel {AUDIT}" in ran.err
    assert not (tmp_path / "assay-reports").exists()


def test_a_service_without_receipts_is_told_so_and_serves(fake: Fake, assay: Assay, model: Path) -> None:
    fake.audits.connections = [[event(2, registered=audits_pb2.Registered(request_sha256="0" * 64))]]
    ran = assay("submit", model, "--check", "forged_probe:layers=2")
    assert (ran.code, "No receipt yet" in ran.err) == (0, True)
