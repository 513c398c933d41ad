"""Runs to and from a hub: the same predictions, a card with what was measured, and nothing taken that is not verified."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import ENVIRONMENT, fail
from commands import xmc as command
from hub_server import TOKEN, serving
from small_models import write_decoder
from typer.testing import CliRunner
from worlds import calibrated_run, colours

import xmc
from xmc.cli import app
from xmc.config import LoRAConfig
from xmc.encoders.dual import DualEncoder
from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.errors import InputError, StoreError
from xmc.indexes.factory import build_index
from xmc.report import card_results
from xmc.search.hub import ACCEPTED, pull
from xmc.search.model_card import CardResults
from xmc.search.retriever import Retriever
from xmc.storage.fingerprints import sha256_file

QUERIES = ["a red thing", "blue and white", "something brown"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a server that is asked by the client of the Hugging Face Hub, with a cache of its own."""
    folder = tmp_path_factory.mktemp("hub")
    with serving(folder) as address, pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_ENDPOINT", address)
        patched.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # which it is in all other tests
        patched.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the server has plain LFS
        patched.setattr("huggingface_hub.constants.HF_HOME", str(folder / "cache"))
        yield folder


@pytest.fixture
def pushed(hub: Path, run: Path, request: pytest.FixtureRequest) -> tuple[str, Path]:
    """A repository of the test's own with the run, and the folder of its files on the server."""
    repo = f"me/{request.node.name.split('[')[0][-60:]}"
    address = Retriever.load(run).push_to_hub(repo, token=TOKEN)
    return repo, hub / repo.replace("/", "--") / address.rpartition("/")[2]


def changed(folder: Path, name: str, content: bytes) -> None:
    """Write a file of a repository, and have the manifest list it as it is: what somebody else could upload."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"size": len(content), "sha256": sha256_file(folder / name)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def cached(hub: Path, repo: str) -> list[Path]:
    """All files that were kept of a repository."""
    return [file for file in (hub / "cache" / "xmc" / repo.replace("/", "--")).rglob("*") if file.is_file()]


def test_what_is_pushed_is_what_is_loaded(pushed: tuple[str, Path], hub: Path, run: Path) -> None:
    repo, folder = pushed
    retriever, loaded = Retriever.load(run), Retriever.from_hub(repo)
    labels, scores = retriever.predict(QUERIES, k=3)
    np.testing.assert_array_equal(loaded.predict(QUERIES, k=3)[0], labels)
    np.testing.assert_array_equal(loaded.predict(QUERIES, k=3)[1], scores)
    assert loaded.metrics == retriever.metrics
    assert {file.suffix for file in folder.rglob("*") if file.is_file()} - {".md"} <= ACCEPTED
    assert not [file for file in cached(hub, repo) if ".cache" in file.parts or file.name.startswith(".")]
    shutil.rmtree(folder)  # a commit that was downloaded is there for good
    assert Retriever.from_hub(repo, folder.name).labels.uids.to_pylist() == retriever.labels.uids.to_pylist()


def test_several_may_pull_the_same_commit_at_once(pushed: tuple[str, Path], hub: Path) -> None:
    repo, folder = pushed
    with ThreadPoolExecutor(4) as pool:
        pulled = list(pool.map(pull, [repo] * 4))
    assert pulled == [hub / "cache" / "xmc" / repo.replace("/", "--") / folder.name] * 4
    assert [file.name for file in pulled[0].parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("commit", ["../../../outside", "/tmp/outside", "main"])
def test_what_a_server_calls_a_commit_is_no_path(commit: str, pushed: tuple[str, Path], hub: Path) -> None:
    repo, folder = pushed
    (folder.parent / "lie.txt").write_text(commit)
    with pytest.raises(StoreError, match=rf"is at '{commit}', which is no hash of a commit"):
        Retriever.from_hub(repo)
    assert cached(hub, repo) == []
    assert not list(hub.rglob("*outside*"))


def test_a_push_replaces_what_was_there_and_revisions_stay(pushed: tuple[str, Path], run: Path) -> None:
    repo, folder = pushed
    retriever = Retriever.load(run)
    (folder / "left-over.txt").write_text("of a run before")
    retriever.remove_labels(["RED"])
    second = retriever.push_to_hub(repo, token=TOKEN).rpartition("/")[2]
    third = retriever.push_to_hub(repo, token=TOKEN, revision="small").rpartition("/")[2]
    assert not (folder.parent / second / "left-over.txt").exists()
    assert len({folder.name, second, third}) == 3
    assert len(Retriever.from_hub(repo)) == len(Retriever.from_hub(repo, "small")) == 11
    assert len(Retriever.from_hub(repo, folder.name)) == 12


def test_an_index_of_faiss_stays_at_home(hub: Path, run: Path) -> None:
    retriever = Retriever.load(run)
    index = build_index("HNSW8", retriever.embeddings.shape[1])
    index.build(retriever.embeddings, np.arange(len(retriever)))
    retriever.use_index(index)
    address = retriever.push_to_hub("me/with-faiss", token=TOKEN)
    folder = hub / "me--with-faiss" / address.rpartition("/")[2]
    assert not list(folder.rglob("*.faiss"))
    loaded = Retriever.from_hub("me/with-faiss")
    assert (loaded.index.design.name, loaded.config.index) == ("exact", "HNSW8")
    np.testing.assert_array_equal(loaded.predict(QUERIES, k=3)[0], retriever.exact().predict(QUERIES, k=3)[0])
    assert retriever.index.design.name == "HNSW8"


@pytest.mark.slow
def test_a_run_with_adapters_needs_no_backbone_of_its_owner(hub: Path, tmp_path: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(write_decoder(tmp_path / "model"), lora=LoRAConfig(rank=2))
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.1
    names = ["a boat", "the dog", "the cat sleeps"]
    retriever = Retriever.from_model(DualEncoder(encoder, encoder), names, names, xmc.TrainConfig())
    retriever.push_to_hub("me/adapters", token=TOKEN)
    assert encoder.lora is not None
    scores = retriever.predict(["two boats on the sea"], k=3)[1]
    shutil.rmtree(tmp_path / "model")
    loaded = Retriever.from_hub("me/adapters", precision="float32")
    np.testing.assert_allclose(loaded.predict(["two boats on the sea"], k=3)[1], scores, atol=1e-5)


def test_a_calibration_is_shared_too(hub: Path, tmp_path: Path) -> None:
    retriever = Retriever.load(calibrated_run(colours(), tmp_path / "run", 12))
    address = retriever.push_to_hub("me/calibrated", token=TOKEN)
    loaded = Retriever.from_hub("me/calibrated")
    assert loaded.fits_calibration()
    np.testing.assert_array_equal(loaded.predict_proba(QUERIES, k=3)[1], retriever.predict_proba(QUERIES, k=3)[1])
    card = hub / "me--calibrated" / address.rpartition("/")[2] / "README.md"
    assert "| calibrated | yes: " in card.read_text()


def test_the_card_says_what_was_measured(hub: Path, run: Path) -> None:
    data = colours()
    results = card_results(run, data)
    retriever = Retriever.load(run)
    evaluated = xmc.evaluate(retriever, data)
    assert {"P@1", "nDCG@5", "PSP@3", "R@10"} <= results.metrics.keys()
    assert dict(results.metrics) == pytest.approx({name: evaluated.values[name] for name in results.metrics})
    assert (results.dataset, results.split, results.queries, results.judged) == ("colours", "test", 100, 100)
    address = retriever.push_to_hub("me/card", results, token=TOKEN)
    text = (hub / "me--card" / address.rpartition("/")[2] / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    (index,) = yaml.safe_load(header)["model-index"]
    values = {metric["type"]: metric["value"] for result in index["results"] for metric in result["metrics"]}
    assert values["P@1"] == round(evaluated.values["P@1"], 2)
    assert f"| P@1 | {evaluated.values['P@1']:.2f} |" in body
    assert 'xmc.Retriever.from_hub("me/card")' in body
    training = retriever.metrics.training
    assert training is not None
    assert f"| training | {training.steps} steps, " in body
    assert retriever.config.to_yaml().strip() in body


def test_mistakes_stand_on_the_card(hub: Path, run: Path) -> None:
    mistakes = {"true labels that are missed": 1234, "label | not in\nthe run": 2}
    results = CardResults("data", "dev", 10, {"P@1": 12.345}, mistakes, 9)
    address = Retriever.load(run).push_to_hub("me/mistakes", results, token=TOKEN)
    text = (hub / "me--mistakes" / address.rpartition("/")[2] / "README.md").read_text()
    assert "## Measured on data, split dev" in text
    assert "| P@1 | 12.35 |" in text or "| P@1 | 12.34 |" in text
    assert "| true labels that are missed | 1,234 |" in text
    assert "| label \\| not in the run | 2 |" in text
    assert "In 9 queries: " in text


def test_a_file_that_is_not_as_it_was_is_refused(pushed: tuple[str, Path], hub: Path) -> None:
    repo, folder = pushed
    (weights,) = folder.glob("encoder/*.safetensors")
    right = weights.read_bytes()
    weights.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"safetensors does not match its SHA-256 in manifest.json"):
        Retriever.from_hub(repo)
    assert cached(hub, repo) == []
    weights.write_bytes(right)
    assert len(Retriever.from_hub(repo)) == 12


@pytest.mark.parametrize(
    "name",
    [
        "encoder/weights.bin",
        "index/index.faiss",
        "model.pkl",
        "../outside.json",
        "code.py",
        "*.json",
        "a[b].txt",
        "C:a.json",
    ],
)
def test_other_files_are_refused_before_they_are_downloaded(name: str, pushed: tuple[str, Path], hub: Path) -> None:
    repo, folder = pushed
    changed(folder, name, b"cos\nsystem\n(S'echo'\ntR.")
    said = f"lists the file {name!r}, which is not taken: only files of the run with the"
    said = said if not name.startswith("..") else f"lists {name!r}, which lies outside of"
    with pytest.raises(StoreError, match=re.escape(said)):
        Retriever.from_hub(repo)
    assert cached(hub, repo) == []


def test_files_that_a_manifest_inside_lists_are_refused_too(pushed: tuple[str, Path]) -> None:
    repo, folder = pushed
    inner = folder / "index" / "manifest.json"
    listed = json.loads(inner.read_text())
    listed["files"]["ids.pkl"] = {"size": 1, "sha256": "0" * 64}
    changed(folder, "index/manifest.json", json.dumps(listed).encode())
    with pytest.raises(StoreError, match=r"lists the file 'index/ids\.pkl', which is not taken"):
        Retriever.from_hub(repo)


def test_what_is_no_run_is_refused(pushed: tuple[str, Path]) -> None:
    repo, folder = pushed
    (folder / "manifest.json").unlink()
    with pytest.raises(
        StoreError, match=rf"{repo} holds no manifest\.json in the commit {folder.name}, so it is not a saved run"
    ):
        Retriever.from_hub(repo)


def test_mistakes_of_names_and_rights_are_sentences(pushed: tuple[str, Path], hub: Path, run: Path) -> None:
    repo, _ = pushed
    retriever = Retriever.load(run)
    with pytest.raises(StoreError, match="There is no repository me/nothing at http://127"):
        Retriever.from_hub("me/nothing")
    with pytest.raises(StoreError, match=rf"The repository {repo} at http://127\S+ has no revision 'v9'"):
        Retriever.from_hub(repo, "v9")
    for call in (Retriever.from_hub, retriever.push_to_hub):
        with pytest.raises(InputError, match="'no name/at/all' is not the name of a repository, such as owner/name"):
            call("no name/at/all")
    with pytest.raises(StoreError, match="log in with `hf auth login`, or set HF_TOKEN"):
        retriever.push_to_hub("me/forbidden", token="hf_bad")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(StoreError, match=r"The repository me/far at http://127.0.0.1:9 cannot be used: Connect"):
            Retriever.from_hub("me/far")


@pytest.mark.slow
def test_the_commands_in_processes_of_their_own(hub: Path, run: Path, tmp_path: Path) -> None:
    variables = {"HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {**variables, "HF_ENDPOINT": os.environ["HF_ENDPOINT"]}.items():
            patched.setitem(ENVIRONMENT, name, value)
        done = command("hub", "push", run, "me/process", "--revision", "first")
        assert (done.returncode, done.stderr) == (0, "")
        done = command("hub", "pull", "me/process", tmp_path / "pulled", "--revision", "first")
        assert (done.returncode, done.stderr) == (0, "")
        assert command("search", tmp_path / "pulled", "a red thing", "-k", "1").stdout.count("red") >= 1
        fail(command("hub", "pull", "me/nothing", tmp_path / "nothing"), "There is no repository me/nothing at http://")


def test_the_commands(hub: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    colours().save(tmp_path / "colours")
    done = CliRunner().invoke(app, ["hub", "push", str(run), "me/by-command", "--dataset", str(tmp_path / "colours")])
    assert done.exception is None, done.output
    assert done.output.splitlines()[-1] == "next: xmc hub pull me/by-command runs/by-command"
    out = tmp_path / "deep" / "pulled"
    done = CliRunner().invoke(app, ["hub", "pull", "me/by-command", str(out)])
    assert done.exception is None, done.output
    np.testing.assert_array_equal(
        Retriever.load(out).predict(QUERIES, k=3)[1], Retriever.load(run).predict(QUERIES, k=3)[1]
    )
    assert [file.name for file in out.parent.iterdir()] == ["pulled"]
    again = CliRunner().invoke(app, ["hub", "pull", "me/by-command", str(out)])
    assert isinstance(again.exception, StoreError)
    assert f"{out} already holds a run" in str(again.exception)
