"""What is asked of a server, and what it answers; the application in this process, without sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from served_app import with_app

import xmc
from xmc.serve.app import ServerApp
from xmc.serve.settings import Limits


def post(run: Path, route: str, *bodies: Any, **settings: Any) -> list[httpx.Response]:
    """The responses to some bodies that are sent at the same time."""

    async def use(client: httpx.AsyncClient, app: ServerApp) -> list[httpx.Response]:
        return list(await asyncio.gather(*(client.post(route, json=body) for body in bodies)))

    return with_app(run, use, **settings)


def get(run: Path, *paths: str) -> list[httpx.Response]:
    async def use(client: httpx.AsyncClient, app: ServerApp) -> list[httpx.Response]:
        return [await client.get(path) for path in paths]

    return with_app(run, use)


def message(response: httpx.Response, status: int) -> str:
    """The sentence of a refusal."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["status"] == status
    assert error["message"].count(" ") > 2
    assert error["message"].endswith((".", ")"))
    return str(error["message"])


def test_answers_are_those_of_the_library(run: Path) -> None:
    retriever = xmc.Retriever.load(run)
    texts = ["a red thing", "something blue", "green"]
    bodies = [
        {"texts": texts, "k": 3},
        {"texts": texts[:1], "k": 3},
        {"vectors": retriever.embed_queries(texts).tolist(), "k": 3},
        {"texts": texts, "k": 2, "exclude": [str(retriever.predict(texts, 1)[0][0, 0])]},
        {"texts": texts, "k": 3, "diversity": 0.4},
        {"texts": texts, "k": 1, "passages": {"tokens": 2}},
    ]
    for body, response in zip(bodies, post(run, "/predict", *bodies), strict=True):
        options = {name: value for name, value in body.items() if name not in ("texts", "vectors")}
        if "passages" in options:
            options["passages"] = xmc.PassageOptions(**options["passages"])
        queries = body["texts"] if "texts" in body else np.array(body["vectors"], np.float32)
        uids, scores = retriever.predict(queries, **options)
        assert response.status_code == 200, response.text
        answers = response.json()["answers"]
        assert [[label["uid"] for label in answer["labels"]] for answer in answers] == uids.tolist()
        given = np.array([[label["score"] for label in answer["labels"]] for answer in answers], np.float32)
        np.testing.assert_allclose(given, scores, rtol=1e-5)
        assert response.json()["version"] == 0


def test_explanations_and_texts(run: Path) -> None:
    (response,) = post(run, "/predict", {"texts": ["a red thing"], "k": 2, "explain": True})
    label = response.json()["answers"][0]["labels"][0]
    assert set(label) == {"uid", "text", "score", "explanation"}
    assert {"kind", "value", "text"} <= set(label["explanation"][0])


def test_embeddings(run: Path) -> None:
    (response,) = post(run, "/embed", {"texts": ["a red thing", "blue"]})
    expected = xmc.Retriever.load(run).embed_queries(["a red thing", "blue"])
    np.testing.assert_allclose(np.array(response.json()["embeddings"], np.float32), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"texts": ["a"], "top_k": 3}, 422, "'top_k' is unknown"),
        ({"texts": ["a"], "passages": {"token": 3}}, 422, "'passages.token' is unknown. Did you mean 'tokens'?"),
        ({"texts": ["a"], "k": "3"}, 422, 'k must be a valid integer, but is "3".'),
        ({"texts": ["a"], "k": 0}, 422, "k must be greater than or equal to 1, but is 0."),
        ({"texts": ["a"], "k": 1001}, 422, "k may be at most 1,000, but is 1,001"),
        ({"texts": ["a", 7]}, 422, "texts[1] must be a valid string, but is 7."),
        ({"texts": ["a", " "]}, 422, "texts[1] is empty"),
        ({"texts": ["é" * 33_000]}, 422, "texts[0] has 66,000 bytes, and a text may have 65,536"),
        ({"texts": ["a"] * 257}, 422, "may hold 256 texts, but has 257"),
        ({"texts": ["a"], "vectors": [[1.0]]}, 422, "either texts"),
        ({}, 422, "either texts"),
        ({"vectors": [[1.0], [1.0, 2.0]]}, 422, "one length"),
        ({"vectors": [[1.0]]}, 422, "(n, 32)"),
        ({"vectors": [[1e300] * 32]}, 422, "32 bits"),
        ({"texts": ["a"], "where": "price <"}, 422, "cannot be read"),
        ({"texts": ["a"], "where": "price < 3"}, 422, "does not fit the labels"),
        ({"texts": ["a"], "probabilities": True}, 422, "calibrat"),
        ({"texts": ["a"], "sets": {}}, 422, "Name one of"),
        ({"texts": ["a"], "rerank": True}, 422, "re-ranker"),
        ({"texts": ["a b " * 9_000], "passages": {"tokens": 1}}, 422, "passages"),
        ({"texts": ["a b"], "passages": {"tokens": 1, "temperature": 1e-320}}, 422, "above 0, from 1e-06 to 1000000.0"),
        ({"texts": ["a"], "k": 1000, "rescore": 11}, 422, "rescore times k"),
        ([1], 422, "must be a JSON object, but is a list of 1."),
    ],
)
def test_mistakes_are_sentences(run: Path, body: Any, status: int, said: str) -> None:
    (response,) = post(run, "/predict", body)
    assert said in message(response, status)


def test_one_mistake_leaves_others_alone(run: Path) -> None:
    bodies = [{"vectors": [[1.0] * 32]}, {"vectors": [[1.0] * 31]}, {"vectors": [[2.0] * 32]}]
    first, wrong, last = post(run, "/predict", *bodies)
    assert (first.status_code, wrong.status_code, last.status_code) == (200, 422, 200)


def test_what_is_no_json(run: Path) -> None:
    async def use(client: httpx.AsyncClient, app: ServerApp) -> list[httpx.Response]:
        headers = {"content-type": "application/json; charset=utf-8"}
        contents = [b"{", b'{"texts": ["\xff"]}', b'{"vectors": [[NaN]]}', b"[" * 5_000, b"", b'{"texts": ["\\ud800"]}']
        said = [await client.post("/predict", content=content, headers=headers) for content in contents]
        said.append(await client.post("/predict", content=b"{}", headers={"content-type": "text/plain"}))
        said.append(await client.get("/predict"))
        said.append(await client.delete("/labels"))
        return said

    *broken, plain, got, deleted = with_app(run, use)
    for response in broken:
        assert "not JSON in UTF-8" in message(response, 400)
    assert "application/json" in message(plain, 415)
    assert "for POST" in message(got, 405)
    assert got.headers["allow"] == "POST"
    assert "not for DELETE" in message(deleted, 405)


def test_a_full_queue_says_when_to_come_again(run: Path) -> None:
    responses = post(run, "/predict", *[{"texts": ["a"], "k": 1}] * 12, limits=Limits(waiting=4))
    statuses = [response.status_code for response in responses]
    assert statuses.count(200) == 4
    assert statuses.count(429) == 8
    refused = next(response for response in responses if response.status_code == 429)
    assert "waiting" in message(refused, 429)
    assert refused.headers["retry-after"] == "1"


def test_labels_are_looked_up(run: Path) -> None:
    labels = xmc.Retriever.load(run).labels
    uid, text = labels.uids[0].as_py(), labels.texts[0].as_py()
    one, none, found, everything, wrong, wordy = get(
        run, f"/labels/{uid}", "/labels/no/such", f"/labels?text={text.upper()}", "/labels?limit=2", "/labels?limit=900",
        "/labels?limit=x",
    )  # fmt: skip
    assert one.json() == {"uid": uid, "text": text}
    assert "no label 'no/such'" in message(none, 404)
    assert {"uid": uid, "text": text} in found.json()["labels"]
    assert len(everything.json()["labels"]) == 2
    assert "from 1 to 100" in message(wrong, 422)
    assert "whole number" in message(wordy, 422)


def test_health_metrics_and_description(run: Path) -> None:
    async def use(client: httpx.AsyncClient, app: ServerApp) -> list[httpx.Response]:
        await client.post("/predict", json={"texts": ["a"]})
        said = [await client.get(path) for path in ("/health", "/ready", "/metrics", "/openapi.json", "/nothing")]
        app.stopping = True
        return [*said, await client.get("/ready"), await client.get("/health")]

    health, ready, metrics, description, nothing, stopping, still = with_app(run, use)
    assert health.json() == {"status": "alive"}
    assert ready.json()["status"] == "ready"
    assert 'xmc_requests_total{route="/predict",status="200"} 1.0' in metrics.text
    assert "access-control-allow-origin" not in health.headers
    assert "top_k" not in description.text
    document = description.json()
    assert set(document["paths"]) >= {"/predict", "/embed", "/labels", "/health", "/ready", "/metrics"}
    assert "PredictBody" in document["components"]["schemas"]
    assert "There is nothing at /nothing" in message(nothing, 404)
    assert message(stopping, 503)
    assert still.status_code == 200
