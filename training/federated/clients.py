"""Whose queries are whose: clients in directories of their own, or made of one data set."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from xmc.arrays import Rows
from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.encoders.dual import build_encoder, unit_rows
from xmc.errors import ConfigError, DataError
from xmc.kernels.clustering import balanced_clusters

__all__ = ["SplitBy", "clients_in", "split_clients"]

SplitBy = Literal["subject", "chance"]


def clients_in(directory: str | Path) -> list[Dataset]:
    """The data sets in the folders of a directory, in the order of their names, but for hidden ones.

    Raises DataError where there are fewer than two, or their labels are not the same, in the same order.
    """
    folders = sorted(file.parent for file in Path(directory).glob("[!.]*/dataset.json"))  # hidden: half-written ones
    if len(folders) < 2:
        raise DataError(
            f"{directory} has {len(folders)} folders with a data set; federated rounds need two or more. `xmc data convert` "
            f"writes one for each client."
        )
    clients = [Dataset.load(folder) for folder in folders]
    first = clients[0].labels
    for folder, client in zip(folders, clients, strict=True):
        if not (client.labels.uids.equals(first.uids) and client.labels.texts.equals(first.texts)):
            raise DataError(
                f"{folder} has other labels than {folders[0]}, or others in their order; convert both with the same table of "
                f"labels."
            )
    return clients


def split_clients(dataset: Dataset, count: int, by: SplitBy, config: TrainConfig) -> list[Dataset]:
    """The training queries of a data set spread over clients, each a data set in memory with all labels.

    by: "subject" (see `subjects`), or "chance": clients of equal sizes. Raises ConfigError for a number of clients that is not
    from 2 to that of labels, and DataError for a data set without train, and where a client would have no query.
    """
    if "train" not in dataset.splits:
        raise DataError(f"The data set {dataset.name!r} has no split train to spread over clients.")
    if not 2 <= count <= len(dataset.labels):
        raise ConfigError(
            f"The number of clients is {count}; it must be from 2 to that of labels, {len(dataset.labels)}."
        )
    if by == "subject":
        of_queries = subjects(dataset, count, config)
    else:
        of_queries = np.random.default_rng(config.seed).permutation(len(dataset.split("train"))) % count
    rows = [np.flatnonzero(of_queries == client) for client in range(count)]
    if empty := [client for client, some in enumerate(rows) if not len(some)]:
        raise DataError(f"Client {empty[0]} of {count} would have no query of {dataset.name!r}; ask for fewer clients.")
    return [dataset.with_training_queries(some) for some in rows]


def subjects(dataset: Dataset, count: int, config: TrainConfig) -> Rows:
    """The subject of each training query, int64 [n], in [0, count).

    Labels are cut into `count` clusters of equal sizes, by what an encoder before any training says of their texts and of
    their queries'; a query belongs to the cluster of its first label, one without labels to that of the nearest centre.
    """
    model = build_encoder(config, 0, torch.Generator().manual_seed(config.seed)).eval()
    train = dataset.split("train")
    queries = model.embed_queries(_texts(train.texts.to_pylist()))
    labels = model.embed_labels(_texts(dataset.labels.texts.to_pylist()))
    positives = train.positives.astype(bool).astype(np.float32)
    points = unit_rows(labels + unit_rows(np.asarray(positives.T @ queries, np.float32)))
    clusters = balanced_clusters(points, count, seed=config.seed)
    centres = unit_rows(np.stack([points[clusters == cluster].mean(axis=0) for cluster in range(count)]))
    nearest: npt.NDArray[np.int64] = (queries @ centres.T).argmax(axis=1)
    with_labels = np.diff(positives.indptr) > 0
    nearest[with_labels] = clusters[positives.indices[positives.indptr[:-1][with_labels]]]
    return nearest


def _texts(texts: list[str | None]) -> list[str]:
    return [text or "" for text in texts]
