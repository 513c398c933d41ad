"""A client that costs little: many connections in one thread, as fast as they are answered or at a given rate."""

from __future__ import annotations

import heapq
import random
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length: "
OK = b"HTTP/1.1 200 "


@dataclass
class Load:
    """What came of some seconds of requests.

    latencies: seconds of each answer; at a given rate, from the moment at which the request was to be sent.
    failures: the first bytes of answers with another status. processor: seconds that this client computed.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failures: list[bytes] = field(default_factory=list)
    processor: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds


def joined(loads: Sequence[Load]) -> Load:
    """Several loads as one."""
    return Load(
        sum(one.seconds for one in loads),
        [latency for one in loads for latency in one.latencies],
        [failure for one in loads for failure in one.failures],
        sum(one.processor for one in loads),
    )


def request(path: str, body: bytes) -> bytes:
    """A POST request of JSON."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: server\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection:
    """A socket with at most one request under way. due: the moments at which further ones were to be sent."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.received, self.since, self.busy = b"", 0.0, False

    def send(self, content: bytes, since: float) -> None:
        self.busy, self.since = True, since
        assert self.socket.send(content) == len(content)

    def receive(self) -> bytes | None:
        """A whole answer; None while it is not whole."""
        piece = self.socket.recv(1 << 18)
        if not piece:
            raise ConnectionError("the server closed a connection")
        content = self.received + piece if self.received else piece
        head = content.find(HEAD_END)
        if head >= 0:
            begin = content.index(LENGTH) + len(LENGTH)
            length = int(content[begin : content.index(b"\r", begin)])
            if len(content) >= head + len(HEAD_END) + length:
                self.received, self.busy = b"", False
                return content
        self.received = content
        return None


def load(
    address: tuple[str, int],
    requests: Sequence[bytes],
    connections: int,
    seconds: float,
    rate: float | None = None,
    seed: int = 0,
) -> Load:
    """Send requests, one after the other of the list, over some connections.

    rate: requests a second, at random moments; by default each connection sends the next when it has an answer.
    """
    opened = [_Connection(address) for _ in range(connections)]
    by_number = {one.socket.fileno(): one for one in opened}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    result, draw, sent = Load(), random.Random(seed), 0
    idle, late = deque(opened), []
    processor, begin = time.process_time(), time.perf_counter()
    end, due = begin + seconds, begin
    while True:
        now = time.perf_counter()
        while now < end and idle and (rate is None or due <= now or late):
            if rate is None:
                since = now
            else:
                late_by = heapq.heappop(late) if late else due
                since = late_by
                if late_by is due:
                    due += draw.expovariate(rate)
            idle.popleft().send(requests[sent % len(requests)], since)
            sent += 1
        if now >= end and len(idle) == len(opened):
            break
        wait = max(0.0, min(due, end) - now) if rate is not None and idle and now < end else 1.0
        for number, _ in poll.poll(wait):
            connection = by_number[number]
            answer = connection.receive()
            if answer is None:
                continue
            now = time.perf_counter()
            if answer.startswith(OK):
                result.latencies.append(now - connection.since)
            else:
                result.failures.append(answer[:300])
            if rate is None and now < end:
                connection.send(requests[sent % len(requests)], now)
                sent += 1
            else:
                idle.append(connection)
    result.seconds = min(time.perf_counter(), end + 1) - begin
    result.processor = time.process_time() - processor
    for connection in opened:
        connection.socket.close()
    return result
