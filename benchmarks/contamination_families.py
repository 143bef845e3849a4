"""What encoder and verifier make of the authored families: the table of contamination's section 11, dev and test apart.

Run: `OMP_NUM_THREADS=1 python -m benchmarks.contamination_families`. Prints the table and writes it to
`contamination_families.json`. It measures and sets nothing, so it may read the test families. Intervals are Wilson's
and treat pairs as independent; eight draws of a family are not, so they are narrower than the truth.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from checks.contamination.code_behaviour import behaviour, reference
from checks.contamination.encoder import Encoder, integer_cosine
from checks.contamination.functions import described
from checks.contamination.items import Item
from checks.contamination.normaliser import normalise
from checks.contamination.numbers import numbers
from checks.contamination.quantity import told_numbers
from checks.contamination.verifier import compare
from checks.contamination.windows import windows
from checks.organisms import families
from checks.organisms.contamination_corpus import docstrings, library_files
from checks.organisms.families import Drawn, draws
from checks.organisms.families_reading import Family
from checks.statistics import proportion_interval

TABLE = Path(__file__).with_suffix(".json")
SEED = 11
BACKGROUND, BACKGROUND_WORDS = 500, 48
"""Documentation windows, and their length: the bin that word problems use (section 11)."""
FLOOR, HIGH = 0.5, 0.8
SHARES = ("gram13", "gram8", "numbers_equal", "floor_and_numbers", "cosine_high", "same", "undecided", "gates")
GATING = ("exact", "near", "semantic")
HARD = ("number", "template", "reworded_numbers")
"""Classes of the control HardNegatives (section 10)."""


@dataclass(frozen=True)
class Pair:
    """An item against a text, or a function, of one class."""

    family: str
    how: str
    cosine: float
    gram13: bool
    gram8: bool
    numbers: bool
    verdict: str
    gates: bool
    """Whether the tier is one that gates by default."""


def main() -> None:
    """Measure both halves, print the table and write it."""
    encoder = Encoder()
    background = _background(encoder)
    document: dict[str, Any] = {
        "seed": SEED,
        "encoder": encoder.digest,
        "draws": families.DRAWS,
        "interval": "Wilson 95 %, pairs taken as independent",
    }
    for half, held in (("dev", families.dev()), ("test", families.test())):
        document[half] = {}
        for kind in ("words", "facts", "code"):
            drawn = _drawn([one for one in held if one.kind == kind])
            pairs = list(_code_pairs(drawn, encoder) if kind == "code" else _prose_pairs(drawn, encoder))
            document[half][kind] = told = _summary(pairs)
            if kind == "words":
                told["background"] = _best(drawn, encoder, background)
            _show(half, kind, told)
    TABLE.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _drawn(held: Sequence[Family]) -> list[Drawn]:
    # A stream of its own for each family: adding one changes no other.
    return [one for family in held for one in draws(family, np.random.default_rng([SEED, *family.name.encode()]))]


def _versions(one: Drawn) -> Iterator[tuple[str, str]]:
    yield "verbatim", one.item.question
    if one.light is not None:
        yield "light", one.light
    yield from ((version.how, version.text) for version in (*one.rewordings, *one.negatives))


def _prose_pairs(drawn: Sequence[Drawn], encoder: Encoder) -> Iterator[Pair]:
    held = [(one, how, text) for one in drawn for how, text in _versions(one)]
    vectors = encoder.embed([normalise(text).window_text for _, _, text in held])
    own = {id(one): vector for (one, how, _), vector in zip(held, vectors, strict=True) if how == "verbatim"}
    for (one, how, text), vector in zip(held, vectors, strict=True):
        cosine = integer_cosine(own[id(one)], vector)
        found = compare(one.item, text, cosine)
        wanted, there = (frozenset(told_numbers(numbers(each))) for each in (one.item.question, text))
        long, short = (_shares_gram(one.item, text, size) for size in (13, 8))
        yield Pair(one.family, how, cosine / 10_000, long, short, wanted == there, found.verdict, found.tier in GATING)


def _code_pairs(drawn: Sequence[Drawn], encoder: Encoder) -> Iterator[Pair]:
    for one in drawn:
        expected = reference(one.item)
        if isinstance(expected, str):
            raise ValueError(f"{one.item.item}: {expected}")
        versions = (*one.rewordings, *one.negatives)
        texts = [described(one.item.question, str(one.item.entry))]
        texts += [described(version.text, str(version.entry)) for version in versions]
        vectors = encoder.embed(texts)
        for version, vector in zip(versions, vectors[1:], strict=True):
            verdict = behaviour(expected, str(version.program), str(version.entry)).verdict
            cosine = integer_cosine(vectors[0], vector)
            long, short = (_shares_gram(one.item, version.text, size) for size in (13, 8))
            same = verdict == "same"
            yield Pair(one.family, version.how, cosine / 10_000, long, short, same, verdict, same and cosine >= 5000)


def _shares_gram(item: Item, text: str, size: int) -> bool:
    grams = [
        set(zip(*(normalise(each).words[at:] for at in range(size)), strict=False)) for each in (item.question, text)
    ]
    return not grams[0].isdisjoint(grams[1])


def _background(encoder: Encoder) -> Any:
    rng = np.random.default_rng(SEED)
    files = library_files()
    held: list[str] = []
    for at in rng.permutation(len(files)):
        for text in docstrings(files[int(at)]):
            found = windows(normalise(text), BACKGROUND_WORDS)
            held += [one.text for one in found[:1] if one.end - one.begin == BACKGROUND_WORDS]
        if len(held) >= BACKGROUND:
            break
    return encoder.embed(held[:BACKGROUND])


def _best(drawn: Sequence[Drawn], encoder: Encoder, background: Any) -> Mapping[str, float]:
    vectors = encoder.embed([normalise(one.item.question).window_text for one in drawn])
    best = encoder.cosines(vectors, background).max(axis=1)
    return {"windows": len(background), "best_mean": _rounded(best.mean()), "best_max": _rounded(best.max())}


def _summary(pairs: Sequence[Pair]) -> dict[str, Any]:
    classes: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        classes[pair.how].append(pair)
    told: dict[str, Any] = {"families": len({pair.family for pair in pairs})}
    told["classes"] = {how: _class(held) for how, held in classes.items()}
    hard = [pair for pair in pairs if pair.how in HARD]
    if hard:
        told["hard_negatives"] = _class(hard)
    return told


def _class(held: Sequence[Pair]) -> dict[str, Any]:
    cosines = np.array([pair.cosine for pair in held])
    low, high = np.quantile(cosines, (0.05, 0.95))
    return {
        "n": len(held),
        "cosine": [_rounded(cosines.mean()), _rounded(low), _rounded(high)],
        "gram13": _share([pair.gram13 for pair in held])[0],
        "gram8": _share([pair.gram8 for pair in held])[0],
        "numbers_equal": _share([pair.numbers for pair in held])[0],
        "floor_and_numbers": _share([pair.numbers and pair.cosine >= FLOOR for pair in held]),
        "cosine_high": _share([pair.cosine >= HIGH for pair in held])[0],
        "same": _share([pair.verdict == "same" for pair in held]),
        "undecided": _share([pair.verdict == "undecided" for pair in held])[0],
        "gates": _share([pair.gates for pair in held]),
    }


def _share(flags: Sequence[bool]) -> list[float]:
    low, high = proportion_interval(sum(flags), len(flags))
    return [_rounded(sum(flags) / len(flags)), _rounded(low), _rounded(high)]


def _rounded(value: Any) -> float:
    return round(float(value), 4)


def _show(half: str, kind: str, found: Mapping[str, Any]) -> None:
    print(f"\n{half} {kind}: {found['families']} families {found.get('background', '')}")
    rows = {**found["classes"], **({"HARD": found["hard_negatives"]} if "hard_negatives" in found else {})}
    for how, row in rows.items():
        mean, low, high = row["cosine"]
        told = {name: row[name] if isinstance(row[name], float) else row[name][0] for name in SHARES}
        shares = " ".join(f"{name} {value:.3f}" for name, value in told.items())
        print(f"{how:17} n {row['n']:3} cosine {mean:.3f} ({low:.2f}-{high:.2f}) {shares}")


if __name__ == "__main__":
    main()
