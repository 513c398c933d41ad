"""What a model directory says, and options on it, are kept to; backbones that do not fit are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import (
    SPECIAL,
    WORDS,
    write_bert,
    write_decoder,
    write_json,
    write_sentence_transformer,
    write_tokenizer,
)

import xmc
from xmc.config import ImagesConfig, LoRAConfig
from xmc.data.images.ragged import RaggedImages
from xmc.data.tokens import RaggedTokens
from xmc.encoders.dual import build_encoder
from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.errors import ConfigError, StoreError

VOCABULARY = len(SPECIAL + WORDS)


def prepared(directory: Path, **transformer: Any) -> TransformerEncoder:
    values = {"directory": str(directory), **transformer}
    config = xmc.TrainConfig.from_mapping({"encoder": {"kind": "transformer", **values}})
    model = build_encoder(config, 0, torch.Generator())
    model.prepare_for_training(config)
    encoder = model.query_encoder.train()
    assert isinstance(encoder, TransformerEncoder)
    return encoder


def test_dropout_of_decoders_and_of_adapters(tmp_path: Path) -> None:
    directory = write_decoder(tmp_path)

    def drops(encoder: TransformerEncoder) -> bool:
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
        features = encoder.featurize(["a boat with two hulls"])
        return not torch.equal(encoder(features), encoder(features))

    assert drops(prepared(directory, dropout=0.5))
    assert not drops(prepared(directory, dropout=0.0))
    assert drops(prepared(directory, dropout=0.0, lora={"rank": 2, "dropout": 0.5}))
    assert not drops(prepared(directory, dropout=0.0, lora={"rank": 2}))


def test_a_run_with_adapters_has_its_own_tokenizer_and_notices_another_configuration(tmp_path: Path) -> None:
    base = write_decoder(tmp_path / "base")
    encoder = TransformerEncoder.from_pretrained(base, lora=LoRAConfig(rank=2))
    (tmp_path / "run").mkdir()
    encoder.save(tmp_path / "run")
    file = base / "tokenizer.json"
    file.write_text(file.read_text().replace('"boat"', '"ship"'))
    again = TransformerEncoder.load(tmp_path / "run")
    assert again.features_key == encoder.features_key
    assert again.featurize(["a boat"]).values.tolist() == encoder.featurize(["a boat"]).values.tolist()
    config = base / "config.json"
    config.write_text(config.read_text().replace("1e-06", "1e-02"))
    with pytest.raises(StoreError, match="trained on other weights"):
        TransformerEncoder.load(tmp_path / "run")


def test_a_prompt_for_one_side_leaves_the_other_that_of_its_directory(tmp_path: Path) -> None:
    directory = write_sentence_transformer(tmp_path, {"pooling_mode_mean_tokens": True})
    prompts = {"prompts": {"query": "the sea "}, "default_prompt_name": "query"}
    write_json(directory / "config_sentence_transformers.json", prompts)
    plain = TransformerEncoder.from_pretrained(directory)
    encoder = TransformerEncoder.from_pretrained(directory, query_prompt="the dog {text}")
    assert np.array_equal(encoder.featurize(["a boat"], "label").values, plain.featurize(["a boat"]).values)
    assert len(encoder.featurize(["a boat"]).values) == 6


@pytest.mark.parametrize("pooling", [{"pooling_mode_lasttoken": True}, {"pooling_mode": "lasttoken"}])
def test_pooling_of_the_last_token_as_sentence_transformers_calls_it(pooling: dict[str, Any], tmp_path: Path) -> None:
    assert TransformerEncoder.from_pretrained(write_sentence_transformer(tmp_path, pooling)).settings.pooling == "last"


def test_images_of_an_empty_sequence_go_to_no_other(tmp_path: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(write_decoder(tmp_path), images=ImagesConfig(dimension=6)).eval()
    features = encoder.featurize(["a boat", "the dog runs"])
    images = RaggedImages.from_arrays([np.ones((2, 6)), np.full((1, 6), -2.0), np.full((4, 6), 3.0)])
    with_empty = RaggedTokens(features.values, np.array([0, *features.offsets]), images)
    with torch.no_grad():
        found = encoder(with_empty)[1:]
        expected = encoder(RaggedTokens(features.values, features.offsets, images.take(np.array([1, 2]))))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_backbones_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, GPT2Config, GPT2Model

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    text = {**sizes, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": VOCABULARY, "pad_token_id": 0}
    vision = {**sizes, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path / "both")
    write_tokenizer(tmp_path / "both")
    with pytest.raises(ConfigError, match="no model of text alone"):
        TransformerEncoder.from_pretrained(tmp_path / "both")
    GPT2Model(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=VOCABULARY)).save_pretrained(tmp_path / "gpt2")
    write_tokenizer(tmp_path / "gpt2")
    with pytest.raises(ConfigError, match="no linear layers for adapters"):
        TransformerEncoder.from_pretrained(tmp_path / "gpt2", lora=LoRAConfig(rank=2))
    bert = write_bert(tmp_path / "bert")
    with pytest.raises(ConfigError, match="shard does not go with images"):
        prepared(bert, images={"dimension": 6}, shard=True)
    (tmp_path / "cut.gguf").write_bytes(b"GGUF cut short")
    with pytest.raises(ConfigError, match=r"cut\.gguf cannot be loaded as a transformer"):
        TransformerEncoder.from_pretrained(tmp_path / "cut.gguf")
