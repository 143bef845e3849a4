"""S3 and S4 of a scan: windows of documents, embedded and compared with the probes that lie near (6.5, 6.6)."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from checks.contamination.matching import Exact, candidates
from checks.contamination.normaliser import Normalised, normalise
from checks.contamination.plan import PARTS, Plan
from checks.contamination.regions import Region, region
from checks.contamination.scan_found import KEY_BYTES, Hit, Span
from checks.contamination.sketch import histogram_bin
from checks.contamination.verifier import Bounds, compare
from checks.contamination.verifier_question import Question, read_question
from checks.contamination.windows import Window, bin_of, windows

if TYPE_CHECKING:
    from jaxtyping import Float32

PIECE = 200_000
"""Characters of documents whose windows are held at once: some 6000 windows, 10 MB of vectors. Held documents cost more
than vectors: a token is an object."""

SAMPLE_STEPS = 2**32
"""Steps in which a document's place in the hash order is told."""


class Encoding(Protocol):
    """What is needed of an encoder."""

    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """Return unit vectors, coarse."""
        ...

    def embed_alone(self, text: str) -> Float32[np.ndarray, " d"]:
        """Return the vector of one text, which depends on nothing else."""
        ...


@dataclass(frozen=True)
class Read:
    """What was found in one document by meaning."""

    hits: tuple[Hit, ...]
    windows: int
    embedded: int
    cosines: Counter[tuple[str, int]]
    """(kind, bin of c) -> windows at or above the floor."""


@dataclass(frozen=True)
class _Bin:
    """Probes that meet windows of one length."""

    words: int
    probes: tuple[int, ...]
    texts: tuple[str, ...]
    vectors: Float32[np.ndarray, "m d"]
    exact: Exact
    members: frozenset[int]
    """`probes`, to look one up."""


class Meaning:
    """The probes of a plan by length, embedded once for all shards.

    Args:
        plan: roles in it are not read.
        encoder: of the plan's digest.
        rows: vectors of the probes by id, run alone (`scan_vectors`).
    """

    def __init__(self, plan: Plan, encoder: Encoding, rows: Float32[np.ndarray, "n d"]) -> None:
        self._plan = plan
        self._encoder = encoder
        told = plan.parameters
        self._bounds = Bounds(told.near_lcs, told.near_overlap, told.cosine_floor, told.template_cosine)
        self._questions: dict[int, Question] = {}
        by_bin: dict[int, list[tuple[int, str]]] = {}
        for probe in plan.probes:
            read = normalise(probe.text)
            if probe.kind != "code" and read.tokens:
                by_bin.setdefault(bin_of(len(read.tokens), told.windows), []).append((probe.id, read.window_text))
        self._bins = tuple(self._made(words, probes, rows) for words, probes in sorted(by_bin.items()))

    def _made(self, words: int, probes: Sequence[tuple[int, str]], rows: Float32[np.ndarray, "n d"]) -> _Bin:
        texts = tuple(text for _, text in probes)
        # Run alone, as exact cosines need them: the coarse pass may use them too, and no text is run twice.
        vectors = rows[[probe for probe, _ in probes]]
        exact = Exact(self._encoder, dict(enumerate(vectors)))
        numbers = tuple(probe for probe, _ in probes)
        return _Bin(words, numbers, texts, vectors, exact, frozenset(numbers))

    def texts(
        self, texts: Sequence[str], asked: Sequence[bool], planted: Sequence[Span] | None = None
    ) -> Iterator[Read]:
        """Yield what was found in each text.

        Args:
            texts: documents.
            asked: whether each is embedded; of one that is not, windows are estimated from its length.
            planted: of planted copies, where the plant stands: windows of its probe's bin that touch it are embedded,
                no others, since no other hit counts (6.11).
        """
        held: list[int] = []
        size = 0
        for place, text in enumerate(texts):
            held.append(place)
            size += len(text) * asked[place]
            if size >= PIECE or place + 1 == len(texts):
                spans = None if planted is None else [planted[at] for at in held]
                yield from self._piece([texts[at] for at in held], [asked[at] for at in held], spans)
                held, size = [], 0

    def sampled(self, text: str, source: str) -> bool:
        """Return whether a document is embedded under the plan's `embed` (6.5)."""
        told = self._plan.parameters
        if told.embed != "sample" or source in told.always_embed:
            return told.embed != "off"
        digest = hmac.digest(self._plan.window_key, b"sample\n" + text.encode(), "sha256")
        return int.from_bytes(digest[:4], "big") * PARTS < told.sample_fraction * SAMPLE_STEPS

    def _piece(self, texts: Sequence[str], asked: Sequence[bool], planted: Sequence[Span] | None) -> Iterator[Read]:
        reads = [normalise(text) if wanted else None for text, wanted in zip(texts, asked, strict=True)]
        hits: list[list[Hit]] = [[] for _ in texts]
        counts = [0] * len(texts)
        cosines: list[Counter[tuple[str, int]]] = [Counter() for _ in texts]
        for one in self._bins:
            told = [
                (place, window)
                for place, read in enumerate(reads)
                if read is not None
                if planted is None or planted[place].probe in one.members
                for window in windows(read, one.words)
                if planted is None or _touched(planted[place], read, window)
            ]
            for place, _ in told:
                counts[place] += 1
            self._compared(one, told, reads, hits, cosines)
        for place, text in enumerate(texts):
            made = counts[place] if asked[place] else self._estimated(text)
            yield Read(tuple(hits[place]), made, counts[place], cosines[place])

    def _compared(
        self,
        one: _Bin,
        told: Sequence[tuple[int, Window]],
        reads: Sequence[Normalised | None],
        hits: Sequence[list[Hit]],
        cosines: Sequence[Counter[tuple[str, int]]],
    ) -> None:
        if not told:
            return
        texts = [window.text for _, window in told]
        floor = self._plan.parameters.cosine_floor / PARTS
        pairs = candidates(self._encoder.embed(texts), one.vectors, floor)
        regions: dict[int, Region] = {}
        for match in one.exact.matches(pairs, texts, one.texts, floor):
            place, window = told[match.window]
            read = reads[place]
            assert read is not None
            if match.window not in regions:
                regions = {match.window: region(read, window.begin, window.end, one.words)}  # matches are in order
            probe = one.probes[match.probe]
            cosines[place][self._plan.probes[probe].kind, histogram_bin(match.cosine)] += 1
            hit = self._hit(probe, match.cosine, window, regions[match.window], read)
            if hit is not None:
                hits[place].append(hit)

    def _hit(self, probe: int, cosine: int, window: Window, place: Region, read: Normalised) -> Hit | None:
        if probe not in self._questions:
            self._questions[probe] = read_question(self._plan.probes[probe].item())
        found = compare(self._questions[probe], place, cosine, self._bounds)
        if found.tier is None:
            return None
        seen = [window.text, place.text]
        if self._plan.probes[probe].kind == "choice":  # options behind the region decide too
            seen += place.after
        key = hmac.digest(self._plan.window_key, "\n".join(seen).encode(), "sha256")[:KEY_BYTES].hex()
        first, last = read.tokens[window.begin], read.tokens[window.end - 1]
        near = {True: "yes", False: "no", None: "unknown"}[found.answer_near]
        return Hit(probe, found.tier, found.score, key, first.begin, last.end, near)  # type: ignore[arg-type]

    def _estimated(self, text: str) -> int:
        """Return about how many windows a text has: their starts lie half a window apart or more."""
        words = len(text.split())
        return sum(-(-2 * words // one.words) for one in self._bins)


def _touched(span: Span, read: Normalised, window: Window) -> bool:
    """Return whether a window's hit would touch what was planted."""
    return span.touches(read.tokens[window.begin].begin, read.tokens[window.end - 1].end)
