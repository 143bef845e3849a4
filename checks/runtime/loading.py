"""From checked files to a model that can be swept, or a refusal that names the tensor.

transformers fills a missing tensor with random numbers and goes on. So the names and shapes that the config asks for
are compared with the files' own table before anything is loaded, and what the loader reports is compared once more.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.check import ModelFacts
from checks.errors import LoadRefused
from checks.runtime.architectures import Architecture, architecture
from sandbox.reader.safetensors import TensorEntry

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer
    from transformers import PretrainedConfig, PreTrainedModel

TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model ready to be swept."""

    bridge: Any
    """`transformer_lens` bridge over the checked model, in eval mode, float32."""
    tokenizer: Tokenizer
    facts: ModelFacts
    head: bool
    """Whether words can be scored: a causal model, whose output head came from its files (its own or the tied one)."""


def load(
    config: Mapping[str, Any],
    facts: ModelFacts,
    tensors: Sequence[TensorEntry],
    files: Mapping[str, Path],
    *,
    twin_seed: int | None = None,
    shuffle: np.random.Generator | None = None,
) -> Loaded:
    """Load a model whose config and tensor table have been checked, or a twin of it.

    Args:
        config: canonical config: `model_type` and used keys only.
        facts: from `model_facts_of`.
        tensors: the model's tensor table.
        files: path of each manifest file.
        twin_seed: None loads the model. A seed makes its twin instead: the same config and tokenizer, and weights as
            the architecture's own initialisation draws them; the files' weights are checked by name and not read.
        shuffle: permutes the entries of every tensor of two or more axes, embeddings among them: norms and values
            stay, and what was learned goes. None leaves them.

    Raises:
        LoadRefused: missing_required, tokenizer_component, config_range, load_missing_key, load_unexpected_key,
            load_shape, load_failed.
    """
    entry = architecture(facts.architecture)
    tokenizer = read_tokenizer(files)
    _go_offline()
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        stage = Path(folder)
        _stage(stage, config, tensors, files)
        settings = _settings(stage)
        _compare(entry, settings, facts.tensors)
        model = _from_files(entry, settings, stage) if twin_seed is None else _at_random(entry, settings, twin_seed)
    if shuffle is not None:
        _shuffle(model, shuffle)
    # A causal model without a head of its own in the files has been refused, unless its config ties the two.
    head = entry.head and entry.causal
    return Loaded(bridge=_bridge(entry, model), tokenizer=tokenizer, facts=facts, head=head)


def check_loadable(
    config: Mapping[str, Any], facts: ModelFacts, tensors: Sequence[TensorEntry], files: Mapping[str, Path]
) -> None:
    """Hold a model's config and tensor table against each other as `load` does, before any weight is read.

    Raises:
        LoadRefused: config_range, load_missing_key, load_unexpected_key, load_shape.
    """
    entry = architecture(facts.architecture)
    _go_offline()
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        _stage(Path(folder), config, tensors, files)
        _compare(entry, _settings(Path(folder)), facts.tensors)


def read_tokenizer(files: Mapping[str, Path]) -> Tokenizer:
    """Return the tokenizer of `tokenizer.json`, with its truncation and padding switched off.

    The file's own truncation would shorten a text without a word, so that a state would be read from another place.

    Raises:
        LoadRefused: missing_required, tokenizer_component.
    """
    from tokenizers import Tokenizer

    if TOKENIZER not in files:
        raise LoadRefused("missing_required", {"path": TOKENIZER})
    try:
        tokenizer = Tokenizer.from_file(str(files[TOKENIZER]))
    except Exception as error:  # the library raises bare Exception for every malformed file
        raise LoadRefused("tokenizer_component", {"path": TOKENIZER}) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _go_offline() -> None:
    # Read once, when the hub library is first imported; a cell has no network, a developer's machine may.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _stage(stage: Path, config: Mapping[str, Any], tensors: Sequence[TensorEntry], files: Mapping[str, Path]) -> None:
    """Lay out config, shards and an index of our own making: no other file of the model reaches the loader."""
    # Nothing is generated: the loader's own default for these tokens may lie outside the vocabulary, and keys and
    # values of past tokens would be kept for nobody.
    unused = {"bos_token_id": None, "eos_token_id": None, "use_cache": False}
    (stage / CONFIG).write_text(json.dumps({**config, **unused}, sort_keys=True))
    held = sorted({tensor.file for tensor in tensors})
    shards = {file: _shard(stage, f"{number:05d}", files[file].resolve()) for number, file in enumerate(held, start=1)}
    index = {"metadata": {}, "weight_map": {tensor.name: shards[tensor.file] for tensor in tensors}}
    (stage / "model.safetensors.index.json").write_text(json.dumps(index))


def _shard(stage: Path, number: str, path: Path) -> str:
    """Return what the index calls a file of weights: its own path, for in a cell nobody can make a link.

    The loader goes by the name, and would take any other for a pickle. A developer's cache names its files by digest.
    """
    if path.suffix == SUFFIX:
        return str(path)
    link = stage / f"model-{number}{SUFFIX}"
    link.symlink_to(path)
    return link.name


def _settings(stage: Path) -> PretrainedConfig:
    from transformers import AutoConfig

    try:
        settings: PretrainedConfig = AutoConfig.from_pretrained(
            str(stage), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # validation errors of many kinds: the values do not go together
        raise LoadRefused("config_range", {"path": CONFIG}) from error
    return settings


def _family(entry: Architecture) -> Any:
    from transformers import AutoModel, AutoModelForCausalLM

    return AutoModelForCausalLM if entry.head else AutoModel


def _compare(entry: Architecture, settings: PretrainedConfig, held: Mapping[str, tuple[int, ...]]) -> None:
    """Hold the names and shapes that the config asks for against the files' table; nothing is allocated."""
    import torch

    try:
        with torch.device("meta"):
            twin = _family(entry).from_config(settings, trust_remote_code=False, attn_implementation="eager")
    except Exception as error:
        raise LoadRefused("config_range", {"path": CONFIG}) from error
    renamed = dict(entry.renamed)
    owed = {name.removeprefix(entry.prefix): tuple(value.shape) for name, value in twin.state_dict().items()}
    found = {}
    for name, shape in held.items():
        bare = name.removeprefix(entry.prefix)
        found[renamed.get(bare, bare)] = (name, shape)
    missing = {name for name in owed if name not in found and not _harmless(entry, name)}
    if getattr(settings, "tie_word_embeddings", False):
        missing.discard("lm_head.weight")
    unexpected = {found[name][0] for name in found if name not in owed and not _harmless(entry, name)}
    misshapen = {found[name][0] for name in found if name in owed and owed[name] != found[name][1]}
    _refuse("load_missing_key", missing)
    _refuse("load_unexpected_key", unexpected)
    _refuse("load_shape", misshapen)


def _from_files(entry: Architecture, settings: PretrainedConfig, stage: Path) -> PreTrainedModel:
    import torch

    try:
        model, report = _family(entry).from_pretrained(
            str(stage),
            config=settings,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            attn_implementation="eager",  # the only path whose padding and pattern the bridge's tests cover
            dtype=torch.float32,
        )
    except Exception as error:
        raise LoadRefused("load_failed", {"path": CONFIG}) from error
    strange = [name for name in report["missing_keys"] if not _harmless(entry, name)]
    _refuse("load_missing_key", strange)
    _refuse("load_unexpected_key", [name for name in report["unexpected_keys"] if not _harmless(entry, name)])
    _refuse("load_shape", [str(mismatch[0]) for mismatch in report["mismatched_keys"]])
    if report["error_msgs"]:
        raise LoadRefused("load_failed", {"path": CONFIG})
    loaded: PreTrainedModel = model.eval()
    return loaded


def _at_random(entry: Architecture, settings: PretrainedConfig, seed: int) -> PreTrainedModel:
    import torch

    # The draws are the CPU's, whatever runs beside; nobody else's generator is moved.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = _family(entry).from_config(
            settings, trust_remote_code=False, attn_implementation="eager", dtype=torch.float32
        )
    drawn: PreTrainedModel = twin.train(False)
    return drawn


def _shuffle(model: PreTrainedModel, rng: np.random.Generator) -> None:
    """Permute the entries of each matrix, in the order of names; tied ones are one matrix, and stay tied."""
    import torch

    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters(), key=lambda one: one[0]):
            if parameter.ndim >= 2:
                order = torch.from_numpy(rng.permutation(parameter.numel()))
                parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))


def _bridge(entry: Architecture, model: PreTrainedModel) -> Any:
    """Wrap the checked model.

    The bridge gets no tokenizer: it would add a beginning-of-text token to those that have none, and shift every
    position. Texts are tokenised by us, and the bridge sees token numbers.
    """
    import torch
    import transformers
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    if not entry.head:
        # The adapter expects the class with an output head. The head stays without storage (meta): the sweep stops
        # at the last block, and a head that nobody loaded must not be able to answer.
        with torch.device("meta"):
            whole = getattr(transformers, entry.bridge)(model.config)
        setattr(whole, entry.prefix.rstrip("."), model)
        model = whole.eval()
    return build_bridge_from_module(model, entry.bridge, hf_config=model.config, tokenizer=None)


def _harmless(entry: Architecture, name: str) -> bool:
    bare = name.removeprefix(entry.prefix)
    return any(re.fullmatch(pattern, bare) for pattern, _reason in entry.harmless)


def _refuse(code: str, names: Sequence[str] | set[str]) -> None:
    if names:
        ordered = tuple(sorted(names))
        raise LoadRefused(code, {"tensor": ordered[0]}, ordered)
