"""One shard in, one sketch out: readers, S1, S2 and the comparison of what they find (contamination, 5, 6.3, 6.4)."""

from __future__ import annotations

import hmac
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from checks.contamination.documents import Document, documents
from checks.contamination.languages import ANY, COMMONEST, is_english
from checks.contamination.normaliser import Normalised, normalise
from checks.contamination.plan import NAMED_MIN, Plan, PlanProbe
from checks.contamination.reading import batches
from checks.contamination.scan_found import KEY_BYTES, Found, Hit, Span
from checks.contamination.scan_planted import Copies
from checks.contamination.scan_sketching import Sketching
from checks.contamination.search import Stretch, search
from checks.contamination.seeds import Seeds, make_seeds
from checks.contamination.shards import Shard
from checks.contamination.sketch import AnswerNear, Sketch
from checks.contamination.tokens import token_hash, tokens
from checks.contamination.tokens_chains import Memory

if TYPE_CHECKING:
    from jaxtyping import Float32

    from checks.contamination.regions import Region
    from checks.contamination.scan_code import CodeRead, CodeScan
    from checks.contamination.scan_meaning import Encoding, Meaning, Read


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


class Scanner:
    """What all shards of a plan share: seeds of the probes, and what was learnt of numbers.

    Args:
        plan: roles in it are not read.
        compare: replaces the verifier, in tests.
        encoder: for `embed` other than "off".
        vectors: `scan_vectors.probe_vectors` of this plan and encoder; without them all probes are embedded here.

    Raises:
        ValueError: the plan asks for embedding and no encoder was given; the vectors are damaged.
        Refusal: `other_plan`: the vectors are of another plan or encoder.
    """

    def __init__(
        self,
        plan: Plan,
        compare: Compare | None = None,
        encoder: Encoding | None = None,
        vectors: bytes | None = None,
    ) -> None:
        self.plan = plan
        rows = _rows(plan, encoder, vectors)
        self.meaning = _meaning(plan, encoder, rows)
        self.code = _code(plan, encoder, rows)
        self._compare = compare or _verified(plan)
        prose = [probe for probe in plan.probes if probe.kind != "code"]
        contexts = [one for one in prose if one.context and len(normalise(one.context).words) >= NAMED_MIN]
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

    def everything(
        self, texts: Sequence[tuple[str, str | None]], planted: Sequence[Span] | None = None
    ) -> Iterator[Found]:
        """Yield what words and meaning find in each (text, source); a planted copy, without source, is always read.

        Args:
            texts: documents, or planted copies.
            planted: of copies, where the plant stands: only windows that touch it are embedded.
        """
        told = list(self.texts([text for text, _ in texts]))
        sampled = [source is None or self._sampled(text, source) for text, source in texts]
        reads: Iterable[Read | None] = (None for _ in texts)
        if self.meaning is not None:
            # What is in another language is not embedded, but for functions: they are no text of any language.
            asked = [
                held and (source is None or english)
                for held, (_, source), (*_, english) in zip(sampled, texts, told, strict=True)
            ]
            reads = self.meaning.texts([text for text, _ in texts], asked, planted)
        codes: Iterable[CodeRead | None] = (None for _ in texts)
        if self.code is not None:
            codes = self.code.texts([text for text, _ in texts], sampled)
        for (_, hits, contexts, words, english), read, code in zip(told, reads, codes, strict=True):
            yield _joined(Found(tuple(hits), contexts, words, english), read, code)

    def _sampled(self, text: str, source: str) -> bool:
        return self.meaning is not None and self.meaning.sampled(text, source)

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
    encoder: Encoding | None = None,
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
        ValueError: the plan asks for embedding and there is no encoder.
    """
    scanner = scanner or Scanner(plan, encoder=encoder)
    made, copies = Sketching(shard, plan, origin), Copies(plan, shard.ordinal)
    for batch in batches(shard, plan.parameters.text_field):
        for told in batch:
            made.record(told)
        _documents([one for told in batch for one in documents(told)], scanner, made, copies)
        if progress:
            progress(made.docs, made.words)
        del batch, told  # before the next is read: one batch is held at a time
    spans = copies.spans()
    for place, found in enumerate(scanner.everything([(text, None) for text in copies.texts()], spans)):
        made.planted(copies.plants[place].id, copies.touching(place, found.hits))
    return made.done()


def _documents(held: Sequence[Document], scanner: Scanner, made: Sketching, copies: Copies) -> None:
    for one, found in zip(held, scanner.everything([(one.text, one.source) for one in held]), strict=True):
        made.document(one, found)
        if not one.offset:
            copies.offer(one.number, one.text, found.words)


def _rows(plan: Plan, encoder: Encoding | None, vectors: bytes | None) -> Float32[np.ndarray, "n d"] | None:
    """Return the vectors of all probes; None where nothing is embedded."""
    if plan.parameters.embed == "off":
        return None
    if encoder is None:
        raise ValueError(f"embed is {plan.parameters.embed!r}: an encoder is needed")
    from checks.contamination.scan_vectors import embedded, probe_text, read_vectors

    if vectors is None:
        return embedded([probe_text(probe) for probe in plan.probes], encoder)
    return read_vectors(vectors, plan, encoder)


def _meaning(plan: Plan, encoder: Encoding | None, rows: Float32[np.ndarray, "n d"] | None) -> Meaning | None:
    if encoder is None or rows is None:
        return None
    from checks.contamination.scan_meaning import Meaning

    return Meaning(plan, encoder, rows)


def _code(plan: Plan, encoder: Encoding | None, rows: Float32[np.ndarray, "n d"] | None) -> CodeScan | None:
    if all(probe.kind != "code" for probe in plan.probes):
        return None
    from checks.contamination.scan_code import CodeScan

    return CodeScan(plan, None if rows is None else encoder, rows)


def _joined(found: Found, read: Read | None, code: CodeRead | None) -> Found:
    """Return what words, meaning and functions found in one text."""
    if read is not None:
        hits = tuple(_distinct([*found.hits, *read.hits])) if read.hits else found.hits
        # What is in another language is counted as such, not as windows that were left out.
        windows = read.windows if found.english else 0
        found = replace(found, hits=hits, windows=windows, embedded=read.embedded, cosines=read.cosines)
    if code is not None and (code.hits or code.cosines):
        cosines = Counter(found.cosines) + code.cosines
        found = replace(found, hits=(*found.hits, *code.hits), cosines=cosines)
    return found


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
