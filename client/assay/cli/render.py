"""`assay render`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import codes, trust
from assay.cli.options import Config, Json, ReportPath
from assay.cli.screen import SCREEN, clean

if TYPE_CHECKING:
    from assay.verify import Verification

SCHEMA = "assay-render/v1"


def render(
    report: ReportPath,
    html: Annotated[Path, typer.Option("--html", help="File to write: one page, no scripts, no network.")],
    model: trust.Model = None,
    trust_root: trust.TrustRoot = None,
    key: trust.Keys = None,
    log_vkey: trust.LogVkeys = None,
    receipt: trust.Receipt = None,
    log: trust.Log = None,
    first: trust.First = None,
    catalogue: trust.OwnCatalogue = None,
    now: trust.Now = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Write the page of a report that did not verify too; it says so.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """Verify a report and write it as one HTML page. Exit 0 written, 1 wrong, 2 could not tell or not written."""
    from assay.render.page import render as page
    from assay.render.source import look
    from assay.verify import exit_code

    chosen = trust.chosen(trust_root, key, log_vkey, config)
    trusted = chosen.source
    held = trust.beside(model=model, receipt=receipt, log=log, first=first, own_catalogue=catalogue, now=now)
    seen, source = look(report, **held, **chosen.arguments())
    code, written, data = exit_code(seen), False, b""
    if source is not None and (seen.outcome == "verified" or unverified):
        data = page(source)
        written = _write(html, data)
        code = code if written else code or codes.COULD_NOT_TELL
    if as_json:
        told = {"schema": SCHEMA, "html": str(html) if written else None, "bytes": len(data) if written else None}
        digest = hashlib.sha256(data).hexdigest() if written else None
        SCREEN.json({**told, "sha256": digest, "exit": code, "key_source": trusted, "verify": seen.to_json()})
    else:
        _tell(seen, html, trusted, len(data) if written else None)
    return code


def _tell(seen: Verification, html: Path, trusted: str, size: int | None) -> None:
    if seen.outcome != "verified":
        SCREEN.out(f"Trusted key: {clean(trusted, 400)}")
        for line in seen.render_text().splitlines():
            SCREEN.out(clean(line, 2000))
    if size is None:
        more = "" if seen.outcome == "verified" else "; --unverified writes it with a warning, where it can be read"
        SCREEN.out(f"No page was written{more}.")
    else:
        SCREEN.out(f"{clean(str(html), 400)}: {size} bytes. It proves nothing; the report beside it does.")


def _write(file: Path, data: bytes) -> bool:
    """Write the page whole or not at all."""
    name = None
    try:
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name[:32]}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(name).chmod(0o644)  # a page is for reading; mkstemp's 0600 is not
        Path(name).replace(file)
    except OSError as error:
        SCREEN.note(f"assay: cannot write {clean(str(file), 200)}: {clean(error.strerror or type(error).__name__)}")
        if name is not None:
            with contextlib.suppress(OSError):
                Path(name).unlink()
        return False
    return True
