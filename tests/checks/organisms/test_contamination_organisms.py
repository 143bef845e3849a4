"""The corpus organism: its leaks are where it says, no more and no fewer, and no planted text is a leaked one."""

import json

import numpy as np
import pytest

from checks.contamination.items import read_benchmark
from checks.contamination.normaliser import normalise
from checks.contamination.rewrites import read_rewrites
from checks.organisms import families
from checks.organisms.contamination_corpus import (
    LARGE_ITEMS,
    LARGE_WORDS,
    ContaminatedCorpus,
    contaminated_corpus,
    docstrings,
    prose,
)


def made(share: float, seed: int = 0, items: int = 20, words: int = 600, shards: int = 2) -> ContaminatedCorpus:
    return contaminated_corpus(families.dev(), share, np.random.default_rng(seed), items, words, shards)


@pytest.mark.parametrize(("share", "items", "shards"), [(-0.1, 5, 1), (1.1, 5, 1), (0.1, 0, 1), (0.1, 5, 0)])
def test_senseless_sizes_are_refused(share: float, items: int, shards: int) -> None:
    with pytest.raises(ValueError, match="share"):
        made(share, items=items, shards=shards)


def test_families_without_word_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="0 families of word problems"):
        contaminated_corpus([one for one in families.dev() if one.kind == "code"], 0.1, np.random.default_rng(0))


def documents(corpus: ContaminatedCorpus) -> list[dict[str, str]]:
    return [json.loads(line) for shard in corpus.shards for line in shard.splitlines()]


def test_leaks_are_where_the_truth_says_and_nowhere_else() -> None:
    corpus = made(0.2)
    assert len(corpus.leaks) == 4
    assert sorted(leak.depth for leak in corpus.leaks) == [2, 2, 5, 5]
    held = {document["id"]: normalise(document["text"]).words for document in documents(corpus)}

    def places(text: str) -> set[str]:
        words = normalise(text).words
        return {
            name
            for name, found in held.items()
            if any(found[at : at + len(words)] == words for at in range(len(found) - len(words) + 1))
        }

    for leak in corpus.leaks:
        assert places(leak.text) == {leak.document}
    # A family that names nobody differs from its light version by number words alone, which the normaliser reads.
    light = {leak.item: leak.document for leak in corpus.leaks if leak.depth == 2}
    for row in corpus.benchmark:
        assert places(row["question"]) <= {light.get(f"{row['benchmark']}/{row['item']}")}
    leaked = {(leak.item, leak.text) for leak in corpus.leaks}
    for row in corpus.rewrites:
        assert (f"{row['benchmark']}/{row['item']}", row["text"]) not in leaked
        assert not places(row["text"])


def test_without_a_share_nothing_leaks() -> None:
    corpus = made(0.0)
    assert not corpus.leaks
    assert len(corpus.benchmark) == 20
    assert corpus.words >= 600
    assert {document["source"] for document in documents(corpus)} == {"prose", "docstring"}


def test_equal_seeds_give_equal_bytes_and_other_seeds_others() -> None:
    assert made(0.2) == made(0.2)
    assert made(0.2).shards != made(0.2, seed=1).shards


def test_shards_hold_every_document_once() -> None:
    one, many = made(0.2, shards=1), made(0.2, shards=5)
    assert len(many.shards) == 5
    assert documents(one) == documents(many)
    assert len({document["id"] for document in documents(one)}) == len(documents(one))


def test_rows_are_what_the_roles_read() -> None:
    corpus = made(0.05)
    items = read_benchmark(corpus.benchmark)
    assert len({item.question for item in items}) == 20
    assert len(read_rewrites(corpus.rewrites, items)) == 20


def test_prose_reads_as_sentences_without_open_places() -> None:
    text = prose(np.random.default_rng(0))
    assert text[0].isupper()
    assert text.endswith(".")
    assert "{" not in text


def test_docstrings_are_parsed_and_never_imported() -> None:
    held = docstrings("this.py"), docstrings("textwrap.py")
    assert held[0] == ()
    assert any("Wrap" in text for text in held[1])


@pytest.mark.slow
def test_the_large_organism_holds_what_it_says() -> None:
    corpus = contaminated_corpus(families.dev(), 0.05, np.random.default_rng(0), LARGE_ITEMS, LARGE_WORDS, shards=7)
    assert corpus.words >= LARGE_WORDS
    assert len(corpus.leaks) == 16
    assert len({document["id"] for document in documents(corpus)}) == len(documents(corpus))
