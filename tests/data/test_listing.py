"""What dataset.json lists is what is read: files that are missing, others or not listed are refused, or listed anew."""

from __future__ import annotations

import copy
import json
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import unlisted

from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.drawing import Splitting
from xmc.data.images.ragged import RaggedImages
from xmc.data.readers import open_source
from xmc.data.seal import Sealed, seal
from xmc.data.split_files import split_data_set
from xmc.data.tables import FILES, names_read
from xmc.errors import DataError


def images(rows: int, value: float = 1.0) -> RaggedImages:
    return RaggedImages(np.full((rows, 4), value, np.float16), np.arange(rows + 1))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set with a file of every kind."""
    Dataset.from_lists(
        "d",
        ["cat", "dog", "cow"],
        {"train": (list("abcdef"), [[0], [1, 2], [0], [1], [2], [0, 1]]), "test": (["c", "d"], [[0], [1]])},
        filters={"test": [(0, 1)]},
        judged={"test": [("0", "2", "wrong")]},
        images={"train": images(6), "labels": images(3)},
    ).save(tmp_path / "data")
    return tmp_path / "data"


def read(directory: Path) -> list[object]:
    loaded = Dataset.load(directory)
    everything = [loaded.labels.texts, loaded.labels.images, loaded.fingerprint]
    for split in loaded.splits:
        everything += [loaded.split(split).texts, loaded.filter(split), loaded.judgements(split)]
    return everything


def test_all_that_is_read_is_listed(data: Path) -> None:
    listed = json.loads((data / "dataset.json").read_text())[FILES]
    assert sorted([*listed, "dataset.json"]) == sorted(entry.name for entry in data.iterdir())
    assert set(listed) <= set(names_read(["train", "test"]))
    convert(open_source(data), data.with_name("copy"))
    split_data_set(data, data.with_name("split"), Splitting(validation=0.5))
    for written in (data, data.with_name("copy"), data.with_name("split"), "wordnet-8k"):
        found = Dataset.load(written)
        assert found.listing.entries is not None
        found.listing.require_all()


KINDS = ["labels.parquet", "queries-train.parquet", "filter-test.parquet", "judged-test.parquet", "images-train.arrow"]


@pytest.mark.parametrize("name", KINDS)
def test_what_is_missing_or_different_is_refused_and_can_be_listed(data: Path, name: str) -> None:
    content = (data / name).read_bytes()
    (data / name).unlink()
    with pytest.raises(DataError, match=rf"{name} is missing, which dataset.json lists.*xmc data seal"):
        Dataset.load(data)
    middle = len(content) // 2
    (data / name).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(DataError, match=rf"{name} does not match its SHA-256 in dataset.json.*xmc data seal"):
        read(data)
    (data / name).write_bytes(content + b"more")
    with pytest.raises(
        DataError, match=rf"{name} (has \d+ bytes where dataset.json says.*xmc data seal|cannot be read)"
    ):
        read(data)
    (data / name).write_bytes(content)
    read(data)
    described = json.loads((data / "dataset.json").read_text())
    del described[FILES][name]
    (data / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match=rf"{name} is not among the files that dataset.json lists: .* `xmc data seal"):
        Dataset.load(data)
    assert seal(data) == Sealed((name,), (), ())
    read(data)


def test_every_reader_of_a_changed_table_is_refused(data: Path) -> None:
    table = pq.read_table(data / "queries-train.parquet")
    pq.write_table(table.set_column(1, "text", pa.array(list("uvwxyz"))), data / "queries-train.parquet")
    for use in (
        lambda: convert(open_source(data), data.with_name("copy")),
        lambda: split_data_set(data, data.with_name("split"), Splitting(validation=0.5)),
        lambda: Dataset.load(data).save(data.with_name("saved")),
        lambda: copy.deepcopy(Dataset.load(data)).split("train"),
    ):
        with pytest.raises(DataError, match=r"queries-train\.parquet .*xmc data seal"):
            use()
    before = Dataset.load(data).fingerprint
    assert seal(data) == Sealed((), ("queries-train.parquet",), ())
    assert Dataset.load(data).split("train").texts.to_pylist() == list("uvwxyz")
    assert Dataset.load(data).fingerprint != before
    assert seal(data) == Sealed((), (), ())


def test_a_file_that_comes_after_it_was_opened_is_refused(data: Path) -> None:
    loaded = Dataset.load(data)
    shutil.copyfile(data / "judged-test.parquet", data / "judged-train.parquet")
    with pytest.raises(DataError, match=r"judged-train\.parquet is not among the files"):
        loaded.judgements("train")


def test_tables_that_do_not_fit_are_not_listed(data: Path) -> None:
    before = (data / "dataset.json").read_bytes()
    table = pq.read_table(data / "queries-train.parquet")
    wrong = pa.array([[0], [7], [1], [2], [0], [1]], pa.list_(pa.int32()))
    pq.write_table(table.set_column(2, "labels", wrong), data / "queries-train.parquet")
    with pytest.raises(DataError, match="label 7 is outside of the 3 labels"):
        seal(data)
    assert (data / "dataset.json").read_bytes() == before
    with pytest.raises(DataError, match=r"holds no dataset\.json"):
        seal(data.parent)
    with pytest.raises(DataError, match="shipped with xmc"):
        seal(Dataset.load("wordnet-8k").directory or "")


def test_data_sets_of_before_are_read_as_they_are(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    unlisted(data)
    (data / "filter-test.parquet").unlink()
    with caplog.at_level(logging.INFO):
        read(data)
    assert caplog.text.count("has no list of its files") == 1
    Dataset.load(data).add_images("test", images(2))
    read(data)
    assert seal(data) == Sealed((), (), ())  # who adds images lists all files


@pytest.mark.parametrize(
    "files",
    [[], 3, {"labels.parquet": 3}, {"labels.parquet": {"size": 1}}, {"labels.parquet": {"size": 1.5, "sha256": ""}}],
)
def test_lists_of_other_forms_are_refused(data: Path, files: object) -> None:
    described = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps({**described, FILES: files}))
    with pytest.raises(DataError, match=r"has a list of files that xmc did not write.*xmc data seal"):
        Dataset.load(data)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b'{"name": 1, "name": 2}', b'{"labels": 1e999}'])
def test_a_dataset_json_of_any_form_is_an_error_in_a_sentence(data: Path, content: bytes) -> None:
    (data / "dataset.json").write_bytes(content)
    with pytest.raises(DataError, match=r"dataset\.json cannot be read"):
        Dataset.load(data)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from xmc.data.dataset import Dataset
from xmc.data.images.ragged import RaggedImages

data, split, left = Dataset.load(sys.argv[1]), sys.argv[2], [int(sys.argv[3])]
rename = os.replace

def killed_between(source, destination):
    if ".tmp." not in str(destination) and not str(destination).endswith(".tmp"):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    rename(source, destination)

os.replace = killed_between
rows = len(data.split(split))
data.add_images(split, RaggedImages(np.full((rows, 4), 2, np.float16), np.arange(rows + 1)))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])  # with images, and without
@pytest.mark.parametrize("renames", range(4))
def test_images_are_added_whole_or_not_at_all(data: Path, split: str, renames: int) -> None:
    old, new = Dataset.load(data).images(split), images(len(Dataset.load(data).split(split)), 2.0)
    done = subprocess.run([sys.executable, "-c", KILLED, str(data), split, str(renames)], check=False)
    assert done.returncode == -signal.SIGKILL
    loaded = Dataset.load(data)
    found = loaded.images(split)
    expected = old if renames < 2 else new
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        np.testing.assert_array_equal(found.values, expected.values)
    read(data)
    loaded.add_images(split, new)
    again = Dataset.load(data)
    again.listing.require_all()
    assert "before" not in json.dumps(json.loads((data / "dataset.json").read_text())[FILES])
