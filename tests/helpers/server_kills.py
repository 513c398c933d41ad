"""A server that is killed at random moments while clients change its labels, and what must be there after each start.

python server_kills.py RUN KILLS WORKERS [SEED]    on a copy of a run with a memory
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from commands import ENVIRONMENT

import xmc

TOKEN = "a-token-of-tests"
HEADERS = {"authorization": f"Bearer {TOKEN}"}
WORDS = ("turquoise", "mauve", "ochre", "teal", "ivory", "crimson", "olive", "amber")
QUESTIONS = [f"a {word} boat" for word in WORDS]
K = 20


class Server:
    """`xmc serve` in a process group of its own, at one port however often it is started."""

    def __init__(self, run: Path, workers: int) -> None:
        self.run, self.workers = run, workers
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = run.parent / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to start."""
        arguments = ["serve", str(self.run), "--port", str(self.port), "--workers", str(self.workers)]
        environment = {**ENVIRONMENT, "XMC_TOKEN": TOKEN}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "xmc", *arguments],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until all of it answers."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(f"{self.address}/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"the server does not start: {self.log.read_text()}")

    def kill(self) -> None:
        """End all of its processes by SIGKILL, if there are any."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        while True:  # its children, which have another parent now
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.005)

    def stop(self) -> None:
        """End it by SIGTERM."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(timeout=120) == 0, self.log.read_text()


@dataclass
class Writer:
    """A client that changes labels of its own, and knows what was confirmed to it.

    labels: number of the text of each label that is there. doubt: the labels as they are if the last change, which was not
    confirmed, was made; None where all was confirmed. remembered, unsure: texts that were confirmed, and that were not.
    versions: of the confirmed changes.
    """

    name: int
    random: random.Random
    labels: dict[str, int] = field(default_factory=dict)
    doubt: dict[str, int] | None = None
    remembered: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    count: int = 0
    failure: BaseException | None = None

    def work(self, address: str) -> None:
        """Change labels until the server is gone."""
        try:
            with httpx.Client(base_url=address, headers=HEADERS, timeout=60) as client:
                while True:
                    self._step(client)
        except httpx.TransportError:
            pass
        except BaseException as error:
            self.failure = error

    def _step(self, client: httpx.Client) -> None:
        self.count += 1
        drawn = self.random.random()
        if drawn < 0.25:
            text = f"{self.name} {self.count} a {self.random.choice(WORDS)} thing"
            self.unsure.append(text)
            self._said(client.post("/remember", json={"texts": [text], "labels": [[f"base {self.name}"]]}))
            self.remembered.append(self.unsure.pop())
            return
        after, body = dict(self.labels), dict[str, Any]()
        if drawn < 0.7 or not after:
            for number in range(self.random.randint(1, 3)):
                uid = f"{self.name} {self.count} {number}"
                after[uid] = self.count
                body.setdefault("add", []).append({"uid": uid, "text": text_of(uid, self.count), "n": self.count})
        if after and drawn > 0.5:
            uid = self.random.choice(sorted(self.labels) or [""])
            if uid in self.labels:
                del after[uid]
                body["remove"] = [uid]
        kept = sorted(set(after) & set(self.labels))
        if kept and drawn > 0.6:
            uid = self.random.choice(kept)
            after[uid] = self.count
            body["update"] = [{"uid": uid, "text": text_of(uid, self.count), "n": self.count}]
        if body:
            self.doubt = after
            self._said(client.post("/labels", json={**body, "score": "raw"}))  # whatever stands beside a label
            self.labels, self.doubt = after, None

    def _said(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.text
        self.versions.append(response.json()["version"])

    def settle(self, there: dict[str, int], remembered: Counter[str]) -> None:
        """Compare with what the server has: all that was confirmed, and of the last change all or nothing."""
        own = {uid: n for uid, n in there.items() if uid.startswith(f"{self.name} ")}
        assert own == self.labels or own == self.doubt, (self.name, self.labels, self.doubt, own)
        self.labels, self.doubt = own, None
        for text in self.remembered:
            assert remembered[text] == 1, f"{text!r} was confirmed, and is remembered {remembered[text]} times"
        for text in list(self.unsure):
            assert remembered[text] <= 1, f"{text!r} is remembered {remembered[text]} times"
            self.unsure.remove(text)
            if remembered[text]:
                self.remembered.append(text)


def text_of(uid: str, count: int) -> str:
    """The text of a label: words by which it is found, and which differ."""
    return f"{WORDS[count % len(WORDS)]} {WORDS[(count // 8 + len(uid)) % len(WORDS)]} boat {uid}"


def state(run: Path) -> tuple[xmc.Retriever, dict[str, int], Counter[str]]:
    """A run with its journal as they lie there: opened here, labels with the numbers of their texts, remembered queries."""
    from xmc.serve.changes import LabelChanges

    retriever = xmc.Retriever.load(run)
    LabelChanges(run, retriever)
    table = retriever.labels.table
    numbers = table["n"].to_pylist() if "n" in table.column_names else [None] * len(table)
    memory = retriever.memory
    assert memory is not None
    there = {uid: n for uid, n in zip(table["uid"].to_pylist(), numbers, strict=True) if n is not None}
    return retriever, there, Counter(memory.texts.to_pylist())


def asked(address: str) -> list[list[tuple[str, float]]]:
    """What the server answers to the questions."""
    answered = httpx.post(f"{address}/predict", json={"texts": QUESTIONS, "k": K}, timeout=60)
    assert answered.status_code == 200, answered.text
    return [[(label["uid"], label["score"]) for label in one["labels"]] for one in answered.json()["answers"]]


def require_answers(address: str, retriever: xmc.Retriever) -> None:
    """The server's answers are those of a retriever; labels whose scores differ by rounding may change places."""
    uids, scores = retriever.predict(QUESTIONS, K)
    for row, said in enumerate(asked(address)):
        np.testing.assert_allclose([score for _, score in said], scores[row], atol=2e-6)
        exact = dict(zip(uids[row].tolist(), scores[row].tolist(), strict=True))
        last = scores[row][-1]
        for uid, score in said:
            assert abs(exact.get(uid, last) - score) < 2e-6, (uid, score, exact.get(uid))


def remade(base: Path, writers: list[Writer]) -> xmc.Retriever:
    """The run without any journal, with the writers' labels and remembered queries given to the library at once."""
    retriever = xmc.Retriever.load(base)
    prepare(retriever, len(writers))
    texts = [(text, [f"base {writer.name}"]) for writer in writers for text in writer.remembered]
    labels = [(uid, count) for writer in writers for uid, count in writer.labels.items()]
    retriever.remember([text for text, _ in texts], [uids for _, uids in texts])
    records = [{"uid": uid, "text": text_of(uid, count), "n": count} for uid, count in labels]
    retriever.change_labels(records, score="raw")
    return retriever


def prepare(retriever: xmc.Retriever, writers: int) -> None:
    """A label of each writer, which stays."""
    retriever.add_labels(
        [f"a boat of writer {name}" for name in range(writers)], [f"base {name}" for name in range(writers)]
    )


def kill_and_check(base: Path, folder: Path, kills: int, workers: int, seed: int, writers: int = 4) -> dict[str, int]:
    """Kill a server of a copy of `base`, so many times, while clients change labels; AssertionError for any loss.

    Of four kills one comes while it starts, one while it writes the run, if it does, and two at any moment of the work.
    """
    run = folder / "run"
    retriever = xmc.Retriever.load(base)
    prepare(retriever, writers)
    retriever.save(run)
    moments = random.Random(seed)
    clients = [Writer(name, random.Random(f"{seed} {name}")) for name in range(writers)]
    server = Server(run, workers)
    try:
        counts = _killed(server, clients, kills, moments)
        server.start()
        server.wait()
        opened, there, remembered = state(run)
        for client in clients:
            client.settle(there, remembered)
        require_answers(server.address, opened)
        require_answers(server.address, remade(base, clients))
        server.stop()
    finally:
        server.kill()
    assert xmc.Retriever.load(run).labels.table.num_rows == len(opened.labels)
    versions = [version for client in clients for version in client.versions]
    assert len(set(versions)) == len(versions)
    assert all(client.versions == sorted(client.versions) for client in clients)
    assert version_of(run) >= max(versions, default=0)
    return {**counts, "changes confirmed": len(versions), "last version": version_of(run)}


def _killed(server: Server, clients: list[Writer], kills: int, moments: random.Random) -> Counter[str]:
    """Kill the server, so many times; how many kills came when."""
    counts = Counter[str]()
    for number in range(kills):
        server.start()
        if number % 4 == 3:
            time.sleep(moments.uniform(0, 4))
            server.kill()
            counts["while it started"] += 1
            continue
        server.wait()
        opened, there, remembered = state(server.run)
        for client in clients:
            client.settle(there, remembered)
        require_answers(server.address, opened)
        threads = [threading.Thread(target=client.work, args=(server.address,)) for client in clients]
        for thread in threads:
            thread.start()
        if number % 4 == 1:
            counts["while it wrote the run"] += _until(lambda: _writes(server.run), 6)
            if moments.random() < 0.5:  # in the run's place already, or nearly so, and not out of the journal
                _until(lambda: not _writes(server.run), 6)
                time.sleep(moments.uniform(0, 0.01))
            else:
                time.sleep(moments.uniform(0, 0.15))
        else:
            time.sleep(moments.uniform(0.05, 1.5))
            counts["at work"] += 1
        server.kill()
        for thread in threads:
            thread.join()
        for client in clients:
            if client.failure is not None:
                raise client.failure
    return counts


def _writes(run: Path) -> bool:
    """Whether a run is being written beside this one."""
    return bool(list(run.parent.glob(f".{run.name}.*.tmp")))


def _until(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait for something, but not for longer than this; whether it came."""
    until = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.001)
    return held


def version_of(run: Path) -> int:
    """The number of the last change that a stopped run holds."""
    mark = xmc.Retriever.load(run).mark
    return 0 if mark is None else mark.number


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        begun = time.monotonic()
        kills, workers, *seed = map(int, sys.argv[2:])
        found = kill_and_check(Path(sys.argv[1]), Path(scratch), kills, workers, *(seed or [0]))
        print(found, f"{time.monotonic() - begun:.0f} s")
