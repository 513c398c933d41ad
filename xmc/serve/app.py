"""The routes of a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from xmc.serve.answering import key_of
from xmc.serve.batching import Asked, Batcher
from xmc.serve.bodies import EmbedBody, PredictBody, read_body
from xmc.serve.changing import ChangingRoutes
from xmc.serve.failures import Refusal, refusal_of
from xmc.serve.front import page_files
from xmc.serve.looking import label_by_uid, labels_by_text
from xmc.serve.metrics import CONTENT_TYPE, ServerMetrics
from xmc.serve.openapi import described
from xmc.serve.served import ServedRun
from xmc.serve.settings import Settings

__all__ = ["POSTED", "ServerApp", "response_of"]

POSTED: dict[str, type[PredictBody] | type[EmbedBody]] = {"/predict": PredictBody, "/embed": EmbedBody}
"""Routes whose requests are gathered into batches, and the models of their bodies."""
METHODS = {**{route: ["POST"] for route in POSTED}, "/labels": ["GET", "POST"], "/remember": ["POST"]}
"""Methods of routes that are not for GET alone."""
JSON_HEADER = (b"content-type", b"application/json")
OK = 200


class ServerApp:
    """The ASGI application of one process; `start` is awaited in the event loop before its first request, `stop` at the end.

    stopping: whether the server is about to end: it answers what it is asked, and tells load balancers to ask others.
    """

    def __init__(self, settings: Settings, served: ServedRun, metrics: ServerMetrics) -> None:
        self.settings, self.served, self.metrics = settings, served, metrics
        self.stopping = False
        self._batcher: Batcher | None = None
        self._counters: dict[tuple[str, int], Any] = {}
        self._seconds = {route: metrics.seconds.labels(route) for route in POSTED}
        self._changing = ChangingRoutes(settings, served)
        table = {
            **page_files(),
            **dict.fromkeys(POSTED, self._elsewhere),
            "/labels": self._labels,
            "/labels/{uid:path}": self._label,
            "/health": self._health,
            "/ready": self._ready,
            "/remember": self._changing.remember,
            "/version": self._changing.version,
            "/metrics": self._metrics,
            "/openapi.json": self._openapi,
        }
        self._known = {_first_part(path) for path in table}
        self._routes = Starlette(
            routes=[Route(path, endpoint, methods=METHODS.get(path)) for path, endpoint in table.items()],
            exception_handlers={Refusal: _refused, HTTPException: _not_there, Exception: _refused},
        )

        self._routes.router.redirect_slashes = False

    @property
    def batcher(self) -> Batcher:
        """Gathers requests; there from `start` on."""
        assert self._batcher is not None
        return self._batcher

    async def start(self) -> None:
        """Begin to gather requests."""
        self._batcher = Batcher(self.served.answer, self.settings.limits, self.metrics)

    async def stop(self) -> None:
        """Refuse what still waits, and close the run."""
        self.stopping = True
        await self.batcher.close()
        await run_in_threadpool(self.served.close)

    def ask(self, route: str, content_type: str, body: bytes, done: Callable[[bytes | Refusal], None]) -> None:
        """Take a request of one of the routes `POSTED`.

        done: called with the response's body, or with why there is none: before this returns, or later, from the event loop.
        """
        begin = time.perf_counter()

        def finish(outcome: bytes | Refusal) -> None:
            self._count(route, outcome.status if isinstance(outcome, Refusal) else OK)
            self._seconds[route].observe(time.perf_counter() - begin)
            done(outcome)

        try:
            asked = read_body(POSTED[route], content_type, body)
            asked.require(self.settings.limits)
            self.served.require_open()
            self.batcher.add(Asked(key_of(asked), asked, len(asked), finish))
        except Exception as error:
            finish(refusal_of(error))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The application as ASGI servers call it."""
        if scope["type"] != "http":
            return
        if scope["path"] in POSTED and scope["method"] == "POST":
            await self._posted(scope, receive, send)
        else:
            await self._routes(scope, receive, self._counted(scope["path"], send))

    async def _posted(self, scope: Any, receive: Any, send: Any) -> None:
        """`ask`, by ASGI."""
        content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        pieces, more = [], True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client is gone
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        answer: asyncio.Future[bytes | Refusal] = asyncio.get_running_loop().create_future()
        self.ask(
            scope["path"], content_type.decode("latin-1"), b"".join(pieces), lambda outcome: _tell(answer, outcome)
        )
        outcome = await answer
        status, headers, body = response_of(outcome)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _count(self, route: str, status: int) -> None:
        counter = self._counters.get((route, status))
        if counter is None:
            counter = self._counters[route, status] = self.metrics.requests.labels(route, str(status))
        counter.inc()

    def _counted(self, path: str, send: Any) -> Any:
        """The function by which a response is sent, which counts it under the beginning of its path."""
        route = _first_part(path) if _first_part(path) in self._known else "other"

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._count(route, message["status"])
            await send(message)

        return counted

    async def _elsewhere(self, request: Request) -> Response:
        """Never called: `_posted` answers these routes, which stand in the table for what it says of other methods."""
        raise AssertionError(request.url.path)

    async def _labels(self, request: Request) -> Response:
        """Labels by words of their text; by POST, a change of labels."""
        if request.method == "POST":
            return await self._changing.labels(request)
        asked = request.query_params
        try:
            limit = int(asked.get("limit", "20"))
        except ValueError as error:
            raise Refusal(422, f"limit must be a whole number, but is {asked['limit'][:20]!r}.") from error
        labels = self.served.now.retriever.labels
        found = await run_in_threadpool(labels_by_text, labels, asked.get("text", ""), limit)
        return _json({"labels": found})

    async def _label(self, request: Request) -> Response:
        """A label by its uid."""
        labels = self.served.now.retriever.labels
        return _json(await run_in_threadpool(label_by_uid, labels, request.path_params["uid"]))

    async def _health(self, request: Request) -> Response:
        """Whether the process lives."""
        return _json({"status": "alive"})

    async def _ready(self, request: Request) -> Response:
        """Whether requests are answered."""
        if self.stopping:
            raise Refusal(503, "The server is stopping.")
        now = self.served.now
        return _json({"status": "ready", "labels": len(now.retriever.labels), "version": now.changes.version})

    async def _metrics(self, request: Request) -> Response:
        """Counters."""
        self.metrics.waiting.set(self.batcher.open)
        return Response(await run_in_threadpool(self.metrics.text), media_type=CONTENT_TYPE)

    async def _openapi(self, request: Request) -> Response:
        """What may be asked."""
        return _json(described())


def response_of(outcome: bytes | Refusal) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of what `ask` told."""
    if not isinstance(outcome, Refusal):
        return OK, [JSON_HEADER, (b"content-length", b"%d" % len(outcome))], outcome
    headers = [(name.encode(), value.encode()) for name, value in outcome.headers.items()]
    body = outcome.body
    return outcome.status, [*headers, JSON_HEADER, (b"content-length", b"%d" % len(body))], body


def _first_part(path: str) -> str:
    return f"/{path.lstrip('/').partition('/')[0]}"


def _tell(answer: asyncio.Future[bytes | Refusal], outcome: bytes | Refusal) -> None:
    if not answer.done():
        answer.set_result(outcome)


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    refusal = refusal_of(error)
    return Response(refusal.body, refusal.status, refusal.headers, "application/json")


async def _not_there(request: Request, error: Exception) -> Response:
    """No such route, or another method than it has."""
    assert isinstance(error, HTTPException)
    path, method = request.url.path[:100], request.method[:20]
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        refusal = Refusal(405, f"{path} is for {headers.get('Allow', 'other methods')}, and not for {method}.")
    else:
        refusal = Refusal(error.status_code, f"There is nothing at {path}; GET /openapi.json says what there is.")
    return Response(refusal.body, refusal.status, {**headers, **refusal.headers}, "application/json")
