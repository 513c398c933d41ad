"""Batch jobs that are resumed, refused, killed; and their memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_kills import command, kill_and_resume
from commands import ENVIRONMENT
from peak_memory import number_printed
from repetitions import kills
from worlds import COLOURS, colours, tiny_config

import xmc
from xmc.batch import Columns, JobOptions, embed_files, predict_files
from xmc.batch.predict import Prediction
from xmc.batch.search import SearchActor
from xmc.batch.work import load_work
from xmc.errors import StoreError
from xmc.search.answers import AnswerParts


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("jobs") / "run"
    xmc.train(colours(), tiny_config(epochs=1), out=directory)
    return directory


def write_queries(file: Path, rows: int) -> Path:
    texts = [f"{COLOURS[row % 12]} or {COLOURS[row % 7]}, number {row}" for row in range(rows)]
    pq.write_table(pa.table({"uid": list(map(str, range(rows))), "text": texts}), file, row_group_size=7000)
    return file


def test_resume_makes_what_is_missing_and_nothing_else(run: Path, tmp_path: Path) -> None:
    source, out = write_queries(tmp_path / "in.parquet", 1000), tmp_path / "out"
    options = JobOptions(rows_per_part=100)
    predict_files(run, source, out, options=options)
    whole = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(StoreError, match=r"holds a finished job; name another folder"):
        predict_files(run, source, out, options=options)
    for name in ("_SUCCESS", "part-00003.parquet", "part-00009.parquet"):
        (out / name).unlink()
    (out / ".part-00003.parquet.0123456789ab.tmp").write_bytes(b"left by a kill")
    with pytest.raises(StoreError, match=r"holds a job that is not finished; go on by --resume"):
        predict_files(run, source, out, options=options)
    times = {file.name: file.stat().st_mtime_ns for file in out.glob("part-*")}
    summary = predict_files(run, source, out, options=JobOptions(rows_per_part=100, resume=True))
    assert (summary.resumed, summary.rows) == (8, 1000)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == whole
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_resume_refuses_a_part_that_was_damaged_since(run: Path, form: str, tmp_path: Path) -> None:
    source, out = write_queries(tmp_path / "in.parquet", 100), tmp_path / "out"
    predict_files(run, source, out, format=form, options=JobOptions(rows_per_part=50))
    again = JobOptions(rows_per_part=50, resume=True)
    (out / "_SUCCESS").unlink()
    part = out / f"part-00001.{form}"
    whole = part.read_bytes()
    for place in range(8, len(whole) // 3, len(whole) // 12):  # among the values
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StoreError, match=rf"part-00001\.{form} is .*broken.*"):
            predict_files(run, source, out, format=form, options=again)
        assert not (out / "_SUCCESS").exists()
    part.write_bytes(whole)
    assert predict_files(run, source, out, format=form, options=again).resumed == 2


def test_resume_refuses_another_job(run: Path, tmp_path: Path) -> None:
    source, out = write_queries(tmp_path / "in.parquet", 300), tmp_path / "out"
    predict_files(run, source, out, k=3, options=JobOptions(rows_per_part=100))
    (out / "_SUCCESS").unlink()
    resumed = JobOptions(rows_per_part=100, resume=True)
    xmc.train(colours(), tiny_config(epochs=1, seed=1), out=tmp_path / "other")
    for message, arguments in {
        "another model": {"run": tmp_path / "other"},
        "another k: 3 there, 4 here": {"k": 4},
        "another condition": {"where": 'uid == "RED"'},
        "another division into parts": {"options": JobOptions(rows_per_part=150, resume=True)},
        "another input": {"source": write_queries(tmp_path / "other.parquet", 300)},
    }.items():
        given = {"run": run, "source": source, "destination": out, "k": 3, "options": resumed} | arguments
        with pytest.raises(StoreError, match=message):
            predict_files(**given)  # type: ignore[arg-type]
    predict_files(tmp_path / "other", source, tmp_path / "foreign", k=3, options=JobOptions(rows_per_part=100))
    part = out / "part-00001.parquet"
    part.write_bytes((tmp_path / "foreign" / part.name).read_bytes())
    with pytest.raises(StoreError, match=r"part-00001.parquet was written by another job"):
        predict_files(run, source, out, k=3, options=resumed)
    part.write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"part-00001.parquet is not a part that this job wrote, or is broken"):
        predict_files(run, source, out, k=3, options=resumed)


def test_parts_with_bad_rows_are_not_mixed_with_another_policy(run: Path, tmp_path: Path) -> None:
    table = pa.table({"uid": list("abcd"), "text": [None, "red", "blue", "pink"]})
    pq.write_table(table, tmp_path / "in.parquet")
    predict_files(
        run, tmp_path / "in.parquet", tmp_path / "out", options=JobOptions(rows_per_part=2, on_bad_row="null")
    )
    (tmp_path / "out" / "part-00001.parquet").unlink()
    with pytest.raises(StoreError, match=r"treated as --on-bad-row null says, not drop"):
        options = JobOptions(rows_per_part=2, on_bad_row="drop", resume=True)
        predict_files(run, tmp_path / "in.parquet", tmp_path / "out", options=options)


def test_nothing_foreign_is_overwritten(run: Path, tmp_path: Path) -> None:
    source = write_queries(tmp_path / "in.parquet", 10)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"holds notes.txt, which is no job's"):
        predict_files(run, source, tmp_path / "out")
    with pytest.raises(StoreError, match=r"in.parquet is a file; name a folder"):
        predict_files(run, source, source)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_a_second_job_on_a_folder_is_refused_while_the_first_lives(run: Path, tmp_path: Path) -> None:
    source, out = write_queries(tmp_path / "in.parquet", 200_000), tmp_path / "out"
    arguments = [run, "--input", source, "--output", out, "--rows-per-part", 500]
    first = subprocess.Popen(command(*arguments), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list(out.glob("part-*")):
            assert first.poll() is None
            time.sleep(0.01)
        with pytest.raises(StoreError, match=r"Another job is writing to .*out; wait for it"):
            predict_files(run, source, out, options=JobOptions(rows_per_part=500, resume=True))
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    some = len(list(out.glob("part-*")))
    summary = predict_files(run, source, out, options=JobOptions(rows_per_part=500, resume=True))
    assert summary.resumed == some
    assert pq.read_table(out, columns=["uid"])["uid"].to_pylist() == list(map(str, range(200_000)))


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost_or_doubled(run: Path, tmp_path: Path) -> None:
    source = write_queries(tmp_path / "in.parquet", 120_000)
    arguments = [run, "--input", source, "--rows-per-part", 1000, "-k", 5]
    predict_files(run, source, tmp_path / "whole", k=5, options=JobOptions(rows_per_part=1000))
    assert kill_and_resume(arguments, tmp_path / "out", kills=kills(6), start=3.0, seed=1) == kills(6)
    names = sorted(file.name for file in (tmp_path / "whole").iterdir())
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_memory_does_not_depend_on_the_size_of_the_input(run: Path, tmp_path: Path) -> None:
    program = "import sys\nfrom xmc.batch import predict_files\npredict_files(*sys.argv[1:], k=10)\nprint(peak())\n"
    peaks = []
    for rows in (30_000, 300_000):
        source = write_queries(tmp_path / f"{rows}.parquet", rows)
        peaks.append(number_printed(program, run, source, tmp_path / f"out-{rows}"))
    assert peaks[1] - peaks[0] < 57  # ten times the rows, whose labels as strings alone would take more than 200 MB


def test_what_a_job_says(run: Path, tmp_path: Path) -> None:
    table = pa.table({"uid": ["a", "b", "a"], "text": ["red\x07", None, "blue"]})
    pq.write_table(table, tmp_path / "in.parquet")
    arguments = [run, "--input", tmp_path / "in.parquet", "--output", tmp_path / "out", "--on-bad-row", "drop"]
    done = subprocess.run(command(*arguments), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"predicted 2 of 3 rows into {tmp_path / 'out'} (")
    assert lines[1:] == [
        "bad: 1 x null text",
        "noticed: 1 x control characters",
        "noticed: 1 x uid that an earlier row has",
    ]
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_text())["dropped"] == 1


FULL_DISK = """
import resource, signal, sys
from xmc.batch import JobOptions, embed_files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
try:
    embed_files(*sys.argv[1:4], options=JobOptions(rows_per_part=500, resume=len(sys.argv) > 4))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v.npy", "v.arrow"])
def test_a_full_disk_while_embeddings_are_joined(run: Path, name: str, tmp_path: Path) -> None:
    """The parts fit, the file of all does not: a sentence, and nothing is lost."""
    source = write_queries(tmp_path / "in.parquet", 3000)
    arguments = [sys.executable, "-c", FULL_DISK, str(run), str(source), str(tmp_path / name)]
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"StoreError: {tmp_path / name} cannot be written"), done.stdout
    assert "go on with resume" in done.stdout
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.parquet", "v.parts"]
    summary = embed_files(run, source, tmp_path / name, options=JobOptions(rows_per_part=500, resume=True))
    assert (summary.resumed, summary.predicted) == (6, 3000)


def test_all_of_a_job_is_of_one_run(run: Path, tmp_path: Path) -> None:
    """Workers that open the run later, such as one that Ray starts again, refuse another than the job began with."""
    place = str(shutil.copytree(run, tmp_path / "run"))
    work = Prediction(place, Columns(), 3, None, None, False, AnswerParts())
    fingerprint = work.describe()["run"]
    assert load_work(work, fingerprint).steps
    assert SearchActor(place, fingerprint, 0, 1).ready() == 12
    retriever = xmc.Retriever.load(place)
    retriever.remove_labels(["RED"])
    retriever.save(place, overwrite=True)
    for opened in (lambda: load_work(work, fingerprint), lambda: SearchActor(place, fingerprint, 0, 1)):
        with pytest.raises(
            StoreError, match=r"run was written anew since the job began, whose answers are all of one run"
        ):
            opened()
