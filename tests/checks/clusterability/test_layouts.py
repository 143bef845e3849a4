"""Every tabled architecture's weights, cut into heads and neurons, compute what the model computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from transformers import LlamaConfig, LlamaForCausalLM

from checks.check import ModelFacts, Refusal
from checks.clusterability.layouts import LAYOUTS, attention_names, mlp_names
from checks.clusterability.transformer import HeadLayer, head_graph
from checks.memory import model_facts
from checks.runtime.architectures import ARCHITECTURES
from tests.checks.models import LAYERS, MODELS, VOCABULARY

IDS = torch.tensor([[3, 9, 4, 11, 20, 5]])


def grouped() -> Any:
    """Four heads, of which each two share keys and values."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=LAYERS, num_attention_heads=4,
            num_key_value_heads=2, intermediate_size=32, max_position_embeddings=16,
        )
    )  # fmt: skip


NAMES = ("gpt2", "gpt2-headless", "bert", "llama", "grouped", "qwen2", "gpt_neox")


class Ran:
    """A random model without biases, what it computed on six tokens, and its facts."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(1)
        model = (grouped if name == "grouped" else MODELS[name])().eval().double()
        for kind, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=0.5)
            if kind.endswith(".bias"):
                torch.nn.init.zeros_(parameter)
        model.set_attn_implementation("eager")
        self.architecture = "llama" if name == "grouped" else name.split("-")[0]
        self.state = {key: value.numpy() for key, value in model.state_dict().items()}
        self.facts = facts_of(self.architecture, self.state, model.config.num_attention_heads)
        self.seen: dict[str, np.ndarray] = {}
        for module_name, module in model.named_modules():
            module.register_forward_hook(self._keep(module_name))
        # All tokens at position 0: rotary embeddings then rotate nothing. The explicit mask keeps transformers from
        # reading equal positions as six packed texts.
        rotary = LAYOUTS[self.architecture].rotary
        positions = {"position_ids": torch.zeros_like(IDS)} if rotary else {}
        with torch.no_grad():
            out = model(IDS, attention_mask=torch.ones_like(IDS), output_attentions=True, **positions)
        self.attention = [one[0].numpy() for one in out.attentions]

    def _keep(self, name: str) -> Callable[[Any, Any, Any], None]:
        def keep(module: Any, given: Any, gave: Any) -> None:
            first = gave[0] if isinstance(gave, tuple) else gave
            if isinstance(first, torch.Tensor):
                self.seen[name] = first.detach().numpy().reshape(-1, first.shape[-1])
            if given and isinstance(given[0], torch.Tensor):
                self.seen[f"{name}<"] = given[0].detach().numpy().reshape(-1, given[0].shape[-1])

        return keep

    def weights(self, name: str) -> np.ndarray:
        found = self.state[name].astype(np.float64)
        return np.asarray(found.T if name in self.facts.transposed else found)

    def scaled(self, stream: np.ndarray) -> np.ndarray:
        """Return states divided by the scale that their norm divides by, which is all of it that is not folded."""
        layout = LAYOUTS[self.architecture]
        if layout.in_stream:
            return stream
        eps = 1e-6 if layout.norm == "rms" else 1e-5
        spread = stream.var(axis=1) if layout.norm == "layer" else np.square(stream).mean(axis=1)
        out: np.ndarray = stream / np.sqrt(spread + eps)[:, None]
        return out


def facts_of(architecture: str, state: dict[str, np.ndarray], heads: int) -> ModelFacts:
    entry = ARCHITECTURES[architecture]
    prefix = entry.prefix if any(name.startswith(entry.prefix) for name in state) else ""

    def placed(template: str) -> tuple[str, ...]:
        return tuple(prefix + template.format(l=layer) for layer in range(LAYERS))

    return model_facts(
        architecture=architecture,
        layers=LAYERS,
        heads=heads,
        width=16,
        tensors={name: array.shape for name, array in state.items()},
        mlp_in=placed(entry.mlp_in),
        mlp_out=placed(entry.mlp_out),
        transposed=frozenset(name for template in entry.transposed for name in placed(template)),
    )


@pytest.fixture(scope="module", params=NAMES)
def ran(request: pytest.FixtureRequest) -> Ran:
    return Ran(request.param)


def centred(ran: Ran, states: np.ndarray) -> np.ndarray:
    """Return states without the mean that layer norms take away: written columns were centred."""
    return states - states.mean(axis=1, keepdims=True) if LAYOUTS[ran.architecture].norm == "layer" else states


def test_cut_heads_compute_the_models_attention(ran: Ran) -> None:
    names = attention_names(ran.facts)
    for layer in range(LAYERS):
        heads = names.cut(layer, ran.weights)
        x = ran.scaled(ran.seen[names.prefixes[layer].rstrip(".") + "<"])
        query, key, value = (np.einsum("hiw,tw->hti", part, x) for part in (heads.query, heads.key, heads.value))
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[2])
        if ran.architecture != "bert":
            scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        attention = softmax(scores, axis=2)
        assert attention == pytest.approx(ran.attention[layer], abs=1e-5)
        written = np.einsum("hqt,hti,hwi->qw", attention, value, heads.output)
        module = (names.prefixes[layer] + names.layout.writes).removesuffix(".weight")
        assert written == pytest.approx(centred(ran, ran.seen[module]), abs=1e-5)


def test_cut_mlps_read_and_write_what_the_model_does(ran: Ran) -> None:
    names = mlp_names(ran.facts)
    layout = names.layout
    for layer in range(LAYERS - 1):
        pair, after = names.pair(layer, ran.weights), names.prefixes[layer + 1]
        reader = (after + layout.mlp_in).removesuffix(".weight")
        norm = (after + (layout.attention_norm if layout.in_stream else layout.mlp_norm)).removesuffix(".weight")
        x = ran.seen[norm] if layout.in_stream else ran.scaled(ran.seen[norm + "<"])
        assert x @ pair.w_in_next.T == pytest.approx(ran.seen[reader], abs=1e-5)
        if layout.gate is not None:
            assert pair.gate_next is not None
            assert x @ pair.gate_next.T == pytest.approx(
                ran.seen[(after + layout.gate).removesuffix(".weight")], abs=1e-5
            )
        writer = ran.facts.mlp_out[layer].removesuffix(".weight")
        written = centred(ran, ran.seen[writer])
        if layout.in_stream:
            for gain in (names.prefixes[layer] + layout.mlp_norm, after + layout.attention_norm):
                written = centred(ran, written) * ran.weights(gain)
        assert ran.seen[f"{writer}<"] @ pair.w_out.T == pytest.approx(written, abs=1e-5)


def test_every_family_is_reached(ran: Ran) -> None:
    names = attention_names(ran.facts)
    layers = [names.cut(layer, ran.weights) for layer in range(LAYERS)]
    graph = head_graph(layers)
    heads = ran.facts.heads
    assert graph.shape == (LAYERS * heads, LAYERS * heads)
    assert (graph[:heads, heads:] > 0).all()
    assert np.array_equal(graph, np.triu(graph, 1))
    assert "biases_left_out" in names.steps
    assert ("rotary_qk_at_relative_position_0" in names.steps) == (ran.architecture in ("llama", "qwen2", "gpt_neox"))


def test_only_what_is_named_is_read(ran: Ran) -> None:
    read: set[str] = set()

    def noted(name: str) -> np.ndarray:
        read.add(name)
        return ran.weights(name)

    attention = attention_names(ran.facts)
    for layer in range(LAYERS):
        attention.cut(layer, noted)
    assert read == set(attention.weights)
    read.clear()
    mlp = mlp_names(ran.facts)
    for layer in range(LAYERS - 1):
        mlp.pair(layer, noted)
        assert set(mlp.weights(layer)) <= read
    assert read == {name for layer in range(LAYERS - 1) for name in mlp.weights(layer)}


def test_every_tabled_architecture_has_a_layout() -> None:
    assert set(LAYOUTS) == set(ARCHITECTURES)


def test_what_is_not_there_is_refused_by_name() -> None:
    ran = Ran("gpt2")
    with pytest.raises(Refusal, match="no_attention: mamba"):
        attention_names(model_facts(architecture="mamba"))
    without = {name: shape for name, shape in ran.facts.tensors.items() if name != "transformer.h.1.attn.c_proj.weight"}
    known = {name: getattr(ran.facts, name) for name in type(ran.facts).__dataclass_fields__}
    with pytest.raises(Refusal, match=r"no_attention: transformer\.h\.1\.attn\.c_proj\.weight"):
        attention_names(model_facts(**(known | {"tensors": without})))
    with pytest.raises(Refusal, match="no_mlp"):
        mlp_names(model_facts())
    wrong = attention_names(model_facts(**(known | {"heads": 3})))
    with pytest.raises(ValueError, match="3 heads"):
        wrong.cut(0, ran.weights)


def test_shared_keys_stand_side_by_side() -> None:
    ran = Ran("grouped")
    heads: HeadLayer = attention_names(ran.facts).cut(0, ran.weights)
    assert np.array_equal(heads.key[0], heads.key[1])
    assert np.array_equal(heads.value[2], heads.value[3])
    assert not np.array_equal(heads.key[1], heads.key[2])
    assert not np.array_equal(heads.query[0], heads.query[1])


def test_norms_in_the_stream_are_passed_in_their_order() -> None:
    # What BERT's attention writes meets the norm after attention first, then the norm after the MLP.
    ran = Ran("bert")
    gains = attention_names(ran.facts).cut(1, ran.weights).gains
    assert np.array_equal(gains[0], ran.state["bert.encoder.layer.1.attention.output.LayerNorm.weight"])
    assert np.array_equal(gains[1], ran.state["bert.encoder.layer.1.output.LayerNorm.weight"])
