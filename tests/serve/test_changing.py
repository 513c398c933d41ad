"""Requests that change labels: who may, what they answer, what the next answers are; the application without sockets."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from served_app import with_app

import xmc
from xmc.serve.app import ServerApp
from xmc.serve.changes import journal_of
from xmc.serve.settings import Limits

TOKEN = "a-token-of-tests"
BEARER = {"authorization": f"Bearer {TOKEN}"}
ADD = {"add": [{"uid": "T", "text": "turquoise", "price": 3}, {"uid": "M", "examples": ["mauve", "a mauve one"]}]}


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def ask(run: Path, use: Callable[[httpx.AsyncClient], Awaitable[Any]], **settings: Any) -> Any:
    async def inside(client: httpx.AsyncClient, app: ServerApp) -> Any:
        return await use(client)

    return with_app(run, inside, **{"token": TOKEN, **settings})


def test_changes_are_seen_by_the_next_request(copy: Path) -> None:
    async def use(client: httpx.AsyncClient) -> None:
        query = {"texts": ["turquoise", "mauve"], "k": 1}
        before = (await client.post("/predict", json=query)).json()
        assert before["version"] == 0
        added = await client.post("/labels", json=ADD, headers=BEARER)
        assert added.status_code == 200, added.text
        assert added.json()["version"] == 1
        assert added.json()["labels"] == 14
        assert [entry["labels"] for entry in added.json()["scaled"]] == [1, 1]
        after = (await client.post("/predict", json={**query, "where": "xmc_examples >= 0"})).json()
        assert after["version"] == 1
        assert [answer["labels"][0]["uid"] for answer in after["answers"]] == ["T", "M"]
        assert (await client.get("/labels/T")).json() == {"uid": "T", "text": "turquoise", "price": 3}
        several = {"add": [{"text": "ochre"}], "update": [{"uid": "T", "price": 4}], "remove": ["M", "RED"]}
        assert (await client.post("/labels", json=several, headers=BEARER)).json()["version"] == 2
        assert (await client.get("/labels/T")).json()["price"] == 4
        assert (await client.get("/labels/RED")).status_code == 404
        assert (await client.get("/version")).json() == {"version": 2, "labels": 13, "remembered": 0}

    ask(copy, use)
    written = xmc.Retriever.load(copy)  # the server has stopped, and the changes are in the run
    assert written.labels.rows(["RED", "M"]).tolist() == [-1, -1]
    assert written.texts(["T", "ochre"]) == ["turquoise", "ochre"]
    assert written.mark is not None
    assert written.mark.number == 2

    async def again(client: httpx.AsyncClient) -> None:
        assert (await client.get("/version")).json()["version"] == 2
        assert (await client.post("/labels", json={"remove": ["T"]}, headers=BEARER)).json()["version"] == 3

    ask(copy, again)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"add": [{"uid": "RED", "text": "x"}, {"uid": "X", "text": "x"}]}, 409, "'RED' is already there"),
        ({"remove": ["NOBODY", "RED"]}, 409, "no label 'NOBODY' to remove"),
        ({"update": [{"uid": "NOBODY", "text": "x"}]}, 409, "no label 'NOBODY' to update"),
        ({"add": [{"uid": "X"}]}, 422, "neither a text nor an example"),
        ({"add": [{"uid": 5, "text": "x"}]}, 422, "add[0].uid must be a valid string, but is 5."),
        ({"add": [{"uid": "X", "text": "x", "id": 5}]}, 422, "A column cannot be called 'id'"),
        ({"remove": ["RED"], "update": [{"uid": "RED", "text": "x"}]}, 422, "named twice"),
        ({"update": [{"uid": "RED"}]}, 422, "says nothing beside its uid"),
        ({"remov": ["RED"]}, 422, "'remov' is unknown. Did you mean 'remove'?"),
        ({}, 422, "Nothing is to be changed"),
        ({"add": [{"uid": "X", "text": "é" * 40}]}, 422, "A text of add[0] has 80 bytes, and a text may have 64"),
        ({"add": [{"text": "x"}], "expected_rate": 2}, 422, "expected_rate must be less than or equal to 1"),
        ({"add": [{"text": "x"}], "expected_rate": 0.5, "score": "raw"}, 422, "expected_rate is what"),
    ],
)
def test_mistakes_change_nothing(run: Path, body: Any, status: int, said: str) -> None:
    async def use(client: httpx.AsyncClient) -> httpx.Response:
        refused = await client.post("/labels", json=body, headers=BEARER)
        assert (await client.get("/version")).json()["version"] == 0
        return refused

    refused = ask(run, use, limits=Limits(text_bytes=64))
    assert refused.status_code == status, refused.text
    assert said in refused.json()["error"]["message"]
    assert len(journal_of(run).read_bytes().splitlines()) == 1  # its header alone


def test_who_may_change_labels(run: Path) -> None:
    async def use(client: httpx.AsyncClient) -> list[httpx.Response]:
        headers: list[dict[str, str]] = [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}]
        return [
            await client.post(route, content=b"{", headers=one) for one in headers for route in ("/labels", "/remember")
        ]

    for refused in ask(run, use):
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in refused.text
    for refused in ask(run, use, token=None):
        assert refused.status_code == 403
        assert "started without a token" in refused.json()["error"]["message"]


def test_a_run_without_memory_and_one_with(run: Path, remembering: Path, tmp_path: Path) -> None:
    async def refused(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/remember", json={"texts": ["a"], "labels": [["RED"]]}, headers=BEARER)

    assert "no memory of queries" in ask(run, refused).json()["error"]["message"]
    copy = Path(shutil.copytree(remembering, tmp_path / "run"))

    async def use(client: httpx.AsyncClient) -> None:
        before = (await client.get("/version")).json()["remembered"]
        await client.post("/labels", json={"add": [{"uid": "T", "text": "a label by another name"}]}, headers=BEARER)
        judged = {"texts": ["quite turquoise", "turquoise, yes"], "labels": [["T"], ["T", "BLUE"]]}
        said = await client.post("/remember", json=judged, headers=BEARER)
        assert said.json() == {"version": 2, "remembered": before + 2}
        found = (await client.post("/predict", json={"texts": ["quite turquoise"], "k": 1})).json()
        assert found["answers"][0]["labels"][0]["uid"] == "T"
        for labels, status in (([["NOBODY"]], 422), ([], 422), ([["T"], ["T"]], 422)):
            wrong = await client.post("/remember", json={"texts": ["a"], "labels": labels}, headers=BEARER)
            assert wrong.status_code == status, wrong.text
        empty = await client.post("/remember", json={"texts": [" "], "labels": [["T"]]}, headers=BEARER)
        assert "texts[0] is empty" in empty.json()["error"]["message"]

    ask(copy, use)


def test_answers_are_of_one_version(copy: Path) -> None:
    """Two labels change hands in one change, while many ask: every answer has exactly one of the two, and says which change."""

    async def use(client: httpx.AsyncClient) -> None:
        await client.post("/labels", json={"add": [{"uid": "turquoise 0", "text": "turquoise"}]}, headers=BEARER)
        done = False

        async def ask_on() -> list[tuple[int, list[str]]]:
            seen = []
            while not done:
                answered = (await client.post("/predict", json={"texts": ["turquoise"], "k": 20})).json()
                uids = [label["uid"] for label in answered["answers"][0]["labels"]]
                seen.append((answered["version"], [uid for uid in uids if uid.startswith("turquoise")]))
            return seen

        readers = [asyncio.create_task(ask_on()) for _ in range(4)]
        for number in range(25):
            body = {
                "add": [{"uid": f"turquoise {number + 1}", "text": "turquoise"}],
                "remove": [f"turquoise {number}"],
            }
            changed = await client.post("/labels", json=body, headers=BEARER)
            assert changed.json()["version"] == number + 2
        done = True
        seen = [entry for reader in readers for entry in await reader]
        assert len(seen) > 10
        assert all(uids == [f"turquoise {version - 1}"] for version, uids in seen)

    ask(copy, use)


def test_the_page_and_its_policy(run: Path) -> None:
    async def use(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.get(path) for path in ("/", "/page.css", "/page.js")]

    kinds = ("text/html", "text/css", "text/javascript")
    for response, kind in zip(ask(run, use), kinds, strict=True):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
        assert "default-src 'none'; script-src 'self'" in response.headers["content-security-policy"]
        assert "http" not in response.text.replace("openapi", "")
        assert "innerHTML" not in response.text


def test_a_replaced_run_is_taken_over_with_the_changes(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `xmc labels add RUN` does under a server that has confirmed changes."""
    monkeypatch.setattr("xmc.serve.served.LOOKED_EVERY", 0.02)
    monkeypatch.setattr("xmc.serve.served.SETTLED_AFTER", 0.02)

    async def use(client: httpx.AsyncClient, app: ServerApp) -> None:
        changed = await client.post("/labels", json={**ADD, "remove": ["RED"]}, headers=BEARER)
        assert changed.status_code == 200
        first = app.served.now
        assert first.changes.compact()
        await asyncio.sleep(0.2)
        assert app.served.now is first  # its own doing
        await client.post("/labels", json={"add": [{"text": "ochre"}]}, headers=BEARER)
        other = xmc.Retriever.load(copy)
        other.add_labels(["ecru"])
        other.save(copy, overwrite=True, unchanged=True)
        for _ in range(500):
            if app.served.now is not first:
                break
            await asyncio.sleep(0.02)
        found = (await client.get("/labels?limit=100")).json()["labels"]
        assert {"ecru", "ochre", "T", "M"} <= {label["uid"] for label in found}
        assert len(found) == 15
        answered = (await client.post("/predict", json={"texts": ["ecru"], "k": 1})).json()
        assert answered["answers"][0]["labels"][0]["uid"] == "ecru"
        assert answered["version"] == 2
        assert (await client.post("/labels", json={"remove": ["ecru"]}, headers=BEARER)).json()["version"] == 3

    with_app(copy, use, token=TOKEN)
    written = xmc.Retriever.load(copy)
    assert written.labels.rows(["ecru", "RED"]).tolist() == [-1, -1]
    assert written.texts(["ochre", "T"]) == ["ochre", "turquoise"]
