"""The contract of a cell: one isolated run, as frozen values.

A `Cell` takes an `Order`, runs it behind a wall and returns an `Outcome`. Whatever the program does, `run` returns;
it raises only when isolation could not be armed (`CellRefused`) or the machine failed (`CellFailed`). Everything in
`Usage` and `Seal` was read by the host, nothing of it was said by the program.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

if TYPE_CHECKING:
    from sandbox.inputs import Held

Kind = Literal["ingest", "check", "check_gpu"]
Ended = Literal["exited", "signalled", "killed"]
Why = Literal["wall", "cpu", "memory", "processes", "output_cap", "log_flood", "cancelled", "host_lost"]
Word = Literal["denied", "contained", "killed", "open", "void", "not_applicable"]

KILL_BOUND_S = 5.0
"""The promise of every cell: so long after a kill order nothing of it is left, or `cell_unkillable` is raised. Whoever
leases cells out counts on it (specs: sandbox, section 4; service, section 8)."""

KILL_BOUND_LEAST_S = 0.2
"""The shortest bound that a cell may be given (specs: service, section 15)."""

REQUEST_MAX = 2**20
"""Largest request in bytes."""

STEPS_MAX = 64
"""Most step ids of one plan: progress must not become a channel."""

STEP_PARTS = 20
"""In how many parts of a step progress is told; a program's own counts never leave (`sandbox.budget`)."""

MEMORY_GRAIN = 16 * 2**20
"""Memory shown in a report is rounded up to this many bytes: finer figures are a side channel."""

OUTPUT_GRAIN = 2**10
"""Bytes that left a cell are rounded up to this many in a report: their exact number is a word of the program's own."""


@dataclass(frozen=True, kw_only=True)
class CodeMount:
    """A directory or file of trusted code, read-only at `/code/<name>`."""

    name: str
    source: Path


@dataclass(frozen=True, kw_only=True)
class Input:
    """A regular file, read-only at `/in/<name>`; its bytes are hashed before anything starts."""

    name: str
    """Flat, of the alphabet `A-Za-z0-9._-`."""
    source: Path
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One pre-made regular file that the program may fill, at `/out/<name>`."""

    name: str
    max_bytes: int
    released: bool
    """Whether it leaves the service; then its bytes are charged to the output budget."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One run: what to execute, on what, within which limits."""

    kind: Kind
    module: str
    """Dotted name, executed by `runpy` as `__main__`."""
    arguments: tuple[str, ...] = ("run",)
    code: tuple[CodeMount, ...]
    inputs: tuple[Input, ...] = ()
    slots: tuple[Slot, ...] = ()
    request: bytes
    """At `/in/order.json`, at most 1 MiB."""
    nonce: str
    """32 random bytes in hex."""
    limits: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Overrides only; names and ranges in `sandbox.limits`."""
    steps: tuple[str, ...] = ()
    """Step ids that progress may name by index."""
    gpus: tuple[int, ...] = ()
    """Indices of the leased GPUs; `check_gpu` alone may have any, and sees no other."""


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What a slot held when every process of the cell was gone."""

    name: str
    size: int
    sha256: str
    content: bytes = field(repr=False)

    def open(self) -> BinaryIO:
        """Return the bytes as a stream; no path of the cell is resolved."""
        from io import BytesIO

        return BytesIO(self.content)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What the run took, as the host saw it."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    """Largest sum of anonymous and shared memory over the cell's processes, scratch included where readable."""
    processes_peak: int
    """Most tasks at once; threads count."""
    result_bytes: int
    slot_bytes: int
    log_bytes: int

    def to_json(self) -> dict[str, int]:
        """Return integers, coarsened: seconds rounded up, memory rounded up to 16 MiB."""
        return {
            "wall_s": -int(-self.wall_s // 1),
            "cpu_s": -int(-self.cpu_s // 1),
            "peak_bytes": -(-self.peak_bytes // MEMORY_GRAIN) * MEMORY_GRAIN,
            "processes_peak": self.processes_peak,
            "result_bytes": self.result_bytes,
            "slot_bytes": self.slot_bytes,
            "log_bytes": self.log_bytes,
        }


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit that held, and what enforced it."""

    name: str
    value: int
    by: str
    """"rlimit", "watchdog", "host", "tmpfs"."""
    aggregate: bool
    """True when it holds for the cell as a whole, False when it holds for each process."""


@dataclass(frozen=True, kw_only=True)
class Seal:
    """What the host saw armed around one cell; it goes into the report."""

    stage: Kind
    backend: Literal["bubblewrap", "container", "process"]
    version: str
    policy_sha256: str
    """Digest of the profile."""
    layers: Mapping[str, Any]
    limits: tuple[Limit, ...]
    statements: tuple[str, ...]
    """Ids of fixed sentences, see `sandbox.statements`."""
    selfcheck_sha256: str | None
    """Digest of the last self-check of this cell, None before the first."""
    network: Literal["none", "host"]
    output_bytes: int
    output_cap: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values as they stand in the report under `sandbox.cells[]`."""
        return {
            "stage": self.stage,
            "backend": self.backend,
            "version": self.version,
            "policy_sha256": self.policy_sha256,
            "layers": {key: list(v) if isinstance(v, tuple) else v for key, v in self.layers.items()},
            "limits": [
                {"name": one.name, "value": one.value, "by": one.by, "aggregate": one.aggregate} for one in self.limits
            ],
            "statements": list(self.statements),
            "selfcheck_sha256": self.selfcheck_sha256,
            "network": self.network,
            "output": {"bytes": self._coarse_output(), "cap": self.output_cap},
        }

    def _coarse_output(self) -> int:
        coarse = -(-self.output_bytes // OUTPUT_GRAIN) * OUTPUT_GRAIN
        return coarse if self.output_bytes > self.output_cap else min(coarse, self.output_cap)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended and what it left."""

    ended: Ended
    status: int
    """Exit status, or the signal's number. bubblewrap reports signals as 128 + n, so an exit status above 128 reads as
    a signal: the program chooses its own epitaph either way."""
    why: Why | None
    result: bytes | None
    """Unparsed and at most `result_bytes`; None unless the program exited with 0 and wrote something."""
    slots: tuple[Filled, ...]
    usage: Usage
    seal: Seal
    log_tail: str
    """For the operator only: printable ASCII, one prefix per line. Never in a report, a status or a client's error."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One probe of a self-check and what became of it."""

    id: str
    word: Word
    got: str
    """What was observed, in words that are equal from run to run."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The record of a self-check; equal runs have equal digests."""

    backend: str
    version: str
    profile_sha256: str
    kernel: str
    probes_sha256: str
    cases: tuple[Case, ...]

    def document(self) -> bytes:
        """Return the canonical JSON of this proof: no pids, no times."""
        return canonical(
            {
                "schema": "assay-selfcheck/v1",
                "backend": self.backend,
                "version": self.version,
                "profile_sha256": self.profile_sha256,
                "kernel": self.kernel,
                "probes_sha256": self.probes_sha256,
                "cases": [{"id": one.id, "word": one.word, "got": one.got} for one in self.cases],
            }
        )

    @property
    def sha256(self) -> str:
        """SHA-256 of the canonical document; stands in every later seal."""
        return hashlib.sha256(self.document()).hexdigest()


OnStep = Callable[[str, int, int], None]
Cancelled = Callable[[], bool]


def ignore(_step: str, _done: int, _owed: int) -> None:
    """Take no notice of progress."""


def never() -> bool:
    """Return False: nobody cancels this run."""
    return False


class Cell(Protocol):
    """One isolated run at a time per call; safe to call from several threads."""

    def prove(self) -> Proof:
        """Attack the wall from inside and compare with controls outside.

        Raises:
            CellRefused: a layer is missing, a probe got through, or a control failed.
        """
        ...

    def run(
        self, order: Order, *, on_step: OnStep = ignore, cancelled: Cancelled = never, held: Held | None = None
    ) -> Outcome:
        """Run one order to its end.

        Args:
            order: what to run.
            held: inputs that several cells share and that were verified already (`sandbox.inputs.held`).
            on_step: told (step id, done, 100): the first of each step and then at most once a second, in hundredths
                that are multiples of 5, never the same again and never back.
            cancelled: asked every 100 ms; True kills the cell.

        Raises:
            CellRefused: isolation could not be armed; nothing untrusted ran.
            CellFailed: the machine failed; the same order may be tried again.
        """
        ...


def check_kill_bound(seconds: float) -> float:
    """Return a kill bound that a cell may be given.

    Raises:
        ValueError: it is longer than the promise, or too short to be kept.
    """
    if not KILL_BOUND_LEAST_S <= seconds <= KILL_BOUND_S:
        raise ValueError(f"kill_bound_s is {seconds} s; {KILL_BOUND_LEAST_S:g} to {KILL_BOUND_S:g} s can be promised")
    return seconds


def canonical(value: Any) -> bytes:
    """Return canonical JSON: sorted keys, no spaces, UTF-8, no NaN.

    Equals RFC 8785 for strings, integers, booleans, null and ASCII keys, which is all this package writes.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
