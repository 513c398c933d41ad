"""Real servers: processes, sockets, and clients that mean no good."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from commands import fail_each
from malformed_requests import malformed
from server_process import ServerProcess, receive, server

import xmc
from xmc.storage.manifests import MANIFEST

pytestmark = pytest.mark.slow
TEXTS = ["a red thing", "blue", "something green"]


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


class Clients:
    """Threads that ask the same again and again, each over connections of its own, until they are ended."""

    def __init__(self, running: ServerProcess, count: int = 3) -> None:
        self.running, self.statuses, self.errors = running, Counter[int](), list[BaseException]()
        self.answered: list[list[str]] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._end.is_set():
            try:
                status, answer = self.running.post("/predict", {"texts": TEXTS, "k": 2})
            except (OSError, ValueError) as error:
                self.errors.append(error)
                continue
            self.statuses[status] += 1
            if status == 200:
                self.answered.append([label["uid"] for one in answer["answers"] for label in one["labels"]])

    def end(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def test_malformed_requests_are_told_why_and_leave_nothing(run: Path) -> None:
    count = int(os.environ.get("XMC_CASES", "5000"))
    statuses: Counter[int] = Counter()
    with server(run) as running:
        resident = []
        for number, request in enumerate(malformed(count + 2_000)):
            status, _, body = running.ask(request)
            assert 400 <= status < 500, (status, request[:300], body[:300])
            error = json.loads(body)["error"]
            assert error["status"] == status
            assert error["message"].count(" ") >= 3, error
            assert len(error["message"]) < 1_500
            statuses[status] += 1
            if number >= 2_000 and number % 50 == 0:  # what is allocated once is there
                resident.append(running.resident)
        assert running.post("/predict", {"texts": TEXTS})[0] == 200
        fifth = len(resident) // 5
        grown = np.median(resident[-fifth:]) - np.median(resident[:fifth])
        assert grown < 2_500 * count, f"{grown:,} bytes more: a request that is kept has some thousand"
        assert running.stop() == 0
        assert "Traceback" not in running.said
    assert set(statuses) >= {400, 404, 405, 413, 415, 422, 431}


def test_slow_clients_and_silent_ones_do_not_stop_others(run: Path) -> None:
    with server(run, "--timeout", "3s") as running:
        running.post("/predict", {"texts": TEXTS})
        heads = [running.connect() for _ in range(100)]
        bodies = [running.connect() for _ in range(100)]
        silent = [running.connect() for _ in range(100)]
        deaf = [running.connect() for _ in range(20)]
        for connection in heads:
            connection.sendall(b"GET /health HTTP/1.1\r\n")
        for connection in bodies:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
            )
        large = json.dumps({"texts": ["a red thing"] * 256, "k": 1000}).encode()
        head = b"POST /predict HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(large)
        for connection in deaf:
            connection.sendall(head + large)  # and its answer is not read
        served = 0
        slow, piece = [*heads, *bodies], b"X-Slow: yes\r\n"
        end = time.monotonic() + 8
        while time.monotonic() < end:
            for place, connection in enumerate(slow):
                byte = piece[served % len(piece) : served % len(piece) + 1] if place < 100 else b" "
                with contextlib.suppress(OSError):  # sent away
                    connection.sendall(byte)
            assert running.post("/predict", {"texts": TEXTS}, timeout=10)[0] == 200
            served += 1
        for connection in slow:
            status, headers, body = receive(connection)
            assert status == 408, body
            assert headers["connection"] == "close"
        for connection in silent:
            assert connection.recv(10) == b""
        for connection in [*slow, *silent, *deaf]:
            connection.close()
        assert served > 20
        assert running.stop() == 0


def test_a_full_queue_does_not_stop_others(run: Path) -> None:
    with server(run, "--max-waiting", 4) as running, ThreadPoolExecutor(24) as pool:
        heavy = {"texts": ["a red thing " * 400] * 20, "k": 100, "passages": {"tokens": 32}}
        asked = [pool.submit(running.post, "/predict", heavy) for _ in range(60)]
        health = [running.get("/health")[0] for _ in range(20)]
        statuses = Counter(one.result()[0] for one in asked)
        assert set(health) == {200}
        assert set(statuses) == {200, 429}
        assert running.post("/predict", {"texts": TEXTS})[0] == 200
        status, headers, _ = running.ask(b"GET /health HTTP/1.0\r\n\r\n")
        assert (status, headers["connection"]) == (200, "close")


def test_time_is_limited(run: Path) -> None:
    with server(run, "--timeout", "1s", "--max-texts", 4000, "--max-body", "64MB") as running:
        body = {"texts": ["red blue green " * 2_000] * 2_000, "k": 1000}
        status, answer = running.post("/predict", body)
        assert status == 504, answer
        assert "longer than 1 seconds" in answer["error"]["message"]
        wait_for(lambda: running.post("/predict", {"texts": TEXTS})[0] == 200)


def test_a_replaced_run_is_taken_over_and_no_request_is_lost(run: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    shutil.copytree(run, directory)
    retriever = xmc.Retriever.load(directory)
    before = retriever.predict(TEXTS, 2)[0].ravel().tolist()
    retriever.remove_labels([before[0]])
    after = retriever.predict(TEXTS, 2)[0].ravel().tolist()
    with server(directory) as running:
        clients = Clients(running)
        wait_for(lambda: len(clients.answered) > 20)
        retriever.save(directory, overwrite=True)
        wait_for(lambda: clients.answered[-1] == after)
        broken = tmp_path / "broken"
        shutil.copytree(directory, broken)
        manifest = json.loads((broken / MANIFEST).read_text())
        manifest["files"]["labels.parquet"]["sha256"] = "0" * 64
        (broken / MANIFEST).write_text(json.dumps(manifest))
        os.rename(directory, tmp_path / "away")  # noqa: PTH104
        os.rename(broken, directory)  # noqa: PTH104
        wait_for(lambda: running.metric("xmc_takeovers_total") >= 2)
        answered = len(clients.answered)
        wait_for(lambda: len(clients.answered) > answered + 20)
        clients.end()
        assert set(clients.statuses) == {200}
        assert not clients.errors
        assert {tuple(answer) for answer in clients.answered} == {tuple(before), tuple(after)}
        assert clients.answered[-1] == after
        assert running.stop() == 0
        assert "is left aside" in running.said
        assert (directory / MANIFEST).exists()


def test_several_processes_answer_and_one_that_dies_is_replaced(run: Path) -> None:
    with server(run, "--workers", 2) as running:
        wait_for(lambda: len(running.children) == 2)
        first = running.children
        clients = Clients(running)
        wait_for(lambda: len(clients.answered) > 50)
        os.kill(first[0], signal.SIGKILL)
        wait_for(lambda: len(running.children) == 2 and running.children != first)
        wait_for(lambda: running.get("/ready")[0] == 200)
        answered = len(clients.answered)
        wait_for(lambda: len(clients.answered) > answered + 50)
        clients.end()
        assert set(clients.statuses) == {200}  # one that starts takes no connection before it can answer
        assert clients.statuses[200] > 100
        assert len(clients.errors) <= 3, clients.errors  # at most one for each client, whose process was killed
        assert running.metric("xmc_requests_total") >= clients.statuses[200]
        assert running.stop() == 0
        assert "another takes its place" in running.said


def test_a_stop_ends_what_is_under_way(run: Path) -> None:
    with server(run) as running:
        running.post("/predict", {"texts": TEXTS})
        heavy = json.dumps({"texts": ["red blue green " * 100] * 200, "k": 50}).encode()
        head = b"POST /predict HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(heavy)
        connections = [running.connect() for _ in range(10)]
        for connection in connections:
            connection.sendall(head + heavy)
        wait_for(lambda: running.metric("xmc_open_requests") > 0 or running.metric("xmc_batch_queries_sum") > 3)
        running.process.send_signal(signal.SIGTERM)
        for connection in connections:
            status, _, body = receive(connection)
            assert status == 200, body[:300]
            assert len(json.loads(body)["answers"]) == 200
        assert running.process.wait(30) == 0
        with pytest.raises(OSError, match="refused"):
            running.connect(1)


def test_answers_over_sockets_are_those_of_the_library(run: Path) -> None:
    """Kept connections, requests that come in pieces, or several in one piece."""
    expected = xmc.Retriever.load(run).predict(TEXTS, 2)[0]
    requests = []
    for text in TEXTS:
        content = json.dumps({"texts": [text], "k": 2}).encode()
        head = b"POST /predict HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content)
        requests.append(head + content)
    with server(run) as running:
        for pieces in ([b"".join(requests)], [bytes([byte]) for byte in b"".join(requests)], requests):
            with running.connect() as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in pieces:
                    connection.sendall(piece)
                content = b""
                while content.count(b"HTTP/1.1 200 OK") < 3 or not content.endswith(b'"version":0}'):
                    content += connection.recv(1 << 16)
            bodies = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in content.split(b"HTTP/1.1 200 OK")[1:]]
            uids = [[label["uid"] for label in body["answers"][0]["labels"]] for body in bodies]
            np.testing.assert_array_equal(uids, expected)
        chunked = (
            b"POST /embed HTTP/1.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        with running.connect() as connection:
            connection.sendall(chunked)
            assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b'8\r\n{"texts"\r\n9\r\n: ["red"]\r\n1\r\n}\r\n0\r\n\r\n')
            assert receive(connection)[0] == 200


def test_neither_token_nor_texts_are_logged(run: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    shutil.copytree(run, directory)
    token = tmp_path / "token"
    token.write_text("of-this-test\n")
    with server(directory, "--token-file", token, "--workers", 2) as running:
        body = b'{"add": [{"uid": "mauve-label", "text": "mauve"}]}'
        for given in ("of-this-test", "of-another-test"):
            head = f"POST /labels HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer {given}\r\n"
            status, _, _ = running.ask(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert status == (200 if given == "of-this-test" else 401)
        running.post("/predict", {"texts": ["a mauve thing"], "where": "mauve"})
        running.ask(b"GET /labels?text=mauve HTTP/9\r\n\r\n")
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (running.process.pid, *running.children)]
        assert running.stop() == 0
        assert "of-this-test" not in running.said
        assert "mauve" not in running.said
        assert not any(b"of-this-test" in command for command in commands)


def test_what_keeps_a_server_from_starting(run: Path, tmp_path: Path) -> None:
    empty = tmp_path / "token"
    empty.write_text("\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        fail_each(
            (["serve", tmp_path / "none"], "does not exist"),
            (["serve", run, "--port", port], "cannot be listened at"),
            (["serve", run, "--host", "no.such.host.invalid"], "Name another --host or --port"),
            (["serve", run, "--token-file", empty], "visible ASCII"),
            (["serve", run, "--token-file", tmp_path / "none"], "cannot be read"),
            (["serve", run, "--timeout", "soon"], "--timeout must be a duration"),
        )
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "labels.parquet").write_bytes(b"no parquet")
    fail_each(
        (["serve", broken, "--port", 0], "labels.parquet"),
        (["serve", broken, "--port", 0, "--workers", 2], "labels.parquet"),
    )
