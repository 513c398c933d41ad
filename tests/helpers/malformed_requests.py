"""Requests that a server must refuse, each with a status of its own kind and a sentence: broken in every layer."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

VALID: dict[str, Any] = {"texts": ["a boat"], "k": 3}
WRONG: dict[str, list[Any]] = {
    "texts": [7, "a boat", None, {"a": 1}, [7], [None], [["a"]], [""], [" \n"], ["a"] * 300, ["a" * 70_000], True],
    "vectors": [7, [[]], [["a"]], [7], [[1.0], [1.0, 2.0]], [[1e200] * 3], [[None]], {"a": []}],
    "k": [0, -1, 1.5, "3", None, [3], True, 10**6, 10**30, 1e300, 2**63],
    "where": [7, "price <", "a and", "__import__('os')", "(" * 400, "no_such_column == 1", ["a"], "x == " + "9" * 50],
    "include": ["n1", [7], {"n1": 1}, 7, [["n1"]]],
    "exclude": ["n1", [7], {"n1": 1}, True],
    "rescore": [-1, "2", 1.5, 10**9],
    "diversity": [-0.1, 1.1, "0.5", [0.5]],
    "passages": [7, {"tokens": 0}, {"tokens": "x"}, {"token": 3}, {"tokens": 4, "stride": 9}, {"combine": "mean"}, []],
    "rerank": ["yes", 1, [True]],
    "probabilities": ["yes", 1, None],
    "sets": [{}, {"recall": 2}, {"recall": 0.5, "significance": 0.1}, {"precision": 0.5}, 0.9],
    "decide": [{"automatic": 2}, {"automatic": 0.1, "person": 0.9}, [0.9]],
    "explain": ["yes", 1],
}
PATHS = (
    "/predict/",
    "/nothing",
    "/%ff%fe",
    "/../../etc/passwd",
    "/labels/no%20such",
    "/Predict",
    "//predict",
    "/openapi",
)


def malformed(count: int, seed: int = 0) -> Iterator[bytes]:
    """The bytes of some requests, in a random order that the seed determines."""
    draw = random.Random(seed)
    kinds = (_wrong_value, _unknown_field, _broken_json, _deep, _other_encoding, _not_http, _other_method, _elsewhere,
             _other_type, _too_large, _bad_headers, _literal)  # fmt: skip
    for _ in range(count):
        yield draw.choice(kinds)(draw)


def post(body: bytes, path: str = "/predict", content_type: str = "application/json", more: str = "") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode("latin-1") + body


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _wrong_value(draw: random.Random) -> bytes:
    name = draw.choice(list(WRONG))
    body = {**VALID, name: draw.choice(WRONG[name])}
    if name == "vectors":
        del body["texts"]
    return post(_json(body))


def _unknown_field(draw: random.Random) -> bytes:
    name = "".join(draw.choices("abcxyz_é\n\0'\"<>", k=draw.randint(1, 30)))
    return post(_json({**VALID, f"{name}-": draw.choice([1, "x", [], {}])}), draw.choice(["/predict", "/embed"]))


def _broken_json(draw: random.Random) -> bytes:
    body = _json({"texts": ["a boat with two hulls"], "k": 3, "where": "a == 'b'"})
    if draw.random() < 0.5:
        return post(body[: draw.randrange(len(body))])
    place = draw.randrange(len(body))
    return post(body[:place] + bytes(draw.choices(b"\x00\x01\x1f\xff\xfe{[", k=3)) + body[place:] + b"}")


def _deep(draw: random.Random) -> bytes:
    depth = draw.choice([10, 300, 2_000, 100_000])
    piece = draw.choice(["[", '{"texts":', '{"texts":['])
    closed = {"[": "]", '{"texts":': "}", '{"texts":[': "]}"}[piece]
    return post((piece * depth + (closed * depth if draw.random() < 0.5 else "")).encode())


def _other_encoding(draw: random.Random) -> bytes:
    body = '{"texts": ["été"]}'
    if draw.random() < 0.5:
        return post(body.encode(draw.choice(["utf-16", "utf-32", "latin-1"])))
    return post(
        b'{"texts": ["' + draw.choice([b"\\ud800", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88", b"\\x41", b"\t"]) + b'"]}'
    )


def _not_http(draw: random.Random) -> bytes:
    lines = [
        b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"HELLO\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"get / http/1.1\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\nHost: x\n\n\n",
    ]  # fmt: skip
    return draw.choice(lines) if draw.random() < 0.5 else b"\xff" + draw.randbytes(draw.randint(1, 400)) + b"\r\n\r\n"


def _bad_headers(draw: random.Random) -> bytes:
    start = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    ends = [
        b"Content-Length: -5\r\n\r\n", b"Content-Length: 1e3\r\n\r\n", b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n{}  ",
        b"Content-Length: 99999999999999999999999999\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n", b"X: " + b"a" * 70_000 + b"\r\n\r\n",
        b"X Y: 1\r\n\r\n", b"X: a\x00b\r\n\r\n", b"".join(b"X-%d: 1\r\n" % n for n in range(9_000)) + b"\r\n",
        b"Transfer-Encoding: gzip\r\n\r\n", b": empty\r\n\r\n",
    ]  # fmt: skip
    return start + draw.choice(ends)


def _other_method(draw: random.Random) -> bytes:
    method = draw.choice(["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
    path = (
        draw.choice(["/predict", "/embed"])
        if method == "GET"
        else draw.choice(["/predict", "/embed", "/health", "/metrics"])
    )
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def _elsewhere(draw: random.Random) -> bytes:
    return f"GET {draw.choice(PATHS)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def _other_type(draw: random.Random) -> bytes:
    return post(
        _json(VALID), content_type=draw.choice(["", "text/plain", "multipart/form-data", "application/xml", "é/ü"])
    )


def _too_large(draw: random.Random) -> bytes:
    if draw.random() < 0.7:
        return post(b"", more="").replace(
            b"Content-Length: 0", b"Content-Length: %d" % draw.choice([4_200_000_0, 10**12])
        )
    chunk = b"100000\r\n" + b"a" * 0x100000 + b"\r\n"
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + chunk * 5


def _literal(draw: random.Random) -> bytes:
    literal = draw.choice(
        ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "0x10", "01", "+1", "1.", ".5", "1_000", "'3'"]
    )
    place = draw.choice(
        ['{{"texts": ["a"], "k": {0}}}', '{{"vectors": [[{0}]]}}', '{{"texts": ["a"], "diversity": {0}}}']
    )
    return post(place.format(literal).encode())
