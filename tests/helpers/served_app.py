"""The server's application in this process, asked without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from xmc.serve.app import ServerApp
from xmc.serve.metrics import ServerMetrics
from xmc.serve.served import ServedRun
from xmc.serve.settings import Settings

T = TypeVar("T")


def with_app(run: Path, use: Callable[[httpx.AsyncClient, ServerApp], Awaitable[T]], **settings: Any) -> T:
    """What `use` returns, which gets a client of the application and the application itself. settings: of Settings."""

    async def inside() -> T:
        metrics = ServerMetrics()
        served = ServedRun(run, metrics=metrics)
        app = ServerApp(Settings(run, **settings), served, metrics)
        await app.start()
        served.open()
        try:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                return await use(client, app)
        finally:
            await app.stop()

    return asyncio.run(inside())
