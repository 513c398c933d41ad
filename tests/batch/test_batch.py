"""Batch jobs on one machine: what comes out, of which input, in which files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import write_bert
from worlds import colours, tiny_config

import xmc
from xmc.batch import Columns, JobOptions, embed_files, predict_files
from xmc.batch.duplicates import count_duplicates
from xmc.batch.evaluation import evaluate_files
from xmc.batch.windows import windows
from xmc.data.dataset import Dataset
from xmc.errors import ConfigError, DataError, InputError, StoreError
from xmc.evaluation.evaluate import evaluate

TEXTS = [f"{a} and {b}" for a in ("red", "green", "blue", "black", "pink") for b in ("white", "brown", "grey", "cyan")]
QUERIES = pa.table({"uid": [f"q{row}" for row in range(60)], "text": TEXTS * 3, "more": list(range(60))})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("batch") / "run"
    xmc.train(colours(), tiny_config(), out=directory)
    return directory


def parts(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if not file.name.startswith("_"))


def read(folder: Path) -> pa.Table:
    """As any reader of Parquet folders does: files whose names begin with an underscore are not data."""
    return pq.read_table(folder)


def test_parts_hold_what_predict_gives_in_the_order_of_the_input(
    run: Path, retriever: xmc.Retriever, tmp_path: Path
) -> None:
    pq.write_table(QUERIES, tmp_path / "in.parquet", row_group_size=25)
    options = JobOptions(rows_per_part=16)
    summary = predict_files(run, tmp_path / "in.parquet", tmp_path / "out", k=3, label_texts=True, options=options)
    assert (summary.rows, summary.predicted, summary.null, summary.dropped, summary.resumed) == (60, 60, 0, 0, 0)
    assert parts(tmp_path / "out") == [f"part-{number:05d}.parquet" for number in range(4)]
    out = read(tmp_path / "out")
    assert out.schema.remove_metadata() == pa.schema(
        [
            ("uid", pa.string()),
            ("labels", pa.list_(pa.string())),
            ("scores", pa.list_(pa.float32())),
            ("texts", pa.list_(pa.string())),
        ]
    )
    labels, scores = retriever.predict(QUERIES["text"].to_pylist(), k=3)
    assert out["uid"].to_pylist() == QUERIES["uid"].to_pylist()
    assert out["labels"].to_pylist() == labels.tolist()
    np.testing.assert_allclose(np.array(out["scores"].to_pylist()), scores, atol=1e-6)
    assert out["texts"].to_pylist() == [retriever.texts(row) for row in labels.tolist()]
    described = json.loads(pq.read_metadata(tmp_path / "out" / "part-00001.parquet").metadata[b"xmc"])
    done = json.loads((tmp_path / "out" / "_SUCCESS").read_text())
    assert described["job"] == done["job"]
    assert described["run"] == done["run"]
    assert [part["rows"] for part in done["parts"]] == [16, 16, 16, 12]
    assert done["rows"] == done["predicted"] == 60
    assert pq.ParquetFile(tmp_path / "out" / "part-00001.parquet").metadata.row_group(0).column(0).compression == "ZSTD"


def written(name: str, folder: Path) -> Path:
    """The queries in the format that a name asks for."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    if name.endswith(".parquet"):
        pq.write_table(QUERIES, file)
    elif name.endswith(".arrow"):
        with pa.ipc.new_file(str(file), QUERIES.schema) as writer:
            for batch in QUERIES.to_batches(max_chunksize=7):
                writer.write_batch(batch)
    else:
        plain = file.with_name("plain")
        if ".csv" in name:
            pa_csv.write_csv(QUERIES, plain)
        else:
            plain.write_text("".join(json.dumps(row) + "\n" for row in QUERIES.to_pylist()))
        content = plain.read_bytes()
        plain.unlink()
        file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return file


@pytest.fixture(scope="module")
def expected(run: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("expected")
    predict_files(run, written("in.parquet", folder), folder / "out", k=3)
    return read(folder / "out")


@pytest.mark.parametrize("name", ["a.arrow", "a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz"])
def test_every_format_gives_the_same(run: Path, expected: pa.Table, tmp_path: Path, name: str) -> None:
    file = written(name, tmp_path / "in")
    predict_files(run, file, tmp_path / "out", k=3, options=JobOptions(rows_per_part=26))
    assert len(parts(tmp_path / "out")) == 3
    assert read(tmp_path / "out").equals(expected)


def test_folders_globs_and_addresses(run: Path, expected: pa.Table, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    pq.write_table(QUERIES[:20], folder / "a.parquet")
    pq.write_table(QUERIES[20:40], folder / "b.parquet")
    pq.write_table(QUERIES[40:], folder / "deep" / "c.parquet")
    (folder / "_SUCCESS").write_text("{}")
    (folder / "notes.txt").write_text("not data")
    predict_files(run, folder, tmp_path / "all", k=3)
    assert read(tmp_path / "all").equals(expected)
    predict_files(run, f"{folder}/[ab].parquet", tmp_path / "two", k=3)
    assert read(tmp_path / "two").equals(expected[:40])
    predict_files(run, f"file://{folder}/b.parquet", tmp_path / "one", k=3)
    assert read(tmp_path / "one").equals(expected[20:40])
    memory = fsspec.filesystem("memory")
    memory.pipe("/jobs/in/a.parquet", (folder / "a.parquet").read_bytes())
    predict_files(run, "memory://jobs/in/*.parquet", "memory://jobs/out", k=3)
    assert sorted(memory.ls("/jobs/out", detail=False)) == [
        "/jobs/out/_SUCCESS",
        "/jobs/out/_job.json",
        "/jobs/out/part-00000.parquet",
    ]
    assert pq.read_table(memory.open("/jobs/out/part-00000.parquet")).equals(expected[:20])


def test_tokens_and_embeddings_in_place_of_texts(
    run: Path, retriever: xmc.Retriever, expected: pa.Table, tmp_path: Path
) -> None:
    encoder = retriever.model.query_encoder
    features = encoder.featurize(QUERIES["text"].to_pylist())
    lists = [row.tolist() for row in np.split(features.values, features.offsets[1:-1])]
    embeddings = retriever.embed_queries(QUERIES["text"].to_pylist())
    table = pa.table({"uid": QUERIES["uid"], "ids": lists, "vector": embeddings.tolist()})
    pq.write_table(table, tmp_path / "in.parquet")
    for columns in (Columns(tokens="ids"), Columns(embedding="vector")):
        out = tmp_path / columns.payload
        predict_files(run, tmp_path / "in.parquet", out, k=3, options=JobOptions(columns))
        assert read(out).equals(expected)
    with pytest.raises(ConfigError, match=r"not both"):
        Columns(tokens="ids", embedding="vector")


def test_tokens_that_no_tokenizer_gives_are_refused(tmp_path: Path) -> None:
    bert = write_bert(tmp_path / "bert")
    r = xmc.Retriever.from_sentence_transformers(bert, ["red", "blue"])
    r.save(tmp_path / "run")
    pq.write_table(pa.table({"uid": ["a", "b"], "ids": [[1, 2], [10**6]]}), tmp_path / "in.parquet")
    with pytest.raises(DataError, match=r"'ids' holds tokens .* 1000000 is not one of the tokenizer's"):
        predict_files(
            tmp_path / "run", tmp_path / "in.parquet", tmp_path / "out", options=JobOptions(Columns(tokens="ids"))
        )


def test_a_condition_makes_lists_shorter(run: Path, tmp_path: Path) -> None:
    pq.write_table(QUERIES, tmp_path / "in.parquet")
    predict_files(run, tmp_path / "in.parquet", tmp_path / "out", k=5, where='uid == "RED" or uid == "PINK"')
    out = read(tmp_path / "out")
    assert {len(row) for row in out["labels"].to_pylist()} == {2}
    assert {uid for row in out["labels"].to_pylist() for uid in row} == {"RED", "PINK"}
    with pytest.raises(InputError, match=r"whose columns are"):
        predict_files(run, tmp_path / "in.parquet", tmp_path / "out2", where="colour == 1")
    predict_files(run, tmp_path / "in.parquet", tmp_path / "out2", where='uid == "RED"')  # nothing stands in its way


def test_an_empty_file_gives_an_empty_part(run: Path, tmp_path: Path) -> None:
    pq.write_table(QUERIES[:0], tmp_path / "in.parquet")
    assert predict_files(run, tmp_path / "in.parquet", tmp_path / "out").rows == 0
    assert read(tmp_path / "out").num_rows == 0
    assert parts(tmp_path / "out") == ["part-00000.parquet"]


def test_embedded_files_are_input_for_predictions(
    run: Path, retriever: xmc.Retriever, expected: pa.Table, tmp_path: Path
) -> None:
    pq.write_table(QUERIES, tmp_path / "in.parquet")
    options = JobOptions(rows_per_part=16)
    assert embed_files(run, tmp_path / "in.parquet", tmp_path / "v.arrow", options=options).predicted == 60
    predict_files(run, tmp_path / "v.arrow", tmp_path / "out", k=3, options=JobOptions(Columns(embedding="embedding")))
    assert read(tmp_path / "out").equals(expected)
    embed_files(run, tmp_path / "in.parquet", tmp_path / "v.npy", side="label", options=options)
    matrix = np.load(tmp_path / "v.npy")
    np.testing.assert_allclose(matrix, retriever.model.embed_labels(QUERIES["text"].to_pylist()), atol=1e-6)
    assert pq.read_table(tmp_path / "v.uids.parquet")["uid"].equals(QUERIES["uid"])
    assert sorted(file.name for file in tmp_path.glob("v.*")) == ["v.arrow", "v.npy", "v.uids.parquet"]
    with pytest.raises(StoreError, match=r"v.npy exists already"):
        embed_files(run, tmp_path / "in.parquet", tmp_path / "v.npy")
    with pytest.raises(ConfigError, match=r"side must be query or label, but is 'lable'"):
        embed_files(run, tmp_path / "in.parquet", tmp_path / "w.npy", side="lable")
    with pytest.raises(ConfigError, match=r"must end with .arrow or .npy"):
        embed_files(run, tmp_path / "in.parquet", tmp_path / "v.txt")


def test_bad_rows_of_embeddings_are_null_or_not_a_number(run: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"uid": ["a", "b"], "text": ["red", None]}), tmp_path / "in.parquet")
    options = JobOptions(on_bad_row="null")
    embed_files(run, tmp_path / "in.parquet", tmp_path / "v.arrow", options=options)
    with pa.ipc.open_file(str(tmp_path / "v.arrow")) as file:
        assert file.read_all()["embedding"].is_null().to_pylist() == [False, True]
    embed_files(run, tmp_path / "in.parquet", tmp_path / "v.npy", options=options)
    assert np.isnan(np.load(tmp_path / "v.npy")).all(axis=1).tolist() == [False, True]


def test_written_predictions_are_evaluated_as_the_run_is(run: Path, retriever: xmc.Retriever, tmp_path: Path) -> None:
    data = colours()
    split = data.split("test")
    table = pa.table({"uid": split.uids, "text": split.texts})
    pq.write_table(table, tmp_path / "in.parquet")
    predict_files(run, tmp_path / "in.parquet", tmp_path / "out", k=12)
    found = evaluate_files(tmp_path / "out", data)
    whole = evaluate(retriever, data).values
    assert found.values == {name: value for name, value in whole.items() if name != "R@100"}
    assert (found.missing, found.unknown, found.longest) == (0, 0, 12)
    rest = read(tmp_path / "out")[10:]
    pq.write_table(rest, tmp_path / "rest.parquet")
    fewer = evaluate_files(tmp_path / "rest.parquet", data)
    assert fewer.missing == 10
    assert fewer.values["R@10"] < found.values["R@10"]
    pq.write_table(pa.concat_tables([rest, rest]), tmp_path / "twice.parquet")
    with pytest.raises(DataError, match=r"some uids stand twice"):
        evaluate_files(tmp_path / "twice.parquet", data)
    with pytest.raises(DataError, match=r"share no query uid"):
        evaluate_files(tmp_path / "rest.parquet", Dataset.load("wordnet-8k"))
    file = tmp_path / "out" / "part-00000.parquet"
    content = file.read_bytes()
    for damaged, message in (
        (content[:-1] + b"x", "does not match its SHA-256 in _SUCCESS"),
        (content[:-1], "where _SUCCESS says"),
        (None, "is missing"),
    ):
        file.unlink() if damaged is None else file.write_bytes(damaged)
        with pytest.raises(StoreError, match=rf"part-00000.parquet .*{message}.*predict into another folder"):
            evaluate_files(tmp_path / "out", data)
    file.write_bytes(content)
    (tmp_path / "out" / "part-00007.parquet").write_bytes(content)
    with pytest.raises(StoreError, match=r"part-00007.parquet is not among the parts that _SUCCESS lists"):
        evaluate_files(tmp_path / "out", data)
    (tmp_path / "out" / "part-00007.parquet").unlink()
    listed = (tmp_path / "out" / "_SUCCESS").read_text()
    for edited in (
        "[]",
        "{",
        listed.replace("part-00000", "../part-00000"),
        listed.replace('"sha256": "', '"sha256": "0'),
    ):
        (tmp_path / "out" / "_SUCCESS").write_text(edited)
        with pytest.raises(StoreError, match=r"_SUCCESS cannot be read: .*Predict into another folder"):
            evaluate_files(tmp_path / "out", data)
    old = json.loads(listed)  # as jobs of before, without sizes
    for part in old["parts"]:
        del part["size"]
    (tmp_path / "out" / "_SUCCESS").write_text(json.dumps(old))
    assert evaluate_files(tmp_path / "out", data).values == found.values
    (tmp_path / "out" / "_SUCCESS").unlink()
    with pytest.raises(StoreError, match=r"its job is not finished"):
        evaluate_files(tmp_path / "out", data)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=60), st.lists(st.integers(1, 9), min_size=1), st.integers(1, 9))
def test_windows_do_not_depend_on_how_rows_come(texts: list[str], sizes: list[int], rows: int) -> None:
    whole = pa.record_batch({"text": pa.array(texts, pa.string())})
    pieces, start = [], 0
    while start < len(texts):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(whole[start : start + size])
        start += size
    cut = [batch["text"].to_pylist() for batch in windows(iter(pieces), ["text"], rows, largest=20)]
    assert cut == [batch["text"].to_pylist() for batch in windows(iter([whole]), ["text"], rows, largest=20)]
    assert [text for window in cut for text in window] == texts
    for window in cut:
        assert len(window) <= rows
        assert sum(len(text.encode()) for text in window[:-1]) < 20


@given(st.lists(st.sampled_from("abcdefgh"), max_size=40), st.integers(1, 7))
def test_duplicates_are_counted_in_any_number_of_passes(uids: list[str], held: int) -> None:
    import xmc.batch.duplicates as module

    before, module.HELD = module.HELD, held
    try:
        found = count_duplicates(
            lambda: iter([pa.array(uids[:9], pa.string()), pa.array(uids[9:], pa.string())]), len(uids)
        )
    finally:
        module.HELD = before
    assert found == len(uids) - len(set(uids))
