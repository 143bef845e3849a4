"""The self-check: attacks inside real cells, each beside a control outside that must get through.

An attack that gets through is `open`. A control that does not is `void`: then the attack's failure proves nothing.
Either refuses the worker. What is claimed afterwards is no more than "denied in these cases, on this host, with this
profile". The cases are those of `sandbox.suite` that are marked for it, for each kind of cell that the host can run.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sandbox import ground, landlock
from sandbox.bubblewrap import BubblewrapCell, plan, profile
from sandbox.cell import KILL_BOUND_S, Case, Cell, Kind, Proof, canonical
from sandbox.errors import CellRefused
from sandbox.ground import Host, planted
from sandbox.suite import Row, run_cases
from sandbox.suite.case import CELLS


def prove(cell: BubblewrapCell) -> Proof:
    """Run the cases of the self-check and return the proof.

    Raises:
        CellRefused: selfcheck_open or selfcheck_void with the case's id; or a layer that could not be armed.
        CellFailed: the machine failed.
    """
    # Nothing is leased meanwhile, so what attacks may take its time to die: a bound of rehearsals is no wall.
    bare = BubblewrapCell(replace(cell.settings, site_packages=(), kill_bound_s=KILL_BOUND_S))
    try:
        rows = check(bare, host_of(bare))
    finally:
        bare.close()
    return proof(rows, version=cell.version(), profiles={kind: profile.digest(kind) for kind in CELLS})


def check(cell: Cell, host: Host, *, kinds: Sequence[Kind] = CELLS) -> list[Row]:
    """Run the cases of the self-check on any backend; about three seconds.

    Raises:
        CellRefused: a layer could not be armed.
        CellFailed: the machine failed.
    """
    with planted(host) as there:
        return run_cases(cell, kinds=kinds, ground=there, proving=True)


def host_of(cell: BubblewrapCell) -> Host:
    """Return what the suite must know of the host of a bubblewrap cell."""
    settings = cell.settings
    return Host(
        interpreter=settings.interpreter,
        work_dir=settings.work_dir,
        environment=lambda kind: plan.environment_of(kind, settings, 1 if kind == "check_gpu" else 0),
        landlock_abi=landlock.abi(),
    )


def proof(rows: Sequence[Row], *, version: str, profiles: Mapping[Kind, str], backend: str = "bubblewrap") -> Proof:
    """Return the proof that the rows give.

    Args:
        rows: of the cases.
        version: of the backend.
        profiles: digest of the profile of each kind of cell that was attacked.
        backend: which one.

    Raises:
        CellRefused: selfcheck_open or selfcheck_void with the case's id and kind.
    """
    for word, code in (("open", "selfcheck_open"), ("void", "selfcheck_void")):
        for row in rows:
            if row.word == word:
                raise CellRefused(code, f"{row.id} {row.kind}: {row.observed}")
    return Proof(
        backend=backend,
        version=version,
        profile_sha256=hashlib.sha256(canonical(dict(profiles))).hexdigest(),
        kernel=platform.release(),
        probes_sha256=probes_sha256(),
        cases=tuple(Case(id=f"{row.id} {row.kind}", word=row.word, got=row.observed) for row in rows),
    )


def probes_sha256() -> str:
    """Return the digest of everything that decides a case: probes, controls, table and judgement."""
    suite = Path(__file__).with_name("suite")
    digest = hashlib.sha256()
    for path in sorted([*suite.rglob("*.py"), Path(ground.__file__)], key=str):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
