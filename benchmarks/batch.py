"""Table batch: a million titles predicted by a job against the labels of LF-WordNet, and what the job itself costs.

Needs the folders LF-WordNet and titles-1M in the directory that XMC_DATA names. The run is the one that the table lf_wordnet
trains, made on first use. Each measurement is a process of its own; those of one method take turns.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import lf_wordnet
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measurements import Measurement, from_samples
from peers import OmikujiBonsai
from retrieval import CACHE
from rich.console import Console
from titles import titles, titles_at_most

from xmc.config import TrainConfig
from xmc.search.retriever import Retriever
from xmc.training.trainer import train

__all__ = ["run"]

TABLE = "batch"
K = 10
OMIKUJI_ROWS = 20_000
"""omikuji's Python binding takes one query at a time: a million would take it half an hour."""
console = Console()

ALONE = """
import json, resource, sys, time
import pyarrow.parquet as pq
from xmc.batch.worker import WINDOW
from xmc.search.retriever import Retriever
retriever = Retriever.load(sys.argv[1])
loaded = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
texts = pq.read_table(sys.argv[2])["text"].to_pylist()
retriever.predict(texts[:WINDOW], int(sys.argv[4]))
start = time.perf_counter()
for first in range(0, len(texts), WINDOW):
    retriever.search(retriever.model.embed_queries(texts[first : first + WINDOW], batch_size=WINDOW), int(sys.argv[4]))
print(json.dumps({"seconds": time.perf_counter() - start, "loaded": loaded}))
"""
JOB = """
import json, sys
from pathlib import Path
from xmc.batch import predict_files
summary = predict_files(*sys.argv[1:4], k=int(sys.argv[4]))
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps({"seconds": summary.seconds, "peak": peak, **summary.busy}))
"""


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure with one seed. DataError without the data."""
    source = _source()
    for name, index, turns in (("xmc, index tuned for 0.99", "tuned", 3), ("xmc, exact index", "exact", 1)):
        if not methods or any(name.startswith(method) for method in methods):
            yield _measured(name, _run(seed, index), source, turns, seed)
    if not methods or any(OmikujiBonsai.name.startswith(method) for method in methods):
        if OmikujiBonsai.missing():
            console.print(f"{OmikujiBonsai.name} is left out: {OmikujiBonsai.missing()}")
            return
        yield _omikuji(source, seed)


def _source() -> Path:
    """The titles as a job's input: with uids, in one row group."""
    most = titles_at_most()
    file = CACHE / ("titles.parquet" if most is None else f"titles-{most}.parquet")
    if not file.exists():
        texts = titles()[:most]
        file.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table({"uid": pa.array(np.arange(len(texts))).cast(pa.string()), "text": texts})
        pq.write_table(table, file, compression="zstd", row_group_size=len(texts))
    return file


def _run(seed: int, index: str) -> Path:
    exact = CACHE / "runs" / f"batch-exact-{seed}"
    if not exact.exists():
        config = TrainConfig.from_mapping({**TrainConfig.load(lf_wordnet.CONFIG).to_mapping(), "seed": seed})
        train(lf_wordnet.dataset(), config, exact)
    if index == "exact":
        return exact
    tuned = CACHE / "runs" / f"batch-tuned-{seed}"
    if not tuned.exists():
        retriever = Retriever.load(exact)
        retriever.reindex("auto")
        retriever.save(tuned)
    return tuned


def _measured(name: str, directory: Path, source: Path, turns: int, seed: int) -> list[Measurement]:
    rows = pq.read_metadata(source).num_rows
    alone, jobs = [], []
    for _ in range(turns):
        out = CACHE / "batch-out"
        shutil.rmtree(out, ignore_errors=True)
        for program, found in ((ALONE, alone), (JOB, jobs)):
            arguments = [str(directory), str(source), str(out), str(K)]
            done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr)
            found.append(json.loads(done.stdout))
    overhead = [100 * (job["seconds"] / one["seconds"] - 1) for job, one in zip(jobs, alone, strict=True)]
    memory = [(job["peak"] - one["loaded"]) / 2**20 for job, one in zip(jobs, alone, strict=True)]
    size = sum(file.stat().st_size for file in out.iterdir()) / 2**20
    shutil.rmtree(out)

    def of(metric: str, samples: list[float], unit: str) -> Measurement:
        return from_samples(TABLE, name, metric, samples, unit, seed)

    return [
        of("encode and search alone", [rows / one["seconds"] for one in alone], "rows/s"),
        of("job", [rows / job["seconds"] for job in jobs], "rows/s"),
        of("overhead of the job", overhead, "percent"),
        of("peak memory beyond model and index", memory, "MiB"),
        of("output", [size], "MiB"),
    ]


def _omikuji(source: Path, seed: int) -> list[Measurement]:
    peer = OmikujiBonsai()
    peer.train(lf_wordnet.dataset(), seed)
    texts = pq.read_table(source)["text"][:OMIKUJI_ROWS].to_pylist()
    peer.predict(texts[:100], K)
    start = time.perf_counter()
    peer.predict(texts, K)
    return [Measurement(TABLE, peer.name, "job", OMIKUJI_ROWS / (time.perf_counter() - start), "rows/s", seed)]
