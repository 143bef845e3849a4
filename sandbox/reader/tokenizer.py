"""Contents of tokenizer files: components of a list, a sane vocabulary, merges that stay inside it.

Regular expressions are only measured here. They are compiled and run in the cell that measures, where a catastrophic
one costs its audit the time limit and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sandbox.reader.error import ReaderError, shown

TOKENS_MAX = 10**6
TOKEN_BYTES_MAX = 1024
REGEX_BYTES_MAX = 4096

COMPONENTS = frozenset({
    "BPE", "WordPiece", "WordLevel", "Unigram",
    "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip", "Replace", "Prepend", "Nmt",
    "BertNormalizer", "Precompiled", "ByteLevel", "Sequence",
    "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "Metaspace", "Split",
    "CharDelimiterSplit", "UnicodeScripts", "FixedLength",
    "BertProcessing", "RobertaProcessing", "TemplateProcessing",
    "ByteFallback", "Fuse", "CTC", "BPEDecoder",
})  # fmt: skip
"""Every component type of the `tokenizers` library's own file format; another one needs code that we do not run."""

SECTIONS = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model")


def check_tokenizer(document: Any) -> Iterator[ReaderError]:
    """Yield each problem of a `tokenizer.json`."""
    if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
        yield ReaderError("tokenizer_component", "key:model")
        return
    for section in SECTIONS:
        yield from _components(section, document.get(section))
    model = document["model"]
    vocabulary = model.get("vocab", {})
    if isinstance(vocabulary, list):  # Unigram: [token, score] in the order of ids
        yield from _unigram(vocabulary)
        return
    yield from check_vocabulary(vocabulary)
    added = document.get("added_tokens") or []
    if isinstance(vocabulary, dict):
        yield from _added(added, vocabulary)
        yield from _merges(model, vocabulary)


def check_vocabulary(vocabulary: Any) -> Iterator[ReaderError]:
    """Yield each problem of a vocabulary (token to id), as in `vocab.json`."""
    if not isinstance(vocabulary, dict):
        yield ReaderError("tokenizer_ids", "key:vocab")
        return
    if len(vocabulary) > TOKENS_MAX:
        yield ReaderError("tokenizer_size", "key:vocab")
        return
    seen: set[int] = set()
    for token, number in vocabulary.items():
        if len(token.encode()) > TOKEN_BYTES_MAX:
            yield ReaderError("tokenizer_size", f"key:{shown(token)}")
        if type(number) is not int or number < 0 or number in seen:
            yield ReaderError("tokenizer_ids", f"key:{shown(token)}")
        else:
            seen.add(number)


def check_merges(lines: list[str], vocabulary: dict[str, Any] | None) -> Iterator[ReaderError]:
    """Yield each problem of the lines of a `merges.txt`; the first may be a `#version` comment."""
    for number, line in enumerate(lines, start=1):
        if (number == 1 and line.startswith("#version")) or not line:
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not _known(parts, vocabulary):
            yield ReaderError("tokenizer_merge", f"line:{number}")


def _known(parts: list[str], vocabulary: dict[str, Any] | None) -> bool:
    return vocabulary is None or all(one in vocabulary for one in (*parts, "".join(parts)))


def _components(place: str, part: Any) -> Iterator[ReaderError]:
    """Walk nested components: each object with a `type` is one, and each `Regex` has a length."""
    pending = [] if part is None else [part]
    while pending:
        one = pending.pop()
        if not isinstance(one, dict):
            yield ReaderError("tokenizer_component", f"key:{place}")
            continue
        kind = one.get("type")
        # A model without a type is the oldest form of BPE files; the library reads it so.
        if not (isinstance(kind, str) and kind in COMPONENTS) and not (place == "model" and kind is None):
            yield ReaderError("tokenizer_component", f"key:{place}")
        pattern = one.get("pattern")
        if isinstance(pattern, dict):
            regex = pattern.get("Regex", "")
            if not isinstance(regex, str) or len(regex.encode()) > REGEX_BYTES_MAX:
                yield ReaderError("tokenizer_regex", f"key:{place}")
        for key in ("normalizers", "pretokenizers", "processors", "decoders"):
            nested = one.get(key, [])
            pending += nested if isinstance(nested, list) else [None]


def _unigram(vocabulary: list[Any]) -> Iterator[ReaderError]:
    if len(vocabulary) > TOKENS_MAX:
        yield ReaderError("tokenizer_size", "key:vocab")
        return
    seen: set[str] = set()
    for index, pair in enumerate(vocabulary):
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)) or pair[0] in seen:
            yield ReaderError("tokenizer_ids", f"line:{index}")
        elif len(pair[0].encode()) > TOKEN_BYTES_MAX:
            yield ReaderError("tokenizer_size", f"line:{index}")
        else:
            seen.add(pair[0])


def _added(added: Any, vocabulary: dict[str, Any]) -> Iterator[ReaderError]:
    """An added token may repeat one of the vocabulary, but not take another token's id."""
    if not isinstance(added, list) or len(added) > TOKENS_MAX:
        yield ReaderError("tokenizer_size", "key:added_tokens")
        return
    owner = {number: token for token, number in vocabulary.items() if type(number) is int}
    for index, one in enumerate(added):
        content, number = (one.get("content"), one.get("id")) if isinstance(one, dict) else (None, None)
        if not isinstance(content, str) or type(number) is not int or number < 0:
            yield ReaderError("tokenizer_ids", f"line:{index}")
        elif owner.setdefault(number, content) != content:
            yield ReaderError("tokenizer_ids", f"key:{shown(content)}")
        elif len(content.encode()) > TOKEN_BYTES_MAX:
            yield ReaderError("tokenizer_size", f"key:{shown(content)}")


def _merges(model: dict[str, Any], vocabulary: dict[str, Any]) -> Iterator[ReaderError]:
    merges = model.get("merges") or []
    if not isinstance(merges, list):
        yield ReaderError("tokenizer_merge", "key:merges")
        return
    for number, merge in enumerate(merges, start=1):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        good = isinstance(parts, list) and len(parts) == 2 and all(isinstance(one, str) for one in parts)
        if not good or not _known(parts, vocabulary):
            yield ReaderError("tokenizer_merge", f"line:{number}")
