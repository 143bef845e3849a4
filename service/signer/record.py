"""The host's record, read as hostile: every answer is held against request, catalogue and its own numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

from assay import canonical, isolation, promise, strict_json
from assay.catalogue import Catalogue, CheckEntry
from assay.errors import Malformed, shown
from assay.predicate import Cell, Environment, Facts, Ingest, ReportAnswer, Sandbox
from assay.result import Count, Name, Value
from pydantic import Field, ValidationError

from sandbox import filters
from sandbox.bubblewrap import profile as profiles
from sandbox.cell import Kind
from service.signer import contained
from service.signer.refusal import Refused

BYTES_MAX = 4 * 1024 * 1024
"""The cell's result is at most 1 MiB; package list and seals add some 10 KB."""

ISOLATING = ("bubblewrap", isolation.BACKEND)
"""Backends that a production key may sign: containers where they measured, behind gVisor's sentry and saying so."""

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
"""What a cell shares with nobody."""

GROUPS = ("v1", "v2", "hybrid")
"""Versions of control groups, any of which limits the memory of a cell as a whole."""

STAGES: Mapping[tuple[str, ...], bool] = MappingProxyType(
    {("ingest",): False, ("ingest", "check"): True, ("ingest", "check_gpu"): True}
)
"""Which cells an attempt may have run, in their order, and whether they can have measured anything."""

STAGES_BASE: Mapping[tuple[str, ...], bool] = MappingProxyType(
    {("ingest",): False, ("ingest", "ingest"): False, **{("ingest", *one): STAGES[one] for one in STAGES if one[1:]}}
)
"""The same of an audit that names a base: each model is read in a cell of its own."""

_KINDS: Mapping[str, Kind] = MappingProxyType({"ingest": "ingest", "check": "check", "check_gpu": "check_gpu"})


class HostRecord(Value):
    """What the worker stored for the deciding attempt, schema assay-host-record/v1."""

    schema_: Literal["assay-host-record/v1"] = Field(alias="schema")
    audit: Name
    token: Count
    answers: tuple[ReportAnswer, ...]
    ingest: Ingest | None
    base_ingest: Ingest | None = None
    """How the base model was read; null where there is none, or no cell could say."""
    facts: Facts | None
    environment: Environment
    sandbox: Sandbox


def parse(data: bytes) -> HostRecord:
    """Read a record strictly.

    Raises:
        Refused: RECORD_REJECTED, naming the field.
    """
    try:
        strict_json.loads(data, BYTES_MAX)  # duplicate keys and the like, which the schema's own reader lets pass
        return HostRecord.model_validate_json(data)
    except Malformed as error:
        raise Refused("RECORD_REJECTED", f"the host's record: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        at = "/" + "/".join(str(part) for part in first["loc"])
        raise Refused("RECORD_REJECTED", f"the host's record: {shown(at)}: {shown(first['msg'], 160)}") from error


def check_answers(
    record: HostRecord, questions: list[Mapping[str, Any]], catalogue: Catalogue
) -> tuple[CheckEntry, ...]:
    """Hold each answer against its question, the installed catalogue and its own controls.

    Returns:
        The catalogue entries used, each once, in the order of the answers.

    Raises:
        Refused: RECORD_REJECTED, CODE_DIFFERS.
    """
    asked = [(question["name"], question["version"], canonical.dumps(question["params"])) for question in questions]
    told = [(answer.check, answer.version, canonical.dumps(answer.params)) for answer in record.answers]
    if asked != told:
        raise Refused("RECORD_REJECTED", f"{len(asked)} checks were asked; the answers are not theirs, in their order")
    used: dict[str, CheckEntry] = {}
    for answer in record.answers:
        entry = catalogue.entry(answer.check)
        if entry is None or entry.version != answer.version:
            raise Refused("CODE_DIFFERS", f"{answer.check} {answer.version} is not in the installed catalogue")
        if (answer.code_sha256, answer.catalogue_sha256) != (entry.code_sha256, entry.sha256):
            raise Refused("CODE_DIFFERS", f"{answer.check} {answer.version} ran other code than the catalogue names")
        _check_said(answer, entry)
        used[entry.sha256] = entry
    return tuple(used.values())


def _check_said(answer: ReportAnswer, entry: CheckEntry) -> None:
    try:
        promise.check_promise(answer.to_json(), entry.raw)
    except Malformed as error:
        raise Refused("RECORD_REJECTED", f"{answer.check}{error.at}: {error.message}") from error
    # `held` was recomputed when the control was read: a value cannot contradict its own numbers.
    held = set(entry.controls) <= {one.name for one in answer.controls} and all(one.held for one in answer.controls)
    if answer.valid != (answer.outcome == "measured" and held):
        raise Refused("RECORD_REJECTED", f"{answer.check}: valid is {answer.valid}, its controls say otherwise")


def check_handed_out(record: HostRecord, catalogue: Catalogue) -> Mapping[str, int]:
    """Hold the files that answers hand out against what their checks may.

    Returns:
        Size by digest, of every file.

    Raises:
        Refused: RECORD_REJECTED.
    """
    sizes: dict[str, int] = {}
    for answer in record.answers:
        entry = catalogue.entry(answer.check)
        promised = {one["name"]: one for one in entry.artefacts} if entry else {}
        names = [one.name for one in answer.artefacts]
        if names and (answer.outcome != "measured" or len(set(names)) != len(names)):
            raise Refused("RECORD_REJECTED", f"{answer.check}: hands out a file twice, or measured nothing")
        for one in answer.artefacts:
            owed = promised.get(one.name)
            if owed is None or one.media_type != owed["media_type"] or one.size > owed["max_bytes"]:
                raise Refused(
                    "RECORD_REJECTED", f"{answer.check}: hands out {shown(one.name)}, which is not promised so"
                )
            if sizes.setdefault(one.sha256, one.size) != one.size:
                raise Refused("RECORD_REJECTED", f"{answer.check}: {shown(one.name)} has two sizes")
    return sizes


def check_base(record: HostRecord, asked: bool) -> None:
    """Refuse decisions about a base that nobody asked for, and numbers about one that no cell has read.

    Raises:
        Refused: RECORD_REJECTED.
    """
    if record.base_ingest is not None and not asked:
        raise Refused("RECORD_REJECTED", "the host's record tells of a base model, and the request names none")
    measured = any(answer.outcome == "measured" for answer in record.answers)
    if asked and measured and record.base_ingest is None:
        raise Refused("RECORD_REJECTED", "something was measured, but nothing says how the base model was read")


def check_dead(record: HostRecord, catalogue: Catalogue, dead: Sequence[int]) -> None:
    """Refuse numbers of a check that reads its data in shards, if one of them was never read and goes unnamed.

    Raises:
        Refused: RECORD_REJECTED.
    """
    for answer in record.answers if dead else ():
        entry = catalogue.entry(answer.check)
        try:
            if entry is not None:
                promise.check_unread(answer.to_json(), entry, dead)
        except Malformed as error:
            raise Refused("RECORD_REJECTED", error.message) from error


def check_cells(record: HostRecord, profile: str, *, base: bool = False, planned: bool = False) -> None:
    """Refuse what was not isolated, and what was isolated otherwise than this release does it.

    Args:
        record: the host's record.
        profile: under which profile it is to be signed.
        base: whether the request names a base model, which is read in a cell of its own.
        planned: whether a check that was asked reads its data in shards.

    Raises:
        Refused: BACKEND_REFUSED under a production key, LAYER_MISSING where a seal does not show every layer armed,
            CODE_DIFFERS where a cell had another profile than the installed one, RECORD_REJECTED if nothing says where
            it was measured or the cells are not those of an attempt.
    """
    cells = record.sandbox.cells
    measured = any(answer.outcome == "measured" for answer in record.answers)
    if measured and not cells:
        raise Refused("RECORD_REJECTED", "something was measured, but no cell is named")
    known = {**(STAGES_BASE if base else STAGES), **(_planned(base) if planned else {})}
    check_seals(cells, profile, {stages for stages, can in known.items() if can or not measured})


def check_seals(cells: Sequence[Cell], profile: str, stages: Collection[tuple[str, ...]]) -> None:
    """Refuse an attempt whose cells' seals do not show every layer of this release armed.

    Args:
        cells: of the attempt, in their order.
        profile: under which profile a report is to be signed; under a development key a plain process shows nothing.
        stages: which cells such an attempt may have run.

    Raises:
        Refused: as `check_cells`.
    """
    isolated = [cell for cell in cells if profile != "development" or cell.backend != "process"]
    for cell in isolated:
        if cell.backend not in ISOLATING or cell.network != "none":
            raise Refused("BACKEND_REFUSED", f"a production key never signs what ran in a {cell.backend} cell")
        if cell.backend == isolation.BACKEND and cell.stage not in isolation.STAGES:
            raise Refused("BACKEND_REFUSED", f"a {shown(cell.stage)} cell is never a container: models are read apart")
    ran = tuple(cell.stage for cell in cells)
    if isolated and ran not in stages:
        raise Refused("RECORD_REJECTED", f"an attempt runs no cells {shown(' '.join(ran))}, in that order")
    for cell in isolated:
        missing = _missing_layer(cell)
        if missing:
            raise Refused("LAYER_MISSING", f"the {cell.stage} cell's seal does not show {missing}: nothing is signed")
        if cell.policy_sha256 != _policy(cell):
            raise Refused("CODE_DIFFERS", f"the {cell.stage} cell had another profile than the installed release has")


def _planned(base: bool) -> dict[tuple[str, ...], bool]:
    """Where data is read in shards, a cell that makes the plan comes before the one that measures."""
    read = ("ingest", "ingest") if base else ("ingest",)
    return {(*read, kind, kind): True for kind in ("check", "check_gpu")}


def _missing_layer(cell: Cell) -> str | None:
    """Return the first mandatory layer that a seal does not show armed (specs: sandbox, sections 3 and 11)."""
    if cell.backend == isolation.BACKEND:
        return contained.missing_layer(cell)
    layers = cell.layers
    landlock = layers.get("landlock_abi")
    present: dict[str, bool] = {
        "any isolation": "nothing_isolated" not in cell.statements,
        "every namespace": set(NAMESPACES) <= set(_texts(layers.get("namespaces"))),
        "a uid that is not root's": layers.get("cell_uid_is_root") is False,
        "no_new_privs": layers.get("no_new_privs") is True,
        "this release's filters of system calls": layers.get("seccomp_sha256") == _filters(cell.stage),
        # A kernel without Landlock is stated; a silent absence is not.
        "Landlock": type(landlock) is int and (landlock > 0 or "landlock_absent" in cell.statements),
        "a limit of memory": layers.get("cgroup") in GROUPS or "memory_per_process" in cell.statements,
        "a self-check": cell.selfcheck_sha256 is not None,
    }
    return next((layer for layer, there in present.items() if not there), None)


def _policy(cell: Cell) -> str:
    """Return the digest of the installed profile of a seal that shows every layer."""
    if cell.backend == isolation.BACKEND:
        return contained.policy(cell)
    return _bubblewrap(cell.stage, warm="started_warm" in cell.statements)


@cache
def _bubblewrap(stage: str, *, warm: bool) -> str:
    return profiles.digest(_KINDS[stage], warm=warm)


@cache
def _filters(stage: str) -> tuple[str, ...]:
    """Return the digests of the installed filters of a stage, outer and inner, as the gate puts them into a seal."""
    kind = _KINDS[stage]
    return filters.digest(filters.program("outer", kind)), filters.digest(filters.program("inner", kind))


def _texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, tuple) else ()
