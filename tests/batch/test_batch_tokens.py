"""How many tokens a job encoded, in its summary, its files and what people see."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_models import write_bert
from typer.testing import CliRunner
from worlds import colours, tiny_config

import xmc
from xmc.batch import JobOptions, embed_files, predict_files
from xmc.batch.summary import Summary
from xmc.cli import app

TEXTS = ["a boat", "dog", "the cat sleeps in its house", None, "the dog runs"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokens")
    xmc.Retriever.from_sentence_transformers(write_bert(directory / "bert"), ["boat", "dog"]).save(directory / "run")
    return directory / "run"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"uid": list("abcde"), "text": TEXTS}), tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


def test_tokens_of_good_rows_are_counted(run: Path, source: Path, tmp_path: Path) -> None:
    encoder = xmc.Retriever.load(run).model.query_encoder
    expected = len(encoder.featurize([text for text in TEXTS if text]).values)
    options = JobOptions(rows_per_part=2, on_bad_row="null")
    embedded = embed_files(run, source, tmp_path / "v.arrow", options=options)
    predicted = predict_files(run, source, tmp_path / "out", k=1, options=options)
    for summary in (embedded, predicted):
        assert summary.tokens == expected
        assert summary.rates().endswith(" tokens/s")
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_text())["tokens"] == expected
    resumed = predict_files(
        run, source, tmp_path / "out", k=1, options=JobOptions(rows_per_part=2, on_bad_row="null", resume=True)
    )
    assert (resumed.tokens, resumed.rates()) == (expected, "")


def test_hashed_features_are_no_tokens(source: Path, tmp_path: Path) -> None:
    xmc.train(colours(), tiny_config(epochs=1), tmp_path / "run")
    summary = predict_files(tmp_path / "run", source, tmp_path / "out", options=JobOptions(on_bad_row="drop"))
    assert summary.tokens == 0
    assert summary.rates().endswith(" rows/s")


def test_rates_are_those_of_the_whole_job() -> None:
    assert Summary(rows=3000, tokens=60000, seconds=2.0).rates() == "1,500 rows/s, 30,000 tokens/s"
    assert Summary(rows=3000, seconds=2.0).rates() == "1,500 rows/s"


def test_commands_print_both(run: Path, source: Path, tmp_path: Path) -> None:
    for command, output in (("embed", tmp_path / "v.npy"), ("predict", tmp_path / "out")):
        arguments = [command, str(run), "--input", str(source), "--output", str(output), "--on-bad-row", "drop"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert " rows/s, " in result.output
        assert " tokens/s)" in result.output
