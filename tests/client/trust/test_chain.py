"""The chain of trust roots: thresholds, rotation, rollback, expiry, and which key was good when."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from assay import dsse
from assay.errors import CouldNotTell, Malformed, Wrong
from assay.keys import TrustedKey
from assay.trust import chain, document, envelope
from assay.trust.chain import trusted
from assay.trust.memory import Memory

from tests.client.trust.roots import LOG, NOW, key, listed, name, root, signed

FIRST = signed(root(), 1, 2)


def test_the_pinned_root_says_whom_to_trust() -> None:
    found = trusted([], FIRST, None, NOW)
    assert (found.operator, found.version) == ("operator.example", 1)
    assert [one.id for one in found.report_keys] == [name(9)]
    assert [log.vkey for log in found.logs] == [LOG]


def test_rotation_of_every_holder_in_two_steps() -> None:
    second = signed(root(2, (2, 3, 4), 10), 2, 3, 4)
    third = signed(root(3, (4, 5, 6), 11), 4, 2, 5, 6)
    for later in ([second, third], [third, second], [FIRST, second, third, second]):
        found = trusted(later, FIRST, None, NOW)
        assert (found.version, [one.id for one in found.report_keys]) == (3, [name(11)])
    assert trusted([FIRST, second], second, None, NOW).version == 2


@pytest.mark.parametrize(
    ("signers", "said"),
    [
        ((1,), "version 1's root keys"),
        ((1, 1), "version 1's root keys"),
        ((4, 5), "version 1's root keys"),
        ((9, 10), "version 1's root keys"),
        ((1, 2), "version 2's root keys"),
        ((1, 2, 4, 4), "version 2's root keys"),
    ],
)
def test_a_new_root_needs_both_thresholds_of_different_keys(signers: tuple[int, ...], said: str) -> None:
    second = signed(root(2, (4, 5, 6)), *signers)
    with pytest.raises(Wrong, match=said):
        trusted([second], FIRST, None, NOW)
    assert trusted([signed(root(2, (4, 5, 6)), 1, 2, 4, 5)], FIRST, None, NOW).version == 2


def test_a_root_signed_twice_by_one_key_is_refused() -> None:
    with pytest.raises(Wrong, match="has 1 good signatures"):
        trusted([], signed(root(), 1, 1), None, NOW)


def test_an_extra_bad_signature_of_a_known_key_is_refused_and_of_a_stranger_ignored() -> None:
    def bent(number: int) -> bytes:
        value = json.loads(signed(root(), 1, 2, number))
        other = json.loads(signed(root(5), number))
        value["signatures"][2] = other["signatures"][0]
        return json.dumps(value).encode()

    assert trusted([], bent(77), None, NOW).version == 1
    with pytest.raises(Wrong, match="does not verify"):
        trusted([], bent(3), None, NOW)


def test_a_report_signature_is_no_root_signature() -> None:
    payload = base64.b64decode(json.loads(FIRST)["payload"])
    value = json.loads(FIRST)
    for number, one in zip((1, 2), value["signatures"], strict=True):
        one["sig"] = base64.b64encode(dsse.sign(key(number), dsse.PAYLOAD_TYPE, payload)).decode()
    with pytest.raises(Wrong, match="does not verify"):
        trusted([], json.dumps(value).encode(), None, NOW)
    value["payloadType"] = dsse.PAYLOAD_TYPE
    with pytest.raises(Wrong, match="malformed"):
        trusted([], json.dumps(value).encode(), None, NOW)


def test_a_gap_two_documents_of_one_version_or_another_operator_break_the_chain() -> None:
    second, third = signed(root(2), 1, 2), signed(root(3), 1, 2)
    with pytest.raises(Wrong, match="lacks version 2"):
        trusted([third], FIRST, None, NOW)
    with pytest.raises(Wrong, match="two different trust roots have version 2"):
        trusted([second, signed(root(2, reporter=10), 1, 2)], FIRST, None, NOW)
    with pytest.raises(Wrong, match="operator"):
        trusted([signed(root(2, operator="other.example"), 1, 2)], FIRST, None, NOW)
    with pytest.raises(Wrong, match="issued before"):
        trusted([signed(root(2, issued_at="2025-12-31T00:00:00Z"), 1, 2)], FIRST, None, NOW)


def test_a_revoked_or_expired_root_key_does_not_count() -> None:
    for fields in (
        {"revoked_at": "2026-01-01T12:00:00Z", "revoked_reason": "stolen"},
        {"valid_until": "2026-01-02T00:00:00Z"},
    ):
        document_1 = root()
        document_1["keys"][name(2)] = listed(2, **fields)
        first = signed(document_1, 1, 2)
        with pytest.raises(Wrong, match="has 1 good"):
            trusted([signed(root(2), 1, 2)], first, None, NOW)
        assert trusted([signed(root(2), 1, 3)], first, None, NOW).version == 2


def test_a_rollback_is_refused_for_each_operator(tmp_path: Path) -> None:
    memory, second = Memory(tmp_path / "state"), signed(root(2), 1, 2)
    assert trusted([], FIRST, memory, NOW).version == 1
    assert trusted([second], FIRST, memory, NOW).version == 2
    assert trusted([], second, memory, NOW).version == 2
    with pytest.raises(Wrong, match="rollback: trust root 1 was given, version 2 was seen"):
        trusted([], FIRST, memory, NOW)
    with pytest.raises(Wrong, match="another trust root of version 2"):
        trusted([signed(root(2, reporter=10), 1, 2)], FIRST, memory, NOW)
    assert trusted([signed(root(2), 2, 3)], FIRST, memory, NOW).version == 2, "other signatures, the same root"
    assert trusted([], signed(root(operator="other.example"), 1, 2), memory, NOW).version == 1


def test_a_refused_chain_is_not_remembered(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "state")
    with pytest.raises(Wrong):
        trusted([signed(root(2), 1)], FIRST, memory, NOW)
    assert memory.read("root", "operator.example") is None
    assert trusted([], FIRST, memory, NOW).version == 1


def test_a_damaged_memory_is_no_accusation(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "state")
    trusted([], FIRST, memory, NOW)
    [file] = (tmp_path / "state").glob("root-*.json")
    for data in (b"", b"{}", file.read_bytes()[:-1]):
        file.write_bytes(data)
        with pytest.raises(CouldNotTell, match="damaged"):
            trusted([], FIRST, memory, NOW)
    file.unlink()
    file.mkdir()
    with pytest.raises(CouldNotTell, match="cannot be used"):
        trusted([], FIRST, memory, NOW)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CouldNotTell, match="cannot be used"):
        trusted([], FIRST, Memory(tmp_path / "file" / "below"), NOW)


def test_an_expired_root_is_could_not_tell_unless_now_lies_within_it() -> None:
    end = datetime(2026, 12, 31, tzinfo=UTC)
    assert trusted([], FIRST, None, end - timedelta(seconds=1)).version == 1
    with pytest.raises(CouldNotTell, match="expired at 2026-12-31T00:00:00Z"):
        trusted([], FIRST, None, end)
    with pytest.raises(CouldNotTell, match="future"):
        trusted([], FIRST, None, datetime(2025, 12, 31, 23, 54, 59, tzinfo=UTC))
    assert trusted([signed(root(2, expires_at="2027-12-31T00:00:00Z"), 1, 2)], FIRST, None, end).version == 2


def test_a_key_is_judged_by_the_logged_time() -> None:
    value = root()
    value["keys"][name(9)] = listed(9, revoked_at="2026-03-01T00:00:00Z", revoked_reason="laptop stolen")
    found = trusted([], signed(value, 1, 2), None, NOW)
    day = timedelta(days=1)
    found.check_key(name(9), datetime(2026, 3, 1, tzinfo=UTC) - timedelta(seconds=1))
    for at, said in (
        (datetime(2026, 3, 1, tzinfo=UTC), "was revoked .* laptop stolen"),
        (datetime(2026, 1, 1, tzinfo=UTC) - day, "was not good"),
        (datetime(2026, 12, 31, tzinfo=UTC), "was revoked"),
    ):
        with pytest.raises(Wrong, match=said):
            found.check_key(name(9), at)
    with pytest.raises(Wrong, match="was not good"):
        trusted([], FIRST, None, NOW).check_key(name(9), datetime(2026, 12, 31, tzinfo=UTC))
    with pytest.raises(Wrong, match="no report key"):
        found.check_key(name(1), NOW)


def test_a_pinned_key_has_no_rotation_and_says_so() -> None:
    pinned = chain.pinned_keys([TrustedKey(name(9), key(9).public_key())], [LOG])
    assert "no rotation" in pinned.check_key(name(9), NOW)
    assert pinned.logs[0].good_at(NOW)
    assert pinned.expires_at is None
    with pytest.raises(Wrong):
        pinned.check_key(name(1), NOW)


def _twice(value: dict[str, Any]) -> None:
    value["roles"]["root"]["keyids"] *= 2


def _misnamed(value: dict[str, Any]) -> None:
    value["keys"][name(1)] = listed(2)


def _stray(value: dict[str, Any]) -> None:
    value["roles"]["report"]["keyids"].append(name(50))


def _log(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["logs"][0].update(fields)


def _key(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["keys"][name(1)].update(fields)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("operator"),
        lambda value: value.update(schema="assay-trust-root/v2"),
        lambda value: value.update(version=0),
        lambda value: value.update(version=True),
        lambda value: value.update(operator="two words"),
        lambda value: value.update(expires_at=value["issued_at"]),
        lambda value: value.update(expires_at="2028-01-02T00:00:00Z"),
        lambda value: value["roles"]["root"].update(threshold=0),
        lambda value: value["roles"]["root"].update(threshold=4),
        lambda value: value["roles"]["report"].update(threshold=2),
        lambda value: value["roles"]["report"].update(keyids=[]),
        _twice,
        _misnamed,
        _stray,
        _key(scheme="ed25519"),
        _key(public_spki_b64="AAAA"),
        _key(public_spki_b64="not base64"),
        _key(valid_until="2026-01-01T00:00:00Z"),
        _key(revoked_at="2026-02-01T00:00:00Z"),
        _key(revoked_reason="no moment"),
        _key(revoked_at="2026-02-01T00:00:00Z", revoked_reason="line\nbreak"),
        _log(origin="log.other.example"),
        _log(vkey="junk"),
        _log(valid_until="2025-01-01T00:00:00Z"),
        lambda value: value["logs"].append(value["logs"][0]),
    ],
)
def test_a_document_of_another_form_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(json.dumps(root()))
    change(value)
    with pytest.raises(Malformed):
        document.parse(json.dumps(value).encode())
    with pytest.raises(Wrong, match="malformed"):
        trusted([], signed(value, 1, 2), None, NOW)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(signatures=[]),
        lambda value: value.update(signatures=value["signatures"] * 33),
        lambda value: value.update(payload=value["payload"] + "="),
        lambda value: value.update(payload=value["payload"][:-4] + "\n" + value["payload"][-4:]),
        lambda value: value["signatures"][0].update(sig=base64.b64encode(bytes(64)).decode()),
        lambda value: value["signatures"][0].update(keyid="name"),
        lambda value: value.pop("payloadType"),
    ],
)
def test_an_envelope_of_another_form_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(FIRST)
    change(value)
    with pytest.raises(Malformed):
        envelope.read(json.dumps(value).encode())


def test_a_memory_is_changed_whole_or_not_at_all(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "state")
    memory.update("log", "log.assay.example", lambda before: b"one")

    def refuse(before: bytes | None) -> bytes:
        raise Wrong(f"had {before!r}")

    with pytest.raises(Wrong, match="had b'one'"):
        memory.update("log", "log.assay.example", refuse)
    assert memory.read("log", "log.assay.example") == b"one"
    assert memory.read("root", "log.assay.example") is None
