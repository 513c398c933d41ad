"""Each command that writes: what it is given, and what a reader sees of its result, from which follows what a kill may leave.

What is seen has parts by name. After a kill, a full disk or a crash, each part is as before or as after the whole command; if
the result is `one`, all are as before, or all as after. A repeat ends in the right result, with no file left over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from durable_stock import REPOSITORY

import xmc
from xmc.data.dataset import Dataset
from xmc.storage.manifests import LOG, MANIFEST, read_manifest

__all__ = ["COMMANDS", "Seen", "WritingCommand"]

Seen = Mapping[str, str | None]
"""A digest of each part that a reader sees, None for those that are not there."""


@dataclass(frozen=True)
class WritingCommand:
    """A command that writes.

    arguments: of `xmc`, run in a folder that holds `stock`, things of the stock by name. see: what a reader sees of a folder's
    result; it raises where a reader would, or where something is half there. one: whether all parts change together. before:
    arguments of a command that runs first. again: arguments of the repeat where they differ. already: what the repeat may say,
    as a mistake, where the result is there already. once: whether a finished command does more when it is given again, so that
    it is not. slow: whether it takes so long that fewer kills are tried.
    """

    arguments: tuple[str, ...]
    stock: tuple[str, ...]
    see: Callable[[Path], Seen]
    one: bool = True
    before: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    already: str = "\0"
    once: bool = False
    slow: bool = False


def see_run(name: str) -> Callable[[Path], Seen]:
    """Everything in a run but what tells of times; it is loaded, and answers."""

    def see(folder: Path) -> Seen:
        run = folder / name
        if not (run / MANIFEST).exists():
            left = [file.name for file in run.iterdir()] if run.exists() else []
            assert all(name == LOG or name.startswith(f".{LOG}.") for name in left), left
            return {"run": None}
        retriever = xmc.Retriever.load(run)
        uids, scores = retriever.predict(["item 3 red and blue", "something pink"], k=3)
        parts = [_files(run, "run"), retriever.labels.uids.to_pylist(), uids.tolist(), scores.tolist()]
        return {"run": _digest(json.dumps(parts, sort_keys=True).encode())}

    return see


def _files(directory: Path, kind: str) -> list[tuple[str, str]]:
    """SHA-256 of the files of a stored directory, and of those inside of it, as their manifests vouch for them."""
    told = []
    for name, entry in read_manifest(directory, kind)["files"].items():
        if name.endswith("manifest.json"):
            inner = json.loads((directory / name).read_text())["kind"]
            told += [(f"{name} {key}", value) for key, value in _files((directory / name).parent, inner)]
        elif name != "metrics.json":
            told.append((name, entry["sha256"]))
    return told


def see_data(name: str) -> Callable[[Path], Seen]:
    """All texts, labels, filters, evidence and images of a data set, and that they fit to what it says of itself."""

    def see(folder: Path) -> Seen:
        directory = folder / name
        if not directory.exists():
            return {"data": None}
        data = Dataset.load(directory)
        said = dict(data.properties)
        parts = [data.labels.uids.to_pylist(), data.labels.texts.to_pylist(), said["splits"], said["labels"]]
        for split in data.splits:
            parts += [data.split(split).texts.to_pylist(), data.split(split).positives.toarray().tolist()]
            parts += [data.split(split).positives.data.tolist(), data.filter(split).tolist()]
            parts += [evidence.table().to_pylist() for evidence in data.evidence(split).values()]
            assert said["splits"][split] == len(data.split(split))
        assert said["labels"] == len(data.labels)
        assert said.get("fingerprint") == data.fingerprint
        for named in data.image_names:
            images = data.labels.images if named == "labels" else data.split(named).images
            assert images is not None
            parts.append([named, images.values.tolist(), images.offsets.tolist()])
        return {"data": _digest(json.dumps(parts).encode())}

    return see


def see_images(name: str) -> Callable[[Path], Seen]:
    """The images of a data set, by what they are of; each is added in a step of its own."""

    def see(folder: Path) -> Seen:
        seen: dict[str, str | None] = {"labels": None, "train": None}
        data = Dataset.load(folder / name)
        for named in data.image_names:
            images = data.labels.images if named == "labels" else data.split(named).images
            assert images is not None
            seen[named] = _digest(json.dumps([images.values.tolist(), images.offsets.tolist()]).encode())
        return seen

    return see


def see_files(*names: str) -> Callable[[Path], Seen]:
    """Files, each by its content."""

    def see(folder: Path) -> Seen:
        return {name: _digest((folder / name).read_bytes()) if (folder / name).exists() else None for name in names}

    return see


def see_job(name: str) -> Callable[[Path], Seen]:
    """The parts of a job, all of which can be read; and _SUCCESS, with which all of its parts are there."""

    def see(folder: Path) -> Seen:
        out = folder / name
        seen: dict[str, str | None] = {f"part-{number:05d}": None for number in range(4)} | {"_SUCCESS": None}
        for file in sorted(out.glob("part-*")):
            if file.suffix == ".parquet":
                pq.read_table(file)
            seen[file.stem] = _digest(file.read_bytes())
        if (out / "_SUCCESS").exists():
            said = json.loads((out / "_SUCCESS").read_text())
            for part in said["parts"]:
                assert part["sha256"] == _digest((out / part["name"]).read_bytes())
            seen["_SUCCESS"] = _digest(json.dumps([said["job"], said["parts"]]).encode())
        return seen

    return see


def see_exported(name: str) -> Callable[[Path], Seen]:
    """An encoder written for other programs: all files, verified."""

    def see(folder: Path) -> Seen:
        directory = folder / name
        if not directory.exists():
            return {"encoder": None}
        kind = json.loads((directory / "manifest.json").read_text())["kind"]
        names = sorted(path for path, _ in _files(directory, kind))
        return {"encoder": _digest(json.dumps([kind, names]).encode())}

    return see


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _job(*more: str) -> tuple[str, ...]:
    return ("predict", "run", "--input", "queries.parquet", "--output", "out", "--rows-per-part", "16", *more)


_TRAIN = ("train", "config.yaml", "--dataset", "data", "--out", "new")
_CLIENTS = ("--split-by", "chance", "--number", "2")
_FEDERATED = ("federated", "config.yaml", "--dataset", "data", *_CLIENTS, "--out", "new")
_OVER = ("train", "other.yaml", "--dataset", "data", "--out", "run", "--overwrite")
_EMBED = ("embed", "run", "--input", "queries.parquet", "--rows-per-part", "16", "--output")
_IMAGES = ("data", "embed-images", "pictured", "--model", "vision", "--images", "images/table.csv", "--batch-size", "2")
_EVALUATE = ("evaluate", "run", "judged", "--per-query", "per-query.parquet", "--trec", "trec", "--save-mistakes")
_EVALUATED = ("per-query.parquet", "trec/run.trec", "trec/qrels.trec", "mistakes.parquet")
_FITTED = ("aside", "data", "--share", "1")
_BACKBONE = ("adapted", "bert")

COMMANDS: dict[str, WritingCommand] = {
    "train": WritingCommand(
        _TRAIN, ("config.yaml", "data"), see_run("new"), again=(*_TRAIN, "--resume"), already="already holds a run"
    ),
    "federated": WritingCommand(
        _FEDERATED,
        ("config.yaml", "data"),
        see_run("new"),
        again=(*_FEDERATED, "--resume"),
        already="already holds a run",
    ),
    "train --overwrite": WritingCommand(_OVER, ("other.yaml", "data", "run"), see_run("run")),
    "data convert": WritingCommand(
        ("data", "convert", "new.csv", "out"), ("new.csv",), see_data("out"), already="already"
    ),
    "data convert --overwrite": WritingCommand(
        ("data", "convert", "new.csv", "out", "--overwrite", "--test", "0.2"),
        ("old.csv", "new.csv"),
        see_data("out"),
        before=("data", "convert", "old.csv", "out"),
    ),
    "data split": WritingCommand(
        ("data", "split", "unsplit", "out", "--test", "0.2"), ("unsplit",), see_data("out"), already="already"
    ),
    "votes names": WritingCommand(
        ("votes", "names", "data", "--out", "out"), ("data",), see_data("out"), already="already holds"
    ),
    "votes neighbours": WritingCommand(
        ("votes", "neighbours", "run", "data", "--out", "out"),
        ("run", "data"),
        see_data("out"),
        already="already holds",
    ),
    "relabel": WritingCommand(
        ("relabel", "aside", "data", "--out", "out", "--set", "supervision.wrong=0.2"),
        ("aside", "data"),
        see_data("out"),
        already="already holds",
    ),
    "data embed-images": WritingCommand(_IMAGES, ("pictured", "vision", "images"), see_images("pictured")),
    "data import-images": WritingCommand(
        ("data", "import-images", "pictured", "arrays"), ("pictured", "arrays"), see_images("pictured"), one=False
    ),
    "index": WritingCommand(("index", "run", "HNSW8"), ("run",), see_run("run")),
    "labels add": WritingCommand(
        ("labels", "add", "run", "added.csv"), ("run", "added.csv"), see_run("run"), already="already there"
    ),
    "labels update": WritingCommand(
        ("labels", "update", "run", "updated.csv"), ("run", "updated.csv"), see_run("run"), once=True
    ),
    "labels remove": WritingCommand(
        ("labels", "remove", "run", "removed.csv"), ("run", "removed.csv"), see_run("run"), already="there is no label"
    ),
    "memory": WritingCommand(("memory", *_FITTED, "--encoder", "own"), ("aside", "data"), see_run("aside")),
    "rerank": WritingCommand(
        ("rerank", *_FITTED, "--model", "logistic", "--shortlist", "5"), ("aside", "data"), see_run("aside")
    ),
    "calibrate": WritingCommand(
        ("calibrate", "aside", "data", "--candidates", "8"), ("aside", "data"), see_run("aside")
    ),
    "predict": WritingCommand(
        _job(), ("run", "queries.parquet"), see_job("out"), one=False, again=_job("--resume"), already="finished"
    ),
    "predict --format csv": WritingCommand(
        _job("--format", "csv"),
        ("run", "queries.parquet"),
        see_job("out"),
        one=False,
        again=_job("--format", "csv", "--resume"),
        already="finished",
    ),
    "embed to .arrow": WritingCommand(
        (*_EMBED, "out.arrow"),
        ("run", "queries.parquet"),
        see_files("out.arrow"),
        again=(*_EMBED, "out.arrow", "--resume"),
        already="exists already",
    ),
    "embed to .npy": WritingCommand(
        (*_EMBED, "out.npy"),
        ("run", "queries.parquet"),
        see_files("out.npy", "out.uids.parquet"),
        one=False,
        again=(*_EMBED, "out.npy", "--resume"),
        already="exists already",
    ),
    "evaluate": WritingCommand((*_EVALUATE, "mistakes.parquet"), ("run", "judged"), see_files(*_EVALUATED), one=False),
    "report": WritingCommand(
        ("report", "run", "--dataset", "data", "-o", "report.html"), ("run", "data"), see_files("report.html")
    ),
    "config init": WritingCommand(("config", "init", "mine.yaml"), (), see_files("mine.yaml"), already="already there"),
    "hub pull": WritingCommand(("hub", "pull", REPOSITORY, "out"), (), see_run("out"), already="already holds"),
    "export": WritingCommand(("export", "adapted", "out"), _BACKBONE, see_run("out"), already="already"),
    "export --to sentence-transformers": WritingCommand(
        ("export", "adapted", "out", "--to", "sentence-transformers"), _BACKBONE, see_exported("out"), already="already"
    ),
    "export --to onnx": WritingCommand(
        ("export", "adapted", "out", "--to", "onnx"), _BACKBONE, see_exported("out"), already="already", slow=True
    ),
}
