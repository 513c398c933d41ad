"""Jobs over long texts: what the library answers, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner
from worlds import colours, tiny_config

import xmc
from xmc.batch import JobOptions, predict_files
from xmc.batch.options import Columns
from xmc.cli import app
from xmc.errors import InputError, StoreError

DOCUMENTS = [
    "red and blue things on a grey table under cyan",
    "pink",
    "black and white and brown " * 40,
    "",
    "a cyan sea",
]
OPTIONS = xmc.PassageOptions(tokens=4, stride=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("passages") / "run"
    xmc.train(colours(), tiny_config(epochs=4), directory)
    return directory


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents") / "documents.parquet"
    pq.write_table(pa.table({"uid": [f"d{row}" for row in range(5)], "text": DOCUMENTS}), path)
    return path


def test_a_job_equals_the_library_call(run: Path, source: Path, retriever: xmc.Retriever, tmp_path: Path) -> None:
    options = JobOptions(on_bad_row="drop", rows_per_part=2)
    predict_files(run, source, tmp_path / "out", 5, passages=OPTIONS, options=options)
    table = pq.read_table(tmp_path / "out")
    labels, scores = retriever.predict([text for text in DOCUMENTS if text], 5, passages=OPTIONS)
    assert table["labels"].to_pylist() == labels.tolist()
    np.testing.assert_array_equal(np.array(table["scores"].to_pylist(), np.float32), scores)
    job = json.loads((tmp_path / "out" / "_job.json").read_text())
    assert "passages" in json.dumps(job)
    with pytest.raises(StoreError):  # another job's folder
        predict_files(
            run, source, tmp_path / "out", 5, options=JobOptions(on_bad_row="drop", rows_per_part=2, resume=True)
        )


def test_the_command_says_the_same(run: Path, source: Path, tmp_path: Path) -> None:
    options = JobOptions(on_bad_row="null")
    predict_files(run, source, tmp_path / "library", 5, passages=OPTIONS, options=options)
    asked = ["predict", str(run), "--input", str(source), "--k", "5", "--on-bad-row", "null", "--output"]
    cut = ["--passages", "4", "--stride", "3", "--combine", "logmeanexp"]
    assert CliRunner().invoke(app, [*asked, str(tmp_path / "command"), *cut]).exit_code == 0
    assert pq.read_table(tmp_path / "command").equals(pq.read_table(tmp_path / "library"))
    refused = CliRunner().invoke(app, [*asked, str(tmp_path / "refused"), "--stride", "3"])
    assert "are for passages" in str(refused.exception)


def test_passages_of_other_than_texts_are_refused(run: Path, source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="passages are cut of texts"):
        predict_files(
            run, source, tmp_path / "out", passages=OPTIONS, options=JobOptions(columns=Columns(embedding="text"))
        )
    with pytest.raises(InputError, match="calibrated for whole texts"):
        predict_files(run, source, tmp_path / "out", passages=OPTIONS, probabilities=True)
