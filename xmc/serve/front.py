"""The page at /, to try queries and change labels by hand: files of the package, which load nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

__all__ = ["page_files"]

FOLDER = Path(__file__).resolve().parent / "page"
FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
"""Name and media type of the file at each path."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
"""What browsers are told beside each file: that it runs no script but its own, and is shown in no other page."""


def page_files() -> dict[str, Callable[[Request], Awaitable[Response]]]:
    """What sends each of the page's files, by its path. They are read now."""
    return {path: _sender(*file) for path, file in FILES.items()}


def _sender(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = (FOLDER / name).read_bytes()

    async def send(request: Request) -> Response:
        return Response(content, headers=HEADERS, media_type=kind)

    return send
