"""Many audits in a row through real cells, one in four hostile; then count what is left.

    python -m benchmarks.sandbox.soak --audits 200 --seed 1

Each audit is one attempt of a worker: two bubblewrap cells, the second warm where a spare fits. A seed fixes which
attack comes when. Afterwards no process, mount, file, control group, thread or descriptor may be there that was not
there before, and every honest audit must have been answered. Prints a table, writes it, exits 1 on any difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from assay import canonical

from benchmarks.sandbox.attacks import MODELS, NORM, PROGRAMS
from sandbox import BubblewrapCell, BubblewrapSettings, CodeMount
from sandbox.cell import Cancelled, OnStep, Order, Outcome, Proof, ignore, never
from sandbox.inputs import Held
from sandbox.warm import WarmCell
from service.store.audits import register
from service.worker.attempt import Attempts
from service.worker.code import Guest
from tests.service.store.planting import audit_id, new_store, registration, submit
from tests.service.worker.scripted import House, house
from tests.service.worker.test_attempt import classes, record
from tests.service.worker.test_two_cells import CATALOGUE, CODE, gpt2, mlp

RESULT = Path(__file__).with_suffix(".json")
HONEST, REAL = "honest", "honest, a real check"
REAL_OF = 20
"""One in so many honest audits runs a real check, whose imports alone take seconds."""
HOSTILE_OF = 4


@dataclass
class Marked:
    """A cell whose processes can be told from all others of the host: each carries the marker in its arguments."""

    inner: WarmCell
    marker: str
    limits: Mapping[str, int] = field(default_factory=dict)

    def prove(self) -> Proof:
        """Prove the wall."""
        return self.inner.prove()

    def run(
        self, order: Order, *, on_step: OnStep = ignore, cancelled: Cancelled = never, held: Held | None = None
    ) -> Outcome:
        """Run an order; those that measure get the limits of the attack."""
        limits = {**order.limits, **self.limits} if order.kind == "check" else order.limits
        order = replace(order, arguments=(*order.arguments, self.marker), limits=limits)
        return self.inner.run(order, on_step=on_step, cancelled=cancelled, held=held)


@dataclass
class Soak:
    """A worker's bench and the audits that were sent to it."""

    house: House
    cell: Marked
    folder: Path
    sent: int = 0

    def audit(self, attack: str) -> str:
        """Run one attempt; return "" when it ended as it must, else what happened."""
        self.sent += 1
        model = self.folder / f"model-{self.sent}"
        (mlp if self.sent % 2 else gpt2)(model)
        guest, self.cell.limits, expected = self.guest("plain", NORM), {}, "OK"
        if attack in MODELS:
            MODELS[attack](model)
            expected = "REFUSED"
        elif attack == REAL:
            guest = Guest(module="guest_checks", code=CODE)
        elif attack != HONEST:
            text, self.cell.limits, expected = PROGRAMS[attack]
            guest = self.guest(attack.replace(" ", "_"), text)
        bench = replace(self.house.bench, cell=self.cell, guest=guest, catalogue=CATALOGUE)
        key = self._submit(model)
        Attempts(bench).attempt(key)
        got = classes(self.house, key)
        if got != [expected]:
            return f"{attack}: {got}, expected {expected}"
        if expected == "OK":
            told = record(self.house, key)["answers"][0]
            return "" if told["outcome"] == "measured" else f"{attack}: {told}"
        return ""

    def guest(self, name: str, text: str) -> Guest:
        """Return a program in place of the checks, written once."""
        path = self.folder / f"{name}.py"
        if not path.exists():
            path.write_text(text, encoding="utf-8")
        return Guest(module=name, code=(*CODE[1:3], CodeMount(name=path.name, source=path)))

    def _submit(self, model: Path) -> str:
        files = {one.relative_to(model).as_posix(): one.read_bytes() for one in sorted(model.iterdir())}
        for one in model.iterdir():
            one.unlink()
        model.rmdir()
        manifest = self.house.put_model(files)
        request = {
            "schema": "assay-request/v1", "audit": audit_id(self.sent), "nonce": "11" * 32,
            "model": {"manifest_sha256": manifest.digest}, "checks": [{"name": "norm", "version": "1.0", "params": {}}],
            "data": [], "limits": {"attempts_max": 3, "output_bytes": 65_536, "wall_s": 60}, "seed_mode": "derived",
            "submitted_at": "2026-11-21T00:00:00Z",
        }  # fmt: skip
        sha256 = self.house.put(canonical.dumps(request))
        with self.house.store.begin() as connection:
            key = submit(connection, self.sent, request_sha256=sha256)
            register(connection, key, registration(sha256, seed=77))
        return key

    def state(self, groups: Path | None) -> dict[str, list[str]]:
        """Return what could be left behind, by its kind."""
        self.cell.inner.discard()
        tasks = [path / "children" for path in Path("/proc/self/task").iterdir()]
        numbers = sorted(os.listdir("/proc/self/fd"), key=int)
        work = self.cell.inner.settings.work_dir or self.folder
        return {
            "children": sorted(pid for path in tasks for pid in path.read_text().split()),
            "processes": sorted(_marked(self.cell.marker)),
            "mounts": Path("/proc/self/mountinfo").read_text().splitlines(),
            "cell files": sorted(str(one) for one in work.rglob("*")),
            "work files": sorted(str(one) for one in self.house.bench.work_dir.rglob("*")),
            "temporary files": sorted(os.listdir(tempfile.gettempdir())),
            "groups": sorted(str(one) for one in groups.rglob("assay-*")) if groups else [],
            "descriptors": sorted(_target(number) for number in numbers),
            "threads": sorted(one.name for one in threading.enumerate()),
        }


def _marked(marker: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def _target(number: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}").partition(":[")[0]  # a pipe's number is its own every time
    except OSError:
        return "gone"  # the listing's own


def plan(audits: int, seed: int) -> list[str]:
    """Return what each audit is: one in four an attack, each attack as often as any other."""
    drawn = random.Random(seed)
    attacks: list[str] = []
    while len(attacks) < audits // HOSTILE_OF:
        attacks += drawn.sample(sorted([*PROGRAMS, *MODELS]), len(PROGRAMS) + len(MODELS))
    honest = audits - audits // HOSTILE_OF
    made = [*attacks[: audits // HOSTILE_OF], *(HONEST if number % REAL_OF else REAL for number in range(honest))]
    drawn.shuffle(made)
    return made


def soak(
    folder: Path, audits: int, seed: int, *, spares: int = 1, say: Callable[[str], object] = print
) -> dict[str, Any]:
    """Run the plan; return counts, what went wrong, and what was left.

    Args:
        folder: private and empty.
        audits: how many.
        seed: of the plan.
        spares: how many cells wait for an order.
        say: told a line from time to time.
    """
    for name in ("cells", "temporary"):
        (folder / name).mkdir()
    tempfile.tempdir = str(folder / "temporary")  # that of this host has others' files, which come and go
    settings = BubblewrapSettings(work_dir=folder / "cells", cpus=1)
    warm = WarmCell(BubblewrapCell(settings), spares=spares, preload=("json", "array"))
    store = new_store(folder)
    made = Soak(house(store, folder), Marked(warm, f"soak-{secrets.token_hex(8)}"), folder)
    wrong: list[str] = []
    counts: Counter[str] = Counter()
    try:
        for attack in (HONEST, HONEST, "fork bomb"):  # whatever is made once and kept is there before the count
            wrong += [one for one in [made.audit(attack)] if one]
        groups = Path("/sys/fs/cgroup")
        began, before = time.monotonic(), made.state(groups)
        for number, attack in enumerate(plan(audits, seed), 1):
            wrong += [one for one in [made.audit(attack)] if one]
            counts[attack] += 1
            if number % 25 == 0:
                say(f"{number} audits, {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}")
        after = made.state(groups)
    finally:
        warm.close()
        store.close()
        tempfile.tempdir = None
    left = {name: sorted((Counter(after[name]) - Counter(before[name])).elements()) for name in before}
    return {
        "seed": seed,
        "audits": audits,
        "honest": counts[HONEST] + counts[REAL],
        "hostile": audits - counts[HONEST] - counts[REAL],
        "real_checks": counts[REAL],
        "attacks": {name: count for name, count in sorted(counts.items()) if name not in (HONEST, REAL)},
        "cells": {"warm": warm.started.warm, "cold": warm.started.cold, "ingest": made.sent},
        "seconds": round(time.monotonic() - began, 1),
        "load": round(os.getloadavg()[0], 1),
        "before": {name: len(found) for name, found in before.items()},
        "after": {name: len(found) for name, found in after.items()},
        "left": {name: found for name, found in left.items() if found},
        "wrong": wrong,
    }


def main() -> int:
    """Run, print the table, write it; the return value is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audits", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--spares", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT, help="where the table is written as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="assay-soak-") as folder:
        told = soak(Path(folder), options.audits, options.seed, spares=options.spares)
    options.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(f"{'':16} {'before':>7} {'after':>7}")
    for name, count in told["before"].items():
        print(f"{name:16} {count:7} {told['after'][name]:7}")
    for attack, count in told["attacks"].items():
        print(f"  {count:3} x {attack}")
    for text in (*told["wrong"], *(f"left: {name} {found}" for name, found in told["left"].items())):
        print(text)
    failed = bool(told["wrong"] or told["left"])
    print(
        f"{told['audits']} audits, {told['hostile']} hostile, in {told['seconds']} s; "
        f"{len(told['wrong'])} ended otherwise than they must, {sum(map(len, told['left'].values()))} things left"
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
