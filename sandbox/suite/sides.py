"""The two sides of a case: the attacks in a real cell, and the same program outside of any wall."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.cell import Cell, CodeMount, Input, Kind, Order, Outcome, Slot
from sandbox.ground import CONTENT, HOOKS, Ground, leaked
from sandbox.suite.attacks.words import Found
from sandbox.suite.table import HELD_BYTES, PROCESSES, SCRATCH_BYTES, SHM_BYTES, SLOT_BYTES, SPIN_S

ATTACKS = Path(__file__).with_name("attacks")
CONTROL_S = 20.0
_LIMITS: Mapping[Kind, Mapping[str, int]] = {
    "ingest": {},
    "check": {"processes": PROCESSES, "scratch_bytes": SCRATCH_BYTES, "shm_bytes": SHM_BYTES},
    "check_gpu": {"processes": PROCESSES, "scratch_bytes": SCRATCH_BYTES, "shm_bytes": SHM_BYTES},
}
_START = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module('attacks', run_name='__main__', alter_sys=True)"
)
_NAMESPACES = ("--user", "--map-root-user", "--mount", "--net", "--uts", "--ipc", "--cgroup")
_HARD: Mapping[str, Any] = {
    "processes": PROCESSES, "scratch_bytes": SCRATCH_BYTES, "shm_bytes": SHM_BYTES, "held_bytes": HELD_BYTES,
    "spin_s": SPIN_S,
}  # fmt: skip
_PLACES: Mapping[str, Any] = {
    "out": 3, "out_dir": "/out", "scratch": "/scratch", "shm": "/dev/shm",  # noqa: S108 - in the cell
    "other_root": "/proc/1/root", "input": "/in/input", "mapped": "/in/input", "stay_s": 5,
    "readonly": [
        "/in/input", "/code/attacks/__main__.py", "/shim/inside.py", "/in", "/code/attacks", "/", "/usr/lib", "/dev",
    ],
}  # fmt: skip

Answers = dict[str, Found]


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one run of probes said."""

    answers: Answers
    ended: str
    """How the cell ended, in a word; "" for a control that ended by itself."""
    effects: tuple[str, ...] = field(default=())
    """What the host saw: "canary" when it came out, "holes" when a hole was no zeros."""


def inside(
    cell: Cell, ground: Ground, kind: Kind, probes: Sequence[str], limits: Mapping[str, int], marker: str = ""
) -> Side:
    """Run probes in a real cell."""
    parameters = {
        **ground.shared,
        **ground.targets,
        **_HARD,
        **_PLACES,
        "inside": True,
        "victim": ground.victim,
        "environment": dict(ground.host.environment(kind)),
        "file_bytes": SLOT_BYTES if kind == "ingest" else SCRATCH_BYTES,
    }
    outcome = cell.run(
        Order(
            kind=kind,
            module="attacks",
            arguments=(",".join(probes), json.dumps(parameters), marker),
            code=(CodeMount(name="attacks", source=ATTACKS),),
            inputs=(_input("input", ground.root), *(_input(name, ground.root / "hooks") for name in HOOKS)),
            slots=tuple(Slot(name=name, max_bytes=SLOT_BYTES, released=False) for name in ("slot", "slot2", "holes")),
            request=b"{}",
            gpus=(0,) if kind == "check_gpu" else (),
            nonce=secrets.token_hex(32),
            limits={"wall_s": 20, **_LIMITS[kind], **limits},
        )
    )
    return Side(
        answers=parsed(outcome.result), ended=outcome.why or _ended(outcome), effects=tuple(_effects(ground, outcome))
    )


def _input(name: str, folder: Path) -> Input:
    content = (folder / name).read_bytes()
    return Input(name=name, source=folder / name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def _ended(outcome: Outcome) -> str:
    return outcome.ended if outcome.ended == "exited" and outcome.status == 0 else f"{outcome.ended} {outcome.status}"


def _effects(ground: Ground, outcome: Outcome) -> list[str]:
    seen = ["canary"] if leaked(ground.canary, outcome) else []
    if (ground.root / "input").read_bytes() != CONTENT:
        seen.append("input")
    for one in outcome.slots:
        if one.name == "holes" and one.content.strip(b"\0") not in (b"", b"1"):
            seen.append("holes")
        if one.size > SLOT_BYTES:
            seen.append("slot size")
    return seen


def outside(ground: Ground, probes: Sequence[str], *, marker: str = "", limit_s: float = CONTROL_S) -> Answers:
    """Run probes without a wall, with a planted variable, a stray descriptor, a host's directory and hooks.

    Raises:
        subprocess.TimeoutExpired: they were still running after `limit_s`; they are gone now.
    """
    hooks = str(ground.root / "hooks")
    start = f"import site; site.addsitedir({hooks!r}); {_START}"
    made = [str(ground.host.interpreter), "-B", "-c", start]
    environment = {"ASSAY_PLANTED": "1", "PYTHONPATH": hooks, "LD_ASSAY": "1", "LANG": "C.UTF-8"}
    return _control(ground, made, environment, probes, marker, limit_s)


def with_capabilities(ground: Ground, probes: Sequence[str]) -> Answers:
    """Run probes with every capability, in namespaces that are thrown away; nothing where they cannot be made."""
    unshare = shutil.which("unshare", path="/usr/bin:/bin:/usr/sbin:/sbin")
    if unshare is None:
        return {}
    made = [unshare, *_NAMESPACES, "--", str(ground.host.interpreter), "-I", "-S", "-B", "-c", _START]
    return _control(ground, made, {"LANG": "C.UTF-8"}, probes, "", CONTROL_S)


def _control(
    ground: Ground, made: list[str], environment: Mapping[str, str], probes: Sequence[str], marker: str, limit_s: float
) -> Answers:
    folder = ground.root / f"control-{secrets.token_hex(4)}"
    for name in ("scratch", "out", "shm"):
        (folder / name).mkdir(parents=True)
    for name in ("slot", "slot2", "holes"):
        (folder / "out" / name).touch()
    for name in ("input", "mapped", "copy"):
        (folder / name).write_bytes(CONTENT)
    (folder / "copy-dir").mkdir()
    parameters = {
        **ground.shared,
        **ground.decoys,
        **_HARD,
        **{name: str(folder / name) for name in ("scratch", "shm", "input", "mapped")},
        "inside": False,
        "out": str(folder / "answer"),
        "out_dir": str(folder / "out"),
        "other_root": f"/proc/{os.getpid()}/root",
        "victim": ground.decoy,
        "stay_s": 0,
        "readonly": [str(folder / "copy"), str(folder / "copy-dir")],
        "file_bytes": SCRATCH_BYTES,
        "environment": {},
    }
    stray = os.open(ground.root / "canary", os.O_RDONLY | os.O_CLOEXEC)
    try:
        done = subprocess.run(
            [*made, str(ATTACKS.parent), ",".join(probes), json.dumps(parameters), marker],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ground.root,
            env=dict(environment), pass_fds=(stray,), timeout=limit_s, check=False,
        )  # fmt: skip
        return parsed((folder / "answer").read_bytes()) if done.returncode == 0 else {}
    except OSError:
        return {}
    finally:
        os.close(stray)


def parsed(result: bytes | None) -> Answers:
    """Return the probes' answers, nothing when there are none: a program that was attacked may say anything."""
    try:
        found = json.loads(result or b"{}")
        return {str(probe): {str(name): str(word) for name, word in one.items()} for probe, one in found.items()}
    except (ValueError, AttributeError):
        return {}
