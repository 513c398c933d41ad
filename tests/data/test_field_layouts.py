"""The layouts of BEIR, Annif, fastText and PECOS: what each file of theirs means, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest
from commands import fail, xmc
from layouts import lines

from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.readers import TabularColumns, open_source
from xmc.data.validate import validate
from xmc.errors import DataError


def converted(source: Path, out: Path, format: str | None = None, **columns: str) -> Dataset:
    return convert(open_source(source, format, TabularColumns(**columns)), out).dataset  # type: ignore[arg-type]


def positives(data: Dataset, split: str = "train") -> list[list[str]]:
    uids = data.labels.uids.to_pylist()
    return [[uids[label] for label in row.indices] for row in data.split(split).positives]


def found(source: Path, **columns: str) -> list[tuple[str, int, str]]:
    defects = validate(open_source(source, None, TabularColumns(**columns)))  # type: ignore[arg-type]
    return [(defect.file.name, defect.line, defect.reason) for defect in defects]


# --------------------------------------------------------------------------------------------------------------- BEIR


def beir(root: Path) -> Path:
    documents = [
        {"_id": "d1", "title": "Albert Einstein", "text": "was a physicist", "metadata": {}},
        {"_id": "2", "title": "", "text": "Wheat beer"},
        {"_id": "d3", "text": "untitled"},
    ]
    queries = [{"_id": f"q{row}", "text": f"question {row}", "metadata": {}} for row in range(5)]
    lines(root / "corpus.jsonl", [json.dumps(row) for row in documents])
    lines(root / "queries.jsonl", [json.dumps(row) for row in queries])
    header = "query-id\tcorpus-id\tscore"
    lines(root / "qrels" / "train.tsv", [header, "q0\td1\t1", "q2\t2\t2", "q0\td3\t0"])
    lines(root / "qrels" / "dev.tsv", [header, "q1\td3\t1"])
    lines(root / "qrels" / "test.tsv", [header, "q3\td1\t1", "q3\t2\t-1"])
    return root


def test_beir(tmp_path: Path) -> None:
    done = xmc("data", "convert", beir(tmp_path / "source"), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    data = Dataset.load(tmp_path / "out")
    assert data.splits == ("train", "validation", "test")
    assert data.labels.uids.to_pylist() == ["d1", "2", "d3"]
    assert data.labels.texts.to_pylist() == ["Albert Einstein was a physicist", "Wheat beer", "untitled"]
    train = data.split("train")
    assert train.uids.to_pylist() == ["q0", "q2"]  # q4 is judged nowhere
    assert train.texts.to_pylist() == ["question 0", "question 2"]
    assert train.positives.toarray().tolist() == [[1, 0, 0], [0, 2, 0]]
    assert train.rejected.toarray().tolist() == [[False, False, True], [False, False, False]]
    assert positives(data, "validation") == [["d3"]]
    assert data.split("test").rejected.toarray().tolist() == [
        [False, True, False]
    ]  # less than 0 is not relevant either


def test_beir_defects(tmp_path: Path) -> None:
    root = beir(tmp_path)
    header = "query-id\tcorpus-id\tscore"
    lines(root / "qrels" / "train.tsv", [header, "q9\td1\t1", "q0\td9\t1", "q0\td1\thigh", "q0\td1", "q2\t2\t1"])
    lines(root / "queries.jsonl", [*(root / "queries.jsonl").read_text().splitlines(), "{"])
    assert sorted(found(root)) == [
        ("queries.jsonl", 6, "malformed line"),  # once, not for every split
        ("train.tsv", 2, "unknown query"),
        ("train.tsv", 3, "unknown label"),
        ("train.tsv", 4, "bad relevance"),
        ("train.tsv", 5, "line with another number of cells"),
    ]
    done = convert(open_source(root), tmp_path / "out", on_bad_row="drop")
    assert positives(done.dataset) == [["2"]]
    assert sum(done.dropped.values()) == 5
    lines(root / "qrels" / "train.tsv", ["query\tdocument\tscore", "q0\td1\t1"])
    with pytest.raises(
        DataError, match=r"train.tsv has no columns 'query-id' and 'corpus-id', only query, document, score"
    ):
        list(validate(open_source(root)))
    lines(root / "qrels" / "valid.tsv", [header, "q1\td3\t1"])
    with pytest.raises(DataError, match=r"dev.tsv and .*valid.tsv are both judgements of the split validation"):
        open_source(root)


# -------------------------------------------------------------------------------------------------------------- Annif


SUBJECTS = ["<http://x/a>\tarchaeology\tN1", "<http://x/b>\tbronze age", "<http://x/old>"]
SKOS = dedent("""
    @prefix skos: <http://www.w3.org/2004/02/skos/core#> .
    @prefix owl: <http://www.w3.org/2002/07/owl#> .
    @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
    <http://x/b> a skos:Concept ; skos:prefLabel "bronze age"@en, "pronssikausi"@fi ; skos:altLabel "age of bronze"@en .
    <http://x/a> a skos:Concept ; skos:prefLabel "archaeology"@en, "arkeologia"@fi .
    <http://x/old> a skos:Concept ; skos:prefLabel "old"@en ; owl:deprecated true .
    <http://x/c> a skos:Concept ; skos:prefLabel "keramiikka"@fi .
    <http://x/scheme> a skos:ConceptScheme ; rdfs:label "all of it"@en .
""")


def documents(root: Path) -> Path:
    lines(root / "train.tsv", ["Digging \t<http://x/a>", 'A "sword\t<http://x/b>  <http://x/a>', "nothing\t", ""])
    return root


def test_annif_tsv(tmp_path: Path) -> None:
    root = documents(tmp_path)
    lines(root / "vocab.tsv", ["\ufeff" + SUBJECTS[0], *SUBJECTS[1:]])
    assert found(root) == [("vocab.tsv", 3, "subject without a name"), ("train.tsv", 3, "query without labels")]
    data = converted(root, tmp_path / "out")
    assert data.labels.uids.to_pylist() == ["http://x/a", "http://x/b"]
    assert data.labels.texts.to_pylist() == ["archaeology", "bronze age"]
    assert data.split("train").texts.to_pylist() == ["Digging", 'A "sword', "nothing"]
    assert positives(data) == [["http://x/a"], ["http://x/a", "http://x/b"], []]
    lines(root / "train.tsv", ["no tab", "x\t<http://x/old> <http://x/a>"])
    assert found(root)[1:] == [("train.tsv", 1, "malformed line"), ("train.tsv", 2, "unknown label")]
    dropped = convert(open_source(root), tmp_path / "out2", on_bad_row="drop")
    assert positives(dropped.dataset) == [["http://x/a"]]
    assert dropped.warnings["unknown label"] == 1


def test_annif_csv_and_json_lines(tmp_path: Path) -> None:
    lines(tmp_path / "subjects.csv", ["uri,notation,label_fi,label_en", "<http://x/a>,,arkeologia,archaeology",
                                      "http://x/b,,pronssikausi,bronze age", "http://x/old,,,"])  # fmt: skip
    rows = ["document_id,text,subject_uris", '7,"a, b",<http://x/a> <http://x/b>', ",c,http://x/b"]
    lines(tmp_path / "documents.csv", rows)
    objects = [
        {"document_id": "t1", "text": "one", "subjects": [{"uri": "http://x/a"}, {"label": "bronze age"}]},
        {"metadata": {"title": "A title", "abstract": "and more"}, "subjects": [{"uri": "<http://x/b>", "label": "x"}]},
        {"text": "bad", "subjects": ["http://x/a"]},
    ]
    lines(tmp_path / "test.jsonl", [json.dumps(row) for row in objects])
    done = convert(open_source(tmp_path), tmp_path / "out", on_bad_row="drop")
    assert dict(done.dropped) == {"malformed subjects": 1}
    assert done.dataset.labels.texts.to_pylist() == ["archaeology", "bronze age"]  # English, unless another is named
    assert done.dataset.split("train").uids.to_pylist() == ["7", "1"]
    assert positives(done.dataset) == [["http://x/a", "http://x/b"], ["http://x/b"]]
    assert done.dataset.split("test").texts.to_pylist() == ["one", "A title and more"]
    assert positives(done.dataset, "test") == [["http://x/a", "http://x/b"], ["http://x/b"]]
    named = convert(open_source(tmp_path, None, TabularColumns(language="fi")), tmp_path / "fi", on_bad_row="drop")
    assert named.dataset.labels.texts.to_pylist() == ["arkeologia", "pronssikausi"]


@pytest.mark.parametrize("ending", [".ttl", ".rdf"])
def test_annif_skos(ending: str, tmp_path: Path) -> None:
    rdflib = pytest.importorskip("rdflib", reason="vocabularies in SKOS need rdflib; pip install rdflib")
    root = documents(tmp_path)
    graph = rdflib.Graph().parse(data=SKOS, format="turtle")
    graph.serialize(root / f"yso-skos{ending}", format={".ttl": "turtle", ".rdf": "xml"}[ending])
    data = converted(root, tmp_path / "en")
    assert data.labels.uids.to_pylist() == ["http://x/a", "http://x/b", "http://x/c"]  # sorted, without deprecated ones
    assert data.labels.texts.to_pylist() == ["archaeology", "bronze age", "keramiikka"]
    assert positives(data) == [["http://x/a"], ["http://x/a", "http://x/b"], []]
    assert (f"yso-skos{ending}", 3, "name in another language") in found(root)
    if ending == ".ttl":
        done = xmc("data", "convert", root, tmp_path / "fi", "--language", "fi")
        assert done.returncode == 0, done.stderr
    else:
        converted(root, tmp_path / "fi", language="fi")
    assert Dataset.load(tmp_path / "fi").labels.texts.to_pylist() == ["arkeologia", "pronssikausi", "keramiikka"]
    with pytest.raises(DataError, match="has no names in the language 'sv', only in en, fi"):
        converted(root, tmp_path / "sv", language="sv")
    (root / f"yso-skos{ending}").write_text("@prefix <<<")
    with pytest.raises(DataError, match=rf"yso-skos{ending} cannot be read as SKOS: "):
        converted(root, tmp_path / "bad")


def test_annif_languages_that_leave_a_choice(tmp_path: Path) -> None:
    root = documents(tmp_path / "source")
    lines(root / "vocab.csv", ["uri,label_fi,label_sv", "http://x/a,arkeologia,arkeologi", "http://x/b,b,b"])
    with pytest.raises(DataError, match=r"vocab.csv has names in fi, sv; choose by --language."):
        converted(root, tmp_path / "out")
    lines(root / "vocab.csv", ["uri,label_fi", "http://x/a,arkeologia", "http://x/b,b"])
    assert converted(root, tmp_path / "out").labels.texts.to_pylist() == ["arkeologia", "b"]


def test_annif_folders_of_documents(tmp_path: Path) -> None:
    lines(tmp_path / "subjects.tsv", SUBJECTS[:2])
    folder = tmp_path / "fulltext"
    lines(folder / "2.txt", ["\ufeffTwo", "lines"])
    lines(folder / "2.tsv", ["<http://x/a>\tarchaeology", "<http://x/b>\tbronze age"])
    lines(folder / "1.txt", ["One"])
    lines(folder / "1.key", ["bronze age", ""])
    lines(folder / "3.json", [json.dumps({"text": "Three", "subjects": [{"uri": "http://x/a"}]})])
    data = converted(tmp_path, tmp_path / "out")
    assert data.split("train").uids.to_pylist() == ["1", "2", "3"]
    assert data.split("train").texts.to_pylist() == ["One", "Two\nlines", "Three"]
    assert positives(data) == [["http://x/b"], ["http://x/a", "http://x/b"], ["http://x/a"]]


def test_annif_without_a_part(tmp_path: Path) -> None:
    documents(tmp_path)
    fail(xmc("data", "convert", tmp_path, tmp_path / "out", "--format", "annif"), "holds no vocabulary (vocab.tsv, ")
    (tmp_path / "train.tsv").unlink()
    with pytest.raises(DataError, match="holds no documents of Annif's layout"):
        lines(tmp_path / "vocab.tsv", SUBJECTS)
        open_source(tmp_path, "annif")


def test_two_files_for_one_purpose_are_not_chosen_from(tmp_path: Path) -> None:
    root = documents(tmp_path / "annif")
    lines(root / "vocab.tsv", SUBJECTS)
    lines(root / "training.csv", ["text,subject_uris", "x,http://x/a"])
    with pytest.raises(DataError, match=r"holds train.tsv and training.csv, and one of them must be train; leave one"):
        open_source(root)
    (root / "training.csv").unlink()
    lines(root / "subjects.csv", ["uri,label_en", "http://x/a,x"])
    with pytest.raises(DataError, match=r"holds subjects.csv and vocab.tsv, and one of them must be the vocabulary"):
        open_source(root)
    lines(tmp_path / "pecos" / "labels.txt", ["zero"])
    lines(tmp_path / "fasttext" / "labels.csv", ["uid,text", "a,A"])
    for name in ("train_one.txt", "train_two.txt"):
        lines(tmp_path / "pecos" / name, ["0\ttext"])
        lines(tmp_path / "fasttext" / name, ["__label__a text"])
    for name in ("pecos", "fasttext"):
        with pytest.raises(DataError, match=rf"{name} holds train_one.txt and train_two.txt, and one of them must be"):
            open_source(tmp_path / name)


def test_another_encoding_does_not_hide_a_layout(tmp_path: Path) -> None:
    written = {
        "annif": {"vocab.tsv": "<http://x/a>\tcafé", "train.tsv": "thé\t<http://x/a>"},
        "pecos": {"labels.txt": "café", "train.txt": "0\tthé"},
        "fasttext": {"train.txt": "__label__café thé"},
        "beir": {
            "corpus.jsonl": '{"_id": "d", "text": "café"}',
            "queries.jsonl": '{"_id": "q", "text": "thé"}',
            "qrels/train.tsv": "query-id\tcorpus-id\tscore\nq\td\t1",
        },
    }
    for encoding in ("cp1252", "utf-16", "utf-8-sig"):
        for name, files in written.items():
            root = tmp_path / encoding / name
            for file, text in files.items():
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).write_bytes(text.encode(encoding))
            columns = {"encoding": encoding} if encoding == "cp1252" else {}
            data = converted(root, tmp_path / "out" / encoding / name, **columns)
            assert data.labels.texts.to_pylist() == ["café"], (encoding, name)
            assert data.split("train").texts.to_pylist() == ["thé"]
            assert data.properties["converted_from"] == name


def test_tables_beside_a_vocabulary_stay_tables(tmp_path: Path) -> None:
    lines(tmp_path / "train.csv", ["text,labels", "x,a"])
    lines(tmp_path / "subjects.csv", ["uri,label_en", "a,b"])
    assert open_source(tmp_path).format == "tabular"


# ----------------------------------------------------------------------------------------------------------- fastText


def test_fasttext(tmp_path: Path) -> None:
    lines(tmp_path / "cooking.train", ["__label__sauce __label__cheese How much?", "An __label__oil oil ", "no label"])
    lines(tmp_path / "cooking.valid", ["__label__salt salt"])
    assert found(tmp_path) == [("cooking.train", 3, "query without labels")]
    data = converted(tmp_path, tmp_path / "out")
    assert data.splits == ("train", "validation")
    assert data.labels.uids.to_pylist() == ["cheese", "oil", "salt", "sauce"]
    assert data.split("train").texts.to_pylist() == ["How much?", "An oil", "no label"]
    assert positives(data) == [["cheese", "sauce"], ["oil"], []]
    assert positives(data, "validation") == [["salt"]]
    alone = converted(tmp_path / "cooking.train", tmp_path / "alone")
    assert (alone.name, alone.splits, len(alone.labels)) == ("cooking", ("train",), 3)


def test_fasttext_with_another_prefix(tmp_path: Path) -> None:
    source = tmp_path / "train.txt"
    lines(source, ["@a.b @c text", "@c a@b is no label"])
    with pytest.raises(
        DataError, match=r"holds no data set in a known format .* A table is named itself, or is called"
    ):
        open_source(source)
    options = ["--format", "fasttext", "--label-prefix", "@"]
    done = xmc("data", "convert", source, tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    data = Dataset.load(tmp_path / "out")
    assert data.split("train").texts.to_pylist() == ["text", "a@b is no label"]
    assert positives(data) == [["a.b", "c"], ["c"]]


# -------------------------------------------------------------------------------------------------------------- PECOS


def test_pecos(tmp_path: Path) -> None:
    lines(tmp_path / "output-labels.txt", ["zero", "one", "two", ""])
    lines(
        tmp_path / "training-data.txt", ["0,2\tAlan Turing", "1::0.5,2:1:0.25,0::0\tweighted\tand more", "\tnone", ""]
    )
    lines(tmp_path / "test-data.txt", ["2\tx"])
    data = converted(tmp_path, tmp_path / "out")
    assert data.labels.texts.to_pylist() == ["zero", "one", "two"]
    assert data.split("train").texts.to_pylist() == ["Alan Turing", "weighted\tand more", "none"]
    assert data.split("train").positives.toarray().tolist() == [[1, 0, 1], [0, 0.5, 0.25], [0, 0, 0]]
    assert data.split("train").rejected.toarray()[1].tolist() == [True, False, False]
    assert positives(data, "test") == [["2"]]
    lines(tmp_path / "training-data.txt", ["0\tgood", "0;1\tx", "0 text", "3\tx", "0::high\tx"])
    assert found(tmp_path) == [
        ("training-data.txt", 2, "malformed line"),
        ("training-data.txt", 3, "malformed line"),
        ("training-data.txt", 4, "label out of range"),
        ("training-data.txt", 5, "bad relevance"),
    ]
