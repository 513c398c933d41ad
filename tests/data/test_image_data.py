"""Images as data: files of embeddings, and data sets that have them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from commands import xmc as command
from image_worlds import NUMBERS, pictures, same, small
from layouts import unlisted

from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.images.files import content_of, gather_blocks, read_images, write_images
from xmc.data.images.ragged import RaggedImages
from xmc.data.readers import open_source
from xmc.data.seal import seal
from xmc.errors import DataError, InputError


def test_ragged_images() -> None:
    found = RaggedImages.from_arrays([np.ones((2, 3)), None, [1, 2, 3], np.zeros((0, 3))])
    assert found.offsets.tolist() == [0, 2, 2, 3, 3]
    assert found.dimension == 3
    taken = found.take(np.array([2, 0, 2, 1]))
    assert taken.counts.tolist() == [1, 2, 1, 0]
    assert taken.values[0].tolist() == taken.values[3].tolist() == [1, 2, 3]
    assert RaggedImages.from_arrays([None, None], 4).values.shape == (0, 4)
    with pytest.raises(InputError, match="of text 1 have embeddings of 2 numbers, others 3"):
        RaggedImages.from_arrays([[1, 2, 3], [1, 2]])
    with pytest.raises(InputError, match="not finite in float16"):
        RaggedImages.from_arrays([[1e6, 2, 3]])
    for one in (["a"], [[1, [2, 3]]], [["x"]]):
        with pytest.raises(InputError, match="The images of text 0 are not arrays of numbers"):
            RaggedImages.from_arrays(one)
    with pytest.raises(InputError, match=r"must have the shape \[images, numbers\], but have \[2, 3, 4\]"):
        RaggedImages.from_arrays([np.ones((2, 3, 4))])
    for given in (5, "images"):
        with pytest.raises(InputError, match="must be a list with an array, or None, for each text"):
            RaggedImages.from_arrays(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("counts", [[2, 0, 3], [0, 0], [], [1]])
def test_files_hold_what_was_written(counts: list[int], tmp_path: Path) -> None:
    images, file = pictures(counts), tmp_path / "images.arrow"
    digest = write_images(images, file)
    assert same(read_images(file), images)
    assert content_of(file) == digest
    column = pa.ipc.open_file(str(file)).read_all()["images"]
    assert column.type == pa.large_list(pa.list_(pa.float16(), NUMBERS))
    assert column.null_count == counts.count(0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["images.arrow"]


def test_a_memory_map_is_written_and_read_where_it_is(tmp_path: Path) -> None:
    values = np.memmap(tmp_path / "values", np.float16, "w+", shape=(100, NUMBERS))
    values[:] = np.random.default_rng(0).standard_normal(values.shape)
    images = RaggedImages(values, np.arange(101, dtype=np.int64))
    write_images(images, tmp_path / "images.arrow")
    found = read_images(tmp_path / "images.arrow")
    assert same(found, images)
    assert not found.values.flags.owndata
    assert not found.values.flags.writeable


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "images.arrow"
    write_images(pictures([2, 0, 3]), file)
    whole = file.read_bytes()
    place = whole.index(pictures([2, 0, 3]).values.tobytes())
    checksum = content_of(file).encode()
    for damaged in (
        whole[:-20],
        whole[: len(whole) // 2],
        b"",
        whole[:place] + b"\x12\x34" + whole[place + 2 :],
        whole.replace(checksum, b"\xff" * len(checksum)),
    ):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"images\.arrow"):
            read_images(file)


def test_what_is_no_image_embedding_is_not_written(tmp_path: Path) -> None:
    whole = pictures([2, 1])
    for images, match in (
        (RaggedImages(whole.values.astype(np.float32), whole.offsets), r"must be float16 .* float32 \[3, 5\]"),  # type: ignore[arg-type]
        (
            RaggedImages.from_arrays([None, None]),
            r"float16 \[0, 0\]; RaggedImages\.from_arrays makes them, with `dimension`",
        ),
        (RaggedImages(whole.values, np.array([0, 3, 1])), "must rise from 0 to 3"),
        (RaggedImages(whole.values, np.array([0, 2, 1, 3])), "must rise from 0 to 3"),
    ):
        with pytest.raises(InputError, match=match):
            write_images(images, tmp_path / "images.arrow")
    assert not list(tmp_path.iterdir())


def test_blocks_are_gathered_without_a_name(tmp_path: Path) -> None:
    whole = pictures([7]).values
    found = gather_blocks((whole[start : start + 3] for start in range(0, 7, 3)), NUMBERS, tmp_path)
    np.testing.assert_array_equal(found, whole)
    assert not found.flags.writeable
    assert gather_blocks([], NUMBERS, tmp_path).shape == (0, NUMBERS)
    assert not list(tmp_path.iterdir())


FULL = """
import resource, sys
import numpy as np
from pathlib import Path
from xmc.data.dataset import Dataset
from xmc.data.images.files import gather_blocks
from xmc.data.images.ragged import RaggedImages
from xmc.errors import DataError
data = Dataset.load(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
for work in (
    lambda: data.add_images("train", RaggedImages(np.ones((3000, 5), np.float16), np.array([0, 1, 1, 3000]))),
    lambda: gather_blocks([np.ones((3000, 5), np.float16)], 5, Path(sys.argv[1])),
):
    try:
        work()
    except DataError as error:
        print(error)
"""


def test_a_full_disk_leaves_the_data_set_as_it_was(tmp_path: Path) -> None:
    small({"train": pictures([1, 0, 2])}).save(tmp_path / "data")
    before = {entry.name: entry.read_bytes() for entry in (tmp_path / "data").iterdir()}
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path / "data"], capture_output=True, text=True, check=True)
    assert "images-train.arrow cannot be written" in done.stdout
    assert "Images cannot be written in" in done.stdout
    assert {entry.name: entry.read_bytes() for entry in (tmp_path / "data").iterdir()} == before


def test_data_sets_with_images(tmp_path: Path) -> None:
    images = {"train": pictures([1, 0, 2]), "labels": pictures([0, 3, 1], 1)}
    data, plain = small(images), small()
    assert data.fingerprint != plain.fingerprint
    data.save(tmp_path / "data")
    again = Dataset.load(tmp_path / "data")
    assert again.fingerprint == data.fingerprint
    for one in (data, again):
        assert one.image_names == ("labels", "train")
        assert same(one.split("train").images, images["train"])
        assert same(one.labels.images, images["labels"])
        assert one.split("test").images is None
        taken = one.split("train").take(np.array([2, 0]))
        assert same(taken.images, images["train"].take(np.array([2, 0])))
    again.add_images("test", pictures([1, 1], 2))
    third = Dataset.load(tmp_path / "data")
    assert third.fingerprint == again.fingerprint != data.fingerprint
    assert same(third.split("test").images, pictures([1, 1], 2))
    (tmp_path / "data" / "images-test.arrow").unlink()
    with pytest.raises(DataError, match=r"images-test.arrow is missing, which dataset.json lists. .* `xmc data seal"):
        Dataset.load(tmp_path / "data")
    assert seal(tmp_path / "data").removed == ("images-test.arrow",)
    assert Dataset.load(tmp_path / "data").fingerprint == data.fingerprint
    small().save(tmp_path / "data", overwrite=True)
    assert not list(tmp_path.glob("data/images-*"))
    data.save(tmp_path / "data", overwrite=True)
    again = Dataset.load(tmp_path / "data")
    again.add_images("test", pictures([1, 1], 2))
    done = command("data", "inspect", tmp_path / "data")
    assert "images of labels: 4, of 2 texts" in done.stdout
    assert "images of test: 2, of 2 texts" in done.stdout


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are images of 2 of train, but 3 rows"):
        small({"train": pictures([1, 1])})
    with pytest.raises(DataError, match="embeddings of 4 numbers, those of train 5; make all of them with one model"):
        small({"train": pictures([1, 1, 0]), "labels": pictures([1, 1, 0], numbers=4)})
    with pytest.raises(DataError, match="has no directory; save it first"):
        small().add_images("train", pictures([1, 1, 1]))
    small().save(tmp_path / "data")
    data = Dataset.load(tmp_path / "data")
    with pytest.raises(DataError, match="but 3 rows"):
        data.add_images("train", pictures([1]))
    assert data.images("train") is None
    assert Dataset.load(tmp_path / "data").fingerprint == small().fingerprint
    data.add_images("train", pictures([1, 1, 1]))
    with pytest.raises(
        DataError, match=r"of 4 numbers, those of train 5; .* remove images-train\.arrow first, and run"
    ):
        Dataset.load(tmp_path / "data").add_images("test", pictures([1, 1], numbers=4))  # that has not read the others
    data.add_images("train", pictures([1, 1, 1], numbers=4))
    with pytest.raises(DataError, match="is shipped with xmc and stays as it is"):
        Dataset.load("wordnet-8k").add_images("test", pictures([1]))


def test_conversion_takes_images_along(tmp_path: Path) -> None:
    """And those of dropped rows go with them."""
    images = {"train": pictures([1, 0, 2]), "labels": pictures([0, 3, 1], 1)}
    small(images).save(tmp_path / "data")
    done = convert(open_source(tmp_path / "data"), tmp_path / "copy")
    assert done.dataset.fingerprint == small(images).fingerprint
    assert same(done.dataset.images("train"), images["train"])
    table = unlisted(tmp_path / "data") / "queries-train.parquet"
    import pyarrow.parquet as pq

    rows = pq.read_table(table)
    labels = pa.array([[0], [1, 7], [2]], pa.list_(pa.int32()))
    pq.write_table(rows.set_column(rows.schema.get_field_index("labels"), "labels", labels), table)
    done = convert(open_source(tmp_path / "data"), tmp_path / "fewer", on_bad_row="drop")
    assert same(done.dataset.split("train").images, images["train"].take(np.array([0, 2])))
