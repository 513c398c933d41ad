"""What the commands of the tests of durability work on: small data sets, runs, models and files, made once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch
from image_worlds import small
from small_models import write_bert
from worlds import COLOURS, colours, tiny_config

import xmc
from xmc.data.dataset import Dataset
from xmc.data.seal import seal

__all__ = ["CHECKPOINTED", "REPOSITORY", "take", "write_repository", "write_stock"]

REPOSITORY, COMMIT = "me/run", "0123456789abcdef" * 2 + "01234567"
"""A run on the hub, see `hub_server`."""

CHECKPOINTED = {"checkpoint": {"steps": 3, "minutes": None}, "token_cache": "tokens"}
"""Checkpoints every three steps, and tokens kept in the folder that is watched."""


def write_stock(folder: Path) -> Path:
    """Write everything into a folder."""
    data = colours()
    data.save(folder / "data")
    data.save(folder / "judged")
    unsplit = Dataset.from_lists(
        "unsplit",
        list(COLOURS),
        {"train": (data.split("train").texts.to_pylist(), _lists(data, "train"))},
        label_uids=[name.upper() for name in COLOURS],
    )
    unsplit.save(folder / "unsplit")
    xmc.train(data, tiny_config(epochs=1, seed=1), folder / "run", overwrite=False)
    xmc.train(data, tiny_config(epochs=2, calibration=0.4, seed=2), folder / "aside")
    _write_configurations(folder)
    _write_labels(folder)
    _write_sources(folder)
    _write_images(folder)
    bert = write_bert(folder / "bert")
    lora = {"kind": "transformer", "directory": str(bert), "lora": {"rank": 2}}
    settings = {"encoder": lora, "negatives": "in-batch", "batch_size": 64, "epochs": 1}
    xmc.train(colours(), xmc.TrainConfig.from_mapping(settings), folder / "adapted")
    return folder


def take(stock: Path, folder: Path, *names: str) -> None:
    """Copy things of the stock into a folder, each under its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (stock / name).is_dir():
            shutil.copytree(stock / name, folder / name)
        else:
            shutil.copy2(stock / name, folder / name)


def write_repository(hub: Path, run: Path) -> None:
    """Let the hub of `hub_server` have a run."""
    folder = hub / REPOSITORY.replace("/", "--")
    shutil.copytree(run, folder / COMMIT)
    (folder / "branches.json").write_text(json.dumps({"main": COMMIT}))


def _lists(data: Dataset, split: str) -> list[list[int]]:
    positives = data.split(split).positives
    return [row.tolist() for row in np.split(positives.indices, positives.indptr[1:-1])]


def _write_configurations(folder: Path) -> None:
    (folder / "config.yaml").write_text(tiny_config(epochs=2, **CHECKPOINTED).to_yaml())
    (folder / "other.yaml").write_text(tiny_config(epochs=1, checkpoint={"steps": 2, "minutes": None}).to_yaml())


def _write_labels(folder: Path) -> None:
    added = {"uid": ["SILVER", "GOLD"], "text": ["silver", "gold"], "examples": ["a silver thing", ""]}
    pa_csv.write_csv(pa.table(added), folder / "added.csv")
    pa_csv.write_csv(pa.table({"uid": ["RED", "BLUE"], "text": ["dark red", "light blue"]}), folder / "updated.csv")
    pa_csv.write_csv(pa.table({"uid": ["GREEN", "PINK"]}), folder / "removed.csv")


def _write_sources(folder: Path) -> None:
    rows = [{"uid": str(row), "text": f"the {COLOURS[row % 12]} sea", "labels": COLOURS[row % 12]} for row in range(40)]
    pa_csv.write_csv(pa.Table.from_pylist(rows[:20]), folder / "old.csv")
    pa_csv.write_csv(pa.Table.from_pylist(rows), folder / "new.csv")
    texts = [f"{COLOURS[row % 12]} or {COLOURS[row % 7]}, number {row}" for row in range(60)]
    table = pa.table({"uid": list(map(str, range(60))), "text": texts})
    pq.write_table(table, folder / "queries.parquet")
    judged = {"query": ["0", "1", "2"], "label": ["RED", "BLUE", "PINK"], "judgement": ["wrong"] * 3}
    pq.write_table(pa.table(judged), folder / "judged" / "judged-test.parquet")
    seal(folder / "judged")


def _write_images(folder: Path) -> None:
    from PIL import Image
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    small().save(folder / "pictured")
    files = folder / "images"
    files.mkdir()
    for name, colour in (("red", (255, 0, 0)), ("green", (0, 255, 0)), ("blue", (0, 0, 255))):
        Image.new("RGB", (20, 12), colour).save(files / f"{name}.png")
    lines = {"uid": ["r", "g", "b", "b"], "path": ["red.png", "green.png", "blue.png", "absent.png"]}
    pa_csv.write_csv(pa.table(lines), files / "table.csv")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
        ViTModel(ViTConfig(image_size=16, patch_size=8, **sizes)).save_pretrained(folder / "vision")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "vision")
    for file in (folder / "vision").iterdir():
        file.chmod(0o644)  # safetensors writes for its owner alone, and some tests give up that right
    arrays = folder / "arrays"
    arrays.mkdir()
    numbers = np.random.default_rng(0)
    np.save(arrays / "trn_embs_imgs_3_4_siglip2.npy", numbers.standard_normal((4, 4)).astype(np.float32))
    np.save(arrays / "train_imgs_384_3_map.npy", np.array([[2, 0], [-1, -1], [3, -1]]))
    np.save(arrays / "lbl_embs_imgs_3_4_siglip2.npy", numbers.standard_normal((2, 4)).astype(np.float16))
    np.save(arrays / "labels_imgs_384_3_map.npy", np.array([[1, -1], [0, 1], [-1, -1]]))
