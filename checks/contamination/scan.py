"""One shard in, one sketch out: readers, S1, S2 and the comparison of what they find (contamination, 5, 6.3, 6.4)."""

from __future__ import annotations

import hmac
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from checks.contamination.documents import Document, Record, documents
from checks.contamination.languages import ANY, COMMONEST, is_english
from checks.contamination.normaliser import Normalised, normalise
from checks.contamination.plan import PARTS, Plan, PlanProbe
from checks.contamination.reading import batches
from checks.contamination.search import Stretch, search
from checks.contamination.seeds import Seeds, make_seeds
from checks.contamination.shards import Shard, ShardFailed
from checks.contamination.sketch import AnswerNear, Entry, ShardCount, Sketch, kept
from checks.contamination.tokens import token_hash, tokens
from checks.contamination.tokens_chains import Memory

if TYPE_CHECKING:
    from checks.contamination.regions import Region

KEY_BYTES = 16
"""Bytes of a window key (6.8): two of 10^9 windows share one with probability 10^-21."""

PRUNE = 8
"""A probe's matches are cut back to `keep` when they are so many times as many."""


class Compared(Protocol):
    """What is needed of a comparison (`verifier.Comparison`)."""

    @property
    def tier(self) -> str | None:
        """First rule of section 2 that holds."""
        ...

    @property
    def score(self) -> int:
        """Pair score of section 6.6."""
        ...

    @property
    def answer_near(self) -> bool | None:
        """Whether the answer stands within 60 words behind."""
        ...


Compare = Callable[[PlanProbe, "Region"], Compared]


@dataclass(frozen=True)
class Hit:
    """One match in one document."""

    probe: int
    tier: str
    score: int
    window_key: str
    start: int
    """First byte in the document."""
    end: int
    answer_near: AnswerNear


class Scanner:
    """What all shards of a plan share: seeds of the probes, and what was learnt of numbers.

    Args:
        plan: roles in it are not read.
        compare: replaces the verifier, in tests.
    """

    def __init__(self, plan: Plan, compare: Compare | None = None) -> None:
        self.plan = plan
        self._compare = compare or _verified(plan)
        prose = [probe for probe in plan.probes if probe.kind != "code"]
        contexts = [probe for probe in prose if probe.context]
        self._questions = len(prose)
        self._needles = (*prose, *contexts)
        texts = [*(probe.text for probe in prose), *(probe.context or "" for probe in contexts)]
        self._words = [normalise(text).words for text in texts]
        self._seeds: Seeds = make_seeds(self._words, plan.parameters.seed_ngram)
        self._memory = Memory()
        self._common = np.array(sorted(token_hash(word) for word in COMMONEST), dtype=np.uint64)

    def texts(self, texts: Sequence[str]) -> Iterator[tuple[int, list[Hit], list[int], int, bool]]:
        """Yield of each text: its place, its hits, probes whose context it holds, its words, and if it is examined."""
        found = tokens(texts, self._memory)
        words = np.bincount(found.text, minlength=len(texts)).tolist()
        common = np.bincount(found.text[np.isin(found.hashes, self._common)], minlength=len(texts)).tolist()
        stretches: dict[int, list[Stretch]] = {}
        for stretch in search(found, self._seeds):
            stretches.setdefault(stretch.text, []).append(stretch)
        listed = self.plan.parameters.languages
        for place, text in enumerate(texts):
            hits, contexts = self._compared(text, stretches.get(place, ()))
            english = ANY in listed or ("en" in listed and is_english(text, words[place], common[place]))
            yield place, hits, contexts, words[place], english

    def _compared(self, text: str, stretches: Sequence[Stretch]) -> tuple[list[Hit], list[int]]:
        if not stretches:
            return [], []
        from checks.contamination.regions import stretch as region_of

        read = normalise(text)
        hits: dict[tuple[int, int, int], Hit] = {}
        contexts: list[int] = []
        for _, needle, begin, end in stretches:
            probe, region = self._needles[needle], region_of(read, begin, end)
            if needle >= self._questions:
                contexts += [probe.id] * self._same_wording(needle, region)
                continue
            told = self._compare(probe, region)
            if told.tier is not None:
                hits[probe.id, begin, end] = self._hit(probe, told, region, read)
        return _distinct(list(hits.values())), sorted(set(contexts))

    def _same_wording(self, needle: int, region: Region) -> bool:
        from checks.contamination.verifier_text import Wording, text_match

        bounds = self.plan.parameters
        match = text_match(Wording(self._words[needle]), region.wording, bounds.near_lcs)
        return match.exact or match.lcs >= bounds.near_lcs or match.overlap >= bounds.near_overlap

    def _hit(self, probe: PlanProbe, told: Compared, region: Region, read: Normalised) -> Hit:
        seen = region.text
        if probe.kind == "choice":  # options behind the stretch decide too
            seen = "\n".join((seen, *region.after))
        key = hmac.digest(self.plan.window_key, seen.encode(), "sha256")[:KEY_BYTES].hex()
        near: AnswerNear = "unknown" if told.answer_near is None else "yes" if told.answer_near else "no"
        first, last = read.tokens[region.begin], read.tokens[region.end - 1]
        return Hit(probe.id, told.tier or "related", told.score, key, first.begin, last.end, near)


def scan(
    shard: Shard,
    plan: Plan,
    encoder: object | None = None,
    *,
    origin: Literal["observed", "declared"] = "observed",
    scanner: Scanner | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sketch:
    """Return the sketch of a shard.

    Args:
        shard: what to read.
        plan: what to look for.
        encoder: for `embed` other than "off".
        origin: who ran this.
        scanner: made once where several shards are scanned in one process.
        progress: called with (documents, words) after every batch.

    Raises:
        ShardFailed: the shard cannot be read, or holds too many bad records; nothing of it counts.
        NotImplementedError: the plan asks for embedding.
    """
    if plan.parameters.embed != "off" or encoder is not None:
        raise NotImplementedError("windows are embedded elsewhere")
    scanner = scanner or Scanner(plan)
    made = _Sketching(shard, plan, origin)
    for batch in batches(shard, plan.parameters.text_field):
        for told in batch:
            made.record(told)
        held = [one for told in batch for one in documents(told)]
        for place, hits, contexts, words, english in scanner.texts([one.text for one in held]):
            made.document(held[place], hits, contexts, words, english)
        if progress:
            progress(made.docs, made.words)
        del batch, held, told  # before the next is read: one batch is held at a time
    return made.done()


class _Sketching:
    """A sketch in the making."""

    def __init__(self, shard: Shard, plan: Plan, origin: Literal["observed", "declared"]) -> None:
        self._shard, self._plan, self._origin = shard, plan, origin
        self._digest = shard.digest
        self.docs = self.words = self._other = 0
        self._bad: Counter[str] = Counter()
        self._first_bad: int | None = None
        self._best: dict[int, list[Entry]] = {}
        self._tiers: dict[int, Counter[str]] = {}
        self._contexts: Counter[int] = Counter()
        self._before: tuple[int, set[tuple[int, int]]] = (-1, set())

    def record(self, told: Record) -> None:
        self.docs += 1
        if told.bad is not None:
            self._bad[told.bad] += 1
            self._first_bad = told.number if self._first_bad is None else self._first_bad

    def document(self, held: Document, hits: Sequence[Hit], contexts: Sequence[int], words: int, english: bool) -> None:
        self.words += words
        self._other += 0 if english else words
        self._contexts.update(contexts)
        if self._before[0] != held.number:
            self._before = (held.number, set())
        for hit in hits:
            start, end = held.offset + hit.start, held.offset + hit.end
            # Two pieces of a long text share 400 words: what stands there is one match.
            if (hit.probe, start) in self._before[1]:
                continue
            self._before[1].add((hit.probe, start))
            entry = Entry(
                hit.score, hit.tier, hit.window_key, 1, self._digest, held.number, start, end, hit.answer_near
            )
            rows = self._best.setdefault(hit.probe, [])
            rows.append(entry)
            if len(rows) > PRUNE * self._plan.parameters.keep:
                # What ranks low now ranks low at the end: its key's score does not change.
                rows[:] = kept(rows, self._plan.parameters.keep)
            self._tiers.setdefault(hit.probe, Counter())[hit.tier] += 1

    def done(self) -> Sketch:
        keep, bad = self._plan.parameters.keep, sum(self._bad.values())
        if bad * PARTS > self._plan.parameters.max_bad_share * self.docs:
            raise ShardFailed("bad_records", f"{self._shard.file.name}:record:{self._first_bad}")
        count = ShardCount(
            bytes=self._stored(),
            docs=self.docs,
            words=self.words,
            bad=dict(self._bad),
            other_language_words=self._other,
            origin=self._origin,
        )
        return Sketch(
            plan_sha256=self._plan.plan_sha256,
            keep=keep,
            shards={self._digest: count},
            best={probe: kept(rows, keep) for probe, rows in self._best.items()},
            plants={},
            tiers={probe: dict(counts) for probe, counts in self._tiers.items()},
            hist={},
            contexts=dict(self._contexts),
        )

    def _stored(self) -> int:
        """Return the stored bytes of the shard; of a table, which is cut by rows, its share of the file is not told."""
        shard = self._shard
        return shard.end - shard.begin if shard.file.format == "jsonl" else shard.file.size


def _verified(plan: Plan) -> Compare:
    """Return the verifier of section 6.6, with the plan's bounds."""
    from checks.contamination.verifier import Bounds, compare
    from checks.contamination.verifier_question import Question, read_question

    told = plan.parameters
    bounds = Bounds(told.near_lcs, told.near_overlap, told.cosine_floor, told.template_cosine)
    read: dict[int, Question] = {}

    def compared(probe: PlanProbe, region: Region) -> Compared:
        if probe.id not in read:
            read[probe.id] = read_question(probe.item())
        return compare(read[probe.id], region, None, bounds)

    return compared


def _distinct(hits: Sequence[Hit]) -> list[Hit]:
    """Return hits without those of a probe that overlap a better one of it: one copy is one match."""
    chosen: list[Hit] = []
    taken: dict[int, list[tuple[int, int]]] = {}
    for hit in sorted(hits, key=lambda one: (one.probe, -one.score, one.start, one.end)):
        spans = taken.setdefault(hit.probe, [])
        at = bisect_left(spans, (hit.start, hit.end))
        before = at > 0 and spans[at - 1][1] > hit.start
        if not before and not (at < len(spans) and spans[at][0] < hit.end):
            spans.insert(at, (hit.start, hit.end))
            chosen.append(hit)
    return chosen
