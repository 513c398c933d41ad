"""What a run directory holds, read and written in one place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import colours, tiny_config

import xmc
from xmc.encoders.dual import DualEncoder
from xmc.errors import StoreError
from xmc.search import run_directory
from xmc.search.run_directory import RunDirectory
from xmc.search.run_metrics import RunMetrics, TrainingRecord
from xmc.storage import manifests
from xmc.storage.fingerprints import sha256_file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("directory") / "run"
    xmc.train(colours(), tiny_config(validation=0.2), directory)
    return directory


def test_what_is_written_is_read(run: Path, tmp_path: Path) -> None:
    before = RunDirectory(run).read()
    RunDirectory(tmp_path / "copy").write(before)
    after = RunDirectory(tmp_path / "copy").read()
    assert after.metrics == before.metrics
    assert after.config == before.config
    assert after.labels.table.equals(before.labels.table)
    np.testing.assert_array_equal(after.tuning_queries, before.tuning_queries)
    assert after.calibration is None
    fingerprints = [RunDirectory(directory).fingerprint for directory in (run, tmp_path / "copy")]
    assert fingerprints[0] == fingerprints[1]  # files are the same, byte by byte
    with pytest.raises(StoreError, match="already holds a run"):
        RunDirectory(tmp_path / "copy").require_free()
    with pytest.raises(StoreError, match="already holds a run"):
        RunDirectory(tmp_path / "copy").write(before)
    RunDirectory(tmp_path / "copy").write(before, overwrite=True)


def test_each_file_is_hashed_once_when_a_run_is_saved(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, hashed = RunDirectory(run).read(), list[int]()

    def counted(file: Path) -> str:
        hashed.append(file.stat().st_ino)
        return sha256_file(file)

    for module in (run_directory, manifests):
        monkeypatch.setattr(module, "sha256_file", counted)
    RunDirectory(tmp_path / "copy").write(before)
    assert len(hashed) == len(set(hashed)) > 0
    monkeypatch.undo()
    RunDirectory(tmp_path / "copy").read()  # they are those of the files


def test_parts_of_a_run_are_those_of_the_whole(run: Path) -> None:
    directory = RunDirectory(run)
    whole = directory.read()
    model, labels, stages = directory.read_model_and_labels()
    assert stages == ()
    texts = ["red and blue", "pink"]
    np.testing.assert_array_equal(model.embed_queries(texts), whole.model.eval().embed_queries(texts))
    assert labels.table.equals(whole.labels.table)
    embeddings, ids, alive = directory.read_label_embeddings()
    np.testing.assert_array_equal(embeddings.joined(), xmc.Retriever.load(run).embeddings)
    assert ids.tolist() == labels.ids.tolist()
    assert alive.all()
    assert directory.read_calibration() is None
    files = [file for file in run.rglob("*") if file.is_file() and file.name not in ("manifest.json", "metrics.jsonl")]
    index_manifest = (run / "index" / "manifest.json").stat().st_size
    assert sum(directory.bytes_by_content().values()) == sum(file.stat().st_size for file in files) + index_manifest


def test_files_of_two_runs_are_never_taken_together(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run is saved over the directory when the model, or the index's manifest, was read from it."""
    saved, other = tmp_path / "run", xmc.Retriever.load(run).cut(16)
    other.add_labels(["a label of the other run"])

    def replaced_after(owner: Any, name: str) -> None:
        read, reads = getattr(owner, name), list[int]()

        def read_and_replace(*arguments: Any, **options: Any) -> Any:
            content = read(*arguments, **options)
            reads.append(1)
            if len(reads) == 1:
                other.save(saved, overwrite=True, discard=True)
            return content

        monkeypatch.setattr(owner, name, read_and_replace)

    shutil.copytree(run, saved)
    replaced_after(DualEncoder, "load")
    model, labels, _ = RunDirectory(saved).read_model_and_labels()
    assert (model.dimension, len(labels)) == (16, len(other))
    monkeypatch.undo()
    shutil.rmtree(saved)
    shutil.copytree(run, saved)
    replaced_after(run_directory, "read_manifest")
    embeddings, ids, _ = RunDirectory(saved).read_label_embeddings()
    assert (embeddings.dimension, len(ids)) == (16, len(other))


def test_metrics_say_how_it_was_trained(run: Path) -> None:
    metrics = RunDirectory(run).read().metrics
    assert metrics.training is not None
    assert metrics.training.dataset == "colours"
    assert metrics.training.dataset_fingerprint == colours().fingerprint
    assert metrics.training.steps > 0
    assert not metrics.training.interrupted
    assert metrics.validation
    stored = json.loads((run / "metrics.json").read_text())
    assert stored["training"]["steps"] == metrics.training.steps
    assert stored["validation"] == metrics.validation


def test_metrics_of_other_versions_are_read() -> None:
    assert RunMetrics.from_dict({}) == RunMetrics()
    assert RunMetrics().to_dict() == {}
    values = {
        "training": {"steps": 3, "seconds": 1.5, "loss": 0.25, "device": "cpu"},
        "classifier": {"k": 2},
        "validation": {"P@1": 50},
    }
    metrics = RunMetrics.from_dict(values)
    assert metrics == RunMetrics(TrainingRecord(3, 1.5, 0.25), {"P@1": 50.0}, {"classifier": {"k": 2}})
    assert RunMetrics.from_dict(json.loads(json.dumps(metrics.to_dict()))) == metrics


@pytest.mark.parametrize("content", ["[1]", '{"training": {"steps": 3}}', '{"validation": [1]}', "{"])
def test_metrics_of_another_form_are_refused(run: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(run, tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    file = tmp_path / "run" / "metrics.json"
    file.write_text(content)
    with pytest.raises(StoreError, match=r"metrics\.json"):
        RunDirectory(tmp_path / "run").read()
    manifest["files"]["metrics.json"] = {"size": len(content), "sha256": sha256_file(file)}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=r"cannot be read: metrics\.json"):
        RunDirectory(tmp_path / "run").read()


def test_no_run(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "nowhere")
    directory.require_free()
    reads = (directory.read, directory.read_calibration, directory.read_model_and_labels, directory.read_source_columns)
    for read in (*reads, directory.require):
        with pytest.raises(StoreError, match="nowhere does not exist"):
            read()
