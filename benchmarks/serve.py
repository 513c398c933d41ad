"""Table serve: a server of the quickstart's run under 64 clients, beside `Retriever.predict` in batches of the same size.

Each method is a server of its own. "alone": 64 connections that send the next text when they have an answer, and then half of
that rate at random moments. "labels change": the same, while one more client adds and removes pairs of labels; an answer with
one of a pair was made from a half-applied change. "malformed": the same, while one more client sends requests that are refused.

predict runs in a process of its own, in turns with the loads, with the environment that a server gives itself, in batches of
the server's mean size, and of as many as there are clients. The client's share of the processors, which both have in common,
is measured with every load.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from http_load import Load, joined, load, request
from measurements import Measurement
from titles import CACHE

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.storage.manifests import MANIFEST
from xmc.training.trainer import train

__all__ = ["METHODS", "run"]

METHODS = {
    "alone, 1 process": 1,
    "alone, 2 processes": 2,
    "labels change, 1 process": 1,
    "labels change, 2 processes": 2,
    "malformed, 1 process": 1,
}
"""Processes of the server, by method."""
CLIENTS = 64
SECONDS = float(os.environ.get("XMC_SERVE_SECONDS", "60"))
TURNS = 3
"""A load and predict, one after the other, this often."""
TOKEN = "of-the-benchmark"
PAIRED = "quaggle flumph"
"""Words of labels that come and go in pairs, and of the query that finds both or neither."""


class Server:
    """`xmc serve` in processes of its own."""

    def __init__(self, directory: Path, processes: int) -> None:
        command = [sys.executable, "-m", "xmc", "serve", str(directory), "--port", "0", "--workers", str(processes)]
        environment = {**os.environ, "XMC_TOKEN": TOKEN}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        found = re.search(r"http://([\d.]+):(\d+)", self.process.stdout.readline())
        assert found, "the server did not start"
        self.address = (found[1], int(found[2]))

    def post(self, path: str, body: Any) -> Any:
        headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
        url = f"http://{self.address[0]}:{self.address[1]}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)) as answer:
            return json.load(answer)

    def batches(self) -> tuple[float, float]:
        """Queries and batches that were answered."""
        with urllib.request.urlopen(f"http://{self.address[0]}:{self.address[1]}/metrics") as answer:
            text = answer.read().decode()
        found = dict(re.findall(r"^xmc_batch_queries_(sum|count) (\S+)$", text, re.MULTILINE))
        return float(found["sum"]), float(found["count"])

    def processor(self) -> float:
        """Seconds that its processes have computed."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        fields = [
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in (self.process.pid, *children)
        ]
        return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> int:
        """Bytes of memory of the process that was started."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.findall(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[0])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class Predict:
    """`Retriever.predict` in another process."""

    def __init__(self, directory: Path) -> None:
        command = [sys.executable, str(Path(__file__).parent / "predict_rate.py"), str(directory)]
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def rate(self, size: int) -> float:
        """Queries a second in batches of this size."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{size} {min(5.0, SECONDS / TURNS)}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


class Beside:
    """Work in a thread, again and again, until it is ended. rounds: how often it was done."""

    def __init__(self, work: Callable[[int], None]) -> None:
        self.rounds, self.error = 0, None
        self._work, self._end = work, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.is_set():
            self._work(self.rounds)
            self.rounds += 1

    def end(self) -> int:
        self._end.set()
        self._thread.join()
        return self.rounds


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Each method on a copy of one run that is trained for it, and kept in the cache."""
    texts = Dataset.load("wordnet-8k").split("test").texts.to_pylist()
    for method, processes in METHODS.items():
        if methods and not method.startswith(tuple(methods)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(shutil.copytree(_trained(seed), Path(folder) / "run"))
            server = Server(directory, processes)
            try:
                rows = list(_measured(server, directory, texts, method))
            finally:
                server.stop()
        yield [Measurement("serve", method, metric, value, unit, seed) for metric, value, unit in rows]


def _trained(seed: int) -> Path:
    """The quickstart's run."""
    directory = CACHE / f"serve-{seed}"
    if not (directory / MANIFEST).exists():
        train(Dataset.load("wordnet-8k"), TrainConfig(seed=seed), directory, overwrite=True)
    return directory


def _measured(server: Server, directory: Path, texts: list[str], method: str) -> Iterator[tuple[str, float, str]]:
    requests = [request("/predict", json.dumps({"texts": [text], "k": 10}).encode()) for text in texts]
    load(server.address, requests, CLIENTS, 2.0)  # warm
    halves: list[bool] = []
    resident, predict = server.resident(), Predict(directory)
    beside = _beside(method, server, halves)
    loads, sizes, shares, computed = [], [], {name: [] for name in ("the same size", f"{CLIENTS}")}, 0.0
    for _ in range(TURNS):
        queries, batches, before = *server.batches(), server.processor()
        loads.append(load(server.address, requests, CLIENTS, SECONDS / TURNS))
        computed += server.processor() - before
        after = server.batches()
        sizes.append((after[0] - queries) / (after[1] - batches))
        for name, size in zip(shares, (max(1, round(sizes[-1])), CLIENTS), strict=True):
            shares[name].append(100 * loads[-1].rate / predict.rate(size))
    full = joined(loads)
    half = load(server.address, requests, CLIENTS, SECONDS / 2, rate=full.rate / 2)
    rounds = None if beside is None else beside.end()
    predict.end()
    yield "requests", full.rate, "1/s"
    yield "failures", len(full.failures) + len(half.failures), "requests"
    yield from _latencies("full load", full)
    yield from _latencies("half load", half)
    yield "queries in a batch", float(np.mean(sizes)), "queries"
    for name, values in shares.items():
        yield f"share of predict in batches of {name}", float(np.median(values)), "%"
    yield "processor, client", full.processor / full.seconds, "cores"
    yield "processor, server", computed / full.seconds, "cores"
    if rounds is not None:
        yield "rounds of the other client", rounds, "rounds"
    if method.startswith("labels"):
        yield "answers that show a half-applied change", sum(halves), "answers"
    if method.startswith("malformed"):
        yield "memory grown", (server.resident() - resident) / 2**20, "MiB"


def _latencies(name: str, measured: Load) -> Iterator[tuple[str, float, str]]:
    for share, title in ((0.5, "p50"), (0.99, "p99")):
        yield f"{title}, {name}", 1_000 * float(np.quantile(measured.latencies, share)), "ms"


def _beside(method: str, server: Server, halves: list[bool]) -> Beside | None:
    """What another client does meanwhile. halves: whether a search saw one label of a pair without the other."""
    if method.startswith("labels"):

        def change(number: int) -> None:
            pair = [{"uid": f"pair-{number}-{side}", "text": f"{PAIRED} {side}"} for side in ("left", "right")]
            server.post("/labels", {"add": pair})
            halves.append(_shows_half(server, number, present=True))
            server.post("/labels", {"remove": [label["uid"] for label in pair]})
            halves.append(_shows_half(server, number, present=False))

        return Beside(change)
    if method.startswith("malformed"):
        bodies = [b"{", b'{"texts": 7}', b'{"texts": ["a"], "k": -1}', b'{"texts": ["a"], "top": 1}', b"[" * 5_000]
        wrong = [request("/predict", body) for body in bodies]

        def refused(number: int) -> None:
            answers = load(server.address, wrong, 1, 0.5)
            assert not answers.latencies, "a malformed request was answered"

        return Beside(refused)
    return None


def _shows_half(server: Server, number: int, present: bool) -> bool:
    """Whether an answer has other than both labels of a pair that is there, or none of one that is gone."""
    answer = server.post("/predict", {"texts": [PAIRED] * 4, "k": 10})["answers"]
    counts = {sum(label["uid"].startswith(f"pair-{number}-") for label in one["labels"]) for one in answer}
    return counts != ({2} if present else {0})
