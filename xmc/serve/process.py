"""One process that answers requests, from a socket that is there already until it is told to stop."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.concurrency import run_in_threadpool

from xmc.serve.app import POSTED, ServerApp
from xmc.serve.metrics import ServerMetrics
from xmc.serve.protocol import LimitedProtocol
from xmc.serve.served import ServedRun
from xmc.serve.settings import Settings

__all__ = ["ServerProcess"]

KEPT_ALIVE = 75
"""Seconds that a connection without requests is kept."""
logger = logging.getLogger("xmc.serve")


class ServerProcess(uvicorn.Server):
    """Opens the run, answers requests, and ends what is under way when it is told to stop, by SIGTERM, SIGINT or `stop`.

    One process alone answers at once that it lives, and refuses the rest (503) until the run is open. One of several takes
    no connection before: the others that share its socket answer meanwhile.

    failure: why the run could not be opened; None where it could.
    """

    def __init__(self, settings: Settings, ready: Callable[[], None]) -> None:
        """ready: called, perhaps in another thread, once requests are answered."""
        metrics = ServerMetrics()
        self._served = ServedRun(settings.run, settings.device, metrics)
        self._app = ServerApp(settings, self._served, metrics)
        self._ready, self._alone = ready, settings.workers == 1
        self.failure: Exception | None = None
        super().__init__(
            uvicorn.Config(
                self._app,
                http=_protocol(self._app),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEPT_ALIVE,
                timeout_graceful_shutdown=int(settings.limits.seconds) + 1,
            )
        )

    def answer(self, sock: socket.socket) -> None:
        """Answer requests until the process is to stop. Raises what opening the run raised."""
        self.run([sock])
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """As SIGTERM."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the run, and take connections: before that, or after it."""
        await self._app.start()
        if self._alone:
            await super().startup(sockets)
            threading.Thread(target=self._open, name="xmc-open", daemon=True).start()
            return
        await run_in_threadpool(self._open)
        if self.should_exit:
            await self._app.stop()
            return
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and end those there are with their answers."""
        self._app.stopping = True
        await super().shutdown(sockets)
        await self._app.stop()
        gc.unfreeze()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop by signals, and leave it at that: uvicorn would end the process by the same signal."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and number == signal.SIGINT
        self.should_exit = True

    def _open(self) -> None:
        try:
            self._served.open()
        except Exception as error:
            self.failure = error
            self.should_exit = True
            return
        gc.collect()
        gc.freeze()  # what is there now stays, and is not gone over again and again
        gc.collect()  # counts what is left: garbage is looked for when that has grown by a quarter
        if self._alone:
            self._ready()


def _protocol(app: ServerApp) -> type[LimitedProtocol]:
    """The protocol of an application's connections."""

    class Protocol(LimitedProtocol):
        limits = app.settings.limits
        direct = {route.encode(): route for route in POSTED}  # noqa: RUF012
        ask = staticmethod(app.ask)

    return Protocol
