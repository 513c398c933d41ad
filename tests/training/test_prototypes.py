"""Label prototypes: the network, its clusters and centroids, and runs that are trained with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import layer_norm, normalize
from worlds import colours, tiny_config

import xmc
from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.encoders.prototypes import LabelPrototypes
from xmc.errors import ConfigError
from xmc.training.prototypes import Centroids, query_centroids
from xmc.training.supervision.known import KnownPairs
from xmc.training.trainer import train

DIMENSION = 16


def network(labels: int = 12, clusters: int = 4) -> LabelPrototypes:
    torch.manual_seed(0)
    one = LabelPrototypes(DIMENSION, clusters, heads=4, feedforward=24, dropout=0.1).eval()
    one.clusters = torch.arange(labels) % clusters
    one.centroids = normalize(torch.randn(labels, DIMENSION))
    one.has_queries = torch.arange(labels) % 3 > 0
    torch.nn.init.normal_(one.free_vectors)
    return one


def stirred(one: LabelPrototypes) -> LabelPrototypes:
    """As after some training."""
    for parameter in one.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return one


def test_training_begins_at_the_mean_of_what_a_label_has() -> None:
    one, texts = network(), normalize(torch.randn(12, DIMENSION))
    found = one(texts, torch.arange(12))
    for row in range(12):
        parts = [texts[row], one.free_vectors[row % 4]] + [one.centroids[row]] * (row % 3 > 0)
        normed = layer_norm(torch.stack(parts), (DIMENSION,))
        torch.testing.assert_close(found[row], normed.mean(0), rtol=1e-4, atol=1e-4)


def test_a_label_without_queries_does_not_depend_on_a_centroid() -> None:
    one, texts = stirred(network()), normalize(torch.randn(12, DIMENSION))
    before = one(texts, torch.arange(12))
    one.centroids = torch.full_like(one.centroids, 7.0)
    after = one(texts, torch.arange(12))
    changed = (before - after).abs().amax(1) > 1e-3
    assert changed.tolist() == one.has_queries.tolist()


def test_prototypes_do_not_depend_on_the_batch() -> None:
    one, texts = stirred(network()), normalize(torch.randn(12, DIMENSION))
    together = one(texts, torch.arange(12))
    alone = torch.cat([one(texts[[row]], torch.tensor([row])) for row in range(12)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert one(texts[:0], torch.arange(0)).shape == (0, DIMENSION)


def test_everything_learned_takes_a_gradient() -> None:
    one = stirred(network()).train()
    texts = normalize(torch.randn(12, DIMENSION)).requires_grad_()
    one(texts, torch.arange(12)).square().sum().backward()
    assert texts.grad is not None
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in (*one.parameters(), texts))


def test_a_new_label_goes_to_the_nearest_cluster_and_has_no_centroid() -> None:
    one, texts = stirred(network()), normalize(torch.randn(12, DIMENSION))
    one.begin(texts, one.clusters, None)
    for cluster in range(4):
        torch.testing.assert_close(one.means[cluster], texts[cluster::4].mean(0))
    torch.testing.assert_close(one.free_vectors.detach(), one.means)
    nearest = (texts @ one.means.T).argmax(1)
    one.clusters, one.has_queries = nearest, torch.zeros(12, dtype=torch.bool)
    torch.testing.assert_close(one.of_new(texts), one(texts, torch.arange(12)))


def test_free_vectors_of_xavier_are_random_and_repeatable() -> None:
    one, texts = network(), normalize(torch.randn(12, DIMENSION))
    found = []
    for _ in range(2):
        one.begin(texts, one.clusters, torch.Generator().manual_seed(3))
        found.append(one.free_vectors.detach().clone())
    assert torch.equal(*found)
    bound = (6 / (4 + DIMENSION)) ** 0.5
    assert float(found[0].abs().max()) <= bound
    assert float(found[0].std()) == pytest.approx(bound / 3**0.5, rel=0.2)
    with pytest.raises(ConfigError, match=r"label_vectors\.heads must divide the embedding's 16 dimensions, but is 3"):
        LabelPrototypes(16, 2, heads=3)


def world(config: TrainConfig) -> tuple[Dataset, Centroids, np.ndarray]:
    data = colours()
    positives = data.split("train").positives
    embeddings = np.random.default_rng(0).standard_normal((400, DIMENSION)).astype(np.float32)
    return data, Centroids(network(), positives, slice(0, 12), config), embeddings


def test_centroids_are_means_of_each_labels_queries() -> None:
    data, centroids, embeddings = world(tiny_config(label_vectors="prototypes"))
    centroids.renew(embeddings)
    dense = data.split("train").positives.toarray() > 0
    for label in range(12):
        expected = embeddings[dense[:, label]].mean(0)
        np.testing.assert_allclose(centroids.prototypes.centroids[label], expected, rtol=1e-4, atol=1e-5)
    none, has = query_centroids(centroids.queries[:0], embeddings)
    assert none.shape == (0, DIMENSION)
    assert has.shape == (0,)


def test_moving_averages_move_towards_the_batch() -> None:
    options = {"centroids": "moving_average", "momentum": 0.9}
    data, centroids, embeddings = world(tiny_config(label_vectors={"kind": "prototypes", **options}))
    centroids.renew(embeddings)
    before = centroids.prototypes.centroids.clone()
    targets = KnownPairs(data.targets("train"), tiny_config()).batch(0, np.arange(5)).targets
    centroids.move(targets, torch.from_numpy(embeddings[:5]))
    dense = data.split("train").positives[:5].toarray() > 0
    for label in range(12):
        expected = before[label]
        if dense[:, label].any():
            mean = torch.from_numpy(embeddings[:5][dense[:, label]].mean(0))
            expected = 0.9 * before[label] + 0.1 * mean
        torch.testing.assert_close(centroids.prototypes.centroids[label], expected)


PRIME = {
    "label_vectors": "prototypes",
    "label_vectors.clusters": 4,
    "label_vectors.heads": 4,
    "label_vectors.feedforward": 32,
    "optimizer.learning_rate.prototypes": 0.01,
    "negatives": {"kind": "clusters", "first_epoch": 3, "size": 8, "doubling_epochs": [5]},
    "objective.positives_per_query": 1,
    "objective.positives_drawn": "inverse_propensity",
    "objective.in_batch_positives": True,
    "optimizer.warmup": 5,
    "epochs": 8,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"objective.loss": "triplet_margin"},
        {"objective.loss": "decoupled_softmax"},
        {"objective.loss": "triplet_margin", "label_vectors.centroids": "moving_average", "label_vectors.initial": "xavier"},
        {"objective.loss": "softmax", "negatives": "bank", "objective.in_batch_positives": False},
        {
            "objective.loss": "softmax", "negatives": "all",
            "objective.in_batch_positives": False, "objective.nested_dimensions": [8, 16],
        },
    ],
    ids=str,
)  # fmt: skip
def test_an_easy_world_is_learned(changes: dict[str, object], tmp_path: Path) -> None:
    data = colours()
    train(data, tiny_config(**{**PRIME, **changes}), tmp_path / "run")
    retriever = xmc.Retriever.load(tmp_path / "run")
    assert xmc.evaluate(retriever, data).values["P@1"] >= 95
    retriever.add_labels(["turquoise"], ["new"])
    assert retriever.predict(["the turquoise item"], k=1)[0].tolist() == [["new"]]
    assert retriever.predict(["something purple"], k=1)[0].tolist() == [["PURPLE"]]
    retriever.save(tmp_path / "again")
    again = xmc.Retriever.load(tmp_path / "again")
    np.testing.assert_array_equal(
        again.model.embed_labels(["some gold", "red"]), retriever.model.embed_labels(["some gold", "red"])
    )


def test_a_saved_run_has_the_centroids_of_its_own_queries(tmp_path: Path) -> None:
    """Not those that training used, which are an epoch old."""
    data = colours()
    train(data, tiny_config(**PRIME), tmp_path / "run")
    retriever = xmc.Retriever.load(tmp_path / "run")
    model, split = retriever.model, data.split("train")
    assert model.prototypes is not None
    queries = model.embed_queries(split.texts.to_pylist())
    dense = torch.from_numpy(split.positives.toarray().T > 0).float()
    centroids = dense @ torch.from_numpy(queries) / dense.sum(1, keepdim=True)
    texts = data.labels.texts.to_pylist()
    with torch.no_grad():
        own = model.label_texts(model.label_encoder.featurize(texts, "label"))
        clusters = []
        for row, wanted in enumerate(retriever.embeddings):
            found = []
            for cluster in range(4):
                model.prototypes.clusters = torch.tensor([cluster])
                model.prototypes.centroids = centroids[[row]]
                model.prototypes.has_queries = torch.tensor([True])
                found.append(model.labels(own[[row]], torch.tensor([0]))[0].numpy())
            errors = [float(np.abs(one - wanted).max()) for one in found]
            assert min(errors) < 1e-5
            clusters.append(int(np.argmin(errors)))
    assert sorted(np.bincount(clusters).tolist()) == [3, 3, 3, 3]


def test_mistakes_are_sentences() -> None:
    with pytest.raises(ConfigError, match="prototypes also rank queries for a label"):
        tiny_config(label_vectors="prototypes", **{"objective.loss": "soft_topk"})
    with pytest.raises(ConfigError, match=r"label_vectors\.momentum must be a share in \[0, 1\), but is 1"):
        tiny_config(label_vectors={"kind": "prototypes", "momentum": 1.0})
    with pytest.raises(
        ConfigError, match=r"objective\.loss\.most must be at least objective\.loss\.least, 0\.5, but is 0\.3"
    ):
        tiny_config(objective={"loss": {"kind": "triplet_margin", "least": 0.5}})
    with pytest.raises(ConfigError, match="in_batch_positives is for negatives that score some labels"):
        tiny_config(**{"objective.in_batch_positives": True})
