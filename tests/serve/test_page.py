"""The page at / in a real browser: queries, explanations, look-ups and changes; texts are shown and never run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from browsers import fetched, headless_browser
from server_kills import TOKEN, Server

HOSTILE = "<img src=x onerror=\"document.title='ran'\"> turquoise"
OBEYED = "</td></tr>\x1b[31m \u202egnp.exe\nolive " + "x" * 60_000


@pytest.fixture
def server(run: Path, tmp_path: Path) -> Iterator[Server]:
    server = Server(Path(shutil.copytree(run, tmp_path / "run")), workers=1)
    server.start()
    server.wait()
    yield server
    server.kill()


@pytest.mark.slow
def test_the_page_in_a_browser(server: Server, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    with headless_browser(tmp_path / "profile") as browser:
        page = f"{server.address}/"
        browser.get(page)

        def fill(**values: str) -> None:
            for name, value in values.items():
                field = browser.find_element(By.ID, name.replace("_", "-"))
                field.clear()
                field.send_keys(value)

        def said() -> str:
            return str(browser.find_element(By.ID, "message").text)

        def press(form: str, expected: str) -> None:
            browser.execute_script("document.getElementById('message').textContent = ''")
            browser.find_element(By.CSS_SELECTOR, f"#{form} button[type=submit]").click()
            WebDriverWait(browser, 20).until(lambda _: expected in said())

        def rows(table: str) -> list[list[str]]:
            return browser.execute_script(  # type: ignore[no-any-return]
                "return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].map((row) => "
                "[...row.cells].map((cell) => cell.textContent))",
                table,
            )

        WebDriverWait(browser, 20).until(lambda _: "12 labels" in browser.find_element(By.ID, "state").text)
        fill(text="a red thing", k="3")
        press("ask", "Answered.")
        assert rows("answers")[0][1:] == ["red", "RED", ""]
        assert len(rows("answers")) == 3
        assert not browser.find_element(By.CSS_SELECTOR, "#answers th.why").is_displayed()
        browser.find_element(By.ID, "explain").click()
        press("ask", "Answered.")
        assert "red +" in rows("answers")[0][3]
        assert browser.find_element(By.CSS_SELECTOR, "#answers th.why").is_displayed()
        fill(where="price < 3")
        press("ask", "The condition")
        assert "bad" in str(browser.find_element(By.ID, "message").get_attribute("class"))
        browser.find_element(By.ID, "where").clear()

        fill(new_uid="T", new_text=HOSTILE)
        press("add", "Bearer")
        fill(token="wrong")
        press("add", "The token is not that of this server.")
        fill(token=TOKEN, examples="something turquoise\na turquoise thing")
        press("add", "The label T is added. This is the change 1.")
        assert "13 labels" in browser.find_element(By.ID, "state").text
        fill(text="a turquoise thing", k="1")
        press("ask", "Answered.")
        assert rows("answers")[0][1:3] == [HOSTILE, "T"]
        fill(new_uid="T", new_text="again")
        press("add", "The label 'T' is already there")

        fill(words="onerror")
        press("find", "The shortest texts first")
        assert rows("labels")[0][:2] == [HOSTILE, "T"]
        browser.find_element(By.CSS_SELECTOR, "#labels button").click()
        WebDriverWait(browser, 20).until(lambda _: "The label T is removed. This is the change 2." in said())
        assert rows("labels") == []

        change = {"add": [{"uid": "O\x1b\u2066", "text": OBEYED}]}
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        urlopen(Request(f"{server.address}/labels", json.dumps(change).encode(), headers)).close()
        fill(text="an olive thing", k="13", words="olive")
        press("ask", "Answered.")
        press("find", "The shortest texts first")
        shown = OBEYED.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").replace("\n", "\\x0a")
        assert [shown, "O\\x1b\\u2066"] in [row[1:3] for row in rows("answers")]
        assert rows("labels")[0][:2] == [shown, "O\\x1b\\u2066"]

        # Nothing of it ran, nothing came from elsewhere, the token is nowhere but in the page.
        assert browser.title == "Labels of a query"
        assert not browser.find_elements(By.CSS_SELECTOR, "img, main script")
        assert all(url.startswith(page) for url in fetched(browser, page))
        assert (
            browser.execute_script("return localStorage.length + sessionStorage.length + document.cookie.length") == 0
        )
        assert TOKEN not in server.log.read_text()
        size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert all("the server responded with a status of 4" in text for text in severe), severe
