"""Third-party checks: the operator's list, read strictly; what it names, verified; and its entries in the catalogue.

A check joins only by a list that the configuration names (key `third_party`), and no process of the service ever
imports it: the API and the signer read its catalogue entry, the worker reads its files as bytes and mounts copies of
them into cells, where `checks.plugins` imports the one class that is named. The list is TOML:

    schema = "assay-third-party/v1"

    [[third_party]]
    distribution = "assay-example"              # installed by itself, outside of every import path:
    version = "1.0"                             #   pip install --no-deps --target FOLDER assay-example==1.0
    folder = "/opt/assay/third-party/example"
    sha256 = "…"                                # of its files; a refusal tells what was found
    check = "example"                           # the name under which it is asked
    entry = "assay_example.check:Example"       # its class
    catalogue = "/opt/assay/third-party/example.json"   # its entry, written by `describe_all`

The digest is the SHA-256 of the canonical JSON list of [path, SHA-256 of the file], sorted by path, over the files of
its RECORD without those that an installer writes. What else lies in the folder is not mounted.
"""

from __future__ import annotations

import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from assay import canonical, catalogue
from assay.catalogue import Catalogue, CheckEntry
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandbox.cell import Cell, CodeMount, Order
from service.worker.code import CHECKS_MODULE, Guest, code_sha256
from service.worker.distribution import ThirdPartyRefused, copy, files_of, normalised, top_level
from service.worker.entry import read_entry, told_by_cell

__all__ = ["Allowed", "ThirdPartyRefused", "describe_all", "mount", "operator_catalogue", "read_list", "ready"]

MOUNT = "plugins"
"""Name of the code mount; `checks` looks for it beside itself."""
LIST = "allowed.json"
SCHEMA = "assay-third-party/v1"
DESCRIBE_S = 120
"""Wall time of a cell that says what a check promises: imports, and nothing measured."""


class Allowed(BaseModel):
    """One check that the operator allows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    distribution: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.!+_-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    check: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    entry: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
    folder: Annotated[Path, Field(strict=False)]
    """Where the distribution was installed by itself."""
    catalogue: Annotated[Path, Field(strict=False)]
    """File of its catalogue entry."""

    @property
    def said(self) -> str:
        """What an error calls it."""
        return f"check {self.check!r} of {self.distribution} {self.version} ({self.entry})"


class _List(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: str = Field(alias="schema", pattern=f"^{re.escape(SCHEMA)}$")
    third_party: Annotated[tuple[Allowed, ...], Field(strict=False, min_length=1)]


def read_list(path: Path | None, built_in: Catalogue) -> tuple[Allowed, ...]:
    """Return what the operator allows; nothing where no list is configured.

    Args:
        path: the list.
        built_in: the release's own catalogue, whose names nobody may reuse.

    Raises:
        ThirdPartyRefused: list_invalid, or name_clash, naming both checks.
    """
    if path is None:
        return ()
    try:
        allowed = _List.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).third_party
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ThirdPartyRefused("list_invalid", f"{path}: cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ThirdPartyRefused("list_invalid", f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    _check_names(allowed, built_in)
    return allowed


def operator_catalogue(path: Path | None, built_in: Path = catalogue.FILE) -> Catalogue:
    """Return the checks that this service answers: the release's own, and those that the operator allows.

    API, signer and worker read the same files; a check whose entry is another's is refused by the worker.

    Raises:
        ThirdPartyRefused: the list or an entry cannot be used.
        MachineFailed: this installation has no readable catalogue.
    """
    own = catalogue.load(built_in)
    entries = [read_entry(_read(one.catalogue, one), _host_said(one), one.said) for one in read_list(path, own)]
    if not entries:
        return own
    checks = sorted((*own.checks, *entries), key=lambda entry: entry.name)
    value = {"schema": catalogue.SCHEMA, "checks": [dict(entry.raw) for entry in checks]}
    return Catalogue(tuple(checks), canonical.sha256(value))


def mount(allowed: Sequence[Allowed], guest: Guest, folder: Path) -> Guest:
    """Verify the distributions and return the guest with copies of them.

    Args:
        allowed: what `read_list` returned; nothing leaves the guest as it is.
        guest: what runs without them.
        folder: private to this worker, and not there yet; it must stay as long as the guest is used.

    Raises:
        ThirdPartyRefused: distribution_missing, record_invalid, link_refused, digest_mismatch, module_clash.
    """
    if not allowed:
        return guest
    brought: dict[str, str] = {}
    mounted: dict[str, str] = {}
    for one in allowed:
        if one.distribution in mounted:
            continue
        files = files_of(one.folder, one.distribution, one.version)
        for name in sorted(top_level(files)):
            if name in brought:
                raise ThirdPartyRefused(
                    "module_clash", f"{one.distribution} and {brought[name]} both bring a module {name!r}: allow one"
                )
            brought[name] = one.distribution
        mounted[one.distribution] = _copied(files, folder, one)
    for one in allowed:
        if mounted[one.distribution] != one.sha256:
            raise ThirdPartyRefused(
                "digest_mismatch",
                f"{one.said}: its files have digest {mounted[one.distribution]}, the list allows {one.sha256}",
            )
    told = [one.model_dump(include={"distribution", "version", "sha256", "check", "entry"}) for one in allowed]
    (folder / LIST).write_bytes(canonical.dumps({"schema": SCHEMA, "allowed": told}))
    (folder / LIST).chmod(0o444)
    return replace(
        guest,
        code=(*guest.code, CodeMount(name=MOUNT, source=folder)),
        third_party={one.check: one.distribution for one in allowed},
    )


def ready(path: Path | None, guest: Guest, cell: Cell, folder: Path, built_in: Path = catalogue.FILE) -> Guest:
    """Return the guest with everything that the operator allows, or refuse; call it before the first lease.

    Each check is loaded once in a cell of its own, and what it promises must be what its catalogue entry says.

    Raises:
        ThirdPartyRefused: the worker must not start; the text says what to do.
        CellRefused, CellFailed: no cell could be had.
    """
    promised = operator_catalogue(path, built_in)
    allowed = read_list(path, catalogue.load(built_in))
    made = mount(allowed, guest, folder)
    for one in allowed:
        entry = promised.entry(one.check)
        if entry is None or _described(one, made, cell).sha256 != entry.sha256:
            raise ThirdPartyRefused(
                "entry_stale", f"{one.said}: {one.catalogue} is not what it promises: describe again"
            )
    return made


def describe_all(path: Path, guest: Guest, cell: Cell, folder: Path, built_in: Path = catalogue.FILE) -> list[Path]:
    """Write the catalogue entry of each allowed check, made by loading it in a cell; return the files.

    Raises:
        ThirdPartyRefused, CellRefused, CellFailed: nothing of that check is written.
        OSError: the disk failed.
    """
    allowed = read_list(path, catalogue.load(built_in))
    made = mount(allowed, guest, folder)
    for one in allowed:
        one.catalogue.write_bytes(_described(one, made, cell).data + b"\n")
    return [one.catalogue for one in allowed]


def _described(one: Allowed, guest: Guest, cell: Cell) -> CheckEntry:
    nonce = secrets.token_hex(32)
    outcome = cell.run(
        Order(
            kind="check",
            module=CHECKS_MODULE,
            arguments=("catalogue", "--plugins", f"code/{MOUNT}", "--check", one.check),
            code=guest.code,
            request=canonical.dumps({"nonce": nonce}),
            nonce=nonce,
            limits={"wall_s": DESCRIBE_S},
        )
    )
    told = told_by_cell(outcome, nonce, one.said)
    return read_entry(canonical.dumps({**told, **_host_said(one, guest)}), _host_said(one, guest), one.said)


def _host_said(one: Allowed, guest: Guest | None = None) -> Mapping[str, Any]:
    """What of an entry the host knows by itself; without a guest the digest of the code is not compared."""
    name = {"name": one.distribution, "version": one.version, "sha256": one.sha256}
    said: dict[str, Any] = {"name": one.check, "distribution": name}
    return said if guest is None else {**said, "code_sha256": code_sha256(guest, one.check)}


def _copied(files: Mapping[str, Path], folder: Path, one: Allowed) -> str:
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return copy(files, folder / one.distribution)
    except OSError as error:
        raise ThirdPartyRefused("record_invalid", f"{one.said} cannot be copied: {error}") from None


def _read(path: Path, one: Allowed) -> bytes:
    try:
        return path.read_bytes().removesuffix(b"\n")
    except OSError as error:
        raise ThirdPartyRefused("entry_missing", f"{one.said}: {path}: {error.strerror}; describe it first") from None


def _check_names(allowed: Sequence[Allowed], built_in: Catalogue) -> None:
    claimed = {entry.name: f"the built-in {entry.name!r} {entry.version}" for entry in built_in.checks}
    distributions: dict[str, tuple[str, str, str, Path]] = {}
    for one in allowed:
        if one.check in claimed:
            raise ThirdPartyRefused(
                "name_clash", f"{one.said} reuses the name of {claimed[one.check]}: remove one of them"
            )
        claimed[one.check] = one.said
        same = (one.distribution, one.version, one.sha256, one.folder)
        if distributions.setdefault(normalised(one.distribution), same) != same:
            raise ThirdPartyRefused("list_invalid", f"{one.distribution} is listed in two versions, digests or folders")
