"""In which precision encoders compute: what is chosen, that embeddings stay close, and that a saved model is of float32."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from small_models import minilm_directory, write_bert, write_decoder
from torch import Tensor

import xmc
from xmc.config import ImagesConfig, StaticConfig, TrainConfig
from xmc.data.images.ragged import RaggedImages
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder
from xmc.encoders.precision import multiplies_bfloat16
from xmc.encoders.static.encoder import StaticEncoder
from xmc.encoders.transformer.encoder import TransformerEncoder

TEXTS = ["a boat with two hulls", "cat", "", "the dog runs on the sea and sleeps", "in its house"]


ROUNDING = 32 * 2.0**-9
"""Two layers round some sixteen times in a row each, by 2^-9 of a number at most, if all of it added up."""


def tamed(encoder: TransformerEncoder) -> TransformerEncoder:
    """With weights of the size of a trained model's, which do not make roundings larger."""
    with torch.no_grad():
        for parameter in encoder.backbone.parameters():
            parameter.mul_(0.3 if parameter.ndim == 2 else 1)
    return encoder.eval()


def bert(directory: Path, **options: object) -> TransformerEncoder:
    return tamed(TransformerEncoder.from_pretrained(write_bert(directory), **options))


def embedded(encoder: Encoder, features: RaggedTokens | None = None) -> Tensor:
    with torch.no_grad():
        embeddings: Tensor = encoder(encoder.featurize(TEXTS) if features is None else features)
    return embeddings


def test_auto_is_what_the_device_has_instructions_for(tmp_path: Path) -> None:
    encoder = bert(tmp_path)
    fast = multiplies_bfloat16(torch.device("cpu"))
    assert encoder.compute_in("auto") == ("bfloat16" if fast else "float32")
    assert (encoder.lowered is not None) is fast
    capabilities = torch.cpu.get_capabilities()
    assert fast == any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    assert not multiplies_bfloat16(torch.device("meta"))


def test_a_static_encoder_computes_in_float32() -> None:
    encoder = StaticEncoder(StaticConfig(dimension=8, table_rows=64, weight_slots=64), torch.Generator().manual_seed(0))
    before = embedded(encoder)
    assert encoder.compute_in("bfloat16") == "float32"
    assert encoder.working_bytes() == 0
    assert torch.equal(embedded(encoder), before)


def test_embeddings_are_of_float32_and_close_and_nothing_is_saved_of_it(tmp_path: Path) -> None:
    encoder = bert(tmp_path / "bert", projection=5)
    before, names = embedded(encoder), dict(encoder.state_dict())
    assert encoder.compute_in("bfloat16") == "bfloat16"
    lowered = embedded(encoder)
    assert lowered.dtype == torch.float32
    assert not torch.equal(lowered, before)
    assert (lowered - before).norm() < ROUNDING * before.norm()
    assert encoder.state_dict().keys() == names.keys()
    assert all(tensor.dtype == torch.float32 for tensor in encoder.state_dict().values() if tensor.is_floating_point())
    assert encoder.working_bytes() > 0
    assert encoder.token_cost().activation_bytes < bert(tmp_path / "other").token_cost().activation_bytes
    (tmp_path / "saved").mkdir()
    encoder.save(tmp_path / "saved")
    assert torch.equal(embedded(TransformerEncoder.load(tmp_path / "saved").eval()), before)
    twin = copy.deepcopy(encoder)
    assert torch.equal(embedded(twin), lowered)
    assert encoder.compute_in("float32") == "float32"
    assert torch.equal(embedded(encoder), before)
    assert torch.equal(embedded(twin), lowered)


def test_a_backbone_of_bfloat16_computes_in_it_without_a_copy(tmp_path: Path) -> None:
    encoder = bert(tmp_path, dtype="bfloat16")
    for asked in ("float32", "auto", "bfloat16"):
        assert encoder.compute_in(asked) == "bfloat16"  # type: ignore[arg-type]
        assert encoder.lowered is None


def test_images_and_prompts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    prompts = {"query_prompt": "the cat {text} and {images} its house"}
    encoder = TransformerEncoder.from_pretrained(write_decoder(tmp_path), images=ImagesConfig(dimension=4), **prompts)
    texts, images = ["a boat", "the sea"], RaggedImages.from_arrays([torch.randn(2, 4).numpy(), None], 4)
    features = encoder.featurize(texts)
    features = RaggedTokens(features.values, features.offsets, images)
    before = embedded(tamed(encoder), features)
    encoder.compute_in("bfloat16")
    assert (embedded(encoder, features) - before).norm() < ROUNDING * before.norm()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_options_reach_what_computes(checkpointing: bool, tmp_path: Path) -> None:
    encoder = bert(tmp_path)
    encoder.compute_in("bfloat16")
    embedded(encoder)  # a copy of before the options
    options = {"directory": str(tmp_path), "dropout": 0.4, "frozen_layers": 1, "gradient_checkpointing": checkpointing}
    config = TrainConfig.from_mapping({"encoder": {"kind": "transformer", **options}})
    encoder.prepare_for_training(config.encoder)  # type: ignore[arg-type]
    still = embedded(encoder)
    encoder.train()
    assert not torch.equal(embedded(encoder), still)
    encoder(encoder.featurize(TEXTS)).square().sum().backward()
    encoder.collect_gradients()
    learned = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert learned
    assert all("layer.1." in name for name in learned)


def test_embeddings_of_minilm_stay_within_a_thousandth() -> None:
    """The bar for a default: a cosine of 0.999 to the embedding in float32, of every text."""
    encoder = TransformerEncoder.from_pretrained(minilm_directory()).eval()
    texts = xmc.Dataset.load("wordnet-8k").split("test").texts.to_pylist()[:150]
    features = encoder.featurize(texts)
    exact = embedded(encoder, features)
    encoder.compute_in("bfloat16")
    assert torch.cosine_similarity(embedded(encoder, features), exact).min() > 0.999
