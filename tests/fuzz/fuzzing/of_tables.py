"""Targets: tables beside data sets: changes of labels, metrics, mistakes, jobs, images, vocabularies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from image_worlds import pictures, small
from test_readers import WRITERS
from worlds import colours

from fuzzing.conversions import convert_safely, write_there
from fuzzing.folders import apply, damaged_folder, files_of
from fuzzing.of_stored import write_run
from fuzzing.targets import Case, Target, register
from xmc.batch.evaluation import evaluate_files
from xmc.batch.options import JobOptions
from xmc.batch.predict import predict_files
from xmc.data.dataset import Dataset
from xmc.data.files import TextForm
from xmc.data.images.files import read_images, write_images
from xmc.data.images.vixml import import_vixml_images
from xmc.data.label_rows import LabelRows
from xmc.data.readers.vocabulary import read_vocabulary
from xmc.data.rows import Row
from xmc.errors import XMCError
from xmc.evaluation.major_mistakes import MajorMistakes
from xmc.evaluation.per_query import QueryMetrics


def write_label_rows(folder: Path) -> None:
    """Changes of labels as CSV, JSON lines and Parquet."""
    (folder / "labels.csv").write_text("uid,text,examples,price\nRED,rot,a|b,1\nnew,neu,,2\n")
    (folder / "labels.jsonl").write_text(
        '{"uid": "RED", "text": "rot", "examples": ["a"]}\n{"uid": "new", "price": 3}\n'
    )
    pq.write_table(
        pa.table({"uid": ["RED", "new"], "negatives": [["x"], []], "price": [1, 2]}), folder / "labels.parquet"
    )


def read_label_rows(case: Case) -> None:
    """Every row has a uid of its own, a text or none, lists of examples."""
    rows = LabelRows.read(case.only, TextForm(separator="|"))
    assert len({*rows.uids}) == len(rows) == len(rows.texts) == len(rows.examples) == len(rows.columns), (
        "rows do not fit"
    )
    assert all(isinstance(uid, str) and uid for uid in rows.uids), "a uid is missing"


def write_metrics(folder: Path) -> None:
    """Metrics of queries, and mistakes."""
    pq.write_table(pa.table({"uid": ["a", "b", "c"], "P@1": [0.0, 100.0, 50.0]}), folder / "metrics.parquet")
    pq.write_table(pa.table({"query": ["a", "b"], "label": ["x", "y"]}), folder / "mistakes.parquet")


def read_metrics(case: Case) -> None:
    """Means and intervals are numbers."""
    if case.only.name == "mistakes.parquet":
        assert len(MajorMistakes.load(case.only)), "no mistake"
        return
    QueryMetrics.is_file(case.only)
    metrics = QueryMetrics.load(case.only)
    assert all(np.isfinite(mean) for mean in metrics.means.values()), "a mean is no number"
    metrics.intervals(10)


def prepare_job(folder: Path) -> None:
    """The run and the data set of a job, and its input."""
    (folder / "run").mkdir()
    write_run(folder / "run")
    colours().save(folder / "data")
    split = colours().split("test")
    pq.write_table(pa.table({"uid": split.uids, "text": split.texts}), folder / "in.parquet")


def write_job(folder: Path) -> None:
    """The folder of a finished job; written beside its own input."""
    place = folder.parent / "place"
    predict_files(place / "run", place / "in.parquet", folder, 3, options=JobOptions(rows_per_part=40))


def read_job(case: Case) -> None:
    """Evaluated: a part that is not as the job wrote it is refused; one that fits its checksum is read."""
    changed = [name for name, content in case.changes.items() if case.files.get(name) != content]
    damaged = [name for name in changed if name.startswith("part-") and name in case.files]
    try:
        evaluated = evaluate_files(case.folder, Dataset.load(case.place / "data"), "test", k=[1, 3])
    except XMCError:
        raise
    assert case.repaired or not damaged, f"{damaged} is not as it was written, and nobody says so"
    assert all(np.isnan(value) or 0 <= value <= 100.001 for value in evaluated.values.values()), (
        "a metric beyond 0 and 100"
    )


def resume_job(case: Case) -> None:
    """A job whose list of parts is gone, gone on with: every row once, or a refusal."""
    sound, folder = case.place / "sound", case.place / "job"
    options = JobOptions(rows_per_part=40, resume=True)
    if not sound.exists():
        predict_files(case.place / "run", case.place / "in.parquet", sound, 3, options=options)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    apply(folder, {**damaged_folder(files_of(folder), case.chance), "_SUCCESS": None})
    summary = predict_files(case.place / "run", case.place / "in.parquet", folder, 3, options=options)
    assert summary.rows == 100, f"{summary.rows} rows"
    names = [part["name"] for part in json.loads((folder / "_SUCCESS").read_text())["parts"]]
    try:
        uids = [uid for name in names for uid in pq.read_table(folder / name)["uid"].to_pylist()]
    except (OSError, pa.ArrowException) as error:
        raise AssertionError("a part that cannot be read is in a job that is whole") from error
    assert uids == pq.read_table(case.place / "in.parquet")["uid"].to_pylist(), "a row is missing, or there twice"


def write_images_of_vixml(folder: Path) -> None:
    """Arrays of embeddings, and the maps to texts."""
    rng = np.random.default_rng(0)
    np.save(folder / "trn_embs_imgs_3_4_siglip2.npy", rng.standard_normal((4, 4)).astype(np.float32))
    np.save(folder / "train_imgs_384_3_map.npy", np.array([2, -1, 3]))
    np.save(folder / "lbl_embs_imgs_3_4_siglip2.npy", rng.standard_normal((2, 4)).astype(np.float16))
    np.save(folder / "labels_imgs_384_3_map.npy", np.array([[1, -1], [0, 1], [-1, -1]]))
    lists = np.empty(2, object)
    lists[:] = [[0], None]
    np.save(folder / "tst_embs_imgs_3_4_siglip2.npy", rng.standard_normal((1, 4)).astype(np.float16))
    np.save(folder / "test_imgs_384_3_map.npy", lists, allow_pickle=True)


def read_images_of_vixml(case: Case) -> None:
    """Imported into a data set."""
    shutil.rmtree(case.place / "images", ignore_errors=True)
    small().save(case.place / "images")
    import_vixml_images(Dataset.load(case.place / "images"), case.folder, read_object_arrays=case.chance.random() < 0.7)
    data = Dataset.load(case.place / "images")
    for name in data.image_names:
        images = data.images(name)
        assert images is not None
        assert np.isfinite(images.values.astype(np.float32)).all(), "a number of an image is none"


def read_image_table(case: Case) -> None:
    """The images of texts."""
    images = read_images(case.only)
    assert images.offsets[-1] == len(images.values), "offsets do not fit"
    assert (np.diff(images.offsets) >= 0).all(), "offsets fall"


SKOS = """@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
<http://x/0> a skos:Concept ; skos:prefLabel "red"@en , "rot"@de .
<http://x/1> a skos:Concept ; skos:prefLabel "blue"@en ; skos:broader <http://x/0> .
"""
XML = """<?xml version="1.0"?>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:skos="http://www.w3.org/2004/02/skos/core#">
<skos:Concept rdf:about="http://x/0"><skos:prefLabel xml:lang="en">red</skos:prefLabel></skos:Concept>
</rdf:RDF>
"""


def write_vocabularies(folder: Path) -> None:
    """A vocabulary as SKOS, CSV and TSV."""
    (folder / "vocab.ttl").write_text(SKOS)
    (folder / "vocab.rdf").write_text(XML)
    (folder / "vocab.csv").write_text("uri,label_en,label_de\n<http://x/0>,red,rot\n<http://x/1>,blue,blau\n")
    (folder / "vocab.tsv").write_text("<http://x/0>\tred\n<http://x/1>\tblue\n")


def read_vocabulary_file(case: Case) -> None:
    """Every subject has a name."""
    for item in read_vocabulary(case.only, TextForm(), case.chance.choice([None, "en"])):
        assert not isinstance(item, Row) or item.text, "a subject without a name"


def read_small_layout(case: Case) -> None:
    """A conversion of the folder."""
    convert_safely(case.folder, case)


register(Target("label rows", write_label_rows, read_label_rows, alternatives=True))
register(Target("query metrics", write_metrics, read_metrics, alternatives=True))
register(Target("job", write_job, read_job, prepare_job, slow=500))
register(Target("job repaired", write_job, read_job, prepare_job, repaired=True, slow=500))
register(Target("job resumed", lambda folder: (folder / "x").touch(), resume_job, prepare_job, slow=100))
register(Target("images vixml", write_images_of_vixml, read_images_of_vixml, slow=1000))
register(
    Target(
        "images table",
        lambda folder: write_images(pictures([2, 0, 3]), folder / "images.arrow"),
        read_image_table,
        None,
        True,
    )
)
register(Target("vocabulary", write_vocabularies, read_vocabulary_file, alternatives=True))
for _name, _write in WRITERS.items():
    if _name not in ("lines", "tabular"):
        register(Target(f"layout of {_name}", _write, read_small_layout, prepare=write_there))
