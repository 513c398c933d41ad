"""`xmc serve` in a process of its own, and clients of it over real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmc.storage.manifests import MANIFEST

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}


class ServerProcess:
    """A server that answers. said: what it wrote to standard error until it ended, once `stop` was called."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.address, self.said = process, ("127.0.0.1", port), ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line

    def connect(self, timeout: float = 30) -> socket.socket:
        return socket.create_connection(self.address, timeout)

    def ask(self, request: bytes, timeout: float = 30) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to one request on a connection of its own."""
        with self.connect(timeout) as connection:
            with contextlib.suppress(ConnectionError):  # refused before all was sent: the answer is there
                connection.sendall(request)
            return receive(connection)

    def post(self, path: str, body: Any, timeout: float = 30) -> tuple[int, Any]:
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        status, _, answer = self.ask(head.encode() + content, timeout)
        return status, json.loads(answer)

    def get(self, path: str) -> tuple[int, bytes]:
        status, _, body = self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return status, body

    def metric(self, name: str) -> float:
        """The value of a metric, summed over its labels."""
        text = self.get("/metrics")[1].decode()
        found = re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    @property
    def children(self) -> list[int]:
        """The processes that answer, where there are several."""
        file = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [
            pid
            for pid in map(int, file.read_text().split())
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]

    @property
    def resident(self) -> int:
        """Bytes of memory of the process that answers."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.search(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[1])  # type: ignore[index]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it, and wait for its end: the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join()
        return code


def receive(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One whole response."""
    content = b""
    while b"\r\n\r\n" not in content:
        piece = connection.recv(1 << 16)
        if not piece:
            raise ConnectionError(f"the connection ended after {content!r}")
        content += piece
    head, _, body = content.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers["content-length"]):
        piece = connection.recv(1 << 20)
        if not piece:
            raise ConnectionError("the connection ended in the body")
        body += piece
    return int(first.split()[1]), headers, body


@contextlib.contextmanager
def server(run: Path, *options: object, **environment: str) -> Iterator[ServerProcess]:
    """A server that answers from a run, at a port of its own; killed at the end, if it still lives."""
    assert (run / MANIFEST).exists()
    command = [sys.executable, "-m", "xmc", "serve", str(run), "--port", "0", *map(str, options)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**ENVIRONMENT, **environment}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, process.communicate(timeout=60)
        yield ServerProcess(process, int(found[1]))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
