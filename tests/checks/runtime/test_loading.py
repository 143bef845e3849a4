"""A model is loaded whole or refused by name: nothing is ever filled in at random."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from checks.errors import LoadRefused
from checks.runtime.architectures import ARCHITECTURES, architectures_json
from checks.runtime.facts import model_facts_of
from checks.runtime.loading import Loaded, load, read_tokenizer
from checks.runtime.weights import read_weights
from sandbox.reader.model import read_model
from tests.checks.models import LAYERS, MODELS, files_of, save


def loaded(folder: Path) -> Loaded:
    files = files_of(folder)
    reading = read_model(files, architectures_json())
    assert not reading.refused, reading.decisions
    facts = model_facts_of(reading.config, reading.tensors)
    return load(reading.config, facts, reading.tensors, files)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_tabled_architecture_loads(name: str, tmp_path: Path) -> None:
    save(name, tmp_path)
    facts = loaded(tmp_path).facts
    assert (facts.layers, facts.width, facts.heads) == (LAYERS, 16, 2)
    assert len(facts.mlp_in) == LAYERS
    assert set(facts.mlp_in) | set(facts.mlp_out) <= set(facts.tensors)
    assert facts.causal is not name.startswith("bert")


@pytest.mark.parametrize("name", ["gpt2", "bert-headless", "llama"])
def test_more_layers_than_the_file_holds_are_not_invented(name: str, tmp_path: Path) -> None:
    save(name, tmp_path)
    change_config(tmp_path, **{ARCHITECTURES[name.removesuffix("-headless")].layers: LAYERS + 2})
    with pytest.raises(LoadRefused) as refusal:
        loaded(tmp_path)
    assert refusal.value.code == "load_missing_key"
    assert f".{LAYERS}." in refusal.value.at["tensor"]


def test_fewer_layers_than_the_file_holds_are_not_cut_off(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    change_config(tmp_path, n_layer=LAYERS - 1)
    with pytest.raises(LoadRefused, match=r"load_unexpected_key.*h\.2\."):
        loaded(tmp_path)


@pytest.mark.parametrize(
    "gone", ["transformer.h.1.ln_1.weight", "transformer.h.2.attn.c_proj.bias", "transformer.ln_f.weight"]
)
def test_one_missing_tensor_is_named(gone: str, tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    change_weights(tmp_path, lambda tensors: tensors.pop(gone))
    with pytest.raises(LoadRefused) as refusal:
        loaded(tmp_path)
    assert (refusal.value.code, refusal.value.at["tensor"]) == ("load_missing_key", gone.removeprefix("transformer."))


def test_an_untied_head_is_not_invented(tmp_path: Path) -> None:
    save("llama", tmp_path)
    change_weights(tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(LoadRefused, match=r"load_missing_key: tensor lm_head\.weight"):
        loaded(tmp_path)


def test_a_stray_tensor_is_named(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    change_weights(tmp_path, lambda tensors: tensors.update({"transformer.adapter.weight": torch.zeros(2, 2)}))
    with pytest.raises(LoadRefused, match=r"load_unexpected_key: tensor transformer\.adapter\.weight"):
        loaded(tmp_path)


def test_a_wrong_shape_is_named(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    change_weights(tmp_path, lambda tensors: tensors.update({"transformer.h.0.ln_1.bias": torch.zeros(15)}))
    with pytest.raises(LoadRefused, match=r"load_shape: tensor transformer\.h\.0\.ln_1\.bias|load_shape.*ln_1\.bias"):
        loaded(tmp_path)


def test_old_mask_buffers_are_harmless(tmp_path: Path) -> None:
    save("gpt2-headless", tmp_path)
    change_weights(tmp_path, lambda tensors: tensors.update({"h.0.attn.bias": torch.ones(1, 1, 16, 16)}))
    loaded(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("n_layer", 0), ("n_layer", 10**6), ("n_layer", "3"), ("n_layer", True), ("n_embd", 10**7), ("n_head", 3),
     ("layer_norm_epsilon", 5.0), ("activation_function", "os.system"), ("add_cross_attention", True)],
)  # fmt: skip
def test_config_values_have_limits(key: str, value: Any, tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    reading = read_model(files_of(tmp_path), architectures_json())
    with pytest.raises(LoadRefused) as refusal:
        model_facts_of(reading.config | {key: value}, reading.tensors)
    assert (refusal.value.code, refusal.value.at["key"]) == ("config_range", key)


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    change_config(tmp_path, model_type="mamba")
    reading = read_model(files_of(tmp_path), architectures_json())
    assert reading.refused
    assert "architecture_unknown" in {one.reason for one in reading.decisions}
    with pytest.raises(LoadRefused, match="architecture_unknown"):
        model_facts_of({"model_type": "mamba"}, ())


def test_a_model_loads_where_no_link_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Landlock denies links in a cell's scratch space."""
    save("gpt2", tmp_path / "model")
    monkeypatch.setattr(Path, "symlink_to", None)
    assert loaded(tmp_path / "model").head


def test_a_file_named_by_its_digest_is_never_taken_for_a_pickle(tmp_path: Path) -> None:
    """A hub's cache keeps files so; the loader reads a name without the ending as a pickle."""
    save("gpt2", tmp_path)
    files = files_of(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "blob")
    files["model.safetensors"] = tmp_path / "blob"
    reading = read_model(files, architectures_json())
    assert load(reading.config, model_facts_of(reading.config, reading.tensors), reading.tensors, files).head


def test_a_missing_or_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadRefused, match=r"missing_required: path tokenizer\.json"):
        read_tokenizer({})
    (tmp_path / "tokenizer.json").write_text('{"version":"1.0"}')
    with pytest.raises(LoadRefused, match="tokenizer_component"):
        read_tokenizer(files_of(tmp_path))


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_weights_are_out_by_in_whatever_the_file_says(name: str, tmp_path: Path) -> None:
    model = save(name, tmp_path)
    reading = read_model(files_of(tmp_path), architectures_json())
    facts = model_facts_of(reading.config, reading.tensors)
    read = read_weights((facts.mlp_in[1], facts.mlp_out[1]), reading.tensors, files_of(tmp_path), facts.transposed)
    hidden = 64 if name == "gpt2" else 32
    assert read[facts.mlp_in[1]].shape == (hidden, 16)
    assert read[facts.mlp_out[1]].shape == (16, hidden)
    assert read[facts.mlp_in[1]].dtype == "float64"
    if name == "gpt2":
        assert (read[facts.mlp_in[1]] == model.transformer.h[1].mlp.c_fc.weight.detach().double().numpy().T).all()


def test_bfloat16_weights_are_read_by_value(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    change_weights(tmp_path, lambda tensors: tensors.update({k: v.bfloat16() for k, v in tensors.items()}))
    reading = read_model(files_of(tmp_path), architectures_json())
    name = "transformer.wte.weight"
    read = read_weights((name,), reading.tensors, files_of(tmp_path), frozenset())
    assert (read[name] == load_file(tmp_path / "model.safetensors")[name].double().numpy()).all()
