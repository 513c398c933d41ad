"""Batch jobs by Ray: the same files, with actors that are killed, and with labels that are split between actors."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_kills import command, kill_and_resume
from commands import ENVIRONMENT
from repetitions import kills
from worlds import tiny_config, wordnet_part

import xmc
from xmc.batch import JobOptions, predict_files
from xmc.search.passages import PassageOptions

pytest.importorskip("ray", reason="Ray is not installed; pip install 'ray[data]'")
# Each starts a cluster on this machine, which takes ten seconds; one after another.
pytestmark = pytest.mark.xdist_group("ray")

ROWS = 1500


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ray") / "run"
    xmc.train(wordnet_part(300), tiny_config(epochs=1), out=directory)
    return directory


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ray") / "in.parquet"
    texts: list[str | None] = wordnet_part(ROWS).split("train").texts.to_pylist()
    texts[7], texts[700], texts[1400] = None, "", "a boat\x07"
    pq.write_table(pa.table({"uid": list(map(str, range(ROWS))), "text": texts}), file, row_group_size=400)
    return file


@pytest.fixture(scope="module")
def whole(run: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("ray") / "out"
    predict_files(run, source, out, k=10, options=JobOptions(rows_per_part=31, on_bad_row="drop"))
    return contents(out)


def contents(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir()}


def workers() -> list[int]:
    """Process numbers of the actors that hold a model."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"MapWorker" in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.nightly
def test_formats_and_columns_of_the_input_are_as_on_one_machine(run: Path, source: Path, tmp_path: Path) -> None:
    form = {"k": 3, "format": "csv", "separator": "|", "keep_columns": ["text"]}
    options = {"rows_per_part": 400, "on_bad_row": "null"}
    predict_files(run, source, tmp_path / "one", **form, options=JobOptions(**options))  # type: ignore[arg-type]
    by_ray = JobOptions(**options, engine="ray", workers=2)  # type: ignore[arg-type]
    predict_files(run, source, tmp_path / "ray", **form, options=by_ray)  # type: ignore[arg-type]
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")


@pytest.mark.slow
def test_two_workers_one_of_which_is_killed_give_the_same_files(
    run: Path, source: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--rows-per-part", 31, "--on-bad-row", "drop", "--engine", "ray", "--workers", 2]
    log = (tmp_path / "log").open("wb")
    job = subprocess.Popen(
        command(run, "--input", source, "--output", out, *options), env=ENVIRONMENT, stdout=log, stderr=log
    )
    while not list(out.glob("*part-*")):
        assert job.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.01)
    os.kill(workers()[0], signal.SIGKILL)
    assert job.wait(120) == 0, (tmp_path / "log").read_text()
    assert contents(out) == whole


@pytest.mark.slow
def test_labels_split_between_actors_give_the_same_files(
    run: Path, source: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    options = JobOptions(rows_per_part=31, on_bad_row="drop", engine="ray", workers=1, index_shards=2)
    predict_files(run, source, tmp_path / "out", k=10, options=options)
    assert contents(tmp_path / "out") == whole


@pytest.mark.nightly
def test_passages_of_long_texts_give_the_same_files(run: Path, source: Path, tmp_path: Path) -> None:
    cut = PassageOptions(tokens=3, stride=2)
    for name, more in (("one", {}), ("shards", {"engine": "ray", "workers": 1, "index_shards": 2})):
        options = JobOptions(rows_per_part=400, on_bad_row="drop", **more)  # type: ignore[arg-type]
        predict_files(run, source, tmp_path / name, k=10, passages=cut, options=options)
    assert contents(tmp_path / "shards") == contents(tmp_path / "one")


@pytest.mark.nightly
def test_memory_and_reranker_give_the_same_files(source: Path, tmp_path: Path) -> None:
    data = wordnet_part(600)
    config = tiny_config(epochs=2, calibration=0.5)
    xmc.train(data, config, out=tmp_path / "run")
    retriever = xmc.Retriever.load(tmp_path / "run")
    xmc.fit_memory(retriever, data, "own")
    xmc.fit_reranker(retriever, data)
    retriever.save(tmp_path / "run", overwrite=True)
    for name, more in (("one", {}), ("shards", {"engine": "ray", "workers": 1, "index_shards": 2})):
        options = JobOptions(rows_per_part=400, on_bad_row="drop", **more)  # type: ignore[arg-type]
        predict_files(tmp_path / "run", source, tmp_path / name, k=10, options=options)
    assert contents(tmp_path / "shards") == contents(tmp_path / "one")


@pytest.mark.slow
def test_a_bad_row_is_a_sentence_from_a_worker_too(run: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"uid": ["a", "b"], "text": ["a boat", None]}), tmp_path / "in.parquet")
    arguments = [run, "--input", tmp_path / "in.parquet", "--output", tmp_path / "out", "--engine", "ray"]
    done = subprocess.run(command(*arguments), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "row 2 (uid 'b') cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_killed_job_is_resumed(run: Path, source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [run, "--input", source, "--rows-per-part", 31, "--on-bad-row", "drop", "--engine", "ray"]
    assert kill_and_resume(arguments, out, kills=kills(1), start=10.0, seed=2) == kills(1)
    assert contents(out) == whole
