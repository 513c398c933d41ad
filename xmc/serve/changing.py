"""Requests that change labels, or judge queries: who may ask, what is asked, and what is answered once it is on the disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from xmc.errors import ConflictError, InputError, StoreError
from xmc.serve.bodies import read_body
from xmc.serve.change_bodies import LabelsBody, RememberBody
from xmc.serve.failures import Refusal, refusal_of
from xmc.serve.served import ServedRun
from xmc.serve.settings import Settings
from xmc.serve.tokens import require_token

__all__ = ["ChangingRoutes"]


class ChangingRoutes:
    """What POST /labels, POST /remember and GET /version do. Changes are worked out in threads beside that which answers."""

    def __init__(self, settings: Settings, served: ServedRun) -> None:
        self._settings, self._served = settings, served

    async def labels(self, request: Request) -> Response:
        """Add, update and remove labels: all of it or nothing."""
        body = await self._read(request, LabelsBody)
        changes = self._served.now.changes
        version, scalings = await _made(lambda: changes.apply(body.edits(self._settings.limits)))
        scaled = [{"labels": scaling.labels, "scale": scaling.scale} for scaling in scalings]
        return _json({"version": version, "labels": len(changes.retriever.labels), "scaled": scaled})

    async def remember(self, request: Request) -> Response:
        """Add judged queries to the memory."""
        body = await self._read(request, RememberBody)
        body.require(self._settings.limits)
        changes = self._served.now.changes
        version = await _made(lambda: changes.remember(body.texts, body.labels))
        return _json({"version": version, "remembered": len(changes.retriever.memory or ())})

    async def version(self, request: Request) -> Response:
        """The number of the last change."""
        changes = self._served.now.changes
        version = await run_in_threadpool(changes.catch_up)
        remembered = len(changes.retriever.memory or ())
        return _json({"version": version, "labels": len(changes.retriever.labels), "remembered": remembered})

    async def _read(self, request: Request, kind: Any) -> Any:
        """The body, of one who may change labels."""
        require_token(request.headers.get("authorization"), self._settings.token)
        self._served.require_open()
        return read_body(kind, request.headers.get("content-type", ""), await request.body())


async def _made(change: Callable[[], Any]) -> Any:
    """What a change returns. Refusal for a mistake in it (422), where labels are others than it is for (409), and where it
    cannot be kept (503).
    """
    try:
        return await run_in_threadpool(change)
    except ConflictError as error:
        raise Refusal(409, str(error)) from error
    except InputError as error:
        raise refusal_of(error) from error
    except StoreError as error:
        raise Refusal(503, str(error)) from error


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
