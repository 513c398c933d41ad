"""HTTP/1.1 with limits: of time for a request to come, of bytes, and of connections; every refusal is a sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from xmc.serve.app import response_of
from xmc.serve.failures import Refusal
from xmc.serve.settings import Limits

__all__ = ["LimitedProtocol"]

HEADER_BYTES = 32_768
"""Length of a request's line and headers, at most."""
LINGERING = 2.0
"""Seconds that a client has to read why it is sent away."""


class _Nobody:
    """What waits for more of a request that is answered directly."""

    def set(self) -> None:
        """Nothing waits."""


_NOBODY = _Nobody()


class DirectCycle:
    """A request that is answered without a task, in the place of uvicorn's cycle of request and response.

    The names are uvicorn's. response_complete: whether it was answered. disconnected: whether its client is gone.
    """

    __slots__ = (
        "body",
        "disconnected",
        "keep_alive",
        "message_event",
        "protocol",
        "response_complete",
        "response_started",
        "route",
    )

    def __init__(self, protocol: LimitedProtocol, route: str, keep_alive: bool) -> None:
        self.protocol, self.route, self.keep_alive = protocol, route, keep_alive
        self.body: list[bytes] = []
        self.response_started = self.response_complete = self.disconnected = False
        self.message_event = _NOBODY

    def finish(self, outcome: bytes | Refusal) -> None:
        """Write the response."""
        self.response_started = self.response_complete = True
        self.protocol.answer(self, outcome)


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, but a client that is slow, or sends too much or no HTTP, is told so and sent away.

    direct: paths whose POST requests are given to `ask`, see ServerApp.ask, with no task of their own.

    A request has `Limits.seconds` to come, whole, from its first byte on, and a response as long to be read.
    """

    limits = Limits()
    direct: Mapping[bytes, str] = {}
    ask: Callable[[str, str, bytes, Callable[[bytes | Refusal], None]], None]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse a connection too many; else wait for its first request."""
        super().connection_made(transport)
        self._head_bytes, self._body_bytes, self._in_head = 0, 0, True
        self._refused = False
        self._write_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = self.loop.call_later(self.limits.seconds, self._too_slow)
        if len(self.connections) > self.limits.connections:
            self.refuse(Refusal(503, "The server has too many connections; close some, or come again in a moment."))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection's timer."""
        self._stop_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come. Of a request that is refused the rest is not looked at."""
        if self._refused or self.parser is None:
            return
        self._unset_keepalive_if_required()
        self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request is answered as any other
        except httptools.HttpParserError as error:
            cause = error.__context__
            no_http = Refusal(400, f"This is no HTTP/1.1 request: {_words(error)}.")
            self.refuse(cause if isinstance(cause, Refusal) else no_http)
            return
        if self._in_head and self._head_bytes > HEADER_BYTES:
            self.refuse(_too_long())
        elif self._timer is None and (self._head_bytes or not self._in_head):
            self._timer = self.loop.call_later(self.limits.seconds, self._too_slow)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._body_bytes, self._in_head = 0, True

    def on_headers_complete(self) -> None:
        """Refuse a body that is said to be too large before it comes. Requests that are asked most often need no task."""
        self._in_head, self._head_bytes = False, 0
        length = len(self.url)
        for name, value in self.headers:
            length += len(name) + len(value)
            if name == b"content-length" and value.isdigit() and int(value[:20]) > self.limits.body_bytes:
                raise self._too_large()
        if length > HEADER_BYTES:
            raise _too_long()
        route = self.direct.get(self.url)
        free = getattr(self.cycle, "response_complete", True) and not self.flow.write_paused
        if route is None or not free or self.expect_100_continue or self.parser.get_method() != b"POST":
            super().on_headers_complete()
            return
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        self.cycle = DirectCycle(self, route, keep_alive)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """Count the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self.limits.body_bytes:
            raise self._too_large()
        cycle: object = self.cycle
        if isinstance(cycle, DirectCycle):
            cycle.body.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole: it has come in time."""
        self._in_head, self._head_bytes = True, 0
        self._stop_timer()
        cycle: object = self.cycle
        if isinstance(cycle, DirectCycle):
            content_type = next((value for name, value in self.headers if name == b"content-type"), b"")
            self.ask(cycle.route, content_type.decode("latin-1"), b"".join(cycle.body), cycle.finish)
        else:
            super().on_message_complete()

    def answer(self, cycle: DirectCycle, outcome: bytes | Refusal) -> None:
        """Write the response to a request that was asked directly."""
        if cycle.disconnected or self.transport.is_closing():
            return
        status, headers, body = response_of(outcome)
        if not cycle.keep_alive:
            headers = [*headers, (b"connection", b"close")]
        head = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            head += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join((*head, b"\r\n", body)))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read what it is sent: it has some time to begin."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.limits.seconds, self._abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._stop_write_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that is not used; at once where its client does not read."""
        if self.transport.get_write_buffer_size():
            self._abort()
        else:
            super().timeout_keep_alive_handler()

    def refuse(self, refusal: Refusal) -> None:
        """Tell the client why, unless an answer is under way, and end the connection."""
        self._refused = True
        self._stop_timer()
        if self.transport.is_closing():
            return
        under_way = getattr(self.cycle, "response_complete", True) is False
        if not (under_way and self.cycle.response_started):
            self.transport.write(refusal.response)
        if under_way:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write_eof()  # the rest is read and dropped, or the client would lose the answer with the connection
        self._timer = self.loop.call_later(LINGERING, self._abort)

    def _too_slow(self) -> None:
        self._timer = None
        if self._in_head and not self._head_bytes:
            self.transport.close()  # nothing was sent at all
        else:
            self.refuse(
                Refusal(408, f"The request did not come within {self.limits.seconds:g} seconds; send it again.")
            )

    def _too_large(self) -> Refusal:
        return Refusal(413, f"A request's body may have {self.limits.body_bytes:,} bytes; send it in parts.")

    def _abort(self) -> None:
        self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def _too_long() -> Refusal:
    return Refusal(431, f"The headers of a request may have {HEADER_BYTES:,} bytes; send fewer.")


def _words(error: httptools.HttpParserError) -> str:
    """What the parser says, in printable ASCII."""
    said = str(error).encode("ascii", "replace").decode()
    return "".join(character if character.isprintable() else "?" for character in said)[:100].rstrip(".")
