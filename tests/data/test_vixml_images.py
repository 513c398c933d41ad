"""ViXML's arrays of image embeddings, and the pickles that their maps are."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import fail
from commands import xmc as command
from image_worlds import small

from xmc.data.dataset import Dataset
from xmc.data.images.object_arrays import NotNumbersError, read_number_lists
from xmc.data.images.vixml import import_vixml_images
from xmc.errors import DataError


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.file}",)


def objects(file: Path, entries: list[Any]) -> None:
    array = np.empty(len(entries), object)
    array[:] = entries
    np.save(file, array, allow_pickle=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "trn_embs_imgs_3_4_siglip2.npy", rng.standard_normal((4, 4)).astype(np.float32))
    objects(folder / "train_imgs_384_3_map.npy", [[2, 0], -1, (np.int64(3),)])
    np.save(folder / "lbl_embs_imgs_3_4_siglip2.npy", rng.standard_normal((2, 4)).astype(np.float16))
    np.save(folder / "labels_imgs_384_3_map.npy", np.array([[1, -1], [0, 1], [-1, -1]]))
    return folder


def test_arrays_are_imported(source: Path, tmp_path: Path) -> None:
    small().save(tmp_path / "data")
    fail(
        command("data", "import-images", tmp_path / "data", source),
        "holds Python objects, that is, a pickle, which can run any code when it is read. Give --read-object-arrays",
    )
    done = command("data", "import-images", tmp_path / "data", source, "--read-object-arrays")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["train: 3 images of 2 texts", "labels: 3 images of 2 texts"]
    data = Dataset.load(tmp_path / "data")
    train, labels = data.split("train").images, data.labels.images
    assert train is not None
    assert labels is not None
    arrays = np.load(source / "trn_embs_imgs_3_4_siglip2.npy")
    np.testing.assert_array_equal(train.values, arrays[[2, 0, 3]].astype(np.float16))
    assert train.counts.tolist() == [2, 0, 1]
    assert labels.counts.tolist() == [1, 2, 0]
    assert not [entry.name for entry in (tmp_path / "data").iterdir() if entry.name.startswith(".")]


def test_a_pickle_runs_nothing(source: Path, tmp_path: Path) -> None:
    small().save(tmp_path / "data")
    trap = tmp_path / "sprung"
    file = source / "train_imgs_384_3_map.npy"
    objects(file, [[0], Malicious(trap), -1])
    with pytest.raises(DataError, match=r"it asks for \w+\.system, which lists of numbers are not made of"):
        import_vixml_images(Dataset.load(tmp_path / "data"), source, read_object_arrays=True)
    assert not trap.exists()
    np.load(file, allow_pickle=True)
    assert trap.exists()


class Forged:
    """An array whose type says that its bytes are the addresses of objects: numpy believes it, and looks there."""

    class Type:
        def __reduce__(self) -> Any:
            fields = {"a": (np.dtype(object), 0)}
            return np.dtype, ("V8", False, True), (3, "|", None, ("a",), fields, 8, 1, 0)

    def __reduce__(self) -> Any:
        state = (1, (1,), self.Type(), False, b"\x41" * 8)
        return np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), state


class Codec:
    """Has text encoded in a way of its own choice."""

    def __reduce__(self) -> Any:
        import _codecs

        return _codecs.encode, ("text", "rot13")


@pytest.mark.parametrize(
    ("entry", "match"), [(Forged(), "values of type 'V8', which are not whole"), (Codec(), "text in 'rot13'")]
)
def test_a_pickle_forges_nothing(entry: Any, match: str, source: Path, tmp_path: Path) -> None:
    small().save(tmp_path / "data")
    objects(source / "train_imgs_384_3_map.npy", [[0], entry, -1])
    with pytest.raises(DataError, match=match):
        import_vixml_images(Dataset.load(tmp_path / "data"), source, read_object_arrays=True)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_all_that_numpy_stores_of_lists_is_read(protocol: int) -> None:
    entries = [
        [0, 1], -1, None, np.int64(2), (3, np.int32(4)), np.array([5, 6], ">i4"), np.array([7, 8], object), [],
        np.array(9), np.zeros(0, np.int64),
    ]  # fmt: skip
    array = np.empty(len(entries), object)
    for row, entry in enumerate(entries):
        array[row] = entry
    lists = [[0, 1], [-1], [], [2], [3, 4], [5, 6], [7, 8], [], [9], []]
    for one in (array, np.array([[0, 1], [1, -1], [2, 3]], object), np.array([[0, 2], [1, 3]], object, order="F")):
        found = read_number_lists(io.BytesIO(pickle.dumps(one, protocol)), one.shape)
        assert [row.tolist() for row in found] == (lists if one is array else one.tolist())
        assert {row.dtype for row in found} == {np.dtype(np.int64)}
    with pytest.raises(NotNumbersError, match="its pickle cannot be read"):
        read_number_lists(io.BytesIO(pickle.dumps(array, protocol)[:-9]), array.shape)
    with pytest.raises(NotNumbersError, match="is not the array of rows that its header describes"):
        read_number_lists(io.BytesIO(pickle.dumps(array, protocol)), (3,))


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ([[0], [1]], "has 2 entries, but the data set has 3 rows"),
        ([[0], [9], -1], "names the image 9, but .* has 4"),
        ([[0], [-2], -1], "names the image -2, but .* has 4"),
        ([[0], "x", -1], "entry 1 is 'x', which is neither a whole number nor a list"),
        ([[0], [0.5], -1], r"entry 1 is \[0\.5\], which is neither"),
        ([[0], [True], -1], r"entry 1 is \[True\], which is neither"),
        ([[0], [[0], [1]], -1], r"entry 1 is \[\[0\], \[1\]\], which is neither"),
        ([[0], [2**70], -1], "entry 1 is .* which is neither"),
        ([[0], np.zeros((2, 2), int), -1], r"entry 1 is an array of shape \[2, 2\], which is neither"),
        ([[0], np.array([0.5]), -1], "values of type 'f8', which are not whole numbers"),
        ([[0], np.uint64(2**64 - 1), -1], "it holds 18446744073709551615"),
    ],
)
def test_maps_that_do_not_fit(entries: list[Any], match: str, source: Path, tmp_path: Path) -> None:
    small().save(tmp_path / "data")
    objects(source / "train_imgs_384_3_map.npy", entries)
    with pytest.raises(DataError, match=match):
        import_vixml_images(Dataset.load(tmp_path / "data"), source, read_object_arrays=True)


def test_folders_that_cannot_be_used(source: Path, tmp_path: Path) -> None:
    small().save(tmp_path / "data")
    data = Dataset.load(tmp_path / "data")
    with pytest.raises(DataError, match=r"has no trn_embs_\*\.npy"):
        import_vixml_images(data, tmp_path)
    extra = source / "train_other_map.npy"
    shutil.copy(source / "labels_imgs_384_3_map.npy", extra)
    with pytest.raises(
        DataError, match=r"must have one file train_\*map\*\.npy, but has train_imgs_384_3_map\.npy, train_o"
    ):
        import_vixml_images(data, source, read_object_arrays=True)
    extra.unlink()
    np.save(source / "trn_embs_imgs_3_4_siglip2.npy", np.full((4, 4), 1e6, np.float32))
    with pytest.raises(DataError, match=r"siglip2\.npy, row 2: the embedding is not finite in float16"):
        import_vixml_images(data, source, read_object_arrays=True)
    np.save(source / "trn_embs_imgs_3_4_siglip2.npy", np.ones((4, 7), np.float32))
    with pytest.raises(
        DataError, match=r"trn_embs_imgs_3_4_siglip2\.npy of 7, lbl_embs_imgs_3_4_siglip2\.npy of 4 numbers"
    ):
        import_vixml_images(data, source, read_object_arrays=True)
    (source / "trn_embs_imgs_3_4_siglip2.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as an array"):
        import_vixml_images(data, source, read_object_arrays=True)
    assert data.image_names == ()
