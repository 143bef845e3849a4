"""Policy and waiver files on the command line: read whole and refused with their line, before anything is sent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.catalogue import Catalogue, CheckEntry
from assay.client_errors import LocalInputRefused, Problem
from assay.errors import Misused, shown
from assay.policy import language, loader, registered
from assay.policy import waivers as waiving
from assay.policy.language import Policy
from assay.policy.loader import Document
from assay.policy.waivers import Waiver


@dataclass(frozen=True)
class Rules:
    """A policy to register, and the waivers that go with it."""

    file: str
    policy: Policy
    waivers: tuple[Waiver, ...] | None
    """None where no waiver file was given."""

    def documents(self, entries: Sequence[CheckEntry]) -> dict[str, bytes]:
        """Return what is sent, by what a submission calls it.

        Args:
            entries: the service's catalogue.

        Raises:
            LocalInputRefused: the policy names what the service does not know; every such line.
        """
        catalogue = Catalogue(tuple(entries), "")
        unknown = [
            Problem(item=f"{shown(self.file, 200)}, line {line}", message=text)
            for line, text in language.unknown_names(self.policy, catalogue)
        ]
        if unknown:
            raise LocalInputRefused(unknown)
        found = {"policy": self.policy.data}
        return found if self.waivers is None else found | {"waivers": registered.waivers_data(self.waivers)}


def read(policy: Path | None, waivers: Path | None) -> Rules | None:
    """Read the files of `--policy` and `--waivers`.

    Raises:
        Misused: unreadable, no policy, or waivers without a policy.
    """
    if policy is None:
        if waivers is not None:
            raise Misused("--waivers needs --policy: waivers are for a policy")
        return None
    return Rules(str(policy), read_policy(policy), None if waivers is None else read_waivers(waivers))


def read_policy(file: Path) -> Policy:
    """Read a policy file.

    Raises:
        Misused: unreadable, or no policy; the message names the line.
    """
    return language.parse(_document(file))


def read_waivers(file: Path) -> tuple[Waiver, ...]:
    """Read a waiver file.

    Raises:
        Misused: unreadable, or no waiver file; the message names the line.
    """
    return waiving.parse(_document(file))


def shown_path(file: Path) -> str:
    """Return a path relative to the working directory where it lies inside."""
    inside = Path(os.path.normpath(Path.cwd() / file))
    return str(inside.relative_to(Path.cwd())) if inside.is_relative_to(Path.cwd()) else str(file)


def _document(file: Path) -> Document:
    try:
        with file.open("rb") as stream:
            data = stream.read(loader.BYTES_MAX + 1)
    except OSError as error:
        raise Misused(f"cannot read {shown(str(file), 200)}: {error.strerror}") from None
    return loader.read(data, str(file))
