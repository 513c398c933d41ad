"""Where an index runs is chosen when it is opened, and nothing of it is stored."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import colours, tiny_config

import xmc
from xmc.errors import ConfigError
from xmc.indexes import designs
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.contract import Devices, Engine
from xmc.indexes.engines.exact import ExactDesign
from xmc.indexes.engines.torch_shards import ShardedEngine
from xmc.indexes.factory import build_index, index_version, load_index
from xmc.indexes.placement import automatic_devices, devices_of
from xmc.indexes.tuning import automatic

LABELS = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
QUERIES = LABELS[:20] + 0.1
MISSING = "cuda:77"


def properties(index: Path) -> dict[str, object]:
    return dict(json.loads((index / "manifest.json").read_text())["properties"])


def test_devices_by_name() -> None:
    assert devices_of("cpu") == ()
    assert devices_of(["cpu", "cpu"]) == ("cpu", "cpu")
    assert devices_of("auto") == (("cuda",) if torch.cuda.is_available() else ())
    for device in (MISSING, ["cpu", MISSING], "gpu"):
        with pytest.raises(ConfigError, match=r'There is no device .* leave it to "auto"'):
            devices_of(device)


def test_auto_takes_the_gpu_where_the_index_fits(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert automatic_devices(None, 100) == ()
        assert automatic_devices(10**9, 10**8) == ("cuda",)
        assert not caplog.records
        assert automatic_devices(10**9, 10**9) == ()
    assert "stays on the processor" in caplog.text


@pytest.mark.parametrize("design", ["exact", "HNSW8"])
def test_what_is_stored_says_nothing_of_devices(design: str, tmp_path: Path) -> None:
    here, there = build_index(design, 8, device="cpu"), build_index(design, 8, device=["cpu", "cpu"])
    for number, index in enumerate((here, there)):
        index.build(LABELS, np.arange(300))
        index.save(tmp_path / str(number))
    stored = [properties(tmp_path / name) for name in ("0", "1")]
    assert "devices" not in stored[0]
    stored[1]["covered"] = stored[0]["covered"]  # an engine on devices covers all rows, without one none are
    assert stored[0] == stored[1]
    for name in ("0", "1"):
        for device in ("cpu", ["cpu"], ["cpu"] * 3):
            loaded = load_index(tmp_path / name, device=device)
            np.testing.assert_array_equal(loaded.search(QUERIES, 5)[0], here.search(QUERIES, 5)[0])


def test_an_index_of_before_opens_without_its_devices(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Manifests of before name the devices that an index ran on, and a machine without them refused it."""
    index = build_index("exact", 8)
    index.build(LABELS, np.arange(300))
    index.save(tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    manifest["properties"].update(devices=[MISSING], covered=300)
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest))
    with caplog.at_level(logging.INFO):
        loaded = load_index(tmp_path / "index", device="cpu")
    assert f"saved where it ran on {MISSING}; it runs on the processor now" in caplog.text
    np.testing.assert_array_equal(loaded.search(QUERIES, 5)[0], index.search(QUERIES, 5)[0])
    loaded.save(tmp_path / "again")
    assert "devices" not in properties(tmp_path / "again")


@pytest.mark.parametrize("tuned", [False, True])
def test_auto_copies_the_embeddings_to_devices_once(tuned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = list[int]()
    build = ExactDesign.build

    def counted(design: ExactDesign, embeddings: EmbeddingBlocks, devices: Devices) -> Engine | None:
        copies.append(len(embeddings))
        return build(design, embeddings, devices)

    monkeypatch.setattr(ExactDesign, "build", counted)
    if tuned:
        monkeypatch.setattr(designs, "EXACT_BELOW", 100)
        monkeypatch.setattr(automatic, "TUNED_FROM", 100)
    version = index_version("auto", LABELS, QUERIES, devices=("cpu", "cpu"))
    assert copies == [300]
    assert bool(version.measured) == tuned
    assert (version.design.name, version.devices) == ("exact", ("cpu", "cpu"))
    assert isinstance(version.engine, ShardedEngine)
    with pytest.raises(ConfigError, match="rescore is for a design that is named"):
        index_version("auto", LABELS, QUERIES, rescore=2)


def test_a_run_is_opened_where_it_is_wanted(tmp_path: Path) -> None:
    xmc.train(colours(), tiny_config(epochs=2), tmp_path / "run")
    expected = xmc.Retriever.load(tmp_path / "run", device="cpu").predict(["red and blue"], k=5)
    split = xmc.Retriever.load(tmp_path / "run", device=["cpu", "cpu"])
    assert split.index.devices == split.exact().index.devices == ("cpu", "cpu")
    assert split.predict(["red and blue"], k=5)[0].tolist() == expected[0].tolist()
    split.add_labels(["crimson"])
    split.reindex("exact")
    assert split.index.devices == ("cpu", "cpu")
    assert len(split.predict(["crimson"], k=20)[0][0]) == 13
    with pytest.raises(ConfigError, match=f"no device '{MISSING}'"):
        xmc.Retriever.load(tmp_path / "run", device=MISSING)
