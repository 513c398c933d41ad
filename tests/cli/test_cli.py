"""The command line, as a user runs it: real processes, exit codes, sentences."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import fail, fail_each, xmc

from xmc.cli.search import combined, search
from xmc.errors import InputError
from xmc.search.retriever import Retriever

SMALL = [
    "--set",
    "epochs=1",
    "--set",
    "encoder.dimension=32",
    "--set",
    "encoder.table_rows=8192",
    "--set",
    "batch_size=1024",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cli") / "run[v2]"  # brackets are no markup
    done = xmc("train", "--dataset", "wordnet-8k", "--out", directory, *SMALL)
    assert done.returncode == 0, done.stderr
    assert f"run in {directory}\nnext: xmc evaluate '{directory}' wordnet-8k\n" in done.stdout
    return directory


def test_help_and_version_are_quick_and_load_nothing_heavy() -> None:
    assert xmc("--version").stdout.startswith("xmc 0.")
    assert "quickstart" in xmc("--help").stdout
    code = (
        "import sys, runpy; sys.argv = ['xmc', '--help']\n"
        "try: runpy.run_module('xmc', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'triton', 'numba', 'pyarrow', 'scipy', 'transformers', 'faiss'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).returncode == 0


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, xmc; sys.exit(bool({'torch', 'numpy', 'pyarrow', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_search_loads_no_compiler(run: Path) -> None:
    """Parts of libraries that take long to import, and that a search by bags of features does not use."""
    code = (
        "import sys; from xmc import Retriever; Retriever.load(sys.argv[1]).search(['a boat'])\n"
        "sys.exit(str({'torch._dynamo', 'triton', 'scipy.special', 'scipy.stats', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True)
    assert done.stderr == "set()\n"


@pytest.mark.slow
def test_evaluate_search_and_index(run: Path, tmp_path: Path) -> None:
    table = xmc("evaluate", run, "wordnet-8k").stdout
    for name in ("P@1", "nDCG@5", "PSP@5", "R@100", "2,828 queries"):
        assert name in table
    values = xmc("evaluate", run, "wordnet-8k", "--json").stdout
    assert '"P@1"' in values
    assert xmc("search", run, "a boat with two hulls", "-k", "3").stdout.count("\n") >= 4
    explained = xmc("search", run, "a boat", "-k", "1", "--explain").stdout
    assert "because of" in explained
    assert re.search(r"boat [+-]\d\.\d\d", explained)
    assert '"P@1"' in xmc("evaluate", run, "wordnet-8k", "--exact", "--json").stdout
    prompt = xmc("search", run, input="a kind of cheese\n\n")
    assert "7,488 labels" in prompt.stdout
    done = xmc("index", run, "HNSW16", "--out", tmp_path / "indexed")
    assert done.returncode == 0, done.stderr
    assert '"P@1"' in xmc("evaluate", tmp_path / "indexed", "wordnet-8k", "--json").stdout


@pytest.fixture(scope="module")
def priced(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The run with a price for two of its labels, and the uids of three."""
    retriever = Retriever.load(run)
    uids = retriever.labels.uids.to_pylist()[:3]
    retriever.set_columns({"uid": uids[:2], "price": [5, 20]})
    directory = tmp_path_factory.mktemp("priced") / "run"
    retriever.save(directory)
    return directory, uids


def test_search_with_filters_and_examples(priced: tuple[Path, list[str]]) -> None:
    run, (one, two, three) = priced
    boat = ["search", run, "a boat"]
    done = xmc(*boat, "--where", "price >= 0", "--exclude", one, "--unlike", "a cheese", "--diversity", 0.3)
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:]] == [two], done.stderr
    assert xmc("search", run, "--like", three, "-k", 1).stdout.splitlines()[1].split()[-1] == three
    prompt = xmc("search", run, "--where", "price < 10", input="a boat\n\n").stdout
    assert one in prompt
    assert two not in prompt
    fail(xmc(*boat, "--where", "prize < 3"), "uid (string), text (string), price (int64)")
    for mistake, message in (
        ({"text": ["a boat"], "include": ["nowhere"]}, "There is no label 'nowhere'"),
        ({"like": ["nowhere"]}, "There is no label 'nowhere'"),
        ({"text": ["a boat"], "where": "price + 1"}, r"'price \+ 1' is no condition"),
        ({"text": ["a boat"], "diversity": 3.0}, "diversity must lie between 0 and 1"),
    ):
        with pytest.raises(InputError, match=message):
            search(run, **mistake)  # type: ignore[arg-type]


def test_parts_of_a_query() -> None:
    query = combined("a boat", ["X", "Y"], ["a cheese", "a boat"])
    assert query.texts == {"a boat": 0.75, "a cheese": -0.25}
    assert query.labels == {"X": 0.5, "Y": 0.5}
    assert combined("", ["X"], []).texts == {}


def test_predict_with_a_condition(priced: tuple[Path, list[str]], tmp_path: Path) -> None:
    run, (one, two, _) = priced
    pq.write_table(pa.table({"uid": ["a", "b"], "text": ["a boat", "a cheese"]}), tmp_path / "in.parquet")
    files = ["--input", tmp_path / "in.parquet", "--output", tmp_path / "out"]
    assert "predicted 2 of 2 rows" in xmc("predict", run, *files, "--where", "price is not None").stdout
    for row in pq.read_table(tmp_path / "out").to_pylist():
        assert set(row["labels"]) == {one, two}
        assert len(row["scores"]) == 2


def test_predict(run: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"uid": ["a", "b"], "text": ["a boat", "a cheese"]}), tmp_path / "in.parquet")
    done = xmc("predict", run, "--input", tmp_path / "in.parquet", "--output", tmp_path / "out", "-k", 4)
    assert "predicted 2 of 2 rows" in done.stdout
    out = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["uid"] for row in out] == ["a", "b"]
    assert all(len(row["labels"]) == len(row["scores"]) == 4 for row in out)


def test_data_commands(tmp_path: Path) -> None:
    shown = xmc("data", "inspect", "wordnet-8k").stdout
    assert "7,488 labels, 846 without a training query" in shown
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.csv").write_text("uid,text,labels\n1,hello,a\n1,,b\n")
    found = xmc("data", "validate", source)
    assert found.returncode == 2
    assert "error: " in found.stdout
    assert "train.csv, line 3: the uid '1' stands a second time." in found.stdout
    assert "warning: " in found.stdout
    fail(xmc("data", "convert", source, tmp_path / "out"), "train.csv, line 3: the uid '1' stands a second time.")
    done = xmc("data", "convert", source, tmp_path / "out", "--on-bad-row", "drop")
    assert "dropped: 1 x duplicate uid" in done.stdout
    assert "queries: 1 train" in done.stdout
    fail(
        xmc("data", "convert", source, tmp_path / "out", "--on-bad-row", "ignore"),
        "'ignore' is not one of 'error', 'drop'",
    )


def test_mistakes_are_sentences(run: Path, tmp_path: Path) -> None:
    x = tmp_path / "x"
    fail(xmc("train", "--set", "epoch=3", "--out", x), "unknown key 'epoch'. Did you mean 'epochs'?")
    fail_each(
        (["train", "--out", x], "Name what to train on: --dataset DIRECTORY"),
        (["train", "--dry-run"], "Name what to train on: --dataset DIRECTORY"),
        (["train", "--dataset", "wordnet", "--out", x], "wordnet is neither a shipped data set"),
        (["train", tmp_path / "none.yaml", "--out", x], "none.yaml cannot be read"),
        (["train", "--dataset", "wordnet-8k", "--out", run, *SMALL], "already holds a run"),
        (["train", "--out", x, "--set", "index=[Flat]"], "index must be of type str"),
        (["evaluate", tmp_path / "nowhere", "wordnet-8k"], "nowhere does not exist"),
        (["evaluate", run, "wordnet-8k", "--split", "dev"], "has no split 'dev', only train, test"),
        (["index", run, "Faster"], "'Faster' is not an index design that faiss has"),
        (["predict", run, "--input", tmp_path / "no.parquet", "--output", tmp_path / "o"], "no.parquet"),
    )
    assert xmc("search").returncode == 2
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_quickstart_runs_and_prints_its_table(tmp_path: Path) -> None:
    """The main job, whole; what it reaches is in benchmarks/, here is a floor far below it."""
    done = xmc("quickstart", "--out", tmp_path / "quickstart")
    assert done.returncode == 0, done.stderr
    assert "omikuji Bonsai *" in done.stdout
    assert "Quoted figures" in done.stdout
    row = next(line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["xmc"])
    assert len(row) == 10
    assert float(row[1]) > 74
    proposed = [shlex.split(line)[1:] for line in done.stdout.splitlines() if line.startswith("    xmc ")]
    assert [words[0] for words in proposed] == ["search", "data"]
    for words in proposed:
        assert xmc(*words).returncode == 0
