"""Long work is never silent: bars on a terminal, lines of the log elsewhere."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from worlds import colours, tiny_config

import xmc
from xmc.batch import predict_files
from xmc.data.convert import convert
from xmc.data.readers import open_source
from xmc.data.validate import validate
from xmc.indexes.tuning import Goal, tune
from xmc.kernels.clustering import balanced_clusters
from xmc.progress import ProgressLine, progress, tracked

SOON = 0.005
"""Seconds between lines of the log, for tests that wait for them."""
AT_MOST = 60.0


class Heard(logging.Handler):
    """Keeps what the logger of progress says, and lets tests wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.news = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self.news:
            self.lines.append(record.getMessage())
            self.news.notify_all()

    def wait_for(self, text: str) -> str:
        """The first line that begins with a text, once there is one."""
        with self.news:
            assert self.news.wait_for(lambda: any(line.startswith(text) for line in self.lines), AT_MOST), self.lines
            return next(line for line in self.lines if line.startswith(text))


@contextmanager
def hearing(level: int = logging.INFO) -> Iterator[Heard]:
    logger, heard = logging.getLogger("xmc.progress"), Heard()
    before = logger.level
    logger.addHandler(heard)
    logger.setLevel(level)
    try:
        yield heard
    finally:
        logger.removeHandler(heard)
        logger.setLevel(before)


def test_a_line_of_the_log_says_how_far_the_work_is() -> None:
    with hearing() as heard:
        with progress("counting", 8, done=1, unit="rows", interval=SOON) as line:
            line.advance(2, "the second file")
            assert heard.wait_for("counting: 3 of 8 rows, the second file, 0 s so far")
            line.describe("counting again")
            line.say("")
            heard.wait_for("counting again: 3 of 8 rows, ")
        said = len(heard.lines)
        with progress("nothing to count", interval=SOON):
            assert heard.wait_for("nothing to count: 0 s so far")
        assert not any(line.startswith("counting") for line in heard.lines[said + 1 :])


def test_work_inside_of_work_has_a_line_of_its_own() -> None:
    with hearing() as heard, progress("outer", 3, unit="steps", interval=SOON):
        for number in tracked([0, 1], "inner", unit="items", interval=SOON):
            heard.wait_for(f"inner: {number} of 2 items, ")
        heard.wait_for("outer: 0 of 3 steps")


def test_sizes_and_speed() -> None:
    with progress("reading", 3_000_000, unit="bytes") as line:
        line.advance(1_500_000)
        assert line.sentence().startswith("reading: 1.5 MB of 3.0 MB, ")
    seen: list[float] = []
    with progress("stepping", 1000) as line:
        while line.speed is None:  # it needs two moments
            line.advance()
        seen.append(line.speed)
    assert seen[0] > 0


def test_items_count_for_their_size() -> None:
    lengths: list[str] = []
    with hearing(logging.DEBUG) as heard:
        for item in tracked(["ab", "cde"], "spelling", 5, unit="letters", size=len):
            lengths.append(item)
    assert lengths == ["ab", "cde"]
    assert heard.lines == ["spelling begins", "spelling ends"]


def test_an_error_in_the_work_ends_its_line() -> None:
    with hearing(logging.DEBUG) as heard, pytest.raises(ZeroDivisionError), progress("dividing"):
        raise ZeroDivisionError
    assert heard.lines == ["dividing begins", "dividing ends"]


WITHOUT_LOGGING = """
import sys, threading
from xmc.progress import progress
class Stream:
    def __init__(self): self.written = threading.Event()
    def write(self, text): sys.__stderr__.write(text); self.written.set()
    def flush(self): sys.__stderr__.flush()
sys.stderr = Stream()
with progress("counting", 8, unit="rows", interval=0.005) as line:
    line.advance(2)
    print(sys.stderr.written.wait(float(sys.argv[1])))
"""


@pytest.mark.parametrize(("rank", "seconds", "heard"), [("0", AT_MOST, True), ("1", 0.1, False)])
def test_without_logging_it_is_standard_error_and_of_a_torchrun_the_first_process(
    rank: str, seconds: float, heard: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LOGGING, str(seconds)],
        env={**os.environ, "RANK": rank},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{heard}\n"
    assert done.stderr.startswith("counting: 2 of 8 rows, 0 s so far\n") if heard else done.stderr == ""


ON_A_TERMINAL = """
import sys
from xmc.progress import progress
with progress("counting", 8, unit="rows", keep=True) as line:
    with progress("reading the file"):
        line.advance(2)
        sys.stdin.readline()
    print("a result")
    line.advance(6)
"""


def test_a_terminal_shows_bars_and_results_stay_in_their_pipe() -> None:
    ours, theirs = os.openpty()
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", ON_A_TERMINAL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
            text=True,
        )
        os.close(theirs)
        shown = b""
        while b"reading the file" not in shown:
            shown += os.read(ours, 4096)
        assert b"2 of 8 rows" in shown
        out, _ = child.communicate("\n", timeout=AT_MOST)
        rest = b""
        try:
            while chunk := os.read(ours, 4096):
                rest += chunk
        except OSError:
            pass  # the child's end is closed
    finally:
        os.close(ours)
    assert child.returncode == 0
    assert out == "a result\n"
    last = rest.decode().replace("\r", "").rstrip("\n").rpartition("\n")[2]
    assert "8 of 8 rows" in last or b"8 of 8 rows" in rest
    assert "reading the file" not in last


def test_a_fork_does_not_go_on_with_the_lines_of_its_parent() -> None:
    code = (
        "import os\nfrom xmc.progress import progress\n"
        "with progress('outer'):\n"
        "    child = os.fork()\n"
        "    with progress('inner', 3) as line: line.advance()\n"
        "if child: raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=AT_MOST)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_long_loop_reports(tmp_path: Path) -> None:
    """Each says when it begins, at the level DEBUG, whether or not it takes long enough here to be seen."""
    (tmp_path / "train.csv").write_text("uid,text,labels\n" + "".join(f"{n},text {n},{n % 3}\n" for n in range(120)))
    config = tiny_config(epochs=1, validation={"share": 0.2}, negatives=[{"kind": "shortlist"}], calibration=0.2)
    with hearing(logging.DEBUG) as heard:
        data = convert(open_source(tmp_path / "train.csv"), tmp_path / "data").dataset
        list(validate(open_source(tmp_path / "train.csv")))
        xmc.train(colours(), config, tmp_path / "run")
        retriever = xmc.Retriever.load(tmp_path / "run")
        xmc.evaluate(retriever, colours(), "train")
        retriever.reindex("IVF2,Flat")
        points = np.random.default_rng(0).standard_normal((2_000, 8)).astype(np.float32)
        tune(points, np.arange(2_000), points[:50], Goal(recall=0.5, k=1), report=lambda stage: None)
        balanced_clusters(points, 4)
        retriever.model.embed_queries(["a text"] * 1_025)
        predict_files(str(tmp_path / "run"), str(tmp_path / "train.csv"), str(tmp_path / "predicted"))
    assert len(data.split("train")) == 120
    begun = {line.removesuffix(" begins") for line in heard.lines if line.endswith(" begins")}
    assert {
        "converting labels", "converting queries-train", "checking labels", "tokenising queries", "tokenising labels",
        "training", "encoding labels", "encoding queries", "mining hard negatives", "evaluating", "indexing",
        "learning the cells and codebooks of IVF2,Flat", "clustering", "encoding query texts", "predict",
        f"counting the rows of {tmp_path / 'train.csv'}", "looking for repeated uids", "finishing the output",
    } <= begun  # fmt: skip
    ended = [line for line in heard.lines if line.endswith(" ends")]
    assert len(ended) == len([line for line in heard.lines if line.endswith(" begins")])


def test_nothing_else_draws_bars() -> None:
    """One helper reports progress; whatever draws bars of its own would not be heard where there is no terminal."""
    root = Path(__file__).resolve().parents[1]
    files = [
        file for top in ("xmc", "kernels", "indexes", "training", "benchmarks") for file in (root / top).rglob("*.py")
    ]
    others = ("rich.progress", "import tqdm", "from tqdm", "progressbar")
    drawing = [file for file in files if any(words in file.read_text(encoding="utf-8") for words in others)]
    assert drawing == [root / "xmc" / "progress.py"]


def test_lines_are_told_from_many_threads() -> None:
    with progress("adding", 400) as line:
        threads = [threading.Thread(target=_advance, args=(line,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert line.sentence().startswith("adding: 400 of 400, ")


def _advance(line: ProgressLine) -> None:
    for _ in range(100):
        line.advance()
