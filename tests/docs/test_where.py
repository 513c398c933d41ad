"""docs/where.md: files, tests and registries that it names are there, and each family has what the page promises."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("docs/where.md", "CONTRIBUTING.md")}
PATH = re.compile(r"`((?:xmc|kernels|indexes|training|tests|benchmarks|configs|docs)/[\w./*-]*)`")
OBJECT = re.compile(r"`(xmc(?:\.\w+)+)`")


def module_attribute(name: str) -> Any:
    """The module, or the attribute of a module, of a dotted name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    paths = PATH.findall(PAGES[page])
    assert paths
    assert [path for path in paths if not any(ROOT.glob(path.rstrip("/")))] == []


@pytest.mark.parametrize("page", PAGES)
def test_objects_that_are_named_exist(page: str) -> None:
    for name in OBJECT.findall(PAGES[page]):
        assert module_attribute(name) is not None


def test_every_family_of_the_page_has_members_a_contract_and_a_test() -> None:
    rows = [line.split("|")[1:-1] for line in PAGES["docs/where.md"].splitlines() if line.startswith("| [")]
    assert len(rows) >= 9
    headings = {title.lower() for title in re.findall(r"^## (.+)$", PAGES["docs/where.md"], re.MULTILINE)}
    for what, contract, example, registry, test in rows:
        title = re.fullmatch(r"\[(.+)\]\(#(.+)\)", what.strip())
        assert title is not None
        assert title[1] in headings
        assert title[2] == title[1].replace(" ", "-")
        assert PATH.search(contract)
        assert PATH.search(example)
        assert "test" in test
        for name in OBJECT.findall(registry):
            members = module_attribute(name)
            assert isinstance(members, Mapping)
            assert members


def test_a_wrong_name_is_seen() -> None:
    assert PATH.findall("`xmc/nothing.py` and `tests/a/b.py`") == ["xmc/nothing.py", "tests/a/b.py"]
    with pytest.raises(AttributeError):
        module_attribute("xmc.registry.Nothing")
