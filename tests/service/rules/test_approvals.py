"""What a signed consent allows, as pure functions: bad documents first."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from assay import approval, canonical, dsse
from assay.keys import key_id
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service.rules.approvals import Candidate, OwnerKey, Signed, Wanted, WantedCheck, choose, mismatches, verify
from service.rules.errors import Refusal

KEY = ec.derive_private_key(11, ec.SECP256R1())
OTHER = ec.derive_private_key(12, ec.SECP256R1())
CODE, PARAMS, DATA, BASE = ("c" * 64, "d" * 64, "e" * 64, "f" * 64)

ALLOWED = approval.Approval(
    model="a" * 64,
    grantee="bolt",
    checks=(approval.ApprovedCheck(name="weigh", version="1.0", code_sha256=CODE, params_sha256=PARAMS),),
    data=(DATA,),
    access=("weights",),
    output_cap_bytes=1000,
    lifetime_cap_bytes=5000,
    max_runs=2,
    not_after=datetime(2030, 1, 1, tzinfo=UTC),
    nonce="b" * 64,
)
WANTED = Wanted(
    model="a" * 64,
    tenant="bolt",
    checks=(WantedCheck(name="weigh", version="1.0", code_sha256=CODE, params_sha256=PARAMS),),
    data=(DATA,),
    base=None,
    access=("weights",),
    output_bytes=1000,
)


def owner(key: ec.EllipticCurvePrivateKey = KEY) -> OwnerKey:
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return OwnerKey(key_id=key_id(key.public_key()), spki=spki)


def signed_bytes(document: bytes, key: ec.EllipticCurvePrivateKey = KEY, **changes: Any) -> bytes:
    signature = base64.b64encode(dsse.sign(key, approval.PAYLOAD_TYPE, document)).decode()
    value = {
        "payload": base64.b64encode(document).decode(),
        "payloadType": approval.PAYLOAD_TYPE,
        "signatures": [{"keyid": key_id(key.public_key()), "sig": signature}],
    }
    return json.dumps({**value, **changes}).encode()


def fields_refused(envelope: bytes) -> set[str]:
    with pytest.raises(Refusal) as caught:
        verify(envelope, [owner()])
    assert caught.value.reason == "BAD_APPROVAL"
    return {one.field for one in caught.value.violations}


@pytest.mark.parametrize("name", sorted(approval.FIELDS))
def test_missing_field_is_never_unlimited(name: str) -> None:
    document = ALLOWED.document()
    del document[name]
    assert fields_refused(signed_bytes(canonical.dumps(document))) == {f"envelope.payload.{name}"}


@pytest.mark.parametrize("name", sorted(approval.CHECK_FIELDS))
def test_missing_field_of_a_check_is_never_unlimited(name: str) -> None:
    document = ALLOWED.document()
    document["checks"] = [{key: value for key, value in document["checks"][0].items() if key != name}]
    assert fields_refused(signed_bytes(canonical.dumps(document))) == {f"envelope.payload.checks[0].{name}"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schema", "assay-approval/v2"),
        ("model", "A" * 64),
        ("grantee", ""),
        ("grantee", "two words"),
        ("checks", "*"),
        ("checks", None),
        ("data", None),
        ("data", ["*"]),
        ("data", [DATA, DATA]),
        ("access", "*"),
        ("access", ["everything"]),
        ("output_cap_bytes", 65_537),
        ("output_cap_bytes", True),
        ("output_cap_bytes", "1000"),
        ("lifetime_cap_bytes", 1_048_577),
        ("max_runs", -1),
        ("max_runs", None),
        ("not_after", "2030-01-01"),
        ("not_after", None),
        ("nonce", ""),
        ("only_on_sundays", True),
    ],
)
def test_wrong_or_unknown_field_is_named(name: str, value: Any) -> None:
    document = {**ALLOWED.document(), name: value}
    assert fields_refused(signed_bytes(canonical.dumps(document))) == {f"envelope.payload.{name}"}


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"[]",
        b"{}",
        signed_bytes(b"x", payloadType="application/vnd.in-toto+json"),
        signed_bytes(b"x", signatures=[]),
        signed_bytes(b"x", signatures=[{"keyid": "a" * 64, "sig": "AA=="}, {"keyid": "a" * 64, "sig": "AA=="}]),
        signed_bytes(b"x", payload="not base64!"),
        signed_bytes(b"x", extra=1),
        b'{"payload":"eA==","payload":"eA==","payloadType":"x","signatures":[]}',
        b" " * (approval.BYTES_MAX + 1),
    ],
)
def test_what_is_no_envelope_is_bad(envelope: bytes) -> None:
    assert fields_refused(envelope)


def test_duplicate_key_in_a_signed_document_is_bad() -> None:
    """One reader would see two runs, another two million."""
    payload = canonical.dumps(ALLOWED.document()).replace(b'"max_runs":2', b'"max_runs":2,"max_runs":9')
    assert fields_refused(signed_bytes(payload))


def test_signature_of_a_stranger_says_nothing() -> None:
    with pytest.raises(Refusal) as caught:
        verify(approval.sign(ALLOWED, OTHER), [owner()])
    assert caught.value.reason == "BAD_SIGNATURE"
    with pytest.raises(Refusal, match="No approval key"):
        verify(approval.sign(ALLOWED, KEY), [])


def test_bytes_changed_after_signing_say_nothing() -> None:
    value = json.loads(approval.sign(ALLOWED, KEY))
    document = {**ALLOWED.document(), "max_runs": 9}
    value["payload"] = base64.b64encode(canonical.dumps(document)).decode()
    with pytest.raises(Refusal) as caught:
        verify(json.dumps(value).encode(), [owner()])
    assert caught.value.reason == "BAD_SIGNATURE"


def test_key_is_found_by_verifying_not_by_its_name() -> None:
    value = json.loads(approval.sign(ALLOWED, KEY))
    value["signatures"][0]["keyid"] = "0" * 64
    assert verify(json.dumps(value).encode(), [owner(OTHER), owner()]).key_id == owner().key_id


def test_same_words_signed_again_are_the_same_approval() -> None:
    again = json.loads(approval.sign(ALLOWED, KEY))
    again["signatures"][0]["sig"] = base64.b64encode(
        dsse.sign(OTHER, approval.PAYLOAD_TYPE, base64.b64decode(again["payload"]))
    ).decode()
    first = verify(approval.sign(ALLOWED, KEY), [owner()])
    assert first.id == verify(json.dumps(again).encode(), [owner(OTHER)]).id
    assert first.approval == ALLOWED


def test_what_is_allowed_fits() -> None:
    assert mismatches(ALLOWED, WANTED) == ()
    anything = replace(ALLOWED, data=None, checks=(replace(ALLOWED.checks[0], params_sha256="*"),))
    assert mismatches(anything, replace(WANTED, data=("0" * 64,), base=BASE)) == ()


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (replace(WANTED, model="0" * 64), "audit.model"),
        (replace(WANTED, tenant="acme"), "audit"),
        (replace(WANTED, checks=(replace(WANTED.checks[0], name="probe"),)), "audit.checks[0]"),
        (replace(WANTED, checks=(replace(WANTED.checks[0], version="1.1"),)), "audit.checks[0]"),
        (replace(WANTED, checks=(replace(WANTED.checks[0], code_sha256="0" * 64),)), "audit.checks[0]"),
        (
            replace(WANTED, checks=(WANTED.checks[0], replace(WANTED.checks[0], params_sha256="0" * 64))),
            "audit.checks[1]",
        ),
        (replace(WANTED, data=(DATA, "0" * 64)), "audit.data[1]"),
        (replace(WANTED, base=BASE), "audit.base_model"),
        (replace(WANTED, access=("weights", "gradients")), "audit.access"),
        (replace(WANTED, output_bytes=1001), "audit.limits.output_bytes"),
    ],
)
def test_each_mismatch_is_named(wanted: Wanted, field: str) -> None:
    assert [one.field for one in mismatches(ALLOWED, wanted)] == [field]


def test_empty_list_allows_nothing() -> None:
    nothing = replace(ALLOWED, checks=(), data=(), access=(), output_cap_bytes=0)
    named = {one.field for one in mismatches(nothing, WANTED)}
    assert named == {"audit.checks[0]", "audit.data[0]", "audit.access", "audit.limits.output_bytes"}


def candidate(used: int = 0, over: str = "", **changes: Any) -> Candidate:
    allowed = replace(ALLOWED, **changes)
    signed = Signed(id=approval.approval_id(canonical.dumps(allowed.document()))[:32], key_id="k", approval=allowed)
    return Candidate(signed=signed, owner="acme", used=used, over=over)


def test_first_approval_with_a_run_left_is_chosen() -> None:
    spent, free = candidate(used=2), candidate(nonce="1" * 64)
    assert choose([spent, candidate(over="was revoked", nonce="2" * 64), free], WANTED) is free


def test_spent_and_misfit_are_told_apart() -> None:
    with pytest.raises(Refusal) as caught:
        choose([candidate(data=()), candidate(used=2)], WANTED)
    assert (caught.value.reason, caught.value.metadata["max_runs"]) == ("APPROVAL_SPENT", "2")
    with pytest.raises(Refusal) as caught:
        choose([candidate(data=(), access=()), candidate(over="was revoked")], WANTED)
    assert caught.value.reason == "APPROVAL_MISMATCH"
    assert [one.field for one in caught.value.violations] == ["audit.data[0]", "audit.access", "audit.approvals"]


def test_approval_of_no_runs_is_spent() -> None:
    with pytest.raises(Refusal) as caught:
        choose([candidate(max_runs=0)], WANTED)
    assert caught.value.reason == "APPROVAL_SPENT"
