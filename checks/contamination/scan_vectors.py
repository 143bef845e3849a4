"""Vectors of a plan's probes, embedded once and carried to every process that scans a shard (contamination, 6.5).

A thousand items with twenty siblings are 21 000 texts that are run alone, minutes of work that would be the same for
each shard. The carried bytes name their plan and encoder, and are read strictly: a scan with them gives the bytes of a
scan without.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from checks.check import Refusal
from checks.contamination.functions import item_description
from checks.contamination.normaliser import normalise
from checks.contamination.plan import Plan, PlanProbe

if TYPE_CHECKING:
    from jaxtyping import Float32

MAGIC = b"assay-probe-vectors/v1\n"

HEAD = struct.Struct("<23sII32s32s")
"""Magic, number of probes, numbers in a vector, SHA-256 of the encoder's digest, SHA-256 of the plan's document."""

TAIL = 32
"""Bytes of the SHA-256 of all that stands before it: one flipped bit would change scores and be seen by nobody."""

WIDTH_MAX = 4096
"""Widest vector that is read; the encoder's has 384 numbers, and no sentence encoder in use has more than this."""

UNIT = 1e-3
"""How far a vector's length may lie from 1: float32 sums of 384 squares err by some 1e-6, and bf16 is not carried."""


class Alone(Protocol):
    """What is needed of an encoder."""

    def embed_alone(self, text: str) -> Float32[np.ndarray, " d"]:
        """Return the unit vector of one text, which depends on nothing else."""
        ...


def probe_text(probe: PlanProbe) -> str:
    """Return the text that a probe is embedded as; empty where it is compared with no window or function.

    Of prose and choice the question as window text (6.2), of code in Python its description without examples (6.7).
    """
    if probe.kind != "code":
        read = normalise(probe.text)
        return read.window_text if read.tokens else ""
    if probe.language.lower() != "python" or probe.entry is None:
        return ""
    return item_description(probe.text, probe.entry)


def embedded(texts: Sequence[str], encoder: Alone) -> Float32[np.ndarray, "n d"]:
    """Return the vector of each text run alone, equal texts once; zeros for an empty one. [n, 0] without any text."""
    rows: dict[str, Float32[np.ndarray, " d"]] = {}
    out: Float32[np.ndarray, "n d"] = np.zeros((len(texts), 0), dtype=np.float32)
    for place, text in enumerate(texts):
        if not text:
            continue
        if text not in rows:
            rows[text] = np.asarray(encoder.embed_alone(text), dtype=np.float32)
        if not out.shape[1]:
            out = np.zeros((len(texts), len(rows[text])), dtype=np.float32)
        out[place] = rows[text]
    return out


def probe_vectors(plan: Plan, encoder: Alone) -> bytes:
    """Return the vectors of a plan's probes as bytes that `Scanner` takes in place of embedding them.

    Layout, little endian: `HEAD`; one float32 row for each probe in the order of their ids, zeros for a probe that is
    not embedded; SHA-256 of all before. Equal plans and encoders give equal bytes.

    Args:
        plan: with `embed` other than "off".
        encoder: of the plan's digest.

    Raises:
        ValueError: the plan asks for no embedding.
        Refusal: `other_plan`: the plan names another encoder.
    """
    if plan.parameters.embed == "off":
        raise ValueError("embed is 'off': a plan without embedding has no vectors")
    rows = embedded([probe_text(probe) for probe in plan.probes], encoder)
    head = HEAD.pack(MAGIC, len(plan.probes), rows.shape[1], _encoder(plan, encoder), bytes.fromhex(plan.plan_sha256))
    told = head + rows.astype("<f4").tobytes()
    return told + hashlib.sha256(told).digest()


def read_vectors(vectors: bytes, plan: Plan, encoder: Alone) -> Float32[np.ndarray, "n d"]:
    """Return the rows of `probe_vectors`, by probe id; a view of the bytes where the machine is little endian.

    Raises:
        ValueError: the bytes are no such vectors: wrong size, changed, not finite, not of unit length, a row for a
            probe without text or none for one with.
        Refusal: `other_plan`: they were made for another plan, or by another encoder.
    """
    if len(vectors) < HEAD.size + TAIL:
        raise ValueError(f"vectors of {len(vectors)} bytes: too short")
    magic, count, width, encoding, planned = HEAD.unpack_from(vectors)
    if magic != MAGIC:
        raise ValueError("vectors begin with another magic")
    if planned.hex() != plan.plan_sha256:
        raise Refusal("other_plan", sorted((f"plan:{planned.hex()}", f"plan:{plan.plan_sha256}")))
    if encoding != _encoder(plan, encoder):
        raise Refusal("other_plan", ("encoder:other_digest",))
    if count != len(plan.probes) or width > WIDTH_MAX or len(vectors) != HEAD.size + 4 * count * width + TAIL:
        raise ValueError(f"{len(vectors)} bytes do not hold {count} vectors of {width} of {len(plan.probes)} probes")
    if hashlib.sha256(memoryview(vectors)[:-TAIL]).digest() != vectors[-TAIL:]:
        raise ValueError("vectors were changed: their digest differs")
    rows = np.frombuffer(vectors, dtype="<f4", count=count * width, offset=HEAD.size).reshape(count, width)
    told = rows.astype(np.float32, copy=False)
    _check(told, plan)
    return told


def _check(rows: Float32[np.ndarray, "n d"], plan: Plan) -> None:
    for probe, row in zip(plan.probes, rows, strict=True):
        if not np.isfinite(row).all():
            raise ValueError(f"probe:{probe.id}: a vector is not finite")
        length = float(np.sqrt(np.dot(row.astype(np.float64), row.astype(np.float64))))
        if abs(length - bool(probe_text(probe))) > UNIT:
            raise ValueError(f"probe:{probe.id}: a vector has length {length:.3f}")


def _encoder(plan: Plan, encoder: Alone) -> bytes:
    """Return the SHA-256 of the encoder's digest; of one that tells none, of the digest that the plan names.

    Raises:
        Refusal: `other_plan`: the plan names another encoder.
    """
    named = plan.digests.get("encoder")
    own = getattr(encoder, "digest", named)
    if named is not None and own != named:
        raise Refusal("other_plan", ("encoder:other_digest",))
    return hashlib.sha256((own or "").encode()).digest()
