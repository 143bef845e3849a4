"""How large a shard may be so that a worker finishes it, and how many probes fit a sketch (contamination, 5, 6.8)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from checks.check import Refusal
from checks.contamination.items import Item
from checks.contamination.normaliser import normalise
from checks.contamination.plan import PARTS, ScanParameters
from checks.contamination.shards import SHARD_BYTES, Stored
from checks.contamination.windows import bin_of
from checks.sharding import PART_MAX, SHARDS_MAX

PIECES_S = 1_700
"""Word pieces that one thread embeds a second, with reading and comparing: 2031 of embedding alone in wall time, in
float32, on a shared 2-core CPU (benchmarks/contamination_speed.json)."""

PIECES_PER_BYTE = 0.44
"""Word pieces of the windows of one bin to a byte of text: English has about 4.6 bytes to a piece, and windows that
start half a window apart hold every word twice (6.5): 256 MiB are 117 million pieces."""

SHARD_S = 1_200
"""Seconds that a shard should take at most: a third of an audit's default wall time, 3600 s (service, 14), so that a
shard on a machine of a third of that speed ends too."""

SHARD_MIN = 2**16
"""Bytes of the smallest shard: below, planted copies and reading the plan cost more than the shard."""

UNPACKED = 4
"""Bytes of text to a stored byte of a compressed file or a table: what zstd makes of English prose, about."""

ENTRY_BYTES = 200
"""Bytes of a kept match in a sketch's JSON, at most: two digests, a key and numbers (6.8)."""


def shard_bytes(
    asked: int | Literal["auto"], files: Sequence[Stored], items: Sequence[Item], parameters: ScanParameters
) -> int:
    """Return the stored bytes of a shard.

    Args:
        asked: as the audit says it; auto: what is embedded in 20 minutes, `SHARD_MIN` to `SHARD_BYTES`.
        files: the corpus.
        items: of the benchmark: each length of window that one of them uses embeds the corpus once.
        parameters: `embed`, `sample_fraction` and `windows`.

    Raises:
        Refusal: `shards_too_many`: the corpus has more than 512 such shards; naming hours of a worker and what to do.
    """
    if asked != "auto":
        return asked
    seconds = _seconds_per_byte(bins(items, parameters.windows), files, parameters)
    size = min(SHARD_BYTES, max(SHARD_MIN, int(SHARD_S / seconds))) if seconds else SHARD_BYTES
    whole = sum(one.size for one in files)
    shards = -(-whole // size)
    if shards > SHARDS_MAX:
        hours = -(-round(whole * seconds) // 3600)
        told = (
            f"shards:{shards}",
            f"shards:most:{SHARDS_MAX}",
            f"hours:{hours}",
            "embed:sample_or_off",
            "or:command_line",
        )
        raise Refusal("shards_too_many", told)
    return size


def bins(items: Sequence[Item], windows: Sequence[int]) -> Collection[int]:
    """Return the lengths of windows that some item uses; functions of code have no window."""
    lengths = (len(normalise(one.question).words) for one in items if one.kind != "code")
    return {bin_of(length, windows) for length in lengths if length}


def check_probes(probes: int, keep: int, most: int = PART_MAX) -> None:
    """Refuse a plan of which one sketch may not fit.

    Args:
        probes: of the plan.
        keep: matches kept of each.
        most: bytes of a sketch.

    Raises:
        Refusal: `plan_too_large`, naming probes, keep and how many probes fit.
    """
    fit = most // (keep * ENTRY_BYTES)
    if probes > fit:
        raise Refusal("plan_too_large", (f"probes:{probes}", f"probes:most:{fit}", f"keep:{keep}"))


def _seconds_per_byte(used: Collection[int], files: Sequence[Stored], parameters: ScanParameters) -> float:
    if parameters.embed == "off":
        return 0.0
    share = parameters.sample_fraction / PARTS if parameters.embed == "sample" else 1.0
    packed = UNPACKED if any(one.format != "jsonl" for one in files) else 1
    return max(len(used), 1) * share * packed * PIECES_PER_BYTE / PIECES_S
