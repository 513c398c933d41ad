"""Folders with a file that is damaged, gone, added or mistaken for another; and their checksums made right again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuzzing.damage import Random
from fuzzing.formats import damaged_file

__all__ = ["Changes", "apply", "damaged_folder", "files_of", "repair"]

Changes = Mapping[str, bytes | None]
"""The new content of files by their names below a folder; None for one that is gone."""


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder by its name there."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
    }


def damaged_folder(files: Mapping[str, bytes], chance: Random) -> Changes:
    """What changes: mostly the content of one file, now and then of two, or which files there are."""
    names = list(files)
    kind = chance.choice(["content"] * 40 + ["two"] * 4 + ["gone", "empty", "exchanged", "added", "more"])
    name = chance.choice(names)
    if kind == "gone":
        return {name: None}
    if kind == "empty":
        return {name: b""}
    if kind == "exchanged":
        return {name: files[chance.choice(names)]}
    if kind == "added":
        return {str(Path(name).parent / chance.choice(ADDED)): files[chance.choice(names)]}
    if kind == "more":
        return {f"{name}{chance.choice(['.gz', '.tmp', '~', '2'])}": files[name]}
    chosen = {name} if kind == "content" else {name, chance.choice(names)}
    return {each: damaged_file(each, files[each], chance) for each in sorted(chosen)}


ADDED = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "tokenizer.model",
    "pytorch_model.bin",
    "calibration.json",
    "x",
]
ADDED += ["labels.parquet", "manifest.json", "config.json", "dataset.json", "part-00007.parquet", "stages.json"]


def apply(folder: Path, changes: Changes) -> None:
    """Make the changes. A file is written anew, so that one that is still open or mapped keeps its content."""
    for name, content in changes.items():
        file = folder / name
        if file.is_dir():
            continue
        file.unlink(missing_ok=True)
        if content is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def restore(folder: Path, files: Mapping[str, bytes], before: Mapping[str, int]) -> None:
    """Make a folder hold these files again and nothing else. before: when each was last changed, as `times_of` has it."""
    for file in sorted(folder.rglob("*"), reverse=True):
        name = file.relative_to(folder).as_posix()
        if file.is_dir() and not file.is_symlink():
            if not any(other.startswith(f"{name}/") for other in files):
                shutil.rmtree(file)
        elif name not in files:
            file.unlink()
    now = times_of(folder)
    apply(folder, {name: content for name, content in files.items() if now.get(name) != before.get(name)})


def times_of(folder: Path) -> dict[str, int]:
    """What tells whether a file was written since: its inode and time together, by name."""
    found = {}
    for file in folder.rglob("*"):
        if file.is_file():
            status = file.stat()
            found[file.relative_to(folder).as_posix()] = hash((status.st_ino, status.st_mtime_ns, status.st_size))
    return found


LISTS = ("manifest.json", "dataset.json", "_SUCCESS")
"""Files that list others with sizes and checksums."""


def repair(folder: Path) -> None:
    """Make every list of checksums say what the files are now, from the innermost folder to the outermost: as an author who
    wants the files to be taken would. Files that are gone leave the lists, new ones enter them."""
    lists = [file for file in folder.rglob("*") if file.name in LISTS and file.is_file()]
    for file in sorted(lists, key=lambda file: (-len(file.parts), file.name)):
        try:
            content = json.loads(file.read_bytes())
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            _name_the_model(file.parent, content)
            _relist(file, content)
            file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", errors="surrogatepass")


def _relist(file: Path, content: dict[str, Any]) -> None:
    folder = file.parent
    listed = content.get("files")
    if isinstance(listed, dict):
        inner = {other.parent for other in folder.rglob("manifest.json") if other.parent != folder}
        for name in [name for name in listed if not (folder / name).is_file()]:
            del listed[name]
        for other in sorted(folder.rglob("*")):
            name = other.relative_to(folder).as_posix()
            below = any(parent in inner for parent in other.parents) and other.name != "manifest.json"
            if other.is_file() and other != file and not below and name.split("/")[0] not in UNLISTED:
                old = listed.get(name)
                listed[name] = {**(old if isinstance(old, dict) else {}), **_described(other)}
    parts = content.get("parts")
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and isinstance(part.get("name"), str) and (folder / part["name"]).is_file():
            part["sha256"] = _described(folder / part["name"])["sha256"]


UNLISTED = ("metrics.jsonl", "tensorboard")


def _described(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _name_the_model(folder: Path, manifest: Mapping[str, Any]) -> None:
    """The indexes of a run name the model that their embeddings were made by, which is a checksum too."""
    from xmc.storage.run_layout import source_of

    if manifest.get("kind") != "run" or not isinstance(manifest.get("files"), dict):
        return
    digests = {
        name: {"sha256": _described(folder / name)["sha256"]}
        for name in manifest["files"]
        if isinstance(name, str) and (folder / name).is_file()
    }
    source = source_of({"files": digests})
    for inner in ("index", "memory/index"):
        file = folder / inner / "manifest.json"
        try:
            content = json.loads(file.read_bytes())
            content["properties"]["source"] = source
        except (OSError, ValueError, RecursionError, TypeError, KeyError):
            continue
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", errors="surrogatepass")
        above = file.parent.parent / "manifest.json"
        if above.parent != folder and above.is_file():
            _relisted(above)


def _relisted(file: Path) -> None:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return
    if isinstance(content, dict):
        _relist(file, content)
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", errors="surrogatepass")
