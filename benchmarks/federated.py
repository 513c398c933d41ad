"""Table federated: wordnet-8k spread over eight clients by subject, a tenth of each client's queries labelled.

A client has the queries whose first label is in its cluster of labels (xmc.training.federated.clients.subjects, by seed), so
that no label is the first of queries of two clients; clusters have the same number of labels, clients by far not the same of
queries. Which queries are labelled changes with the seed, too. All methods are the default recipe with 9 epochs: 512 queries
a step in one place, 64 at a client, so that a client of the mean size takes 22 steps an epoch as one place does. Queries that
are not labelled stand in the steps of all methods. Metrics are of the whole test split, propensities of the training split
with all labels. "local alone" is the mean over the clients of models that saw one client each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from measurements import Measurement
from retrieval import CACHE
from scipy.sparse import diags_array

from xmc.config import TrainConfig
from xmc.config.federated import FederatedConfig
from xmc.data.dataset import Dataset
from xmc.evaluation.evaluate import evaluate
from xmc.search.retriever import Retriever
from xmc.training.federated import federate
from xmc.training.federated.clients import subjects
from xmc.training.trainer import train

__all__ = ["CLIENTS", "METHODS", "METRICS", "few_labelled", "run"]

CLIENTS, LABELLED = 8, 0.1
METRICS = ("P@1", "P@5", "PSP@5")
LOCAL = {"batch_size": 64}
"""Of a client's configuration."""
FEDERATED: dict[str, tuple[FederatedConfig, Mapping[str, object]]] = {
    "FedAvg, labelled queries alone": (FederatedConfig(pseudo_labels=False), {}),
    "FedLabel": (FederatedConfig(), {}),
    "FedLabel, no label vectors": (FederatedConfig(), {"label_vectors": "none"}),
    "FedAvg, no label vectors": (FederatedConfig(pseudo_labels=False), {"label_vectors": "none"}),
    "FedLabel, no consistency": (FederatedConfig(consistency=0.0), {}),
}
METHODS = ("all data in one place", "labelled data in one place", *FEDERATED, "local alone")


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure each method whose name begins with one of `methods`; all without such."""
    clean = Dataset.load("wordnet-8k")
    config = TrainConfig(seed=seed, token_cache=None)
    of_queries = subjects(clean, CLIENTS, config)
    few = few_labelled(clean, LABELLED, seed)
    clients = [few.with_training_queries(np.flatnonzero(of_queries == client)) for client in range(CLIENTS)]
    out = CACHE / "runs" / "federated"
    for name in METHODS:
        if methods and not name.startswith(tuple(methods)):
            continue
        start, sent = time.perf_counter(), 0.0
        if name == "local alone":
            found = []
            for client in clients:
                train(client, config.changed(**LOCAL), out, overwrite=True)
                found.append(_metrics(clean))
            values = {metric: float(np.mean([one[metric] for one in found])) for metric in METRICS}
        else:
            if name in FEDERATED:
                options, changes = FEDERATED[name]
                result = federate(clients, config.changed(**LOCAL, **changes), out, options, overwrite=True)
                sent = sum(one.sent[0] for one in result.rounds)
            else:
                train(clean if name.startswith("all") else few, config, out, overwrite=True)
            values = _metrics(clean)
        rows = [(metric, values[metric], "percent") for metric in METRICS]
        rows += [("sent by a client", sent / 2**20, "MiB")] if sent else []
        rows += [("training", time.perf_counter() - start, "seconds")]
        yield [Measurement("federated", name, metric, value, unit, seed) for metric, value, unit in rows]


def few_labelled(data: Dataset, share: float, seed: int) -> Dataset:
    """The data set with the labels of a share of its training queries, drawn by the seed; of the others nothing is known."""
    positives = data.split("train").positives
    labelled = np.random.default_rng(seed).random(positives.shape[0]) < share
    kept = diags_array(labelled.astype(np.float32)).tocsr() @ positives
    kept.eliminate_zeros()
    return data.with_evidence("train", positives=kept, labelled=labelled)


def _metrics(clean: Dataset) -> dict[str, float]:
    found = evaluate(Retriever.load(CACHE / "runs" / "federated"), clean, exact=True, metrics="p,psp", k=[1, 5])
    return {metric: found[metric] for metric in METRICS}
