"""Decoder-only language models, prompts and images in the transformer encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import DECODERS, SPECIAL, WORDS, write_bert, write_decoder, write_json
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from xmc.config import ImagesConfig, TrainConfig
from xmc.data.images.ragged import RaggedImages
from xmc.data.tokens import RaggedTokens
from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.encoders.transformer.layers import layers_of
from xmc.encoders.transformer.prompts import Prompt
from xmc.errors import ConfigError, InputError

TEXTS = ["a boat with two hulls", "the dog", "the cat sleeps in its house on the sea", "sails"]
PROMPT = "the cat {text} and its house {images} on the sea [SEP]"
NUMBERS = 6


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {"bert": write_bert(root / "bert"), **{name: write_decoder(root / name, name) for name in DECODERS}}


def load(directory: Path, **options: Any) -> TransformerEncoder:
    torch.manual_seed(0)
    return TransformerEncoder.from_pretrained(directory, **options).eval()


@torch.no_grad()
def embed(
    encoder: TransformerEncoder, texts: list[str], images: RaggedImages | None = None, side: Any = "query"
) -> Tensor:
    features = encoder.featurize(texts, side)
    return encoder(RaggedTokens(features.values, features.offsets, images))


def words(encoder: TransformerEncoder, tokens: RaggedTokens) -> list[str]:
    names = SPECIAL + WORDS + ["<images>"]
    rows = [tokens.take(np.array([row])).values.tolist() for row in range(len(tokens))]
    return [" ".join(names[min(token, len(names) - 1)] for token in row) for row in rows]


def pictures(counts: list[int], seed: int = 0) -> RaggedImages:
    values = np.random.default_rng(seed).standard_normal((sum(counts), NUMBERS)).astype(np.float16)
    return RaggedImages(values, np.cumsum([0, *counts]).astype(np.int64))


@torch.no_grad()
def left_padded(directory: Path, texts: list[str], pooling: str, bidirectional: bool = False) -> Tensor:
    """Straight from transformers, padded on the left."""
    model = AutoModel.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory, padding_side="left")
    if pooling == "eos":
        texts = [text + "[SEP]" for text in texts]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    mask = batch["attention_mask"]
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    seen = mask
    if bidirectional:
        seen = torch.where(mask[:, None, None, :] > 0, 0.0, torch.finfo(torch.float32).min)
        seen = seen.expand(-1, 1, mask.shape[1], -1)
    hidden = model(input_ids=batch["input_ids"], attention_mask=seen, position_ids=positions).last_hidden_state
    if pooling == "mean":
        return (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    return hidden[:, -1]


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("pooling", ["mean", "last", "eos"])
def test_embeddings_are_those_of_the_model_padded_on_the_left(
    family: str, pooling: str, models: dict[str, Path]
) -> None:
    encoder = load(models[family], pooling=pooling)
    found, expected = embed(encoder, TEXTS), left_padded(models[family], TEXTS, pooling)
    assert float(found.std()) > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "pooling"),
    [
        *((family, pooling) for family in DECODERS for pooling in ("mean", "cls", "last", "eos")),
        *(("bert", pooling) for pooling in ("mean", "cls", "last")),  # it has no end-of-sequence token
    ],
)
@pytest.mark.parametrize("images", [False, True])
def test_an_embedding_depends_neither_on_its_batch_nor_on_the_padding_side(
    family: str, pooling: str, images: bool, models: dict[str, Path]
) -> None:
    options = {"images": ImagesConfig(dimension=NUMBERS), "label_prompt": PROMPT} if images else {}
    encoder = load(models[family], pooling=pooling, **options)
    given = pictures([1, 0, 3, 2]) if images else None
    for side in ("query", "label"):
        together = embed(encoder, TEXTS, given, side)
        alone = [
            embed(encoder, [text], None if given is None else given.take(np.array([row])), side)
            for row, text in enumerate(TEXTS)
        ]
        torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)
        encoder.tokenizer.padding_side = "left"
        torch.testing.assert_close(embed(encoder, TEXTS, given, side), together, rtol=0, atol=0)
        encoder.tokenizer.padding_side = "right"


@pytest.mark.parametrize("family", DECODERS)
def test_tokens_see_what_comes_later_only_where_asked_for(family: str, models: dict[str, Path]) -> None:
    """Pooled from the first token: what follows changes it under bidirectional attention alone, padded or not."""
    for attention in ("default", "bidirectional"):
        encoder = load(models[family], pooling="cls", attention=attention)
        same = torch.allclose(
            embed(encoder, ["a boat", "a boat with two hulls and sails"]),
            embed(encoder, ["a dog", "a boat with two hulls and sea"]),
            atol=1e-6,
        )
        assert same == (attention == "default")
        one = embed(encoder, ["a boat with two hulls"])
        padded = embed(encoder, ["a boat with two hulls", "a boat with two hulls and sails on the sea"])[:1]
        torch.testing.assert_close(one, padded, rtol=0, atol=1e-5)
    mean = load(models[family], pooling="mean", attention="bidirectional")
    expected = left_padded(models[family], TEXTS, "mean", bidirectional=True)
    torch.testing.assert_close(embed(mean, TEXTS), expected, rtol=0, atol=1e-5)


def test_prompts_by_side(models: dict[str, Path]) -> None:
    encoder = load(models["llama"], query_prompt="the dog {text}", label_prompt="{text} [SEP] its house", max_length=8)
    assert words(encoder, encoder.featurize(["a boat", ""])) == ["the dog a boat", "the dog"]
    assert words(encoder, encoder.featurize(["a boat"], "label")) == ["a boat [SEP] its house"]
    long = "a boat with two hulls and sails on the sea"
    assert words(encoder, encoder.featurize([long])) == ["the dog a boat with two hulls and"]
    assert words(encoder, encoder.featurize([long], "label")) == ["a boat with two hulls [SEP] its house"]
    plain = load(models["llama"], max_length=8)
    assert encoder.features_key != plain.features_key
    assert words(plain, plain.featurize([long])) == ["a boat with two hulls and sails on"]
    bert = load(models["bert"], query_prompt="the dog {text} on the sea", max_length=9)
    assert words(bert, bert.featurize([long])) == ["[CLS] the dog a boat on the sea [SEP]"]


def test_token_dropout_leaves_prompts_alone(models: dict[str, Path]) -> None:
    encoder = load(models["llama"], query_prompt="the dog {text} [SEP]", label_prompt="{text} on the sea")
    for side, prompt in (("query", "the dog a [SEP]"), ("label", "a on the sea")):
        features = encoder.featurize(["a boat a boat a boat a boat a boat"] * 50, side)  # type: ignore[arg-type]
        dropped = encoder.drop(features, 0.9, torch.Generator().manual_seed(0), side)  # type: ignore[arg-type]
        kept = words(encoder, dropped)
        assert min(map(len, kept)) < len(prompt) < max(map(len, kept))
        first, last = prompt.split(" a ") if side == "query" else ("", prompt.removeprefix("a "))
        assert all(text.startswith(first) and text.endswith(last) for text in kept)
        assert sum(text.count("boat") + text.count("a ") for text in kept) < 150


def test_a_text_cannot_play_the_prompt(models: dict[str, Path]) -> None:
    encoder = load(models["llama"], query_prompt=PROMPT, images=ImagesConfig(dimension=NUMBERS), max_length=20)
    features = encoder.featurize(["a boat {images} {text}", "a boat"])
    assert (features.values == encoder.slot).sum() == 2
    assert words(encoder, features)[1] == "the cat a boat and its house <images> on the sea [SEP]"


def test_templates_that_cannot_be(models: dict[str, Path]) -> None:
    for template in ("", "no text", "{text} {text}", "{text} {images} {images}"):
        with pytest.raises(ConfigError, match=r"query_prompt must hold \{text\} once"):
            load(models["llama"], query_prompt=template, images=ImagesConfig(dimension=NUMBERS))
    with pytest.raises(ConfigError, match=r"label_prompt has \{images\}, but there are none"):
        load(models["llama"], label_prompt="{text} {images}")
    with pytest.raises(ConfigError, match=r"query_prompt and special tokens take 5 tokens, which leaves a text none"):
        load(models["llama"], query_prompt="a boat with two hulls {text}", max_length=5)
    with pytest.raises(ConfigError, match="the tokenizer has no end-of-sequence token"):
        load(models["bert"], pooling="eos")


def test_blanks_in_front_of_a_text_are_its_own() -> None:
    """As byte-pair tokenizers have them."""
    prompt = Prompt.parse("This product text {text} and its image {images}<|endoftext|>", "p", True)
    assert prompt == Prompt(("This product text",), " ", (" and its image", None, "<|endoftext|>"))
    assert Prompt.parse("{text}", "p", True) == Prompt((None,), "", ())
    assert Prompt.parse("{images} {text}", "p", True) == Prompt((None,), " ", ())
    assert Prompt.parse("query: {text}", "p", False) == Prompt(("query:",), " ", ())


def test_an_end_token_is_appended_once(models: dict[str, Path]) -> None:
    encoder = load(models["llama"], pooling="eos", label_prompt="{text} [SEP]", max_length=4)
    assert words(encoder, encoder.featurize(["a boat with two hulls", ""])) == ["a boat with [SEP]", "[SEP]"]
    assert words(encoder, encoder.featurize(["a boat"], "label")) == ["a boat [SEP]"]


@pytest.mark.parametrize("family", ["bert", "llama", "gemma3"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@torch.no_grad()
def test_images_take_places_among_the_tokens(family: str, pooling: str, models: dict[str, Path]) -> None:
    """Against the plain model, one text at a time, with input embeddings put together by hand."""
    prompt = {} if family == "bert" else {"query_prompt": PROMPT}
    encoder = load(models[family], pooling=pooling, images=ImagesConfig(dimension=NUMBERS, most=2), **prompt)
    model = AutoModel.from_pretrained(models[family]).eval()
    counts = [1, 0, 3, 2]
    given = pictures(counts)
    found = embed(encoder, TEXTS, given)
    assert encoder.image_projection is not None
    for row, count in enumerate(counts):
        ids = encoder.featurize([TEXTS[row]]).values.astype(np.int64)
        place = int(np.flatnonzero(ids == encoder.slot)[0])
        assert (place == 0) == (family == "bert")
        table = model.get_input_embeddings()
        own = given.take(np.array([row])).values[: min(count, 2)]
        parts = [
            table(torch.from_numpy(ids[:place])),
            encoder.image_projection(torch.from_numpy(own).float()),
            table(torch.from_numpy(ids[place + 1 :])),
        ]
        hidden = model(inputs_embeds=torch.cat(parts)[None]).last_hidden_state[0]
        first = min(count, 2) if family == "bert" else 0
        expected = {"mean": hidden.mean(0), "cls": hidden[first], "last": hidden[-1]}[pooling]
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-5)


def test_texts_without_images_are_as_they_would_be_without_the_option(models: dict[str, Path]) -> None:
    for family in ("bert", "llama"):
        encoder, plain = load(models[family], images=ImagesConfig(dimension=NUMBERS)), load(models[family])
        for given in (None, pictures([0, 0, 0, 0])):
            torch.testing.assert_close(embed(encoder, TEXTS, given), embed(plain, TEXTS), rtol=0, atol=1e-6)
        with pytest.raises(InputError, match="takes no images"):
            embed(plain, TEXTS, pictures([1, 1, 1, 1]))
        with pytest.raises(InputError, match="image embeddings of 6 numbers, but these have 2"):
            embed(encoder, TEXTS, RaggedImages(np.zeros((4, 2), np.float16), np.arange(5)))


def test_images_are_learned_and_saved(models: dict[str, Path], tmp_path: Path) -> None:
    encoder = load(models["llama"], images=ImagesConfig(dimension=NUMBERS), query_prompt=PROMPT, projection=5).train()
    features = encoder.featurize(TEXTS)
    features = RaggedTokens(features.values, features.offsets, pictures([1, 0, 3, 2]))
    dropped = encoder.drop(features, 0.5, torch.Generator().manual_seed(0))
    assert len(dropped.values) < len(features.values)
    assert (dropped.values == encoder.slot).sum() == 4
    encoder(dropped).square().sum().backward()
    assert encoder.image_projection is not None
    assert encoder.image_projection.weight.grad is not None
    assert bool(encoder.image_projection.weight.grad.abs().sum() > 0)
    encoder.save(tmp_path)
    again = TransformerEncoder.load(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(features), encoder.eval()(features))
    assert again.features_key == encoder.features_key


def test_positions_of_images_count(models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="from 3 to 21"):
        load(models["bert"], images=ImagesConfig(dimension=NUMBERS), max_length=22)
    assert load(models["bert"], images=ImagesConfig(dimension=NUMBERS)).settings.max_length == 21
    assert load(models["llama"]).settings.max_length == 32
    with pytest.raises(ConfigError, match="from 3 to 40"):
        load(models["llama"], max_length=41)


@pytest.mark.parametrize("family", DECODERS)
def test_training_options_of_decoders(family: str, models: dict[str, Path]) -> None:
    from xmc.encoders.dual import build_encoder

    values = {"directory": str(models[family]), "frozen_layers": 1, "gradient_checkpointing": True}
    config = TrainConfig.from_mapping({"encoder": {"kind": "transformer", **values}})
    model = build_encoder(config, 0, torch.Generator())
    model.prepare_for_training(config)
    backbone: Any = model.query_encoder.backbone
    assert len(layers_of(backbone)) == 2
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    assert any(name.startswith("embed_tokens") for name in frozen)
    assert any(name.startswith("layers.0.") for name in frozen)
    assert not any(name.startswith("layers.1.") for name in frozen)
    model.train()
    model.queries(model.query_encoder.featurize(TEXTS)).square().sum().backward()
    assert backbone.layers[1].mlp.down_proj.weight.grad is not None
    assert not backbone.config.use_cache


def test_a_directory_with_a_causal_model_needs_no_padding_token(models: dict[str, Path], tmp_path: Path) -> None:
    directory = write_decoder(tmp_path / "model")
    import json

    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    write_json(directory / "tokenizer_config.json", settings)
    encoder = load(directory)
    assert encoder.tokenizer.pad_token_id is None
    torch.testing.assert_close(embed(encoder, TEXTS), embed(load(models["llama"]), TEXTS), rtol=0, atol=1e-6)
