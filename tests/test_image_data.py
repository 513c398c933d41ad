"""Images as data: files of embeddings, data sets that have them, embedding image files, and ViXML's arrays."""

from __future__ import annotations

import io
import os
import pickle
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
from safetensors.torch import save_file
from test_cli import fail
from test_cli import xmc as command

from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.embed_images import embed_images
from xmc.data.image_files import content_of, gather_blocks, read_images, write_images
from xmc.data.images import RaggedImages
from xmc.data.object_arrays import NotNumbersError, read_number_lists
from xmc.data.readers import open_source
from xmc.data.vision import VisionModel
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
        (RaggedImages.of([None, None]), r"float16 \[0, 0\]; RaggedImages\.of makes them, with `dimension`"),
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
from xmc.data.image_files import gather_blocks
from xmc.data.images import RaggedImages
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
    with pytest.raises(DataError, match=r"of 4 numbers, those of train 5; .* remove images-train\.arrow first"):
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


def save_clip(directory: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    text = {**sizes, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**sizes, "image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).half().save_pretrained(directory)
    crop = {"height": 16, "width": 16}
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=crop).save_pretrained(directory)


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


def test_what_is_taken_of_a_model(vision: Path, files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The features of CLIP, in float32; no pooler of random weights; and no image stops the others."""
    from transformers import CLIPImageProcessor, CLIPModel, PvtV2Config, PvtV2Model, ViTImageProcessor, ViTModel

    paths = [files / name for name in ("red.png", "cut.png", "line.png", "blue.png")]
    Image.new("RGB", (1, 9), (0, 0, 255)).save(paths[2])
    save_clip(tmp_path / "clip")
    found, reasons = VisionModel(tmp_path / "clip").embed(paths, 3)
    assert [bool(reason) for reason in reasons] == [False, True, False, False]
    np.testing.assert_array_equal(found[1], 0)
    inputs = CLIPImageProcessor.from_pretrained(tmp_path / "clip")(Image.open(paths[0]), return_tensors="pt")
    with torch.no_grad():
        clip = CLIPModel.from_pretrained(tmp_path / "clip", dtype=torch.float32).eval()
        features = clip.visual_projection(clip.vision_model(**inputs).pooler_output)
    np.testing.assert_allclose(found[0].astype(np.float32), features[0].numpy(), atol=2e-3)

    shutil.copytree(vision, tmp_path / "headless")
    model = ViTModel.from_pretrained(vision, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path / "headless")
    ones = [VisionModel(tmp_path / "headless").embed(paths[:1], 1)[0] for _ in range(2)]
    np.testing.assert_array_equal(ones[0], ones[1])
    assert "has no weights of a pooler; the mean of the last hidden state is taken" in caplog.text
    inputs = ViTImageProcessor.from_pretrained(vision)(Image.open(paths[0]), return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state.mean(1)[0].numpy()
    np.testing.assert_allclose(ones[0][0].astype(np.float32), expected, atol=2e-3)

    shutil.copytree(vision, tmp_path / "cut")
    weights = {name: weight for name, weight in model.state_dict().items() if name != "layernorm.bias"}
    save_file(weights, tmp_path / "cut" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"its weights lack layernorm\.bias and 0 more"):
        VisionModel(tmp_path / "cut")

    sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "num_attention_heads": [1, 1, 2, 2]}
    PvtV2Model(PvtV2Config(**sizes)).save_pretrained(tmp_path / "convolutions")
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "convolutions")
    assert VisionModel(tmp_path / "convolutions").dimension == 16

    with pytest.raises(ConfigError, match="--device 'gpu0' cannot be used"):
        VisionModel(vision, "gpu0")


def test_an_image_that_the_model_cannot_take_is_one_of_the_broken(files: Path, tmp_path: Path) -> None:
    """Of a processor that does not resize: images of two sizes make no batch, and the model takes one size alone."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    ViTModel(ViTConfig(image_size=32, patch_size=8, **sizes)).save_pretrained(tmp_path)
    ViTImageProcessor(do_resize=False).save_pretrained(tmp_path)
    for number in range(2):
        Image.new("RGB", (32, 32), (0, number, 0)).save(tmp_path / f"{number}.png")
    model = VisionModel(tmp_path)
    paths = [tmp_path / "0.png", files / "red.png", tmp_path / "1.png"]
    found, reasons = model.embed(paths, 3)
    assert reasons[0] == reasons[2] == ""
    assert "the model cannot take it: Input image size (12*20) doesn't match" in reasons[1]
    np.testing.assert_array_equal(found[2], model.embed(paths[2:], 1)[0][0])


def test_oversized_files_are_broken_ones(vision: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # of 240: Pillow warns of those, and refuses them from 400 on
    model = VisionModel(vision)
    for _ in range(3):
        _, reasons = model.embed([files / "red.png", files / "flat.png"] * 10, 20)
        assert reasons == ["it has 20 x 12 pixels, more than the 200 that Pillow takes for safe", ""] * 10
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "could be decompression bomb" in model.embed([files / "red.png"], 1)[1][0]


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
    for kills in (0, 2):
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


def test_parts_of_a_data_set_with_its_rows_in_another_order_are_not_used(
    vision: Path, files: Path, tmp_path: Path
) -> None:
    lines = table(tmp_path / "images.csv", LINES[:2])
    for uids in (["r", "g", "b"], ["b", "r", "g"]):
        splits = {"train": (["a"], [[0]])}
        Dataset.from_lists("small", ["", "", ""], splits, label_uids=uids).save(tmp_path / "data")
        stop = tmp_path / "data" / "images-labels.broken.csv"
        stop.mkdir()  # all parts are done when it cannot be removed
        with pytest.raises(OSError, match=r"broken\.csv"):
            embed_images(Dataset.load(tmp_path / "data"), "labels", lines, vision, root=files)
        assert list(tmp_path.glob("data/images-labels.parts/part-*"))
        stop.rmdir()
    embed_images(Dataset.load(tmp_path / "data"), "labels", lines, vision, root=files)
    images = Dataset.load(tmp_path / "data").labels.images
    assert images is not None
    assert images.counts.tolist() == [1, 1, 0]
    expected, _ = VisionModel(vision).embed([files / "blue.png", files / "red.png"], 2)
    np.testing.assert_array_equal(images.values, expected)


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
