"""The processes of a server: one that answers, or several that share a socket and are watched over."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from xmc.errors import ConfigError, XMCError, boundary, require_package
from xmc.faults import FAULT, tell, watch_threads
from xmc.serve.settings import Settings
from xmc.storage.manifests import read_manifest
from xmc.terminal import VisibleFormatter, show_any_text

__all__ = ["serve"]

NEEDED = ("starlette", "uvicorn", "httptools", "prometheus_client")
"""What the server imports beside what every command does."""
PACKAGES = "starlette 'uvicorn[standard]' prometheus-client"
"""What brings it, as pip is told."""
BACKLOG = 2_048
"""Number of connections that may wait to be taken."""
SHORT_LIFE = 10.0
"""Seconds; after a process that ended sooner the next one begins after a pause."""
PAUSE = 1.0
"""Seconds of that pause."""
GRACE = 5.0
"""Seconds that a stopping process has beyond the time limit of a request."""
SHARED_METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of the folder through which processes share their counts."""
THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
logger = logging.getLogger("xmc.serve")


def serve(settings: Settings, said: Callable[[str], None]) -> None:
    """Answer requests until the process is told to stop by SIGTERM or SIGINT.

    said: told one line when requests are answered, with the address. Raises StoreError where the run cannot be opened,
    ConfigError where the address cannot be had, DependencyError where a package is missing.
    """
    for name in NEEDED:
        require_package(name, "`xmc serve` is a server", PACKAGES)
    read_manifest(settings.run, "run", verify=False)
    _share_processors(settings.workers)
    with _listening(settings) as sock:
        host, port = sock.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        processes = "" if settings.workers == 1 else f", {settings.workers} processes"

        def ready() -> None:
            said(f"answering from {settings.run} at {address}{processes}")

        if settings.workers == 1:
            from xmc.serve.process import ServerProcess

            ServerProcess(settings, ready).answer(sock)
        else:
            with tempfile.TemporaryDirectory(prefix="xmc-serve-") as folder:
                os.environ[SHARED_METRICS] = folder
                _Supervisor(settings, sock, ready).watch()


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """A socket that listens. ConfigError for an address that is taken, or that this machine has not."""
    with boundary(
        ConfigError, f"{settings.host}, port {settings.port} cannot be listened at", "Name another --host or --port."
    ):
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    with sock:
        yield sock


def _share_processors(workers: int) -> None:
    """Let each process compute in its share of the processors, and threads that wait leave them to others.

    What the environment says already stays. Before torch, numba and numpy are imported.
    """
    share = max(1, len(os.sched_getaffinity(0)) // workers) if hasattr(os, "sched_getaffinity") else 1
    for name in THREADS:
        os.environ.setdefault(name, str(share))
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@dataclass
class _Worker:
    """A process, its end of a pipe, and when it began. ready: whether it answers."""

    process: BaseProcess
    pipe: Connection
    ready: bool = False
    since: float = field(default_factory=time.monotonic)


class _Supervisor:
    """Keeps a number of processes that answer from one socket."""

    def __init__(self, settings: Settings, sock: socket.socket, ready: Callable[[], None]) -> None:
        self._settings, self._sock, self._ready = settings, sock, ready
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._stopping = False
        self._told = False
        self._wake, self._woken = os.pipe()

    def watch(self) -> None:
        """Start processes, and again where one ends, until a signal; then let them end their requests."""
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._workers = [self._started() for _ in range(self._settings.workers)]
            while not self._stopping:
                pipes = {worker.pipe: worker for worker in self._workers}
                for source in wait([*pipes, self._wake]):
                    if source in pipes:
                        self._heard(pipes[source])
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._wake)
            os.close(self._woken)

    def _heard(self, worker: _Worker) -> None:
        """A process is ready, or cannot open the run, or has ended."""
        try:
            failure = worker.pipe.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return
        if failure is not None:
            if self._told:
                logger.error("a process could not open the run: %s", failure)
                return
            raise failure
        worker.ready = True
        if not self._told and all(worker.ready for worker in self._workers):
            self._told = True
            self._ready()

    def _replace(self, worker: _Worker) -> None:
        worker.process.join()
        if self._stopping:
            return
        code, pid = worker.process.exitcode, worker.process.pid
        if not self._told:
            if code == FAULT:  # it has said so itself, with a report
                sys.exit(FAULT)
            raise XMCError(f"A process of the server ended with code {code} before it answered; its messages say why.")
        logger.error("process %s of the server ended with code %s; another takes its place", pid, code)
        from xmc.serve.metrics import forget_process

        forget_process(int(pid or 0))
        if time.monotonic() - worker.since < SHORT_LIFE:
            time.sleep(PAUSE)
        self._workers[self._workers.index(worker)] = self._started()

    def _started(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_answer, args=(self._settings, self._sock, theirs, logger.getEffectiveLevel())
        )
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _signalled(self, *_: Any) -> None:
        self._stopping = True
        os.write(self._woken, b"x")

    def _end(self) -> None:
        """Let all processes end what is under way; end by force those that take too long."""
        self._stopping = True
        for worker in self._workers:
            if worker.process.is_alive():
                worker.process.terminate()
        until = time.monotonic() + self._settings.limits.seconds + GRACE
        for worker in self._workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _answer(settings: Settings, sock: socket.socket, pipe: Connection, level: int) -> None:
    """A process of several: it ends too where the one that watches over it is gone."""
    show_any_text()
    watch_threads()
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logger.setLevel(level)
    from xmc.serve.process import ServerProcess

    server = ServerProcess(settings, lambda: pipe.send(None))

    def follow() -> None:
        with contextlib.suppress(EOFError, OSError):
            pipe.recv()
        server.stop()

    threading.Thread(target=follow, name="xmc-supervisor", daemon=True).start()
    try:
        server.answer(sock)
    except XMCError as error:
        with contextlib.suppress(OSError):
            pipe.send(error)
        sys.exit(2)
    except Exception as error:
        sys.exit(tell(error))
