"""Watching misses nothing, errors are ours, values are plain, downloads are re-hashed."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from assay.api.v1 import audits_pb2
from assay.client import AuditClient
from assay.client_errors import LocalInputRefused, NoConfig, ServerRefused, TimedOut, Unreachable
from assay.errors import AssayError, Malformed
from assay.remote.values import plain
from assay.testing import Forge

from tests.client.fakes import AUDIT, Fake, event
from tests.client.planted import write_model

STATE = audits_pb2.Audit.State


@pytest.fixture
def client(fake: Fake, tmp_path: Path) -> Iterator[AuditClient]:
    with AuditClient(fake.client_config(), state=tmp_path / "state", patience_s=5.0, timeout_s=10.0) as made:
        yield made


def running(sequence: int) -> Any:
    return event(sequence, state_changed=audits_pb2.StateChanged(state=STATE.STATE_RUNNING))


def test_watch_goes_on_after_the_last_event_and_tells_none_twice(fake: Fake, client: AuditClient) -> None:
    ended = audits_pb2.AttemptEnded(job="whole", number=1, exit_class=audits_pb2.EXIT_CLASS_TIME_LIMIT)
    fake.audits.connections = [
        [running(1), event(0, keepalive=audits_pb2.Keepalive()), running(2), "UNAVAILABLE"],
        ["UNAVAILABLE"],
        [
            running(2),
            event(3, attempt_ended=ended),
        ],
    ]
    told = list(client.watch(AUDIT))
    assert [one.sequence for one in told] == [1, 2, 3]
    assert fake.audits.watched_after == [0, 2, 2]
    assert told[0].detail == {"state": "RUNNING", "reason": ""}
    assert told[2].detail == {"job": "whole", "number": 1, "exit_class": "TIME_LIMIT"}


def test_watch_that_loses_the_service_says_where_to_go_on(fake: Fake) -> None:
    fake.audits.connections = [[running(1), running(2), "UNAVAILABLE"]]
    with AuditClient(fake.client_config(), patience_s=0) as client:
        told = client.watch(AUDIT)
        assert next(told).sequence == 1
        with pytest.raises(Unreachable) as caught:
            list(told)
    assert caught.value.last_sequence == 2


def test_watch_refused_is_not_repeated(fake: Fake, client: AuditClient) -> None:
    fake.audits.connections = [["OUT_OF_RANGE"], [running(1)]]
    with pytest.raises(ServerRefused) as caught:
        list(client.watch(AUDIT, 7))
    assert caught.value.code == "OUT_OF_RANGE"


def test_submit_twice_with_one_request_id_is_one_audit(fake: Fake, tmp_path: Path) -> None:
    """Two runs of a client have the same nonce for the same id, and different nonces for different ids."""
    for _ in range(2):
        with AuditClient(fake.client_config(), state=tmp_path) as client:
            model = client.upload_model(write_model(tmp_path / "model"))
            first = client.submit(model.manifest_sha256, [("forged_probe", {"layers": 2})], request_id="A" * 36)
            client.submit(model.manifest_sha256, [("forged_probe", {"layers": 2})])
    assert first.name == AUDIT
    nonces = [one.audit.nonce for one in fake.audits.requests]
    assert nonces[0] == nonces[2]
    assert len({*nonces}) == 3
    assert all(len(nonce) == 32 for nonce in nonces)


def test_a_refusal_carries_reason_violations_and_metadata(fake: Fake, client: AuditClient) -> None:
    fake.audits.refusal = (
        "INVALID_ARGUMENT",
        "BAD_PARAMETERS",
        "Two are wrong.",
        {"count": "2"},
        {"audit.checks[0].parameters_json/alpha": "7 is above 1", "audit.labels": "bad\x1b[31m"},
    )
    with pytest.raises(ServerRefused) as caught:
        client.submit("0" * 64, [("forged_probe", {})])
    refused = caught.value
    assert (refused.code, refused.reason, refused.metadata) == ("INVALID_ARGUMENT", "BAD_PARAMETERS", {"count": "2"})
    assert refused.violations[0].field == "audit.checks[0].parameters_json/alpha"
    assert "7 is above 1" in str(refused)
    assert "\x1b" not in str(refused)


@pytest.mark.parametrize("status", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_no_grpc_exception_leaks_whatever_the_code(fake: Fake, status: grpc.StatusCode) -> None:
    fake.audits.trouble = lambda context: context.abort(status, "plain words, no details")
    with AuditClient(fake.client_config(), patience_s=0) as client, pytest.raises(AssayError) as caught:
        client.get(AUDIT)
    assert not isinstance(caught.value, grpc.RpcError)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    if isinstance(caught.value, ServerRefused):
        assert caught.value.reason == status.name


def test_broken_error_details_do_not_hide_the_error(fake: Fake, client: AuditClient) -> None:
    def broken(context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff\xff"),))
        context.abort(grpc.StatusCode.INTERNAL, "incident 7")

    fake.audits.trouble = broken
    with pytest.raises(ServerRefused, match="incident 7"):
        client.get(AUDIT)


def test_a_call_whose_deadline_passes_is_timed_out(fake: Fake) -> None:
    fake.audits.trouble = lambda context: time.sleep(0.5)
    with AuditClient(fake.client_config(), timeout_s=0.1, patience_s=0) as client, pytest.raises(TimedOut):
        client.get(AUDIT)


def test_a_strangers_authority_is_unreachable_with_a_hint(fake: Fake, tmp_path: Path) -> None:
    from tests.client.planted import certificates

    (tmp_path / "other").mkdir()
    other = certificates(tmp_path / "other")
    address = fake.client_config().address
    with (
        AuditClient.connect(address, **other, patience_s=0, timeout_s=5) as client,
        pytest.raises(Unreachable) as caught,
    ):
        client.capabilities()
    assert address in str(caught.value)


def test_pages_are_followed_to_the_end(fake: Fake, client: AuditClient) -> None:
    fake.audits.listed = [
        audits_pb2.Audit(name=f"audits/{i}", state_reason="QUEUED" if i % 2 else "RUNNING") for i in range(5)
    ]
    assert [one.name for one in client.audits()] == [f"audits/{i}" for i in range(5)]
    assert [one.name for one in client.audits(state="QUEUED")] == ["audits/1", "audits/3"]


def test_words_newer_than_this_client_never_read_as_success(fake: Fake, client: AuditClient) -> None:
    fake.audits.outcome = 99  # type: ignore[assignment]
    assert client.get(AUDIT).word == "INCONCLUSIVE"
    fake.audits.outcome = audits_pb2.Audit.OUTCOME_UNSPECIFIED
    assert client.get(AUDIT).word == "INCONCLUSIVE"
    fake.audits.state = 99  # type: ignore[assignment]
    assert not client.get(AUDIT).ended


def test_values_are_frozen_plain_and_json(fake: Fake, client: AuditClient) -> None:
    fake.audits.attempts = [audits_pb2.Attempt(job="whole", number=1, exit_class=audits_pb2.EXIT_CLASS_OK)]
    audit = client.get(AUDIT)
    with pytest.raises(dataclasses.FrozenInstanceError):
        audit.state = "FAILED"  # type: ignore[misc]
    document = json.loads(json.dumps(plain(audit)))
    assert document["attempts"][0]["exit_class"] == "OK"
    assert client.checks()[0].power is not None
    assert client.capabilities().isolation == "bubblewrap"
    assert client.create_model("0" * 64).name == "models/" + "0" * 64
    assert client.cancel(AUDIT).state == "CANCELLING"


def test_a_report_comes_down_whole_and_again_is_nothing_new(fake: Fake, client: AuditClient, tmp_path: Path) -> None:
    made = Forge(tmp_path / "forge").report()
    fake.reports.serve(made)
    place = tmp_path / "deep" / "report"
    fetched = client.report(AUDIT, place)
    assert {file.path for file in fetched.files} == {str(f.relative_to(made)) for f in made.rglob("*") if f.is_file()}
    assert (place / "report.sigstore.json").read_bytes() == (made / "report.sigstore.json").read_bytes()
    assert client.report(f"{AUDIT}/reports/r1", place).files == fetched.files
    (place / "request.json").write_text("mine")
    with pytest.raises(LocalInputRefused, match="something else"):
        client.report(AUDIT, place)


def test_a_report_whose_bytes_differ_leaves_nothing_behind(fake: Fake, client: AuditClient, tmp_path: Path) -> None:
    made = Forge(tmp_path / "forge").report()
    fake.reports.serve(made)
    data = (made / "request.json").read_bytes()
    fake.blobs.hidden[hashlib.sha256(data).hexdigest()] = data[:-1] + b" "
    with pytest.raises(Malformed, match=r"request\.json"):
        client.report(AUDIT, tmp_path / "out" / "report")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "a/b/c", ".ssh", "report.sigstore.json"])
def test_a_report_cannot_write_outside_its_folder(fake: Fake, client: AuditClient, tmp_path: Path, path: str) -> None:
    fake.reports.files = [("report.sigstore.json", b"{}"), (path, b"evil")]
    with pytest.raises(Malformed):
        client.report(AUDIT, tmp_path / "out" / "report")
    assert not (tmp_path / "out").exists()


def test_a_report_that_is_not_signed_yet_says_so(client: AuditClient, tmp_path: Path) -> None:
    with pytest.raises(ServerRefused, match="NOT_SIGNED_YET"):
        client.report(AUDIT, tmp_path / "report")


def test_a_client_without_its_key_file_says_which(fake: Fake, tmp_path: Path) -> None:
    config = dataclasses.replace(fake.client_config(), key=tmp_path / "gone.pem")
    with pytest.raises(NoConfig, match=r"gone\.pem"):
        AuditClient(config)


def test_every_public_method_has_a_docstring_and_no_protobuf_in_its_types() -> None:
    methods: list[tuple[str, Callable[..., Any]]] = inspect.getmembers(AuditClient, inspect.isfunction)
    for name, method in methods:
        if not name.startswith("_"):
            assert method.__doc__, name
            assert "pb2" not in str(inspect.signature(method)), name


def test_only_the_remote_package_and_the_client_know_grpc() -> None:
    """A check on imports at module level: verifying and reading must not pay for gRPC."""
    package = Path(inspect.getfile(AuditClient)).parent
    allowed = {"client.py", "remote", "api"}
    for file in package.rglob("*.py"):
        if file.relative_to(package).parts[0] in allowed:
            continue
        for node in ast.parse(file.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert not name.startswith(("grpc", "google", "assay.api", "assay.client.")), f"{file}: {name}"
                assert name != "assay.client", file
