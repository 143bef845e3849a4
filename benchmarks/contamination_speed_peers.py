"""Tools that look for duplicates, and the environment that they need.

Run: `python -m benchmarks.contamination_speed_peers FOLDER` makes an environment that sees this project's packages
(torch and numpy among them) and, before these, the peers with what their own modules import; then
`FOLDER/bin/python -m benchmarks.contamination_speed`.
"""

from __future__ import annotations

import re
import site
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

PINNED = ("rensa==0.5.0", "datasketch==2.0.0", "datatrove==0.10.1", "sentence-transformers==6.2.0")

NEEDED = (
    "loguru==0.7.3", "humanize==4.17.0", "ftfy==6.3.1", "wcwidth", "tldextract==5.4.0", "requests-file==3.0.1",
    "spacy==3.8.18", "thinc==8.3.14", "blis==1.3.4", "confection==1.3.4", "murmurhash==1.0.16", "cymem==2.0.16",
    "preshed==3.0.15", "wasabi==1.1.3", "srsly==2.5.6", "catalogue==2.0.10", "spacy-legacy==3.0.12",
    "spacy-loggers==1.0.5", "weasel==1.0.1", "cloudpathlib==0.26.0", "smart-open==9.0.2", "langcodes==3.5.1",
    "scikit-learn==1.9.1", "threadpoolctl",
)  # fmt: skip
"""What the peers import and the project has not; installed without dependencies, so that torch stays. spaCy is what
datatrove's filter cuts English words with."""

PERMUTATIONS = 128
GRAM, LONG_GRAM = 5, 12
"""Words of a shingle, and of datatrove's n-grams (section 13)."""

Texts = Sequence[str]
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Return folded words, as the token stage has them but for its normaliser."""
    return _WORD.findall(text.lower())


def rensa_of(cut: Callable[[str], list[str]]) -> Callable[[Texts], object]:
    """Return rensa's RMinHash over shingles made in Python."""
    made = import_module("rensa").RMinHash

    def run(texts: Texts) -> object:
        last = None
        for text in texts:
            told = cut(text)
            last = made(num_perm=PERMUTATIONS, seed=42)
            last.update([" ".join(told[at : at + GRAM]) for at in range(len(told) - GRAM + 1)])
        return last

    return run


def datasketch_of(cut: Callable[[str], list[str]]) -> Callable[[Texts], object]:
    """Return datasketch's MinHash over the set of shingles, in its batched form."""
    made = import_module("datasketch").MinHash

    def run(texts: Texts) -> object:
        last = None
        for text in texts:
            told = cut(text)
            last = made(num_perm=PERMUTATIONS)
            last.update_batch({" ".join(told[at : at + GRAM]).encode() for at in range(len(told) - GRAM + 1)})
        return last

    return run


def gram_sets(cut: Callable[[str], list[str]]) -> Callable[[Texts], object]:
    """Return a plain set of tuples for each text."""

    def run(texts: Texts) -> object:
        last: set[tuple[str, ...]] = set()
        for text in texts:
            told = cut(text)
            last = set(zip(*(told[at:] for at in range(GRAM)), strict=False))
        return last

    return run


def datatrove_filter(questions: Sequence[str]) -> Any:
    """Return datatrove's filter with an index of the questions, as its own indexer hashes them, without lighteval.

    Returns:
        A function of a text: whether the filter keeps it.
    """
    grams, hashing = import_module("datatrove.pipeline.decont.n_grams"), import_module("datatrove.utils.hashing")
    config = grams.NGramsDecontConfig(n_grams=LONG_GRAM, hash_config=hashing.HashConfig(hash_fc="sha1"))
    document = import_module("datatrove.data").Document
    made = grams.NGramsDecontFilter(tempfile.mkdtemp(), config)
    text, index = import_module("datatrove.utils.text"), {}
    for question in questions:
        told = made.tokenizer.word_tokenize(text.simplify_text(question, config.norm_config))
        index.update({made.hash_func(" ".join(gram)): "benchmark" for gram in text.ngrams(told, LONG_GRAM)})
    made._index_hashes = index
    return lambda one: made.filter(document(text=one, id="0")) is True


def token_peers(questions: Sequence[str]) -> tuple[dict[str, Callable[[Texts], object]], dict[str, str]]:
    """Return what reads texts besides the token stage, and of what cannot why not.

    The name ends in "split" where words are cut at blank space, the least that a tool can do, and in "words" where
    they are folded and without signs, which is nearer to what the token stage does.
    """

    def trove(texts: Texts) -> object:
        return [found(text) for text in texts]

    made: dict[str, Callable[[Texts], object]] = {
        "set of 5-gram tuples, split": gram_sets(str.split),
        "set of 5-gram tuples, words": gram_sets(words),
    }
    skipped: dict[str, str] = {}
    for name, build in (("rensa RMinHash(128)", rensa_of), ("datasketch MinHash(128)", datasketch_of)):
        try:
            made |= {f"{name}, split": build(str.split), f"{name}, words": build(words)}
            made[f"{name}, split"](["one two three four five six"])
        except ImportError as error:
            skipped[name] = f"{type(error).__name__}: {error}"
    try:
        found = datatrove_filter(questions)
        found("one two three four five six seven eight nine ten eleven twelve thirteen")
        made["datatrove NGramsDecontFilter(12, sha1)"] = trove
    except Exception as error:
        skipped["datatrove NGramsDecontFilter(12, sha1)"] = f"{type(error).__name__}: {error}".splitlines()[0]
    return made, skipped


def versions() -> Mapping[str, str]:
    """Return what is installed of everything that is measured."""
    told = {}
    for name in (*(one.partition("==")[0] for one in PINNED), "spacy", "torch", "transformers", "numpy", "rapidfuzz"):
        try:
            told[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            told[name] = "not installed"
    return told


def environment(folder: Path) -> Path:
    """Make the environment and return its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    (own,) = folder.glob("lib/python*/site-packages")
    # Not the bare folder: then the project's own packages, which are installed by .pth files, would be left out.
    lines = [f"import site; site.addsitedir({folder!r})\n" for folder in site.getsitepackages()]
    (own / "project.pth").write_text("".join(lines))
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", *PINNED, *NEEDED], check=True)
    return python


if __name__ == "__main__":
    print(environment(Path(sys.argv[1])))
