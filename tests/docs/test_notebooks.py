"""The notebooks of docs/notebooks run from top to bottom, and are stored without what they print."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from small_models import minilm_directory

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"


def run(notebook: Any, folder: Path) -> list[Any]:
    """Run a notebook in a folder, by a kernel of this environment; returns the outputs of all cells."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed; pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed; pip install ipykernel")
    from traitlets.config import Config

    for attempt in range(3):  # a kernel's first messages are lost at times, and its client waits for ever
        here, tried = folder / str(attempt), copy.deepcopy(notebook)
        here.mkdir()
        sockets = Config(
            {"ConnectionFileMixin": {"transport": "ipc", "ip": str(here / "kernel")}}
        )  # no ports to race for
        resources = {"metadata": {"path": str(here)}}
        client = nbclient.NotebookClient(tried, timeout=120, kernel_name="python3", config=sockets, resources=resources)
        try:
            client.execute()
            break
        except nbclient.exceptions.CellTimeoutError:
            if attempt == 2:
                raise
    notebook.update(tried)
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def printed(outputs: list[Any]) -> str:
    return "".join(output["text"] for output in outputs if output.get("name") == "stdout")


def test_there_are_two_and_the_pages_lead_to_them() -> None:
    assert [notebook.stem for notebook in NOTEBOOKS] == ["from-sentence-transformers", "own-csv"]
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    assert set(re.findall(r"\]\(notebooks/([\w-]+)\.ipynb\)", pages)) == {notebook.stem for notebook in NOTEBOOKS}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_is_stored_without_outputs(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []
    for cell in code:
        compile("".join(cell["source"]), str(notebook), "exec")


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed; pip install nbclient ipykernel")
    if "sentence" in notebook.stem:
        minilm_directory()  # skips where it is not installed
    outputs = run(nbformat.read(notebook, as_version=4), tmp_path)
    assert re.search(r"trained: \d+ steps in .*, best epoch \d+ with P@1 \d", printed(outputs))


PROGRESS = """
import logging, threading
from xmc.progress import progress
heard = threading.Event()
class Heard(logging.Handler):
    def emit(self, record):
        print("heard:", record.getMessage())
        heard.set()
logging.getLogger("xmc.progress").addHandler(Heard())
with progress("counting", 8, unit="rows", interval=0.005, keep=True) as line:
    line.advance(3)
    WAIT
"""


@pytest.mark.slow
@pytest.mark.parametrize("widgets", [True, False])
def test_progress_is_a_widget_or_without_ipywidgets_a_line_of_the_log(widgets: bool, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed; pip install nbclient ipykernel")
    if widgets:
        pytest.importorskip("ipywidgets", reason="ipywidgets is not installed; pip install ipywidgets")
        code = PROGRESS.replace("WAIT", "pass")
    else:
        code = "import sys\nsys.modules['ipywidgets'] = None\n" + PROGRESS.replace("WAIT", "assert heard.wait(60)")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    outputs = run(notebook, tmp_path)
    shown = [output for output in outputs if WIDGET in output.get("data", {})]
    assert bool(shown) == widgets
    if widgets:
        states = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
        drawn = json.dumps([state["state"].get("outputs") for state in states.values()])
        assert "counting" in drawn
        assert "3 of 8 rows" in drawn
    else:
        assert "heard: counting: 3 of 8 rows, 0 s so far" in printed(outputs)
