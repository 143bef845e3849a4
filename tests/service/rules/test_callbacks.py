"""What a webhook tells, how it is signed and when it is tried again; the receiving end believes nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from itertools import product

import pytest
from assay import webhooks
from assay.errors import Misused
from hypothesis import given
from hypothesis import strategies as st

from service.rules.callbacks import TYPES, Told, check_webhook
from service.rules.retries import DELAYS_S, GONE, RETRY_AFTER_MAX_S, Again, Dead, Delivered, Reply, after, asked_ms
from service.rules.standard_webhooks import Key, Signing, headers, new_key

BODY, AT = b'{"a":1}', 1_700_000_000
HMAC_KEY = Key(signing=Signing.HMAC, private=bytes(range(32)))
ED_KEY = Key(signing=Signing.ED25519, private=bytes(range(32)))


def signed(*keys: Key, at: int = AT, body: bytes = BODY) -> dict[str, str]:
    return headers(keys, "a1-completed", at * 1000 + 999, body)


def test_a_published_vector_of_standard_webhooks_holds() -> None:
    """The example of the specification's reference libraries: secret, id, timestamp and body -> signature."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    content = webhooks.content("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert webhooks.sign_hmac(secret, content) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_signature_is_hmac_over_id_timestamp_and_body() -> None:
    made = signed(HMAC_KEY)
    expected = hmac.new(bytes(range(32)), b"a1-completed.1700000000." + BODY, hashlib.sha256).digest()
    assert made == {
        "webhook-id": "a1-completed",
        "webhook-timestamp": "1700000000",
        "webhook-signature": "v1," + base64.b64encode(expected).decode(),
    }


@pytest.mark.parametrize("key", [HMAC_KEY, ED_KEY])
def test_what_is_signed_is_believed_and_nothing_else(key: Key) -> None:
    made = signed(key)
    told = webhooks.verify(key.told, {name.title(): value for name, value in made.items()}, BODY, now=AT)
    assert told == webhooks.Delivery(id="a1-completed", sent_at=AT)
    for name, value, reason in (
        ("webhook-id", "a2-completed", "BAD_SIGNATURE"),
        ("webhook-id", "a1.completed", "BAD_HEADER"),
        ("webhook-id", "", "BAD_HEADER"),
        ("webhook-timestamp", str(AT + 1), "BAD_SIGNATURE"),
        ("webhook-timestamp", "1.7e9", "BAD_HEADER"),
        ("webhook-timestamp", "٣", "BAD_HEADER"),
        ("webhook-timestamp", "-1", "BAD_HEADER"),
        ("webhook-signature", "", "BAD_SIGNATURE"),
        ("webhook-signature", "v1,", "BAD_SIGNATURE"),
        ("webhook-signature", "v1,é", "BAD_HEADER"),
        ("webhook-signature", "v1,\ud800", "BAD_HEADER"),
        ("webhook-signature", made["webhook-signature"] + " v1,\udcff", "BAD_HEADER"),
        ("webhook-signature", made["webhook-signature"].replace("v1", "v2"), "BAD_SIGNATURE"),
        ("webhook-signature", made["webhook-signature"][:-4] + "AAA=", "BAD_SIGNATURE"),
        ("webhook-signature", "x " * 16 + made["webhook-signature"], "BAD_SIGNATURE"),
    ):
        with pytest.raises(webhooks.WrongDelivery) as caught:
            webhooks.verify(key.told, {**made, name: value}, BODY, now=AT)
        assert caught.value.reason == reason, (name, value)
    for body in (b"", BODY + b"\n", b" " + BODY):
        with pytest.raises(webhooks.WrongDelivery, match="BAD_SIGNATURE"):
            webhooks.verify(key.told, made, body, now=AT)
    for name in made:
        with pytest.raises(webhooks.WrongDelivery, match="MISSING_HEADER"):
            webhooks.verify(key.told, {other: value for other, value in made.items() if other != name}, BODY, now=AT)


@pytest.mark.parametrize(
    ("now", "reason"), [(AT + 300, ""), (AT + 301, "TOO_OLD"), (AT - 300, ""), (AT - 301, "TOO_NEW")]
)
def test_a_call_is_fresh_for_five_minutes(now: int, reason: str) -> None:
    if not reason:
        webhooks.verify(HMAC_KEY.told, signed(HMAC_KEY), BODY, now=now)
        return
    with pytest.raises(webhooks.WrongDelivery) as caught:
        webhooks.verify(HMAC_KEY.told, signed(HMAC_KEY), BODY, now=now)
    assert caught.value.reason == reason


@pytest.mark.parametrize("signing", list(Signing))
def test_both_secrets_sign_and_either_is_enough(signing: Signing) -> None:
    new, old, other = (new_key(signing) for _ in range(3))
    made = signed(new, old)
    for keys in (new.told, old.told, [new.told, old.told], [other.told, old.told]):
        webhooks.verify(keys, made, BODY, now=AT)
    for wrong in (other.told, [], [other.told]):
        with pytest.raises(webhooks.WrongDelivery):
            webhooks.verify(wrong, made, BODY, now=AT)


def test_a_public_key_is_no_secret_that_an_attacker_could_sign_with() -> None:
    """The bytes of `whpk_…` are public: an HMAC with them must not pass for the Ed25519 signature."""
    public = base64.b64decode(ED_KEY.told.removeprefix(webhooks.PUBLIC))
    forged = signed(Key(signing=Signing.HMAC, private=public))
    with pytest.raises(webhooks.WrongDelivery):
        webhooks.verify(ED_KEY.told, forged, BODY, now=AT)


@pytest.mark.parametrize("key", ["", "whsec_", "whsec_!!", "whsk_" + "A" * 44, "whsec_" + "A" * 22 + "==", "é"])
def test_what_is_no_key_is_named_a_misuse(key: str) -> None:
    with pytest.raises(Misused, match="whsec_"):
        webhooks.verify(key, signed(HMAC_KEY), BODY, now=AT)


def test_a_key_does_not_print_itself() -> None:
    assert HMAC_KEY.told.startswith("whsec_")
    assert ED_KEY.told.startswith("whpk_")
    assert "\\x01" not in repr(HMAC_KEY)
    assert HMAC_KEY.told[6:20] not in repr(HMAC_KEY)


@given(st.integers(1, 12), st.integers(0, 999), st.floats(-1, 1), st.text(max_size=30))
def test_every_try_ends_as_one_of_three_and_within_its_bounds(
    tries: int, status: int, jitter: float, asks: str
) -> None:
    then = after(tries, Reply(status=status, retry_after=asks), jitter=jitter, now_ms=AT * 1000)
    if 200 <= status < 300:
        assert then == Delivered()
    elif status == GONE or tries == 12:
        assert isinstance(then, Dead)
        assert then.disables is (status == GONE)
    else:
        assert isinstance(then, Again)
        assert round(DELAYS_S[tries - 1] * 900) <= then.delay_ms
        assert then.delay_ms <= max(round(DELAYS_S[tries - 1] * 1100), RETRY_AFTER_MAX_S * 1000)


def test_the_eleven_delays_are_the_specification_s() -> None:
    assert DELAYS_S == (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 43200, 86400)
    moments = [after(n, Reply(status=500), jitter=0.0, now_ms=0) for n in range(1, 13)]
    assert moments == [*(Again(s * 1000, "BAD_STATUS") for s in DELAYS_S), Dead("BAD_STATUS")]
    assert after(1, Reply(error="TIMED_OUT"), jitter=9.0, now_ms=0) == Again(5500, "TIMED_OUT")
    assert after(1, Reply(status=302), jitter=0.0, now_ms=0) == Again(5000, "REDIRECT")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("", 0), ("0", 0), ("7", 7_000), ("3600", 3_600_000), ("3601", 3_600_000), ("9" * 10, 3_600_000)),
        *(("9" * 40, 0), ("-5", 0), ("1.5", 0), ("soon", 0), ("\u0667", 0), ("0x10", 0), (",", 0), ("\x00", 0)),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60_000),
        ("Tue, 14 Nov 2023 22:14:20 -0000", 60_000),
        ("Tue, 14 Nov 2023 22:12:20 GMT", 0),
        ("Tue, 14 Nov 9999 22:12:20 GMT", 3_600_000),
        ("Tue, 14 Nov 2023 22:14:20 +9999999", 0),
        ("Tue, 99 Nov 2023 22:14:20 GMT", 0),
    ],
)
def test_retry_after_is_honoured_to_an_hour(text: str, expected: int) -> None:
    assert asked_ms(text, AT * 1000) == expected


@given(st.text(max_size=100))
def test_no_retry_after_of_a_stranger_raises(text: str) -> None:
    assert 0 <= asked_ms(text, AT * 1000) <= RETRY_AFTER_MAX_S * 1000


def test_an_event_has_an_id_of_its_own_without_a_dot_and_fits_its_column() -> None:
    made = [
        Told(audit=audit * 32, state=state, report_sha256=None, labels={}, told_at=AT * 1000)
        for audit, state in product("ab", TYPES)
    ]
    assert len({one.event_id for one in made}) == 8
    for one in made:
        assert len(one.event_id) <= 64
        assert "." not in one.event_id
        event = json.loads(one.body())
        assert (event["id"], event["type"], event["time"]) == (one.event_id, TYPES[one.state], "2023-11-14T22:13:20Z")
        assert one.body() == one.body()


@pytest.mark.parametrize("identifier", ["", "abc", "a" * 64, "UPPER", "a_b_c", "a/../b", "été-", "abcd\n"])
def test_a_bad_id_of_a_webhook_is_named(identifier: str) -> None:
    assert [one.field for one in check_webhook(identifier, ())] == ["webhook_id"]


def test_unknown_and_repeated_types_are_named_and_a_long_list_is_not_read_through() -> None:
    good = list(TYPES.values())
    assert check_webhook("told", good) == []
    assert [one.field for one in check_webhook("told", [good[0], good[0]])] == ["webhook.types[1]"]
    assert len(check_webhook("told", ["x"] * 100_000)) == 5
