"""The corpus side as an audit runs it: evidence to plan, shard to part, parts to a conclusion (contamination, 5, 6.8).

Everything here is also what `python -m checks contamination` runs from the command line; a shard that was scanned in a
cell is `observed`, one whose sketch was brought along is `declared`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any, cast

from assay.result import Measured, Metric, Skipped

from checks.check import Evidence, Refusal
from checks.contamination.budget import check_probes, shard_bytes
from checks.contamination.commitments import KEY_BYTES
from checks.contamination.conclude import Conclusion, conclude
from checks.contamination.items import read_benchmark, read_placebo, read_scores
from checks.contamination.model_scores import inflation_metrics
from checks.contamination.model_texts import ROLE, TOO_FEW
from checks.contamination.plan import PARTS, ScanParameters
from checks.contamination.planning import (
    SEED_BITS,
    Asked,
    Prepared,
    Roles,
    benchmark_digest,
    derived_seed,
    prepare,
)
from checks.contamination.planning_file import differences, read_prepared, to_bytes
from checks.contamination.rewrites import read_rewrites
from checks.contamination.shards import Format, Shard, Stored, shards, stored
from checks.contamination.sketch import Sketch, merge
from checks.contamination.sketch_reading import read_sketch
from checks.quantise import metric
from checks.sharding import SHARDS_MAX, Planned, ShardFile, ShardStep

if TYPE_CHECKING:
    from checks.contamination.check import Contamination


def plan_shards(check: Contamination, evidence: Evidence, files: Sequence[ShardFile]) -> Planned:
    """Return the plan of an audit, and the vectors of its probes.

    Raises:
        Refusal: a role cannot be read, or the corpus has no byte or too many shards.
        ShardFailed: a file has no readable table of contents.
    """
    key_of(evidence)  # a wrong one is told before an hour of scanning, not after
    roles = _roles(check, evidence)
    told = _stored(check, files)
    cut = shards(told, shard_bytes(check.shard_bytes, told, roles.items, parameters_of(check)))
    if len(cut) > SHARDS_MAX:
        raise Refusal("shards_too_many", (f"shards:{len(cut)}", f"shards:most:{SHARDS_MAX}"))
    encoder = _encoder(check) if check.embed != "off" else None
    made = _prepared(check, roles, cut, int(evidence.rng("plan").integers(2**SEED_BITS)), encoder)
    check_probes(len(made.plan.probes), check.keep)
    carried = b""
    if encoder is not None:
        from checks.contamination.scan_vectors import probe_vectors

        carried = probe_vectors(made.plan, encoder)
    return Planned(document=to_bytes(made), carried=carried, shards=len(cut))


def _roles(check: Contamination, evidence: Evidence) -> Roles:
    rows = {role: evidence.data(role) for role in ("benchmark", "placebo", "rewrites") if role in evidence.roles()}
    items = read_benchmark(rows["benchmark"], check.max_items)
    return Roles(
        items,
        read_placebo(rows["placebo"], check.max_items) if "placebo" in rows else (),
        read_rewrites(rows["rewrites"], items) if "rewrites" in rows else (),
    )


def _prepared(check: Contamination, roles: Roles, cut: Sequence[Shard], seed: int, encoder: Any) -> Prepared:
    digests = {"benchmark": benchmark_digest(roles.items)}
    if encoder is not None:
        digests["encoder"] = encoder.digest
    return prepare(roles, cut, seed=seed, asked=asked_of(check), parameters=parameters_of(check), digests=digests)


def scan_shard(
    check: Contamination, planned: Planned, shard: int, files: Sequence[ShardFile], on_step: ShardStep
) -> bytes:
    """Return the sketch of one shard.

    Raises:
        ShardFailed: it cannot be read.
    """
    from checks.contamination.scan import scan

    told = _scanner(check, planned)
    one = here(told.prepared, files)[shard]
    size = max(one.file.size, 1)
    sketch = scan(
        one, told.prepared.plan, scanner=told.scanner, progress=lambda docs, words: on_step(min(words * 6, size), size)
    )
    return sketch.to_bytes()


def merge_parts(parts: Sequence[bytes]) -> bytes:
    """Return all sketches as one.

    Raises:
        Refusal: two are of other plans.
    """
    return reduce(merge, map(read_sketch, parts)).to_bytes()


def concluded(check: Contamination, evidence: Evidence) -> Concluded:
    """Return the conclusion; made once for `measure`, every control and what is handed out."""
    if "concluded" not in evidence.kept:
        evidence.kept["concluded"] = _conclude(check, evidence)
    return cast("Concluded", evidence.kept["concluded"])


@dataclass(frozen=True)
class Concluded:
    """What an audit found, with what it was found by."""

    prepared: Prepared
    sketch: Sketch
    conclusion: Conclusion
    files: tuple[ShardFile, ...]
    """Of the corpus; none where sketches were brought along."""

    inflated: tuple[Metric, ...]
    """What matches go with in scores, by benchmark."""
    uninflated: tuple[Skipped, ...]
    """Benchmarks of which that cannot be said, and why."""

    @cached_property
    def measured(self) -> Measured:
        """The numbers, with the digests of plan and joined sketch: another run of the same audit must show the same."""
        told = self.conclusion.measured
        digests = {
            "plan": self.prepared.plan.plan_sha256,
            "sketch": hashlib.sha256(self.sketch.to_bytes()).hexdigest(),
            "plan_seed": str(self.prepared.plan.seed),
        }
        read = len(self.sketch.shards)
        joined = metric("shards_joined", read, n=read, unit="count", determinism="exact", labels=digests)
        return told.model_copy(
            update={
                "coverage": {**told.coverage, **{name: (value,) for name, value in digests.items()}},
                "metrics": (*told.metrics, joined, *self.inflated),
                "skipped": (*told.skipped, *self.uninflated),
            }
        )


def key_of(evidence: Evidence) -> bytes | None:
    """Return the auditor's key of commitments; None where none came.

    Raises:
        Refusal: `key_invalid`: it has not 32 bytes.
    """
    key = evidence.blob("commitment_key") if "commitment_key" in evidence.roles() else None
    if key is not None and len(key) != KEY_BYTES:
        raise Refusal("key_invalid", (f"commitment_key:bytes:{len(key)}",))
    return key


def _conclude(check: Contamination, evidence: Evidence) -> Concluded:
    files: tuple[ShardFile, ...] = ()
    encoder = _encoder(check) if check.embed != "off" else None
    if "sketches" not in evidence.roles():
        gathered = evidence.gathered()
        files = gathered.files
        prepared, sketch = read_prepared(gathered.document), read_sketch(gathered.merged)
    else:
        prepared, sketch = _brought(check, evidence, encoder)
    conclusion = conclude(sketch, prepared, encoder=encoder)
    return Concluded(prepared, sketch, conclusion, files, *_inflation(check, evidence, conclusion))


def _brought(check: Contamination, evidence: Evidence, encoder: Any) -> tuple[Prepared, Sketch]:
    """Return a plan and a sketch that were made elsewhere, where the plan is what this audit would have made.

    A level, a benchmark or a seed that was chosen after the sketches were seen would be none, so the plan is made again
    from the audit's own roles and parameters; only its shards are taken from it. Whoever scanned them, nobody here saw
    it: what a sketch says of its own origin does not count.

    Raises:
        Refusal: `other_plan`, naming what differs; `plan_invalid` or `sketch_invalid`.
    """
    prepared, sketch = read_prepared(evidence.blob("plan")), read_sketch(evidence.blob("sketches"))
    roles, cut = _roles(check, evidence), prepared.plan.shards
    made = _prepared(check, roles, cut, derived_seed(benchmark_digest(roles.items), cut), encoder)
    if differing := differences(prepared, made):
        raise Refusal("other_plan", differing)
    declared = {digest: replace(one, origin="declared") for digest, one in sketch.shards.items()}
    return prepared, replace(sketch, shards=declared)


def _inflation(
    check: Contamination, evidence: Evidence, told: Conclusion
) -> tuple[tuple[Metric, ...], tuple[Skipped, ...]]:
    """Return what flagged items go with in the scores of models (section 8)."""
    asked = "scores" in evidence.roles()
    scores = read_scores(evidence.data("scores")) if asked else ()
    items = read_benchmark(evidence.data("benchmark"), check.max_items)
    metrics: list[Metric] = []
    skipped: list[Skipped] = []
    for name, flagged in told.flagged_names().items():
        found = inflation_metrics(name, flagged, items, scores, evidence.rng(f"bootstrap:inflation:{name}"))
        metrics += found
        if not found:
            skipped.append(Skipped(item=f"inflation:{name}", reason=TOO_FEW if asked else ROLE))
    return tuple(metrics), tuple(skipped)


@dataclass(frozen=True)
class _Scanning:
    document: bytes
    prepared: Prepared
    scanner: Any


_last: list[_Scanning] = []
"""The plan that this process scanned by last: shards that are scanned one after the other read its probes once."""


def _scanner(check: Contamination, planned: Planned) -> _Scanning:
    from checks.contamination.scan import Scanner

    if not _last or _last[0].document != planned.document:
        prepared = read_prepared(planned.document)
        encoder = _encoder(check) if prepared.plan.parameters.embed != "off" else None
        if encoder is not None and encoder.digest != prepared.plan.digests.get("encoder"):
            raise Refusal("other_plan", ("encoder:other_digest",))
        scanner = Scanner(prepared.plan, encoder=encoder, vectors=planned.carried or None)
        _last[:] = [_Scanning(planned.document, prepared, scanner)]
    return _last[0]


def here(prepared: Prepared, files: Sequence[ShardFile]) -> tuple[Shard, ...]:
    """Return the shards of a plan with the paths that their files have in this cell.

    Raises:
        Refusal: `shard_unknown`: a file of the plan is not there, or is another.
    """
    by_name = {one.name: one for one in files}
    told = []
    for shard in prepared.plan.shards:
        file = by_name.get(shard.file.name)
        if file is None or file.sha256 != shard.file.sha256:
            raise Refusal("shard_unknown", (f"corpus:{shard.file.name}",))
        told.append(replace(shard, file=replace(shard.file, path=file.path)))
    return tuple(told)


def _stored(check: Contamination, files: Sequence[ShardFile]) -> list[Stored]:
    form: Format = check.corpus_format
    return [stored(one.path, one.name, form, one.sha256) for one in files]


def asked_of(check: Contamination) -> Asked:
    """Return the parameters of the conclusion."""
    return Asked(
        gating_tiers=check.gating_tiers,
        q=parts(check.q),
        siblings=0 if check.siblings == "auto" else check.siblings,
        plant_share=parts(check.plant_share),
        near_power=parts(check.near_power),
        semantic_power=parts(check.semantic_power),
        evidence=check.evidence,
        reveal_chars=check.reveal_chars,
    )


def parameters_of(check: Contamination) -> ScanParameters:
    """Return the parameters of the scan."""
    return ScanParameters(
        seed_ngram=check.seed_ngram,
        near_lcs=parts(check.near_lcs),
        near_overlap=parts(check.near_overlap),
        cosine_floor=parts(check.cosine_floor),
        template_cosine=parts(check.template_cosine),
        windows=check.windows,
        embed=check.embed,
        sample_fraction=parts(check.sample_fraction),
        always_embed=check.always_embed,
        coarse=check.coarse,
        keep=check.keep,
        text_field=check.text_field,
        languages=check.languages,
        max_bad_share=parts(check.max_bad_share),
    )


def parts(share: str) -> int:
    """Return a share in parts of 10 000."""
    return round(float(share) * PARTS)


def _encoder(check: Contamination) -> Any:
    from checks.contamination.encoder import Encoder

    return Encoder(coarse=check.coarse)


__all__ = ["Concluded", "concluded", "here", "key_of", "merge_parts", "plan_shards", "scan_shard"]
