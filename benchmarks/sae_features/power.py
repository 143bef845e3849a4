"""Power and false positives of `sae_features` over whole tensor-only audits, each with its own model, data and seed.

Run: `OMP_NUM_THREADS=1 python -m benchmarks.sae_features.power`. Writes every rate to `power.json` beside this script
and the two that the catalogue shows to `measured.json` beside the check. Some 5 s of one core an audit, and about half
an hour in all. What was drawn is kept in `--kept`, a line an audit, so that a run which was cut off goes on where it
ended; audits of other settings, or of other code of the check, are thrown away. `--tell` draws nothing and writes what
the last run has kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from assay.result import Answer
from threadpoolctl import threadpool_limits

import checks.sae_features as family
from benchmarks.sae_features.planted import CONTRASTS, ROWS, Model, Plant, evidence
from checks.ask import ask
from checks.quantise import decimal
from checks.sae_features.check import SaeFeatures
from checks.statistics import proportion_interval

FOLDER = Path(next(iter(family.__path__)))
TABLE = Path(__file__).with_suffix(".json")
KEPT = Path(__file__).resolve().parents[2] / "var" / "sae_features_power.jsonl"

SETTINGS: Mapping[str, Any] = {
    "site": "resid.0",
    "width": 64,
    "k": 4,
    "train_tokens": 220_000,
    "bootstrap": 200,
    "permutations": 50,
    "power_draws": 20,
    "matched_controls": 39,
    "edit_rows": CONTRASTS,
    "cards": 0,
    "ks": (1, 5),
}
"""A small audit: the fewest draws whose p-values can reach alpha, and a dictionary that is usable."""

FOUND = ("dense_carries", "sae_adds")
"""Words of a concept that is detected above the surface."""

QUOTED = "1"
"""Amplitude whose power the catalogue shows: a concept as large as any other feature."""

NULL, NOTHING = "labels drawn", "0"
"""The null that the catalogue shows: the behaviour and its direction are in the model, and labels that say nothing of
either. The other, a model without the direction, can have no causal word: it lacks the behaviour."""

PLANTS: Mapping[str, tuple[float, bool]] = {
    QUOTED: (1.0, True), NULL: (1.0, False), "0.5": (0.5, True), "0.25": (0.25, True), "1.5": (1.5, True),
    NOTHING: (0.0, True),
}  # fmt: skip
"""Amplitude, and whether labels say where the concept is."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What one audit said.

    Attributes:
        plant: its name in `PLANTS`.
        draw: number of the draw; every seed follows from it.
        scale: R of the states.
        valid: whether every control held.
        dictionary: word of the first dictionary.
        concept: word of the concept; "" where there is none.
        causal: word of its latents.
        p: Holm's p of the ablation among matched sets; None where nothing was edited.
    """

    plant: str
    draw: int
    scale: float
    valid: bool
    dictionary: str
    concept: str
    causal: str
    p: float | None

    @property
    def found(self) -> bool:
        """Whether the concept is detected, and above the surface of its texts."""
        return self.concept in FOUND

    @property
    def acts(self) -> bool:
        """Whether its ablation does more than matched sets do."""
        return self.p is not None and self.p <= float(SaeFeatures(**SETTINGS).alpha)

    @property
    def through(self) -> bool:
        """Whether the behaviour is said to pass through its latents."""
        return self.causal == "through_latents"


def audited(plant: str, draw: int) -> Audit:
    """Return what the audit of one draw said."""
    amplitude, labelled = PLANTS[plant]
    number = 1000 * list(PLANTS).index(plant) + draw
    model = Model(Plant(amplitude=amplitude, labelled=labelled, seed=number))
    with threadpool_limits(limits=1, user_api="blas"):
        answer = ask(SaeFeatures(**SETTINGS, seed=draw), evidence(model, seed=number))
    words = words_of(answer)
    assert answer.measured is not None, answer.reason
    p = answer.measured.find("effect_p_holm", dictionary="trained-0", concept="open")
    return Audit(
        plant=plant,
        draw=draw,
        scale=round(model.scale, 4),
        valid=answer.valid,
        dictionary=words.get("dictionary:trained-0", ""),
        concept=words.get("concept", ""),
        causal=words.get("causal:trained-0", ""),
        p=None if p is None else float(p.value),
    )


def words_of(answer: Answer) -> dict[str, str]:
    """Return the words of an audit of one concept, by code and, where it has one, dictionary."""
    named = [(":".join(filter(None, (one.code, one.labels.get("dictionary", "")))), one) for one in answer.findings]
    return {name: one.word for name, one in named}


def code() -> str:
    """Return the digest of the check's code and of what draws the audits: audits of other code are other audits."""
    files = [*sorted(FOLDER.rglob("*.py")), Path(__file__).with_name("planted.py")]
    parts = [path.read_bytes() for path in files] + [json.dumps(SETTINGS, sort_keys=True).encode()]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def kept(path: Path, mark: str | None) -> tuple[str, list[Audit]]:
    """Return a code's digest and the audits of it that were kept; of the code that ran last where none is named."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    named = lines[-1]["code"] if mark is None else mark
    return named, [Audit(**line["audit"]) for line in lines if line["code"] == named]


def owed(draws: int, nulls: int) -> Iterable[tuple[str, int]]:
    """Yield what is to be drawn: what the catalogue shows first, the rest of the curve after it."""
    most = {name: nulls if name == NULL else draws for name in PLANTS}
    for names in ((QUOTED, NULL), tuple(name for name in PLANTS if name not in (QUOTED, NULL))):
        for draw in range(max(most[name] for name in names)):
            yield from ((name, draw) for name in names if draw < most[name])


def rate(successes: int, n: int) -> dict[str, Any]:
    """Return a rate with Wilson's 95 % interval."""
    low, high = proportion_interval(successes, n)
    return {"estimate": decimal(successes / n, 4), "low": decimal(low, 4), "high": decimal(high, 4), "n": n}


def row(audits: Sequence[Audit]) -> dict[str, Any]:
    """Return what the audits of one plant said, as rates."""
    n = len(audits)
    return {
        "R": decimal(sum(one.scale for one in audits) / n, 4),
        "valid": rate(sum(one.valid for one in audits), n),
        "usable": rate(sum(one.dictionary == "usable" for one in audits), n),
        "detected": rate(sum(one.found for one in audits), n),
        "acts": rate(sum(one.acts for one in audits), n),
        "through_latents": rate(sum(one.through for one in audits), n),
        "detected_and_acts": rate(sum(one.found and one.acts for one in audits), n),
        "detected_or_through_latents": rate(sum(one.found or one.through for one in audits), n),
        "words": {
            kind: _counted([getattr(one, kind) for one in audits]) for kind in ("dictionary", "concept", "causal")
        },
    }


def _counted(words: Sequence[str]) -> dict[str, int]:
    return {word: words.count(word) for word in sorted(set(words))}


def write(mark: str, audits: Sequence[Audit]) -> None:
    """Write both files; the digest of the code that was measured goes with them."""
    by = {name: [one for one in audits if one.plant == name] for name in PLANTS}
    told = {name: row(some) for name, some in by.items() if some}
    TABLE.write_text(json.dumps({"code": mark, "settings": SETTINGS, "rows": ROWS, "plants": told}, indent=1) + "\n")
    quoted = PLANTS[QUOTED][0] / float(told[QUOTED]["R"])
    at = f"{ROWS} rows, {CONTRASTS} contrasts, {SETTINGS['width']} latents, site width 32"
    measured = {
        "power": {
            **told[QUOTED]["detected_and_acts"],
            "at": "concept detected and its ablation beyond matched sets; "
            f"planted at {quoted:.2f} of the states' scale R, "
            f"one feature's length; {at}",
        },
        "false_positive_rate": {
            **told[NULL]["detected_or_through_latents"],
            "at": f"concept detected or its latents said to carry the behaviour; labels drawn at random; {at}",
        },
    }
    (FOLDER / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")


def main() -> None:
    """Draw what is owed, keeping each audit, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=40, help="audits for each amplitude")
    parser.add_argument("--nulls", type=int, default=100, help="audits with labels drawn at random")
    parser.add_argument("--kept", type=Path, default=KEPT, help="file that keeps what was drawn")
    parser.add_argument("--tell", action="store_true", help="draw nothing, write what the last run has kept")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.tell:
        write(*kept(asked.kept, None))
        return
    mark, before = kept(asked.kept, code())
    audits = {(one.plant, one.draw): one for one in before}
    asked.kept.parent.mkdir(parents=True, exist_ok=True)
    for key in owed(asked.draws, asked.nulls):
        if key in audits:
            continue
        audits[key] = audited(*key)
        with asked.kept.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"code": mark, "audit": asdict(audits[key])}) + "\n")
        print(f"{audits[key]}", flush=True)
    wanted = set(owed(asked.draws, asked.nulls))
    write(mark, [one for key, one in audits.items() if key in wanted])


if __name__ == "__main__":
    main()
