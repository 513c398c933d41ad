"""Table light: the quickstart's run answered by xmc.light beside the full retriever: import, memory, speed, equality."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measurements import Measurement, from_samples
from retrieval import CACHE

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.light import LightRetriever
from xmc.search.retriever import Retriever
from xmc.training.trainer import train

__all__ = ["run"]

REPEATS = 7
BATCHES = {1: 100, 32: 20, 1000: 2}
"""Number of calls that are timed together, by the number of texts in each."""
STARTS = {
    "xmc.light": "from xmc.light import LightRetriever as Retriever",
    "xmc.Retriever": "from xmc import Retriever",
}
"""What a process imports, by method."""
PROCESS = """
import json, sys, time
texts = json.load(sys.stdin)
start = time.perf_counter()
{imported}
imported = time.perf_counter()
retriever = Retriever.load({run!r})
loaded = time.perf_counter()
retriever.predict(texts[:1], 10)
first = time.perf_counter()
retriever.predict(texts, 10)
facts = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("Vm"))
print(json.dumps({{
    "import": 1e3 * (imported - start), "load": 1e3 * (loaded - imported), "first answer": 1e3 * (first - loaded),
    "peak memory": int(facts["VmHWM"].split()[0]) / 1024,
}}))
"""


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Train as the quickstart does, where that was not done; then each method in processes of its own, and both in turns."""
    directory = CACHE / "runs" / f"quickstart-{seed}"
    data = Dataset.load("wordnet-8k")
    if not directory.exists():
        train(data, TrainConfig(seed=seed), directory)
    texts = data.split("test").texts.to_pylist()
    for method in STARTS:
        if not methods or method.startswith(tuple(methods)):
            yield list(_process(method, directory, texts[:1000], seed))
    yield list(_in_turns(directory, texts, seed))


def _process(method: str, directory: Path, texts: list[str], seed: int) -> Iterator[Measurement]:
    """What a process takes to start, to load the run and to answer, and its memory after a thousand answers."""
    code = PROCESS.format(imported=STARTS[method], run=str(directory))
    said = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", code], input=json.dumps(texts), capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(REPEATS)
    ]
    for metric in said[0]:
        unit = "MiB" if metric == "peak memory" else "ms"
        yield from_samples("light", method, metric, [facts[metric] for facts in said], unit, seed)


def _in_turns(directory: Path, texts: list[str], seed: int) -> Iterator[Measurement]:
    """Equality of labels and scores, and the time of a call by the number of its texts, one method after the other."""
    retrievers: dict[str, Any] = {
        "xmc.light": LightRetriever.load(directory),
        "xmc.Retriever": Retriever.load(directory).exact(),
    }
    (labels, scores), (expected, expected_scores) = (found.predict(texts, 10) for found in retrievers.values())
    equal, difference = float(np.mean(labels == expected)), float(np.abs(scores - expected_scores).max())
    yield Measurement("light", "xmc.light", "equal labels", 100 * equal, "%", seed)
    yield Measurement("light", "xmc.light", "largest difference of scores", difference, "", seed)
    for size, calls in BATCHES.items():
        seconds: dict[str, list[float]] = {method: [] for method in retrievers}
        for _ in range(REPEATS):
            for method, retriever in retrievers.items():
                seconds[method].append(_time(retriever.predict, texts, size, calls))
        for method, values in seconds.items():
            milliseconds = [1e3 * value for value in values]
            yield from_samples("light", method, f"{size} texts", milliseconds, "ms", seed)


def _time(predict: Callable[..., Any], texts: list[str], size: int, calls: int) -> float:
    start = time.perf_counter()
    for call in range(calls):
        first = call * size % (len(texts) - size + 1)
        predict(texts[first : first + size], 10)
    return (time.perf_counter() - start) / calls
