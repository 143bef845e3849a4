"""The predicate's full schema: what a signer may sign. `protos/report/v1.md` explains every field to a stranger.

Unknown fields are forbidden here and ignored by readers, who prune them before they validate (`assay.verify`).
A field that does not apply to a report is null; what this version of the service does not build is not here at all.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from assay.predicate_kinds import Moment, Origin, Path, Plain, Sha256
from assay.result import Answer, Count, Finding, Name, Text, Value


class Audit(Value):
    """Which audit, and when it passed which point."""

    name: Annotated[str, Field(pattern=r"^audits/[0-9a-f]{32}$")]
    nonce: Sha256
    """32 random bytes of the client: they hide the request from whoever sees only its digest."""
    submitted_at: Moment
    registered_at: Moment
    started_at: Moment
    """Start of the first attempt."""
    ended_at: Moment
    """End of the last attempt."""
    composed_at: Moment


class Registration(Value):
    """Where the request stands in the log, and the seed that follows from it."""

    log_origin: Origin
    request_index: Count
    request_sha256: Sha256
    leaf_sha256: Sha256
    """Hash of the request's leaf."""
    tree_size: Count
    """Of the receipt's checkpoint, the first that the signer handed out with the request under it."""
    root_sha256: Sha256
    """Root of that checkpoint."""
    seed_mode: Literal["derived", "fixed"]
    seed: Count
    tag_salt: Sha256
    """32 random bytes of the signer for this model: who has them finds all leaves of the model."""


class Decision(Value):
    """What ingest decided about one file of the model."""

    path: Path | None
    decision: Literal["accepted", "dropped", "refused"]
    reason: Name | None
    at: dict[Name, Text | Count] | None


class Ingest(Value):
    """How the model's files were read."""

    decisions: tuple[Decision, ...]


class Model(Value):
    """The model that was measured."""

    manifest_sha256: Sha256
    ingest: Ingest | None
    """Null when the cell died before it could say."""


class Output(Value):
    """Bytes that left the cell, and the most that could have."""

    bytes: Count
    cap: Count


class Base(Value):
    """A second model that the first was held against; nothing is claimed about it alone."""

    manifest_sha256: Sha256
    ingest: Ingest | None
    """Null when no cell could say."""
    lifetime_output: Output | None = None
    """As the sandbox's, of this model: its weights are charged for the same report."""


Level = Literal["weights", "activations", "gradients", "training_data"]


class AccessLevels(Value):
    """How deep the audit looked; follows from the checks' catalogue entries."""

    derived: tuple[Level, ...]
    granted: tuple[Level, ...] | None = None
    """What the registered request claims, and an approval allows where one was needed; null in older reports."""
    grant: Sha256 | None = None
    """Digest of the envelope of the owner's approval; null where the model is the auditor's own."""


class Approval(Value):
    """A signed consent of the model's owner, under which the audit ran."""

    name: Text
    key_id: Sha256
    """Of the owner's key."""
    envelope_sha256: Sha256


class Parties(Value):
    """Who asked, and whose model it is; names are those of the service's tenants."""

    auditor: Text
    owner: Text
    approvals: tuple[Approval, ...]


class Data(Value):
    """One data set that the audit read."""

    role: Name
    sha256: Sha256
    rows: Count | None
    """Lines that hold something; null where the role is no JSON Lines."""
    media_type: Text | None = None
    """As the catalogue says for the role; null in reports of before it was told."""


class Artefact(Value):
    """One file that a check handed out; it travels as `artefacts/<sha256>`."""

    name: Name
    media_type: Text
    sha256: Sha256
    size: Count


class ReportFinding(Finding):
    """A claim, with what names it in every report of its check."""

    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    """Of check, code and labels, without values and model (`assay.policy.fingerprint.of_claim`); null in older
    reports."""


class ReportAnswer(Answer):
    """One check's answer, with the code that gave it and the promise it is held to."""

    findings: tuple[ReportFinding, ...] = ()
    code_sha256: Sha256
    catalogue_sha256: Sha256
    """The check's catalogue entry, which travels as `artefacts/<catalogue_sha256>`."""
    artefacts: tuple[Artefact, ...] = ()


class Facts(Value):
    """What the cell said about model and run; for reading, not for deciding."""

    architecture: Name
    layers: Count
    width: Count
    parameters: Count
    texts: Count
    tokens: Count
    dtype: Name
    batch_size: Count
    threads: Count
    torch: Text


class Environment(Value):
    """Where the deciding attempt ran."""

    python: Text
    packages: dict[Text, Text]
    lock_sha256: Sha256
    """SHA-256 of the canonical JSON of `packages`."""
    cpu: Text
    kernel: Text
    dtype: Name | None
    batch_size: Count | None
    deterministic_flags: dict[Name, Plain]


class Limit(Value):
    """One limit of a cell, and what enforced it."""

    name: Name
    value: Count
    by: Name
    aggregate: bool
    """True when it held for the cell as a whole, False when for each process."""


class Cell(Value):
    """The seal of one isolated run, as the host armed and measured it."""

    stage: Name
    backend: Name
    """"bubblewrap"; "container", whose layers `assay.isolation` lists; or "process": a development twin that isolates
    nothing."""
    version: Text
    policy_sha256: Sha256
    layers: dict[Name, Plain | tuple[Text, ...]]
    limits: tuple[Limit, ...]
    statements: tuple[Name, ...]
    """What is weaker than it should be, e.g. "nothing_isolated"."""
    selfcheck_sha256: Sha256 | None
    network: Name
    output: Output


class Attempt(Value):
    """One leased try at a job. All of them are here, the failed ones too."""

    job: Name
    """whole; where data was read in shards also shard:k, counted from 0, and combine."""
    n: Annotated[int, Field(ge=1)]
    started_at: Moment
    ended_at: Moment
    exit_class: Name
    result_sha256: Sha256 | None
    """Digest of what this try decided: the host's record; of a plan, its document; of a shard, its part."""
    cells: tuple[Cell, ...] = ()
    """Seals of the cells that left a plan or a part; those of the deciding try stand in `sandbox`."""


class Sandbox(Value):
    """The cells of the deciding attempt, and what has left about the model so far."""

    cells: tuple[Cell, ...]
    lifetime_output: Output | None = None
    """What the auditor had been charged for this model by then, this report included, and the cap on it; null where the
    ledger was not kept yet."""


class PolicyRef(Value):
    """The release policy that was registered with the request; it travels as `policy.json`."""

    sha256: Sha256
    name: Name


class Deciding(Value):
    """The instance that decided an entry of the policy."""

    labels: dict[Name, Name]
    detail: Text


class Assertion(Value):
    """What one entry of the policy came to."""

    id: Name
    outcome: Literal["pass", "fail", "inconclusive", "waived"]
    reason: Name
    selected: Count
    """Instances that were measured and looked at."""
    deciding: Deciding | None


class Verdict(Value):
    """What the registered policy says of this report at age 0, with the registered waivers alone."""

    outcome: Literal["pass", "fail", "inconclusive"]
    assertions: tuple[Assertion, ...]
    counts: dict[Name, Count]
    """Gate-level entries by outcome."""


class Signer(Value):
    """Under which profile the report was signed."""

    profile: Literal["development", "production"]


class Predicate(Value):
    """A report, whole."""

    schema_version: Annotated[str, Field(pattern=r"^1\.[0-9]+$")]
    audit: Audit
    registration: Registration
    model: Model
    base: Base | None = None
    parties: Parties | None = None
    """Null in reports of before owners approved."""
    access: AccessLevels
    data: tuple[Data, ...]
    answers: tuple[ReportAnswer, ...]
    facts: Facts | None
    attempts: Annotated[tuple[Attempt, ...], Field(min_length=1)]
    environment: Environment
    sandbox: Sandbox
    policy: PolicyRef | None = None
    """Null where none was registered; then there is no verdict."""
    verdict: Verdict | None = None
    signer: Signer


def field_names() -> set[str]:
    """Return the name of every field of the schema, for the page that must explain each."""
    names: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            names.update(node.get("properties", {}))
            for child in node.values():
                visit(child)
        elif isinstance(node, list):
            for child in node:
                visit(child)

    visit(Predicate.model_json_schema())
    return names
