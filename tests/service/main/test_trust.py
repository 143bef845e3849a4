"""The trust root of a development server: pinned once, renewed in time, and every version follows from the first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from assay.tlog import notes
from assay.trust import chain
from assay.verify import given
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.main import trust

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOLDER, REPORT, OTHER = (ec.derive_private_key(number, ec.SECP256R1()) for number in (1, 2, 3))
LOG = Ed25519PrivateKey.from_private_bytes(bytes(32))
VKEY = notes.vkey_of(LOG, trust.log_origin(LOG.public_key().public_bytes_raw()))


def trusted(pinned: Path, now: datetime) -> chain.TrustRoot:
    return chain.trusted(given.later_roots(pinned), given.pinned_root(pinned), None, now)


def test_a_root_is_made_once_and_renewed_before_a_key_is_past_its_time(tmp_path: Path) -> None:
    pinned = trust.ensure_root(tmp_path, HOLDER, REPORT, VKEY, START)
    assert pinned.name == "root.1.dsse.json"
    before = pinned.read_bytes()
    assert trust.ensure_root(tmp_path, HOLDER, REPORT, VKEY, START + timedelta(days=100)) == pinned
    assert [path.name for path in tmp_path.iterdir()] == ["root.1.dsse.json"]
    assert trusted(pinned, START).version == 1
    late = START + timedelta(days=190)
    assert trust.ensure_root(tmp_path, HOLDER, REPORT, VKEY, late) == pinned
    assert pinned.read_bytes() == before
    found = trusted(pinned, late)
    assert found.version == 2
    for at in (START, late):
        assert found.check_key(found.report_keys[0].id, at)
        assert found.logs[0].good_at(at)


def test_a_new_key_joins_and_reports_of_the_old_one_stay_good(tmp_path: Path) -> None:
    pinned = trust.ensure_root(tmp_path, HOLDER, REPORT, VKEY, START)
    old = trusted(pinned, START).report_keys[0].id
    later = START + timedelta(days=9)
    trust.ensure_root(tmp_path, HOLDER, OTHER, VKEY, later)
    found = trusted(pinned, later)
    assert (found.version, len(found.report_keys)) == (2, 2)
    assert found.check_key(old, START)


def test_two_servers_are_never_taken_for_one(tmp_path: Path) -> None:
    one = trusted(trust.ensure_root(tmp_path / "a", HOLDER, REPORT, VKEY, START), START)
    two = trusted(trust.ensure_root(tmp_path / "b", OTHER, REPORT, VKEY, START), START)
    assert one.operator != two.operator
    assert trust.log_origin(bytes(32)) != trust.log_origin(b"\x01" * 32)
