"""Embedding image files: real PNG files, broken ones, interruptions, and what is taken of a model."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
import torch
from commands import fail
from commands import xmc as command
from image_worlds import small
from PIL import Image
from processes import environment, stopped_while
from safetensors.torch import save_file

from xmc.data.dataset import Dataset
from xmc.data.images.embed import embed_images
from xmc.data.images.vision import VisionModel
from xmc.errors import ConfigError, DataError


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
from xmc.data.images import embed as embed_images
embed_images.CHUNK = 4
root = Path(sys.argv[1])
data, most = Dataset.load(root / "data"), int(sys.argv[3])
embed_images.embed_images(data, "train", root / "images.csv", Path(sys.argv[2]), most=most, batch_size=2)
"""


def write_images(root: Path, count: int) -> None:
    """Images of three texts, and their table; image 7 is none."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (400, 400, 3), dtype=np.uint8)).save(root / f"{number}.png")
        lines.append((str(number % 3), f"{number}.png"))
    (root / "7.png").write_text("no image")
    table(root / "images.csv", lines)


def start_and_kill(job: list[str], root: Path, all_parts: int) -> bool:
    """Kill the job once it has written a part; False where it was through with all of them by then."""

    def written() -> int:
        return len(list(root.glob("data/images-train.parts/part-*")))

    before = written()
    process = subprocess.Popen(job, env=environment())
    end = time.monotonic() + 300  # only where a process is kept from running
    while time.monotonic() < end and process.poll() is None:
        if stopped_while(process.pid, lambda: written() > before):
            break
        time.sleep(0.001)
    running = process.poll() is None and before < written() < all_parts
    process.kill()
    process.wait()
    return running


@pytest.mark.nightly
def test_a_job_that_is_killed_goes_on_to_the_same_end(vision: Path, tmp_path: Path) -> None:
    def embedded(kills: int, most: int) -> bytes | None:
        """What the job makes after so many kills; None where one of them came too late."""
        job = [sys.executable, "-c", JOB, str(tmp_path), str(vision), str(most)]
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        small().save(tmp_path / "data")
        for _ in range(kills):
            if not start_and_kill(job, tmp_path, all_parts=-(-3 * most // 4)):
                return None
            assert Dataset.load(tmp_path / "data").images("train") is None
        subprocess.run(job, env=environment(), check=True)
        assert "7.png" in (tmp_path / "data" / "images-train.broken.csv").read_text()
        assert not list(tmp_path.glob("data/*.parts"))
        return (tmp_path / "data" / "images-train.arrow").read_bytes()

    for most in (9, 40, 160):  # a longer job, where this process was kept from running for as long as the job took
        write_images(tmp_path, count=3 * most + 33)
        killed = embedded(2, most)
        if killed is not None:
            break
    assert killed is not None
    assert killed == embedded(0, most)


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
        Dataset.from_lists("small", ["", "", ""], splits, label_uids=uids).save(tmp_path / "data", overwrite=True)
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
    with pytest.raises(DataError, match=r"images\.txt ends with none of \.parquet"):
        embed_images(data, "labels", tmp_path / "images.txt", vision)
    fail(
        command("data", "embed-images", tmp_path / "data", "--model", vision, "--images", lines, "--of", "dev"),
        "has no split 'dev', only train, test",
    )
