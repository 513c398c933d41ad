"""The README and docs/: every block of code runs or says why not, tables are what was measured, the site builds."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from families import members_restored
from pages import INLINE, PAGES, PROGRAMS, ROOT, Page, check_command, commands, options, run_blocks

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.errors import ConfigError
from xmc.training.trainer import train

ALL = [Page(path) for path in PAGES]
WITH_CODE = [page for page in ALL if any(block.language in ("python", "bash") for block in page.blocks)]


LONG = ("docs/calibration.md", "docs/predict.md", "docs/scaling.md")
"""Pages that take a minute and more, and show commands that have tests of their own."""


def by_name(page: Page) -> str:
    return page.name


def load(script: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(script, ROOT / "docs" / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[script] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages that begin with a trained run get: a small static encoder, one epoch on the shipped data set."""
    directory = tmp_path_factory.mktemp("documentation") / "run"
    settings = [
        "epochs=1",
        "negatives=[{kind: sampled, count: 1024}]",
        "encoder.dimension=64",
        "encoder.table_rows=16384",
    ]
    train(Dataset.load("wordnet-8k"), TrainConfig.from_mapping({}, settings), directory)
    return directory


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.nightly if page.name in LONG else pytest.mark.slow) for page in WITH_CODE],
    ids=[page.name for page in WITH_CODE],
)
def test_code_runs(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    for package in page.packages:
        pytest.importorskip(
            package, reason=f"{page.name} needs {package}, which is not installed; pip install {package}"
        )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    if page.run is not None:
        shutil.copytree(request.getfixturevalue("small_run"), page.run)
    runnable = [block for block in page.blocks if block.language in ("python", "bash") and block.reason is None]
    with members_restored():
        assert run_blocks(page) == len(runnable)


@pytest.mark.parametrize("page", ALL, ids=by_name)
def test_code_that_is_not_run_is_right_in_its_options(page: Page) -> None:
    for block in page.blocks:
        assert block.language, f"{page.name}, line {block.line}: name the language of the block, or `text`"
        assert block.reason != "", f"{page.name}, line {block.line}: say why the block is not run"
        if block.language == "bash":
            for words in commands(block.code):
                check_command(words)
        elif block.language == "python" and block.reason:
            compile(block.code, page.name, "exec")
        elif block.language == "yaml":
            TrainConfig.from_mapping(yaml.safe_load(block.code))
    for command in INLINE.findall(page.prose):
        for words in commands(command.replace("[", "").replace("]", "")):
            check_command(words)


def test_most_code_is_run() -> None:
    reasons = [block.reason for page in WITH_CODE for block in page.blocks if block.language in ("python", "bash")]
    left_out = [reason for reason in reasons if reason is not None]
    assert 2 * len(left_out) < len(reasons), left_out


@pytest.mark.parametrize("page", ALL, ids=by_name)
def test_commands_are_fenced(page: Page) -> None:
    loose = re.findall(rf"^ {{4,}}(?:{'|'.join(PROGRAMS)}) .*$", page.prose, re.MULTILINE)
    assert not loose, f"{page.name}: nothing runs what is only indented: {loose}"


def test_checks_of_commands_can_fail() -> None:
    assert list(commands("XMC_DATA=x python benchmarks/run.py search  # a note\ncd y && xmc train \\\n  --resume")) == [
        ["python", "benchmarks/run.py", "search"],
        ["xmc", "train", "--resume"],
    ]
    assert {"--out", "--resume", "--set"} <= options("train")
    for wrong in ("xmc predict RUN --inputs x", "xmc retrain", "make nothing", "python benchmarks/run.py nothing",
                  "torchrun -m xmc train --reserve"):  # fmt: skip
        with pytest.raises(AssertionError):
            check_command(wrong.split())
    for wrong in ("xmc train configs/static.yaml --set epoch=3", "xmc train configs/nothing.yaml"):
        with pytest.raises(ConfigError):
            check_command(wrong.split())


@pytest.mark.parametrize("page", ALL, ids=by_name)
def test_tables_are_what_was_measured(page: Page) -> None:
    tables = load("tables")
    assert tables.fill(page.text, tables.read_results()) == page.text, "run python docs/tables.py"


def test_every_table_is_shown() -> None:
    tables = load("tables")
    shown = {name for page in ALL for name in re.findall(r"<!-- table: (\w+) -->", page.text)}
    assert shown == set(tables.TABLES)
    results = tables.read_results()
    changed = {key: dict.fromkeys(values, 1e9) for key, values in results.items()}
    readme = ROOT.joinpath("README.md").read_text(encoding="utf-8")
    assert tables.fill(readme, changed) != readme


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed; pip install -e .[docs]")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed; pip install -e .[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {page.relative_to(tmp_path / "site").as_posix(): page.read_text() for page in tmp_path.rglob("*.html")}
    assert "decoupled_softmax" in pages["reference/kernels.html"]
    fetched = [
        url
        for text in pages.values()
        for url in re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?(http[^\" >]*)", text)
    ]
    assert not fetched, "the site needs nothing from elsewhere"


def test_sentences_of_troubleshooting_are_in_the_code() -> None:
    folders = ("xmc", "kernels", "indexes", "training")
    code = "\n".join(path.read_text(encoding="utf-8") for name in folders for path in (ROOT / name).rglob("*.py"))
    code = re.sub(r'"\s+f?"', "", code)  # strings that go on in the next line
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    sentences = re.findall(r"^\*\*`(.*)`\*\*", page, re.MULTILINE)
    fragments = [part.strip(" .'`,:;()") for sentence in sentences for part in sentence.split("...")]
    assert len(sentences) > 15
    assert [fragment for fragment in fragments if fragment not in code] == []
