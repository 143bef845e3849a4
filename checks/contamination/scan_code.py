"""The code path of a scan: functions of documents against the code probes of a plan (contamination, 6.7).

What is found of a function depends on the function and the plan alone, never on the documents around it or on a clock:
each is given so many steps and no more. A window key names everything that decides (description, tokens, and the tokens
of what the function needs), so that copies in any shard have one key and one score.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from checks.contamination.code_behaviour import behaviours
from checks.contamination.encoder import integer_cosine
from checks.contamination.functions import Function, functions, tokens
from checks.contamination.interpreter import Program, program
from checks.contamination.interpreter_limits import STEPS_MAX
from checks.contamination.matching import candidates
from checks.contamination.plan import PARTS, Plan
from checks.contamination.scan_code_probes import CodeProbes
from checks.contamination.scan_found import KEY_BYTES, Hit
from checks.contamination.sketch import histogram_bin
from checks.contamination.verifier import EXACT_SCORE, NEAR_SCORE, SEMANTIC_SCORE, UNDECIDED_SCORE

if TYPE_CHECKING:
    from jaxtyping import Float32

    from checks.contamination.scan_meaning import Encoding

CANDIDATE_FLOOR = 3_500
"""c from which behaviour is asked for. Section 6.7's .50 keeps .79 of the rewordings of the development families, whose
authors were to avoid the item's words; .35 keeps .96, and 5 in 100 strangers, which behaviour then refuses. Candidates
decide nothing: entries below `cosine_floor` exist only where behaviour is the same."""

STEPS_FUNCTION = 2 * STEPS_MAX
"""Steps that one function of a corpus may take over all probes it is held against: about a second (.3 to .5 s for
`STEPS_MAX`, measured), the class of time that section 6.7 gives a text. Honest functions take some thousand."""

HELD = 256
"""Functions whose descriptions are embedded together; they are short, and a batch of 256 fills the encoder."""

REMEMBERED = 4_096
"""Functions whose outcome is kept for their copies: the commonest of a corpus; outcomes are a few numbers each."""


class Match(NamedTuple):
    """What a function is to a probe."""

    probe: int
    tier: str
    score: int


@dataclass(frozen=True)
class CodeRead:
    """What was found in one document by its functions."""

    hits: tuple[Hit, ...]
    cosines: Counter[tuple[str, int]]
    """("code", bin of c) -> functions at or above the floor."""


@dataclass(frozen=True)
class _Outcome:
    matches: tuple[Match, ...]
    bins: tuple[int, ...]


@dataclass(frozen=True)
class _Met:
    """A function in its document."""

    place: int
    function: Function
    key: str
    meant: bool
    """Whether its description is embedded."""


class CodeScan:
    """The code probes of a plan, read once for all shards.

    Args:
        plan: roles in it are not read.
        encoder: None where nothing is embedded; then candidates come from trees alone.
        rows: vectors of the probes by id (`scan_vectors`).
    """

    def __init__(self, plan: Plan, encoder: Encoding | None, rows: Float32[np.ndarray, "n d"] | None) -> None:
        self.probes = CodeProbes(plan)
        self._plan = plan
        self._encoder = encoder
        # Siblings keep their item's description: equal vectors are held and compared once.
        self._texts: list[list[int]] = []
        self._rows: Float32[np.ndarray, "m d"] = np.zeros((0, 0), dtype=np.float32)
        if encoder is not None and rows is not None:
            by_row: dict[bytes, list[int]] = {}
            for probe in self.probes.ids:
                if rows[probe].any():
                    by_row.setdefault(rows[probe].tobytes(), []).append(probe)
            self._texts = list(by_row.values())
            self._rows = rows[[held[0] for held in self._texts]]
        self._known: dict[tuple[str, bool], _Outcome] = {}

    def texts(self, texts: Sequence[str], embedded: Sequence[bool]) -> Iterator[CodeRead]:
        """Yield what the functions of each text are to the probes.

        Args:
            texts: documents.
            embedded: of each, whether descriptions are embedded; else exact, near and k-gram matches alone are found.
        """
        waiting: list[int] = []
        held: list[_Met] = []
        for place, text in enumerate(texts):
            waiting.append(place)
            meant = self._encoder is not None and embedded[place]
            held += [_Met(place, one, self._key(one, meant), meant) for one in functions(text).functions]
            if len(held) >= HELD or place + 1 == len(texts):
                yield from self._piece(waiting, held)
                waiting, held = [], []

    def _piece(self, places: Sequence[int], held: Sequence[_Met]) -> Iterator[CodeRead]:
        told: dict[tuple[str, bool], _Outcome] = {}
        new: dict[tuple[str, bool], Function] = {}
        for one in held:
            name = one.key, one.meant
            if name in self._known:
                told[name] = self._known[name]
            else:
                new.setdefault(name, one.function)
        cosines = self._cosines([one.description for (_, meant), one in new.items() if meant])
        for name, function in new.items():
            told[name] = self._outcome(function, next(cosines) if name[1] else None)
        self._remember(told)
        found: dict[int, list[_Met]] = {place: [] for place in places}
        for one in held:
            found[one.place].append(one)
        for place in places:
            yield _read([(one, told[one.key, one.meant]) for one in found[place]])

    def _remember(self, told: Mapping[tuple[str, bool], _Outcome]) -> None:
        self._known.update(told)
        for name in list(self._known)[: max(0, len(self._known) - REMEMBERED)]:
            del self._known[name]

    def _cosines(self, texts: Sequence[str]) -> Iterator[dict[int, int]]:
        """Yield of each description the probes near it, with exact c: coarse vectors select, and decide nothing."""
        if not texts or self._encoder is None or not len(self._rows):
            yield from ({} for _ in texts)
            return
        pairs = candidates(self._encoder.embed([text or " " for text in texts]), self._rows, CANDIDATE_FLOOR / PARTS)
        near: dict[int, list[int]] = {}
        for text, row in zip(pairs.windows.tolist(), pairs.probes.tolist(), strict=True):
            near.setdefault(text, []).append(row)
        for place, text in enumerate(texts):
            if not text or place not in near:
                yield {}
                continue
            vector = self._encoder.embed_alone(text)
            exact = {row: integer_cosine(vector, self._rows[row]) for row in near[place]}
            yield {probe: c for row, c in exact.items() if c >= CANDIDATE_FLOOR for probe in self._texts[row]}

    def _outcome(self, function: Function, cosines: Mapping[int, int] | None) -> _Outcome:
        """Return what a function is to every probe.

        Args:
            function: of a document.
            cosines: c of the probes whose description lies near; None where nothing is embedded.
        """
        exact, near = self.probes.exact(function.tokens), self.probes.near(function.canonical)
        alike = self.probes.alike(function.canonical)
        closeness = {probe: round(PARTS * share) for probe, share in alike.items()} if cosines is None else cosines
        asked = sorted({*(cosines or ()), *alike, *near, *exact})
        verdicts = self._verdicts(function, asked, closeness) if asked else {}
        floor = self._plan.parameters.cosine_floor
        bins = tuple(histogram_bin(c) for c in (cosines or {}).values() if c >= floor)
        told = (
            self._match(probe, verdicts[probe], probe in exact, probe in near, closeness.get(probe, 0), cosines is None)
            for probe in asked
        )
        return _Outcome(tuple(one for one in told if one is not None), bins)

    def _match(self, probe: int, verdict: str, exact: bool, near: bool, c: int, blind: bool) -> Match | None:
        """Return tier and score by the rules of section 2, `c` being containment where nothing was embedded."""
        bounds = self._plan.parameters
        if exact:
            return Match(probe, "exact", EXACT_SCORE)
        if near and verdict != "different":
            return Match(probe, "near", NEAR_SCORE + PARTS)
        if verdict == "same":
            return Match(probe, "semantic", SEMANTIC_SCORE + c)
        if verdict == "different" and (near or (not blind and c >= bounds.template_cosine)):
            return Match(probe, "template", c)
        if blind or c < bounds.cosine_floor:
            return None
        return Match(probe, "related", UNDECIDED_SCORE + c if verdict == "undecided" else c)

    def _verdicts(self, function: Function, asked: Sequence[int], closeness: Mapping[int, int]) -> dict[int, str]:
        """Return the verdict of behaviour on each probe; the closest are asked first, while steps last."""
        groups: dict[str, list[int]] = {}
        for probe in asked:
            groups.setdefault(self.probes.group_of[probe], []).append(probe)
        ranked = sorted(groups.values(), key=lambda held: (-max(closeness.get(one, PARTS) for one in held), held[0]))
        held = program(function.source)
        told = dict.fromkeys(asked, "undecided")
        if isinstance(held, str):
            return told
        left = STEPS_FUNCTION
        for members in ranked:
            if left > 0:
                left -= self._group(held, function.name, members, left, told)
        return told

    def _group(self, held: Program, entry: str, members: Sequence[int], steps: int, told: dict[int, str]) -> int:
        """Write the verdicts of probes that share their argument lists, and return the steps used."""
        expected = self.probes.expected(self.probes.group_of[members[0]])
        known = [probe for probe in members if probe in expected.outputs]
        if not known:
            return 0
        outputs = [expected.outputs[probe] for probe in known]
        found = behaviours(expected.probes, outputs, held, entry, steps)
        for probe, one in zip(known, found, strict=True):
            told[probe] = "undecided" if one.verdict == "same" and probe not in expected.telling else one.verdict
        return max(one.steps for one in found)

    def _key(self, one: Function, meant: bool) -> str:
        parts = ("meant" if meant else "tree", one.name, one.description, *one.tokens, "", *tokens(one.source))
        said = b"code\n" + "\x1f".join(parts).encode("utf-8", "surrogatepass")
        return hmac.digest(self._plan.window_key, said, "sha256")[:KEY_BYTES].hex()


def _read(found: Sequence[tuple[_Met, _Outcome]]) -> CodeRead:
    cosines: Counter[tuple[str, int]] = Counter()
    hits: list[Hit] = []
    for one, outcome in found:
        cosines.update(("code", place) for place in outcome.bins)
        begin, end = one.function.begin, one.function.end
        hits += (Hit(each.probe, each.tier, each.score, one.key, begin, end, "unknown") for each in outcome.matches)
    return CodeRead(tuple(hits), cosines)
