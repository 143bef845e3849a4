"""`assay approvals …`: a model owner signs consent offline, makes it known, and takes it back."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.approval import ANY, LEVELS, LIFETIME_CAP_MAX, OUTPUT_CAP_MAX
from assay.cli.options import TIMEOUT_S, Config, Json, TimeoutS, connect
from assay.cli.screen import SCREEN, bytes_text, clean
from assay.client_errors import refuse

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from assay.approval import Approval, ApprovedCheck
    from assay.catalogue import CheckEntry
    from assay.remote.approvals import Approval as Kept

approvals = typer.Typer(
    help="Let another tenant audit your model, in signed words.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(metavar="APPROVAL", help="models/{64 hex}/approvals/{32 hex}")]

KEY_MAX = 16 * 1024
"""A P-256 key in PEM has 241 bytes."""


@approvals.command("sign")
def sign(
    model: Annotated[str, typer.Option("--model", help="models/{64 hex}, or the digest alone.")],
    grantee: Annotated[str, typer.Option("--grantee", help="The tenant that may audit.")],
    check: Annotated[
        list[str], typer.Option("--check", help="NAME, with any parameters, or NAME@SHA256 of them; repeatable.")
    ],
    max_runs: Annotated[int, typer.Option("--max-runs", min=0, help="Audits in all.")],
    not_after: Annotated[str, typer.Option("--not-after", help="End, like 2026-12-31T00:00:00Z.")],
    key: Annotated[Path, typer.Option("--key", help="Your P-256 private key in PEM.")],
    out: Annotated[Path, typer.Option("--out", help="File to write; nothing is overwritten.")],
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Digest of data, or of a base model; * is any; repeatable.")
    ] = None,
    access: Annotated[
        list[str] | None, typer.Option("--access", help=f"{', '.join(LEVELS)}. Default: what the checks need.")
    ] = None,
    output_cap: Annotated[int, typer.Option("--output-cap", help="Bytes of answers of one audit.")] = OUTPUT_CAP_MAX,
    lifetime_cap: Annotated[
        int, typer.Option("--lifetime-cap", help="Bytes that the grantee may be told over all audits.")
    ] = LIFETIME_CAP_MAX,
    as_json: Json = False,
) -> int:
    """Write and sign an approval. Nothing is sent: `assay approvals create` does that."""
    from assay import approval, moments
    from assay.errors import Malformed

    entries = [_entry(text.partition("@")[0]) for text in check]
    needed = {level for entry in entries for level in entry.access}
    given = data or []
    try:
        made = approval.Approval(
            model=model.removeprefix("models/"),
            grantee=grantee,
            checks=_checks(check, entries),
            data=None if given == [ANY] else tuple(given),
            access=tuple(access or [level for level in LEVELS if level in needed]),
            output_cap_bytes=output_cap,
            lifetime_cap_bytes=lifetime_cap,
            max_runs=max_runs,
            not_after=moments.parse(not_after, "--not-after"),
            nonce=secrets.token_hex(32),
        )
        envelope = approval.sign(made, _private_key(key))
    except Malformed as error:
        raise refuse(f"--{error.at.replace('_', '-').removeprefix('--')}", error.message) from None
    _write_new(out, envelope)
    return _tell_signed(made, f"{approval.open_envelope(envelope).id}", out, as_json)


@approvals.command("create")
def create(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `assay approvals sign` wrote.")],
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """Make a signed approval known to the service; audits that waited for it go on."""
    from assay.approval import BYTES_MAX

    envelope = _read(file, BYTES_MAX)
    with connect(config, timeout_s) as client:
        return _tell(client.approvals.create(envelope), as_json)


@approvals.command("list")
def list_approvals(
    model: Annotated[str | None, typer.Option("--model", help="Only of this model.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    config: Config = None,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> int:
    """List approvals, newest first: an owner's own, or those that grant you runs."""
    with connect(config, timeout_s) as client:
        found = list(islice(client.approvals.all(model), limit))
    if as_json:
        SCREEN.json([_plain(one) for one in found])
        return 0
    for one in found:
        SCREEN.out(_line(one))
    if not found:
        SCREEN.note("No approvals.")
    return 0


@approvals.command("show")
def show(approval: Name, config: Config = None, timeout_s: TimeoutS = TIMEOUT_S, as_json: Json = False) -> int:
    """Show what an approval allows, as it was signed."""
    with connect(config, timeout_s) as client:
        return _tell(client.approvals.get(approval), as_json)


@approvals.command("revoke")
def revoke(approval: Name, config: Config = None, timeout_s: TimeoutS = TIMEOUT_S, as_json: Json = False) -> int:
    """Take an approval back: nothing more starts under it, and what runs is cancelled."""
    with connect(config, timeout_s) as client:
        return _tell(client.approvals.revoke(approval), as_json)


def _entry(name: str) -> CheckEntry:
    from assay.catalogue import load

    entry = load().entry(name)
    if entry is None:
        raise refuse(f"--check {name}", "is no check of this client's catalogue; `assay checks` lists them")
    return entry


def _checks(texts: Sequence[str], entries: Sequence[CheckEntry]) -> tuple[ApprovedCheck, ...]:
    from assay.approval import ApprovedCheck

    return tuple(
        ApprovedCheck(
            name=entry.name,
            version=entry.version,
            code_sha256=entry.code_sha256,
            params_sha256=text.partition("@")[2] or ANY,
        )
        for text, entry in zip(texts, entries, strict=True)
    )


def _private_key(path: Path) -> EllipticCurvePrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(_read(path, KEY_MAX), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise refuse(f"--key {path}", "is no P-256 private key in PEM without a password")
    return private


def _read(path: Path, cap: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(cap + 1)
    except OSError as error:
        raise refuse(str(path), f"cannot be read: {error.strerror}") from None
    if len(content) > cap:
        raise refuse(str(path), f"has more than {cap} bytes")
    return content


def _write_new(path: Path, content: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise refuse(f"--out {path}", f"cannot be written: {error.strerror}") from None


def _tell_signed(made: Approval, approval_id: str, out: Path, as_json: bool) -> int:
    name = f"models/{made.model}/approvals/{approval_id}"
    if as_json:
        told = {"schema": "assay-approval-signed/v1", "name": name, "file": str(out), "document": made.document()}
        SCREEN.json(told)
        return 0
    SCREEN.out(f"Signed {clean(name)}")
    _tell_allowed(made)
    SCREEN.out(f"Written to {clean(str(out), 400)}. Make it known: assay approvals create {clean(str(out), 400)}")
    return 0


def _tell_allowed(made: Approval) -> None:
    SCREEN.out(f"  grantee    {clean(made.grantee)}")
    for one in made.checks:
        what = "any parameters" if one.params_sha256 == ANY else f"parameters sha256:{clean(one.params_sha256)}"
        SCREEN.out(f"  check      {clean(one.name)} {clean(one.version)}, {what}, code sha256:{clean(one.code_sha256)}")
    SCREEN.out(f"  data       {'any' if made.data is None else ', '.join(map(clean, made.data)) or 'none'}")
    SCREEN.out(f"  access     {', '.join(map(clean, made.access)) or 'nothing'}")
    SCREEN.out(f"  output     {bytes_text(made.output_cap_bytes)} of one audit")
    SCREEN.out(f"  lifetime   {bytes_text(made.lifetime_cap_bytes)} of all audits")
    SCREEN.out(f"  runs       {made.max_runs}, until {made.not_after:%Y-%m-%d %H:%M:%S} UTC")


def _tell(kept: Kept, as_json: bool) -> int:
    """Tell what was signed, read from the envelope; no word of the service about it counts."""
    from assay.approval import open_envelope, read

    made = read(open_envelope(kept.envelope).payload)
    if as_json:
        SCREEN.json({**_plain(kept), "document": made.document()})
        return 0
    SCREEN.out(_line(kept))
    _tell_allowed(made)
    return 0


def _line(kept: Kept) -> str:
    over = f", revoked {kept.revoked_at:%Y-%m-%d %H:%M:%S} UTC" if kept.revoked_at else ""
    return f"{clean(kept.name, 200)}  for {clean(kept.grantee)}: {kept.used} of {kept.max_runs} runs{over}"


def _plain(kept: Kept) -> dict[str, Any]:
    from assay.remote.values import plain

    return {key: plain(value) for key, value in vars(kept).items() if key != "envelope"}
