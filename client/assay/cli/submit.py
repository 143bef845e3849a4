"""`assay submit`: everything that can be refused is refused before the first byte travels."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli import submitted
from assay.cli.options import TIMEOUT_S, Config, Json, TimeoutS, connect, greet, pair
from assay.cli.reports import default_place
from assay.cli.screen import SCREEN, clean
from assay.client_errors import LocalInputRefused, Problem, ServerRefused, refuse

if TYPE_CHECKING:
    from assay.cli.asking import Asked
    from assay.cli.policies import Rules
    from assay.cli.progress import Teller
    from assay.client import AuditClient
    from assay.preflight import CheckedData, CheckedModel
    from assay.receipt import Expected
    from assay.remote.values import Audit, Limits, Uploaded

_NOT_UPLOADED = ("UNKNOWN_MODEL", "MISSING_BLOBS")
"""What a validation may say about a request whose bytes have not been sent yet."""


def submit(
    directory: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Model directory, Hugging Face style; or models/{64 hex}, sent before."),
    ],
    check: Annotated[list[str] | None, typer.Option("--check", help="NAME or NAME:key=value,…; repeatable.")] = None,
    check_json: Annotated[
        list[Path] | None, typer.Option("--check-json", help='File: {"check": NAME, "parameters": {…}} or a list.')
    ] = None,
    param: Annotated[list[str] | None, typer.Option("--param", help="CHECK.KEY=VALUE; repeatable.")] = None,
    data: Annotated[list[str] | None, typer.Option("--data", help="ROLE=FILE; repeatable.")] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", metavar="MODEL", help="A second model to hold this one against: a folder, or its digest."
        ),
    ] = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="KEY=VALUE; repeatable.")] = None,
    wall_s: Annotated[int, typer.Option("--wall-s", min=0, help="Seconds of one attempt; 0: the default.")] = 0,
    attempts: Annotated[int, typer.Option("--attempts", min=0, help="Most attempts; 0: the default.")] = 0,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Release policy to register before the run, YAML or JSON.")
    ] = None,
    waivers: Annotated[Path | None, typer.Option("--waivers", help="Waivers to register with the policy.")] = None,
    approval: Annotated[
        list[str] | None,
        typer.Option(
            "--approval", help="models/…/approvals/… of the model's owner, where it is not yours; repeatable."
        ),
    ] = None,
    await_approval: Annotated[
        bool, typer.Option("--await-approval", help="Wait up to 7 days for the owner's approval, if none fits yet.")
    ] = False,
    output_bytes: Annotated[int, typer.Option("--output-bytes", min=0, help="Most bytes of answers; 0: 65536.")] = 0,
    request_id: Annotated[
        str | None, typer.Option("--request-id", help="UUID4; the same id and content is the same audit.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch to the end and fetch the report.")] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Folder of the report; with --wait.")] = None,
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """Submit an audit of a model directory."""
    from assay.cli import policies, trust
    from assay.cli.follow import fetch, follow
    from assay.cli.progress import teller
    from assay.cli.receipts import Keeper
    from assay.preflight import CheckedModel
    from assay.remote.values import Limits

    rules = policies.read(policy, waivers)
    order = _prepare(directory, check or [], check_json or [], param or [], data or [], label or [], base)
    order = replace(order, rules=rules, approvals=tuple(approval or ()), waits=await_approval)
    limits = Limits(attempts_max=attempts, output_bytes=output_bytes, wall_s=wall_s)
    if report is not None and not wait:
        raise refuse("--report", "needs --wait; or fetch it later with `assay report`")
    for model in (order.model, order.base):
        if isinstance(model, CheckedModel):
            submitted.tell_left_out(model)
    with connect(config, timeout_s, patient=True) as client, teller() as told:
        greet(client)
        uploaded, audit, expected = _send(client, order, limits, request_id or str(uuid.uuid4()), told)
        SCREEN.note(f"submitted {clean(audit.name)}")
        place = report or default_place(audit.name)
        keeper = Keeper(place, expected, trust.chosen(None, None, None, config))
        if not wait:
            if audit.state != "AWAITING_APPROVAL":
                keeper.wait(client, timeout_s)
            return submitted.tell_submitted(audit, uploaded, as_json)
        ending = fetch(client, follow(client, audit.name, told, seen=keeper.see), place)
        if ending.predicate is not None:
            keeper.verified()
    return submitted.tell_ended(ending, uploaded, place, as_json)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What was asked for, looked at on this machine."""

    model: CheckedModel | str
    """A folder that was looked at, or the digest of a model that was sent before, by this tenant or by its owner."""
    base: CheckedModel | str | None
    """A second model: a folder that was looked at, the digest of one that the service has, or none."""
    asked: tuple[Asked, ...]
    data: tuple[CheckedData, ...]
    labels: dict[str, str]
    rules: Rules | None = None
    """Release policy and waivers to register; None without a policy."""
    approvals: tuple[str, ...] = ()
    """Names of approvals to run under."""
    waits: bool = False
    """Wait for an approval rather than be refused."""


def _prepare(
    directory: Path,
    checks: Sequence[str],
    files: Sequence[Path],
    parameters: Sequence[str],
    data: Sequence[str],
    labels: Sequence[str],
    base: str | None,
) -> Order:
    """Read the options and look at every file; all problems of model and data together.

    Raises:
        LocalInputRefused: nothing was sent.
    """
    from assay.cli.asking import read_checks
    from assay.preflight import check_data, check_model, shipped_types

    asked = read_checks(checks, files, parameters)
    types = shipped_types([one.name for one in asked])
    problems: list[Problem] = []
    model: CheckedModel | str | None = None
    held, read = None, []
    try:
        model = _digest(str(directory)) or check_model(directory)
    except LocalInputRefused as error:
        problems += error.problems
    try:
        held = _base(base)
    except LocalInputRefused as error:
        problems += error.problems
    for role, path in (pair("--data", text) for text in data):
        try:
            read.append(check_data(role, Path(path), types.get(role, "")))
        except LocalInputRefused as error:
            problems += error.problems
    if model is None or problems:
        raise LocalInputRefused(problems)
    told = dict(pair("--label", text) for text in labels)
    return Order(model=model, base=held, asked=tuple(asked), data=tuple(read), labels=told)


def _base(text: str | None) -> CheckedModel | str | None:
    """Read `--base`: a folder, or the digest of a model that the service has.

    Raises:
        LocalInputRefused: it is neither, or the folder can never be audited.
    """
    from assay.preflight import check_model

    if text is None:
        return None
    if known := _digest(text):
        return known
    if not Path(text).is_dir():
        raise refuse(f"--base {text}", "is neither a model's folder nor models/ and 64 lower-case hexadecimal digits")
    return check_model(Path(text))


def _digest(text: str) -> str | None:
    """Return the digest of a model that the service has, if the text is one."""
    from assay.manifest import is_sha256

    bare = text.removeprefix("models/")
    return bare if is_sha256(bare) else None


def _send(
    client: AuditClient, order: Order, limits: Limits, request_id: str, told: Teller
) -> tuple[Uploaded, Audit, Expected]:
    """Ask the service before sending, then send and submit; return with it what the receipt must say."""
    from assay.cli.asking import check_names
    from assay.preflight import hash_chosen
    from assay.remote.values import Uploaded

    known = client.entries()
    types = check_names(order.asked, known, [one.role for one in order.data])
    documents = {} if order.rules is None else order.rules.documents(known)
    hashed = None if isinstance(order.model, str) else hash_chosen(order.model)
    model = str(order.model) if hashed is None else hashed.manifest.digest
    base = None if order.base is None or isinstance(order.base, str) else hash_chosen(order.base)
    inputs = [client.hash_data(one.role, one.path, media_type=types[one.role]) for one in order.data]
    asked = [(one.name, one.parameters) for one in order.asked]
    request: dict[str, Any] = {
        "data": inputs,
        "base": base.manifest.digest if base is not None else order.base,
        "limits": limits,
        "labels": order.labels,
        "request_id": request_id,
        "approvals": order.approvals,
        "await_approval": order.waits,
        **documents,
    }
    try:
        client.submit(model, asked, validate_only=True, **request)
    except ServerRefused as error:
        if error.reason not in _NOT_UPLOADED or (hashed is None and error.reason == "UNKNOWN_MODEL"):
            raise
    if hashed is None:
        uploaded = Uploaded(manifest_sha256=model, files=(), left_out=(), bytes_total=0, bytes_sent=0)
    else:
        uploaded = client.upload_model(hashed.chosen.directory, progress=told.upload, hashed=hashed)
    if base is not None:
        second = client.upload_model(base.chosen.directory, progress=told.upload, hashed=base)
        uploaded = replace(
            uploaded,
            left_out=(*uploaded.left_out, *second.left_out),
            bytes_total=uploaded.bytes_total + second.bytes_total,
            bytes_sent=uploaded.bytes_sent + second.bytes_sent,
        )
    for one in order.data:
        client.upload_data(one.role, one.path, media_type=types[one.role], progress=told.upload)
    for content in documents.values():
        client.upload_document(content)
    audit = client.submit(model, asked, **request)
    return uploaded, audit, _expected(audit.name, model, asked, request, client.nonce(request_id))


def _expected(
    audit: str, model: str, asked: Sequence[tuple[str, dict[str, Any]]], request: dict[str, Any], nonce: bytes
) -> Expected:
    """Return what the receipt of a submission must say."""
    from assay.receipt import Expected

    digests = {name: sha256(request[name]).hexdigest() for name in ("policy", "waivers") if name in request}
    return Expected(
        audit=audit,
        model_sha256=model,
        base_sha256=request["base"],
        checks=asked,
        data=[(one.role, one.sha256) for one in request["data"]],
        policy_sha256=digests.get("policy"),
        waivers_sha256=digests.get("waivers"),
        nonce=nonce,
    )
