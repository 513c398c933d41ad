"""Images as data: files of embeddings, data sets that have them, embedding image files, and ViXML's arrays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
import torch
from PIL import Image
from processes import environment
from test_cli import fail
from test_cli import xmc as command

from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.embed_images import embed_images
from xmc.data.image_files import content_of, read_images, write_images
from xmc.data.images import RaggedImages
from xmc.data.readers import open_source
from xmc.data.vixml_images import import_vixml_images
from xmc.errors import ConfigError, DataError, InputError

NUMBERS = 5


def pictures(counts: list[int], seed: int = 0, numbers: int = NUMBERS) -> RaggedImages:
    values = np.random.default_rng(seed).standard_normal((sum(counts), numbers)).astype(np.float16)
    return RaggedImages(values, np.cumsum([0, *counts]).astype(np.int64))


def same(one: RaggedImages | None, other: RaggedImages) -> bool:
    return one is not None and np.array_equal(one.values, other.values) and np.array_equal(one.offsets, other.offsets)


def small(images: dict[str, RaggedImages] | None = None) -> Dataset:
    splits = {"train": (["a", "b", "c"], [[0], [1, 2], [2]]), "test": (["d", "e"], [[0], [1]])}
    return Dataset.from_lists("small", ["red", "green", "blue"], splits, label_uids=["r", "g", "b"], images=images)


def test_ragged_images() -> None:
    found = RaggedImages.of([np.ones((2, 3)), None, [1, 2, 3], np.zeros((0, 3))])
    assert found.offsets.tolist() == [0, 2, 2, 3, 3]
    assert found.dimension == 3
    taken = found.take(np.array([2, 0, 2, 1]))
    assert taken.counts.tolist() == [1, 2, 1, 0]
    assert taken.values[0].tolist() == taken.values[3].tolist() == [1, 2, 3]
    assert RaggedImages.of([None, None], 4).values.shape == (0, 4)
    with pytest.raises(InputError, match="of text 1 have embeddings of 2 numbers, others 3"):
        RaggedImages.of([[1, 2, 3], [1, 2]])
    with pytest.raises(InputError, match="not finite in float16"):
        RaggedImages.of([[1e6, 2, 3]])


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
    for damaged in (whole[:-20], whole[: len(whole) // 2], b"", whole[:place] + b"\x12\x34" + whole[place + 2 :]):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"images\.arrow"):
            read_images(file)


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
    (tmp_path / "data" / "images-test.arrow").unlink()  # by hand, or by a process that was killed before it said so
    assert Dataset.load(tmp_path / "data").fingerprint == data.fingerprint
    small().save(tmp_path / "data")
    assert not list(tmp_path.glob("data/images-*"))
    data.save(tmp_path / "data")
    again = Dataset.load(tmp_path / "data")
    again.add_images("test", pictures([1, 1], 2))
    done = command("data", "inspect", tmp_path / "data")
    assert "images of labels: 4, of 2 texts" in done.stdout
    assert "images of test: 2, of 2 texts" in done.stdout


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are images of 2 of train, but 3 rows"):
        small({"train": pictures([1, 1])})
    with pytest.raises(DataError, match="images of labels have embeddings of 4 numbers, others 5"):
        small({"train": pictures([1, 1, 0]), "labels": pictures([1, 1, 0], numbers=4)})
    with pytest.raises(DataError, match="has no directory; save it first"):
        small().add_images("train", pictures([1, 1, 1]))
    small().save(tmp_path / "data")
    data = Dataset.load(tmp_path / "data")
    with pytest.raises(DataError, match="but 3 rows"):
        data.add_images("train", pictures([1]))
    assert data.images("train") is None
    assert Dataset.load(tmp_path / "data").fingerprint == small().fingerprint


def test_conversion_takes_images_along(tmp_path: Path) -> None:
    """And those of dropped rows go with them."""
    images = {"train": pictures([1, 0, 2]), "labels": pictures([0, 3, 1], 1)}
    small(images).save(tmp_path / "data")
    done = convert(open_source(tmp_path / "data"), tmp_path / "copy")
    assert done.dataset.fingerprint == small(images).fingerprint
    assert same(done.dataset.images("train"), images["train"])
    table = tmp_path / "data" / "queries-train.parquet"
    import pyarrow.parquet as pq

    rows = pq.read_table(table)
    labels = pa.array([[0], [1, 7], [2]], pa.list_(pa.int32()))
    pq.write_table(rows.set_column(rows.schema.get_field_index("labels"), "labels", labels), table)
    done = convert(open_source(tmp_path / "data"), tmp_path / "fewer", on_bad_row="drop")
    assert same(done.dataset.split("train").images, images["train"].take(np.array([0, 2])))


# Image files


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of 2 layers and 16 dimensions with random weights: no pretrained vision weights are at hand."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    directory = tmp_path_factory.mktemp("vision")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    ViTModel(ViTConfig(image_size=16, patch_size=8, **sizes)).save_pretrained(directory)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real PNG files of one colour each, and some that are none."""
    root = tmp_path_factory.mktemp("files")
    for name, colour in (("red", (255, 0, 0)), ("green", (0, 255, 0)), ("blue", (0, 0, 255)), ("grey", (9, 9, 9))):
        Image.new("RGB", (20, 12), colour).save(root / f"{name}.png")
    Image.new("L", (7, 7), 100).save(root / "flat.png")
    whole = (root / "red.png").read_bytes()
    (root / "cut.png").write_bytes(whole[:-30])
    (root / "words.png").write_text("not an image")
    return root


def table(file: Path, lines: list[tuple[str, str]]) -> Path:
    uids, paths = zip(*lines, strict=True)
    pa_csv.write_csv(pa.table({"uid": list(uids), "path": list(paths)}), file)
    return file


LINES = [
    ("b", "blue.png"), ("r", "red.png"), ("r", "cut.png"), ("nobody", "red.png"), ("r", "flat.png"), ("g", "words.png"),
    ("g", "gone.png"), ("r", "grey.png"), ("r", "green.png"),
]  # fmt: skip


def test_image_files_are_embedded_and_broken_ones_listed(vision: Path, files: Path, tmp_path: Path) -> None:
    small().save(tmp_path / "data")
    lines = table(tmp_path / "images.csv", LINES)
    arguments = ["--model", vision, "--images", lines, "--of", "labels", "--root", files, "--max-images", 4]
    done = command("data", "embed-images", tmp_path / "data", *arguments)
    assert done.returncode == 0, done.stderr
    assert "4 images of 2 of 3 labels embedded" in done.stdout
    assert "skipped: 3 files that cannot be read" in done.stdout
    assert "left out: 1 lines of unknown uids" in done.stdout
    assert "left out: 1 lines beyond 4 a text" in done.stdout
    data = Dataset.load(tmp_path / "data")
    found = data.labels.images
    assert found is not None
    assert found.counts.tolist() == [3, 0, 1]
    assert found.dimension == 16
    broken = pa_csv.read_csv(tmp_path / "data" / "images-labels.broken.csv").to_pylist()
    assert [(one["uid"], one["path"]) for one in broken] == [("r", "cut.png"), ("g", "words.png"), ("g", "gone.png")]
    assert broken[2]["reason"] == "there is no such file"
    assert sorted(entry.name for entry in (tmp_path / "data").iterdir() if "images" in entry.name) == [
        "images-labels.arrow", "images-labels.broken.csv"
    ]  # fmt: skip
    from transformers import ViTImageProcessor, ViTModel

    inputs = ViTImageProcessor.from_pretrained(vision)(Image.open(files / "blue.png"), return_tensors="pt")
    with torch.no_grad():
        expected = ViTModel.from_pretrained(vision).eval()(**inputs).pooler_output[0].numpy()
    np.testing.assert_allclose(found.values[3].astype(np.float32), expected, atol=2e-3)


JOB = """
import sys
from pathlib import Path
from xmc.data.dataset import Dataset
from xmc.data import embed_images
embed_images.CHUNK = 4
root = Path(sys.argv[1])
embed_images.embed_images(Dataset.load(root / "data"), "train", root / "images.csv", Path(sys.argv[2]), most=9, batch_size=2)
"""


def test_a_job_that_is_killed_goes_on_to_the_same_end(vision: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = []
    for number in range(60):
        Image.fromarray(rng.integers(0, 255, (400, 400, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        lines.append((str(number % 3), f"{number}.png"))
    (tmp_path / "7.png").write_text("no image")
    table(tmp_path / "images.csv", lines)
    job = [sys.executable, "-c", JOB, str(tmp_path), str(vision)]
    found = []
    for kills in (0, 3):
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        small().save(tmp_path / "data")
        for kill in range(kills):
            process = subprocess.Popen(job, env=environment())
            end = time.monotonic() + 60
            while len(list(tmp_path.glob("data/images-train.parts/part-*"))) < kill + 1 and time.monotonic() < end:
                time.sleep(0.001)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert Dataset.load(tmp_path / "data").images("train") is None
        subprocess.run(job, env=environment(), check=True)
        found.append((tmp_path / "data" / "images-train.arrow").read_bytes())
        assert "7.png" in (tmp_path / "data" / "images-train.broken.csv").read_text()
        assert not list(tmp_path.glob("data/*.parts"))
    assert found[0] == found[1]


def test_parts_of_another_job_are_not_used(
    vision: Path, files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small().save(tmp_path / "data")
    data = Dataset.load(tmp_path / "data")
    parts = tmp_path / "data" / "images-labels.parts"
    parts.mkdir()
    (parts / "job").write_text("another")
    (parts / "part-000000.safetensors").write_bytes(b"nonsense")
    done = embed_images(data, "labels", table(tmp_path / "images.csv", LINES[:2]), vision, root=files)
    assert (done.images, done.texts, done.broken) == (2, 2, [])
    assert "is of another table, model or option" in caplog.text


def test_tables_and_models_that_cannot_be_used(vision: Path, files: Path, tmp_path: Path) -> None:
    small().save(tmp_path / "data")
    data = Dataset.load(tmp_path / "data")
    lines = table(tmp_path / "images.csv", LINES)
    with pytest.raises(ConfigError, match="cannot be loaded as a vision model"):
        embed_images(data, "labels", lines, files)
    pa_csv.write_csv(pa.table({"uid": ["r"], "file": ["x"]}), tmp_path / "other.csv")
    with pytest.raises(DataError, match="has no column 'path', only uid, file"):
        embed_images(data, "labels", tmp_path / "other.csv", vision)
    with pytest.raises(DataError, match=r"must be a \.parquet, \.csv or \.jsonl file"):
        embed_images(data, "labels", tmp_path / "images.txt", vision)
    fail(
        command("data", "embed-images", tmp_path / "data", "--model", vision, "--images", lines, "--of", "dev"),
        "has no split 'dev', only train, test",
    )


# ViXML's arrays


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
    objects(folder / "train_imgs_384_3_map.npy", [[2, 0], -1, [3]])
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


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ([[0], [1]], "has 2 entries, but the data set has 3 rows"),
        ([[0], [9], -1], "names the image 9, but .* has 4"),
        ([[0], "x", -1], "entry 1: 'x' is neither -1 nor a list of rows"),
        ([[0], [0.5], -1], r"entry 1: \[0\.5\] is neither"),
        ([[0], [[0], [1]], -1], "entry 1: .* is neither"),
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
    with pytest.raises(DataError, match="not finite in float16"):
        import_vixml_images(data, source, read_object_arrays=True)
    (source / "trn_embs_imgs_3_4_siglip2.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as an array"):
        import_vixml_images(data, source, read_object_arrays=True)
    assert data.image_names == ()
