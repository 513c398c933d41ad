"""Packed texts against padded ones: states, embeddings and gradients of every family, in float64."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_backbones import CAUSAL, FAMILIES, write_backbone
from small_models import SPECIAL, WORDS, minilm_directory
from torch import Tensor

from xmc.config import ImagesConfig, LoRAConfig, TrainConfig, TransformerConfig
from xmc.data.images.ragged import RaggedImages
from xmc.data.tokens import RaggedTokens
from xmc.encoders.transformer import probe
from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.encoders.transformer.packing import pack, rounded_up

LENGTHS = [0, 1, 7, 24, 3, 12, 0, 5, 24, 1]
"""Numbers of tokens of texts, from none to as many as the tokenizer allows."""
NUMBERS = 6
"""Length of an image embedding."""
PADDED = ("mpnet", "gemma2")
"""Families that cannot be packed: relative positions without the interface, and capped scores."""
PACKED = [family for family in FAMILIES if family not in PADDED]
FLOAT32_INSIDE = ("gemma", "gemma3")
"""Families whose norms compute in float32 whatever their type, and add up their own weights' gradients so."""


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("backbones")
    return {family: write_backbone(root / family, family) for family in FAMILIES}


def load(directory: Path, **options: Any) -> TransformerEncoder:
    """An encoder in float64, without dropout."""
    torch.manual_seed(0)
    encoder: TransformerEncoder = TransformerEncoder.from_pretrained(directory, **options).double().eval()
    return encoder


def padded_twin(encoder: TransformerEncoder) -> TransformerEncoder:
    """The same encoder, whose texts are padded, through transformers' own attention."""
    twin = copy.deepcopy(encoder)
    twin.packed = False
    backbone: Any = twin.backbone
    backbone.set_attn_implementation("sdpa")
    return twin


def texts(lengths: list[int], seed: int = 0) -> RaggedTokens:
    """Random words, without special tokens."""
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    values = np.random.default_rng(seed).integers(len(SPECIAL), len(SPECIAL + WORDS), offsets[-1])
    return RaggedTokens(values.astype(np.uint32), offsets)


def assert_same(encoder: TransformerEncoder, features: RaggedTokens, family: str = "", pooling: str = "mean") -> None:
    """Embeddings and the gradient of every parameter, packed and padded."""
    twin = padded_twin(encoder)
    weights = torch.randn(len(features), encoder.dimension, dtype=torch.float64)
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    for one in (encoder, twin):
        one.settings = replace(one.settings, pooling=pooling)
        embeddings = one(features)
        one.zero_grad()
        (embeddings * weights).sum().backward()
        gradients = {name: p.grad for name, p in one.named_parameters() if p.grad is not None}
        found.append((embeddings.detach(), gradients))
    (packed, packed_gradients), (padded, padded_gradients) = found
    assert float(packed.abs().max()) > 0.1
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-10)
    assert packed_gradients.keys() == padded_gradients.keys()
    assert sum(float(gradient.abs().max()) > 1e-4 for gradient in padded_gradients.values()) > 5
    largest = max(float(gradient.abs().max()) for gradient in padded_gradients.values())
    for name, gradient in padded_gradients.items():
        bound = 1e-6 * largest if family in FLOAT32_INSIDE and "norm" in name else 1e-10
        torch.testing.assert_close(packed_gradients[name], gradient, rtol=0, atol=bound, msg=name)


@pytest.mark.parametrize("family", PACKED)
def test_embeddings_and_gradients_are_those_of_padded_texts(family: str, directories: dict[str, Path]) -> None:
    for attention in ("default", "bidirectional") if family in CAUSAL else ("default",):
        encoder = load(directories[family], attention=attention, tokens_per_micro_batch=50)
        assert encoder.packed
        assert len(encoder.micro_batches(texts(LENGTHS))) > 1
        for pooling in ("mean", "cls", "last", "eos"):
            assert_same(encoder, texts(LENGTHS), family, pooling)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "qwen2"])
@pytest.mark.parametrize("lengths", [[9], [0], [0, 0], [24], [1, 1, 1]])
def test_one_text_and_empty_ones(family: str, lengths: list[int], directories: dict[str, Path]) -> None:
    encoder = load(directories[family])
    if any(lengths):
        assert_same(encoder, texts(lengths), family)
    embeddings = encoder(texts(lengths))
    assert not embeddings[torch.tensor(lengths) == 0].any()
    embeddings.sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("family", ["bert", "roberta", "llama", "gemma3"])
def test_images_in_front_and_in_a_prompt(family: str, directories: dict[str, Path]) -> None:
    options = {"images": ImagesConfig(dimension=NUMBERS), "label_prompt": "the cat {text} and {images} on the sea"}
    encoder = load(directories[family], tokens_per_micro_batch=40, max_length=20, **options)
    values = np.random.default_rng(0).standard_normal((7, NUMBERS)).astype(np.float16)
    images = RaggedImages(values, np.array([0, 1, 1, 5, 7], np.int64))
    for side in ("query", "label"):
        features = encoder.featurize(["a boat", "the dog sleeps in its house", "", "sails on the sea"], side)
        for pooling in ("mean", "cls", "last"):
            assert_same(encoder, replace(features, images=images), family, pooling)


@pytest.mark.parametrize("family", ["bert", "llama", "qwen2"])
def test_runs_that_are_filled_up_give_the_same(family: str, directories: dict[str, Path]) -> None:
    encoder = load(directories[family], tokens_per_micro_batch=50)
    encoder.few_shapes = True
    assert_same(encoder, texts(LENGTHS), family)


@pytest.mark.slow
def test_a_compiled_backbone_is_one_graph_for_runs_of_any_size(directories: dict[str, Path]) -> None:
    encoder = TransformerEncoder.from_pretrained(directories["bert"], tokens_per_micro_batch=50)
    features = texts(LENGTHS)
    expected = encoder(features).detach()
    encoder.few_shapes = True
    counters = torch._dynamo.utils.counters["stats"]
    before = counters["unique_graphs"]
    encoder.backbone.compile(dynamic=True, fullgraph=True, backend="aot_eager")
    for some in (features, texts([3, 9]), texts([24, 24, 20, 1])):
        embeddings = encoder(some)
        embeddings.sum().backward()
    torch.testing.assert_close(encoder(features), expected, rtol=0, atol=1e-5)
    assert counters["unique_graphs"] == before + 1


@pytest.mark.slow
def test_a_compiled_backbone_computes_in_bfloat16(directories: dict[str, Path]) -> None:
    """The working copy is compiled as the backbone is, and its gradients arrive."""
    encoder = TransformerEncoder.from_pretrained(directories["bert"], tokens_per_micro_batch=50)
    features = texts([7, 24, 3, 12])
    encoder.compute_in("bfloat16")
    expected = encoder(features)
    expected.sum().backward()
    encoder.collect_gradients()
    gradients = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    encoder.prepare_for_training(TransformerConfig(directory="-", compile=True))
    found = encoder(features)
    found.sum().backward()
    encoder.collect_gradients()
    assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.999
    unused = {name for name, p in encoder.named_parameters() if p.grad is not None and not p.grad.any()} - set(
        gradients
    )
    assert gradients.keys() | unused == {name for name, p in encoder.named_parameters() if p.grad is not None}
    for name, gradient in gradients.items():
        difference = torch.linalg.vector_norm(encoder.get_parameter(name).grad - gradient)
        assert difference <= 0.1 * torch.linalg.vector_norm(gradient) + 1e-2, name


def test_adapters_and_recomputed_layers(directories: dict[str, Path]) -> None:
    encoder = load(directories["llama"], lora=LoRAConfig(rank=2))
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    backbone: Any = encoder.backbone
    backbone.gradient_checkpointing_enable({"use_reentrant": False})
    encoder.train()
    assert_same(encoder, texts(LENGTHS))


@pytest.mark.parametrize("family", PADDED)
def test_a_family_that_cannot_be_packed_is_padded_and_the_log_says_so_once(
    family: str, directories: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoModel

    probe._say.cache_clear()
    with caplog.at_level(logging.WARNING):
        encoder = TransformerEncoder.from_pretrained(directories[family])
        again = TransformerEncoder.from_pretrained(directories[family])
    assert not encoder.packed
    assert not again.packed
    said = [record.getMessage() for record in caplog.records if "padded" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("texts are padded, not packed, for a ")
    plain = AutoModel.from_pretrained(directories[family]).eval()
    features = texts([7, 3])
    with torch.no_grad():
        expected = [
            plain(torch.from_numpy(features.take(np.array([row])).values.astype(np.int64))[None]) for row in (0, 1)
        ]
        means = torch.cat([output.last_hidden_state.mean(1) for output in expected])
        torch.testing.assert_close(encoder(features), means, rtol=0, atol=1e-5)


def test_a_probe_leaves_the_mode_of_a_backbone(directories: dict[str, Path]) -> None:
    encoder = TransformerEncoder.from_pretrained(directories["bert"])
    backbone = encoder.backbone.train()
    assert probe.packs(backbone, 0, False)
    assert backbone.training


def test_minilm_is_packed_and_its_files_say_nothing_of_that(tmp_path: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(minilm_directory())
    assert encoder.packed
    encoder.save(tmp_path)
    assert "xmc" not in (tmp_path / "backbone" / "config.json").read_text()


def test_a_copy_and_a_saved_encoder_are_packed(directories: dict[str, Path], tmp_path: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(directories["qwen3"])
    encoder.save(tmp_path)
    features = texts(LENGTHS)
    with torch.no_grad():
        expected = encoder(features)
        for other in (copy.deepcopy(encoder), TransformerEncoder.load(tmp_path)):
            assert other.packed
            assert torch.equal(other(features), expected)


def test_micro_batches_are_counted_in_tokens(directories: dict[str, Path]) -> None:
    features = texts([3, 9, 24, 5, 24, 1, 0, 2])
    for family, tokens in (("bert", features.lengths), ("mpnet", None)):
        encoder = TransformerEncoder.from_pretrained(directories[family], tokens_per_micro_batch=20)
        batches = encoder.micro_batches(features)
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(features)))
        for rows in batches:
            lengths = features.lengths[rows]
            taken = int(lengths.sum()) if tokens is not None else len(rows) * int(lengths.max())
            assert taken <= 20 or len(rows) == 1
    assert [len(rows) for rows in batches][-2:] == [1, 1]


def test_a_run_has_few_sizes() -> None:
    device = torch.device("cpu")
    shapes = set()
    for seed in range(200):
        random = np.random.default_rng(seed)
        lengths = random.integers(0, 30, random.integers(1, 40))
        lengths = lengths[np.cumsum(lengths) <= 512]
        packed = pack(np.ones(lengths.sum(), np.uint32), lengths, 0, device, full=512)
        offsets, longest = packed.keywords["cu_seq_lens_q"], packed.keywords["max_length_q"]
        assert packed.ids.shape == packed.keywords["position_ids"].shape == (1, rounded_up(int(lengths.sum()), 512))
        assert offsets[: len(lengths) + 1].tolist() == [0, *np.cumsum(lengths)]
        assert int(offsets[-1]) == packed.ids.shape[1]
        assert int(offsets.diff().max()) <= longest
        assert (offsets.diff() >= 0).all()
        shapes.add(packed.ids.shape[1])
    assert len(shapes) <= 10


def test_positions_start_anew_at_each_text() -> None:
    packed = pack(np.arange(6, dtype=np.uint32), np.array([2, 0, 3, 1]), 2, torch.device("cpu"))
    assert packed.keywords["position_ids"].tolist() == [[2, 3, 2, 3, 4, 2]]
    assert packed.keywords["cu_seq_lens_q"].tolist() == [0, 2, 2, 5, 6]
    assert packed.ids.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_texts_of_older_configurations_are_tokens_now(caplog: pytest.LogCaptureFixture) -> None:
    stored = {"encoder": {"kind": "transformer", "directory": "x", "micro_batch_size": 32}}
    older = {"encoder": "transformer", "transformer": {"directory": "x", "micro_batch_size": 512}}
    for values in (stored, older):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            config = TrainConfig.from_mapping(values)
        assert config.flat()["encoder.tokens_per_micro_batch"] == "auto"
        assert "tokens_per_micro_batch" in caplog.text
