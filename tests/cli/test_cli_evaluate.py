"""`xmc evaluate` as a user runs it: metrics by name, files a query, intervals, a paired test, files for trec_eval."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import fail, xmc
from typer.testing import CliRunner
from worlds import COLOURS, colours, tiny_config

import xmc as package
from xmc.cli import app, complete
from xmc.cli.lists import parse_integers
from xmc.errors import ConfigError
from xmc.metrics import METRICS


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, two runs, and the predictions of the second."""
    folder = tmp_path_factory.mktemp("evaluate")
    data = colours()
    data.save(folder / "data")
    for name, dimension in (("good", 32), ("poor", 2)):
        encoder = {"kind": "static", "dimension": dimension, "table_rows": 4096, "weight_slots": 4096}
        package.train(data, tiny_config(encoder=encoder), folder / name)
    split = data.split("test")
    labels, scores = package.Retriever.load(folder / "poor").predict(split.texts.to_pylist(), k=12)
    pq.write_table(
        pa.table({"uid": split.uids, "labels": labels.tolist(), "scores": scores.tolist()}), folder / "poor.parquet"
    )
    return folder


def evaluated(folder: Path, source: str, *arguments: object) -> str:
    """What the command prints, in this process."""
    words = ["evaluate", str(folder / source), str(folder / "data"), *map(str, arguments)]
    result = CliRunner().invoke(app, words, catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def test_the_command_of_the_manual(here: Path) -> None:
    options = ("--k", 1, 5, 10, 12, "--metrics", "p,ndcg,psp,recall,mrr,map,f1,gap")
    done = xmc("evaluate", *options, "good", "data", "--per-query", "out.parquet", "--trec", "trec", cwd=here)
    assert done.returncode == 0, done.stderr
    for name in ("P@1", "P@12", "nDCG@5", "PSP@10", "R@12", "MRR@5", "MAP@1", "F1@10", "GAP@20", "queries/s"):
        assert f" {name} " in done.stdout
    assert "P@3" not in done.stdout
    assert "written: out.parquet\nwritten: trec\n" in done.stdout
    assert pq.read_table(here / "out.parquet").num_rows == 100
    assert len((here / "trec" / "run.trec").read_text().splitlines()) == 100 * 12


def test_written_predictions_know_the_same_options(here: Path, tmp_path: Path) -> None:
    options = ("--k", "1,5", "-k", "10", "--metrics", "P,GAP@5")
    written, run = (json.loads(evaluated(here, name, *options, "--json")) for name in ("poor.parquet", "poor"))
    assert list(written["values"]) == ["P@1", "P@5", "P@10", "GAP@5"]
    assert written["values"] == pytest.approx(run["values"])
    evaluated(here, "poor.parquet", "--per-query", tmp_path / "queries.parquet", "--trec", tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["qrels.trec", "queries.parquet", "run.trec"]


def test_intervals_and_the_paired_test(here: Path, tmp_path: Path) -> None:
    options = ("--metrics", "p,gap", "--k", 1, "--samples", 200, "--intervals", "--confidence", 0.9)
    found = json.loads(evaluated(here, "good", *options, "--against", here / "poor", "--json"))
    low, high = found["intervals"]["P@1"]
    assert low <= found["values"]["P@1"] <= high
    assert found["confidence"] == 0.9
    paired = found["against"]["P@1"]
    assert paired["difference"] > 0
    assert 1 / 201 <= paired["p_value"] <= 1
    # The other run as its written predictions, or as a file of each query's metrics, on either side.
    evaluated(here, "poor", "--metrics", "p,gap", "--k", 1, "--per-query", tmp_path / "poor.parquet")
    evaluated(here, "good", "--metrics", "p,gap", "--k", 1, "--per-query", tmp_path / "good.parquet")
    for other in (here / "poor", tmp_path / "poor.parquet"):
        again = json.loads(evaluated(here, "good", *options, "--against", other, "--json"))["against"]["P@1"]
        assert again == pytest.approx(paired)
    files = json.loads(
        evaluated(here, str(tmp_path / "good.parquet"), *options[4:], "--against", tmp_path / "poor.parquet", "--json")
    )
    assert files["against"]["P@1"] == pytest.approx(paired)
    assert files["queries"] == 100
    shown = evaluated(here, "good", *options, "--against", here / "poor")
    assert shown.count("90%") == 2  # of the metric, and of the difference; a narrow column breaks its head
    assert f"{paired['difference']:+.2f}" in shown


def test_judgements_and_major_mistakes(here: Path, tmp_path: Path) -> None:
    package.Dataset.load(here / "data").save(tmp_path / "data")
    lists = pq.read_table(here / "poor.parquet")
    first = [labels[0] for labels in lists["labels"].to_pylist()]
    truth = [row.indices.tolist() for row in package.Dataset.load(here / "data").split("test").positives]
    names = package.Dataset.load(here / "data").labels.uids.to_pylist()
    words = ["correct" if names.index(label) in row else "wrong" for label, row in zip(first, truth, strict=True)]
    judged = pa.table({"query": lists["uid"], "label": first, "judgement": words})
    pq.write_table(judged, tmp_path / "data" / "judged-test.parquet")
    fail(xmc("evaluate", here / "good", tmp_path / "data"), "xmc data seal")
    assert "added: judged-test.parquet" in xmc("data", "seal", tmp_path / "data").stdout
    assert "are as they were listed" in xmc("data", "seal", tmp_path / "data").stdout
    (tmp_path / "poor.parquet").symlink_to(here / "poor.parquet")
    (tmp_path / "good").symlink_to(here / "good")
    slice_file = tmp_path / "major.parquet"
    poor = json.loads(evaluated(tmp_path, "poor.parquet", "--metrics", "p", "--save-mistakes", slice_file, "--json"))
    assert poor["judged"]["values"]["top-1"] == poor["values"]["P@1"] == words.count("correct")
    assert poor["judged"]["values"]["judged@1"] == 100
    wrong = words.count("wrong")
    assert pq.read_table(slice_file).num_rows == wrong > 10
    again = json.loads(evaluated(tmp_path, "poor.parquet", "--mistakes", slice_file, "--json"))["major_mistakes"]
    assert again["repeated"] == again["mistakes"] == wrong
    shown = evaluated(tmp_path, "good", "--mistakes", slice_file)
    assert f"judged pairs: {words.count('correct')} correct, 0 unclear, {wrong} wrong, of 100 queries" in shown
    assert f"Of {wrong} major mistakes, 0 are repeated (0.0%); a right label is first in {wrong}" in shown
    assert "judged@5" in shown


def test_mistakes_are_sentences(here: Path) -> None:
    fail(xmc("evaluate", "good", "data", "--metrics", "ndgc", cwd=here), "no metric 'ndgc'; choose one of p, ndcg, psp")
    with pytest.raises(ConfigError, match="--k must be integers from 1, such as --k 1,5,10, but is '0'"):
        evaluated(here, "good", "--k", "0")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--metrics", "p", "--k", "100"), "InputError", r"P@100 looks at 100 labels .* has 12; predict with --k 100"),
        (("--exact",), "ConfigError", "written predictions and metrics of queries are as they are"),
        (("--per-query", "x.csv"), "ConfigError", "--per-query writes Parquet; name the file x.parquet, not x.csv"),
        (("--save-mistakes", "x"), "ConfigError", "--save-mistakes writes Parquet; name the file x.parquet, not x"),
        (("--intervals", "--samples", "9"), "InputError", "number of samples must be from 100 to 1,000,000, but is 9"),
        (("--mistakes", "nowhere.parquet"), "DataError", "nowhere.parquet cannot be read as major mistakes"),
    ],
)
def test_what_written_predictions_cannot_tell(here: Path, arguments: tuple[str, ...], error: str, message: str) -> None:
    with pytest.raises(package.XMCError, match=message) as raised:
        evaluated(here, "poor.parquet", *arguments)
    assert type(raised.value).__name__ == error


def test_places_that_cannot_be_written_are_refused_before_the_work(here: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "folder.parquet", tmp_path / "file"
    folder.mkdir()
    file.touch()
    for option in ("--per-query", "--save-mistakes"):
        with pytest.raises(ConfigError, match=f"{option} writes a file, but {folder} is a directory"):
            evaluated(here, "nothing.parquet", option, folder)
    with pytest.raises(ConfigError, match=f"--trec writes a folder, but {file} is a file"):
        evaluated(here, "nothing.parquet", "--trec", file)


def test_help_and_completion_name_every_metric() -> None:
    shown = re.sub(r"[\s│]+", " ", CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "200"}).output)
    assert f"Metrics, separated by commas: {', '.join(METRICS)};" in shown
    assert complete.measures("") == list(METRICS)
    assert complete.measures("p,nd") == ["p,ndcg"]


def test_exact_search_against_written_predictions(here: Path) -> None:
    """--exact is for the runs among the two, --separator for the written predictions."""
    options = ("--exact", "--separator", ";", "--k", 1, "--json")
    for first, second in (("poor", "poor.parquet"), ("poor.parquet", "poor")):
        found = json.loads(evaluated(here, first, *options, "--against", here / second))
        assert found["against"]["P@1"]["difference"] == pytest.approx(0)


def test_metrics_that_need_training_queries_are_left_out_and_named(here: Path, tmp_path: Path) -> None:
    test = package.Dataset.load(here / "data").split("test")
    lists = [row.indices.tolist() for row in test.positives]
    package.Dataset.from_lists(
        "only", list(COLOURS), {"test": (test.texts.to_pylist(), lists)}, label_uids=[name.upper() for name in COLOURS]
    ).save(tmp_path / "data")
    (tmp_path / "good").symlink_to(here / "good")
    shown = evaluated(tmp_path, "good", "--metrics", "p,psp", "--k", 1)
    assert "PSP@1 need training queries, which the data set does not have; they are left out.\n" in shown
    assert "need training" not in evaluated(tmp_path, "good")


def test_numbers_in_options() -> None:
    assert parse_integers(None, "--k") is None
    assert parse_integers(["1,5", "10,"], "--k") == [1, 5, 10]
    for texts in (["x"], ["1.5"], [","], ["-1"], ["0"]):
        with pytest.raises(ConfigError, match="--k must be integers from 1"):
            parse_integers(texts, "--k")
