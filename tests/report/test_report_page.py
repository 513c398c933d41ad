"""The page of a report: text is shown and never run, as text and in a real browser, where tables sort and filter."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import fetched, headless_browser
from commands import xmc
from plotly.offline import get_plotlyjs
from worlds import COLOURS, colours, tiny_config

from xmc.data.dataset import Dataset
from xmc.evaluation.calibrate import calibrate
from xmc.report import write_report
from xmc.report.page import embedded_json, render
from xmc.report.run import ReportedRun
from xmc.report.task import Task
from xmc.search.retriever import Retriever
from xmc.training.trainer import train

SCRIPT = "<script>document.title = 'ran'</script>"
OBEYED = ["</td></tr></table>", "\u202egnp.exe", "\x1b[31mred\x1b]8;;http://e\x07"]
LONG = "x" * 100_000


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, list[Path]]:
    """Labels that are scripts, controls or very long, and a run called so, which is calibrated on these very queries."""
    names = [SCRIPT, "</script><!--", "&amp; {{ names }}", *COLOURS[3:]]
    known = colours(names)
    splits = {
        split: (known.split(split).texts.to_pylist(), [row.indices.tolist() for row in known.targets(split).truth])
        for split in ("train", "test")
    }
    data = Dataset.from_lists(
        "colours", [*names[:3], *OBEYED, *names[6:11], LONG], splits, label_uids=known.labels.uids.to_pylist()
    )
    folder = tmp_path_factory.mktemp("hostile")
    runs = [folder / "<img src=x onerror=alert(1)>", folder / "plain"]
    for directory, epochs in zip(runs, (2, 1), strict=True):
        train(data, tiny_config(epochs=epochs), directory)
    retriever = Retriever.load(runs[0])
    calibrate(retriever, data, "test")
    retriever.save(runs[0], overwrite=True)
    return data, runs


def test_text_is_shown_and_never_run(hostile: tuple[Dataset, list[Path]], tmp_path: Path) -> None:
    data, runs = hostile
    page = write_report(runs, data, tmp_path / "page.html").read_text("utf-8").replace(get_plotlyjs(), "")
    assert page.count("<script") == page.count("</script") == 3  # figures, plotly, the page's own
    assert "<img" not in page
    assert "<!--" not in page
    assert "&lt;script&gt;document.title = &#39;ran&#39;&lt;/script&gt;" in page
    assert "{{ names }}" in page
    assert "\\u202egnp.exe" in page
    assert "\\x1b[31mred\\x1b]8;;http://e\\x07" in page
    assert not {letter for letter in page if unicodedata.category(letter) in ("Cc", "Cf")} - {"\n", "\t"}
    assert LONG[:2001] not in page
    assert "&lt;img src=x onerror=alert(1)&gt; was calibrated on these very queries" in page


def test_embedded_json() -> None:
    value = {"</script><!--&": "\u2028<b>"}
    text = embedded_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with headless_browser(tmp_path / "profile") as driver:
        yield driver


@pytest.mark.slow
def test_the_page_in_a_browser(browser: Any, hostile: tuple[Dataset, list[Path]], tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    data, runs = hostile
    data.save(tmp_path / "data")
    page = tmp_path / "page.html"
    done = xmc("report", *runs, "--dataset", tmp_path / "data", "--output", page, "--queries", 60)
    assert f"report in {page}" in done.stdout, done.stderr
    browser.get(page.as_uri())

    def rows(table: str) -> list[list[str]]:
        return browser.execute_script(  # type: ignore[no-any-return]
            "return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].filter((row) => !row.hidden)"
            ".map((row) => [...row.cells].map((cell) => cell.dataset.value ?? cell.textContent))",
            table,
        )

    def shown() -> list[str]:
        """The texts of the queries' rows that are not hidden."""
        found = browser.find_elements(By.CSS_SELECTOR, "#query-table tbody tr:not([hidden])")
        return [str(row.get_property("textContent")) for row in found]

    def press(table: str, heading: int) -> str:
        head = browser.find_elements(By.CSS_SELECTOR, f"#{table} thead th")[heading]
        head.find_element(By.TAG_NAME, "button").click()
        return str(head.get_attribute("aria-sort"))

    # Scripts are shown, and did not run; nothing was fetched; every plot is there.
    assert browser.title.startswith("<img src=x onerror=alert(1)>, plain on ")
    assert SCRIPT in browser.find_element(By.ID, "query-table").text
    for text in ("\\u202egnp.exe", "\\x1b[31mred", "</td></tr></table>"):
        assert text in browser.find_element(By.ID, "query-table").text
    cells = "return [...document.querySelectorAll('#query-table tbody tr')].map((row) => row.cells.length)"
    assert len(set(browser.execute_script(cells))) == 1  # no text ended a cell or a row
    urls = fetched(browser, page.as_uri())
    assert {url for url in urls if not url.startswith(("data:", "blob:"))} == {page.as_uri()}
    places = browser.find_elements(By.CSS_SELECTOR, "[data-figure]")
    assert len(places) >= 17
    assert all(place.find_elements(By.CSS_SELECTOR, "svg.main-svg") for place in places)

    # Sorting: by the first run's metric, both ways.
    assert press("metric-table", 1) == "descending"
    values = [float(row[1]) for row in rows("metric-table")]
    assert values == sorted(values, reverse=True)
    assert press("metric-table", 1) == "ascending"
    assert [float(row[1]) for row in rows("metric-table")] == values[::-1]
    assert press("query-table", 2) == "ascending"
    assert rows("query-table")[0][2] == "1"

    # Filtering, and some at a time.
    assert len(rows("query-table")) == 25
    browser.find_element(By.ID, "more").click()
    assert len(rows("query-table")) == 50
    browser.find_element(By.ID, "find").send_keys("PURPLE")
    assert 0 < len(shown()) < 60
    assert all("purple" in text for text in shown())
    count = browser.find_element(By.ID, "count").text
    assert re.search(r"\d+ quer(y|ies)$", count)
    browser.find_element(By.ID, "find").clear()
    Select(browser.find_element(By.ID, "cause")).select_by_value("encoder-miss")
    assert len(shown()) > 0
    assert all("encoder miss" in text for text in shown())
    Select(browser.find_element(By.ID, "cause")).select_by_value("index-miss")
    assert rows("query-table") == []
    Select(browser.find_element(By.ID, "cause")).select_by_value("")

    # A phone: nothing wider than the screen but inside of its own box.
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360  # turned
    browser.refresh()
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360  # opened

    # Dark: page and plots follow.
    tick = "getComputedStyle(document.querySelector('[data-figure] .xtick text')).fill"
    colours_of = f"return [getComputedStyle(document.body).backgroundColor, {tick}]"
    light = browser.execute_script(colours_of)
    dark_mode = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark_mode})
    WebDriverWait(browser, 10).until(lambda _: browser.execute_script(colours_of)[1] != light[1])
    assert light[0] == "rgb(255, 255, 255)"
    assert browser.execute_script(colours_of)[0] == "rgb(20, 23, 27)"

    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_page_is_of_the_run_that_was_measured(hostile: tuple[Dataset, list[Path]], tmp_path: Path) -> None:
    """Whatever takes the run's place after it was opened."""
    data, runs = hostile
    directory, task = shutil.copytree(runs[1], tmp_path / "run"), Task.from_split(data, "test")
    measured = [ReportedRun.measure("run", directory, task, 10)]
    page = render(measured, task, 10, 20)
    shutil.rmtree(directory)
    shutil.copytree(runs[0], directory)
    assert render(measured, task, 10, 20) == page
