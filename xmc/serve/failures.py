"""Every failure of a request as JSON with a status and a sentence."""

from __future__ import annotations

import logging
from http import HTTPStatus

import orjson

from xmc.errors import InputError, XMCError

__all__ = ["RETRY_AFTER", "Refusal", "refusal_of"]

RETRY_AFTER = {429: 1, 503: 2}
"""Seconds after which a client may come again, by status."""
UNFORESEEN = "The server failed to answer this request; its log says why."
logger = logging.getLogger("xmc.serve")


class Refusal(XMCError):
    """A request that gets no answer: an HTTP status and a sentence.

    headers: further headers of the response, such as that which names the methods of a resource.
    """

    def __init__(self, status: int, message: str, **headers: str) -> None:
        message = message if message.endswith((".", ")")) else f"{message}."
        super().__init__(message)
        self.status, self.message = status, str(self)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if status in RETRY_AFTER:
            self.headers.setdefault("retry-after", str(RETRY_AFTER[status]))

    @property
    def body(self) -> bytes:
        """The response's body, JSON in UTF-8."""
        said = self.message.encode("utf-8", "replace").decode("utf-8")
        return orjson.dumps({"error": {"status": self.status, "message": said}})

    @property
    def response(self) -> bytes:
        """The whole response as HTTP/1.1, after which the connection ends: for requests that cannot be read to their end."""
        body = self.body
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def refusal_of(error: BaseException) -> Refusal:
    """What a client is told of an error: its mistake (422), or no more than that the server failed (500), which is logged."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, InputError):
        return Refusal(422, str(error))
    logger.error("a request failed", exc_info=error)
    return Refusal(500, UNFORESEEN)
