"""Training with images: what only they tell is learned with them, and not without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import write_bert, write_decoder
from worlds import wordnet_part

import xmc
from xmc.data.dataset import Dataset
from xmc.data.images.ragged import RaggedImages
from xmc.errors import DataError, InputError

CLASSES, NUMBERS = 20, 24


def pictures(rng: np.random.Generator, chosen: np.ndarray) -> RaggedImages:
    """One to three embeddings near the chosen class's, which `rng` shuffled beforehand."""
    centres = np.random.default_rng(7).standard_normal((CLASSES, NUMBERS))
    counts = rng.integers(1, 4, len(chosen))
    values = np.repeat(centres[chosen], counts, axis=0) + 0.5 * rng.standard_normal((counts.sum(), NUMBERS))
    return RaggedImages(values.astype(np.float16), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Real texts that say nothing of the labels: which label a query has is in its images alone."""
    texts = wordnet_part(800).split("train").texts.to_pylist()
    names = wordnet_part(10).labels.texts.to_pylist()[:CLASSES]
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, CLASSES, 800)
    images = pictures(rng, chosen)
    rows = {"train": np.arange(600), "test": np.arange(600, 800)}
    return Dataset.from_lists(
        "pictures",
        names,
        {split: ([texts[row] for row in own], [[int(chosen[row])] for row in own]) for split, own in rows.items()},
        images={split: images.take(own) for split, own in rows.items()},
    )


def config(model: Path, images: int, **transformer: Any) -> xmc.TrainConfig:
    own = {"directory": str(model), "max_length": 12, "dropout": 0.0, **transformer}
    if images:
        own["images"] = {"dimension": images}
    return xmc.TrainConfig.from_mapping(
        {
            "encoder": {"kind": "transformer", **own},
            "optimizer.learning_rate": {"encoder": 5e-3, "images": 0.02 if images else None},
            "optimizer.learning_rate.label_vectors": 0.02,
            "objective.temperature": 0.1,
            "batch_size": 50,
            "epochs": 25,
            "device": "cpu",
        }
    )


@pytest.mark.parametrize(
    "kind", [pytest.param("encoder", marks=pytest.mark.nightly), pytest.param("decoder", marks=pytest.mark.slow)]
)
def test_what_images_tell_is_learned_from_them_alone(kind: str, data: Dataset, tmp_path: Path) -> None:
    model = write_bert(tmp_path / "model") if kind == "encoder" else write_decoder(tmp_path / "model", "llama")
    prompt = {} if kind == "encoder" else {"query_prompt": "a boat {text} and its house {images} on the sea"}
    found = {}
    for images in (True, False):
        own = {name: text if images else text.replace("{images}", "") for name, text in prompt.items()}
        out = tmp_path / f"run-{images}"
        xmc.train(data, config(model, NUMBERS * images, **own), out)
        retriever = xmc.Retriever.load(out)
        found[images] = xmc.evaluate(retriever, data).values["P@1"]
        test = data.split("test")
        texts = test.texts[:3].to_pylist()
        if images:
            assert test.images is not None
            with_images = retriever.predict(
                texts, 1, images=[test.images.take(np.array([row])).values for row in range(3)]
            )
            truth = [test.positives.indices[row] for row in range(3)]
            uids = data.labels.uids.to_pylist()
            assert sum(one == uids[label] for one, label in zip(with_images[0][:, 0], truth, strict=True)) >= 2
            retriever.add_labels(["new"], images=[test.images.values[:1]])
            with pytest.raises(InputError, match=r"images of 3 numbers|embeddings of 3 numbers|24 numbers"):
                retriever.predict(texts, images=[np.zeros((1, 3))] * 3)
            with pytest.raises(InputError, match="There are images for 2 texts, but 3 texts"):
                retriever.predict(texts, images=[None, None])
            with pytest.raises(InputError, match="images go with a list of texts"):
                retriever.predict([xmc.Query({"a boat": 1.0})], images=[None])
        else:
            with pytest.raises(InputError, match="trained without images"):
                retriever.predict(texts, images=[None] * 3)
    assert found[True] >= 90
    assert found[False] <= 20


def test_images_that_are_wanted_must_be_there(data: Dataset, tmp_path: Path) -> None:
    model = write_bert(tmp_path / "model")
    with pytest.raises(
        DataError, match="dimension is 24, but the data set 'wordnet-part' has no images; add some with"
    ):
        xmc.train(wordnet_part(100), config(model, NUMBERS), tmp_path / "run")
    with pytest.raises(InputError, match="takes image embeddings of 7 numbers, but these have 24"):
        xmc.train(data, config(model, 7), tmp_path / "run")
