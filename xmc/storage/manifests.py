"""The manifest of a stored directory: which files it holds, exactly, with the size and SHA-256 of each.

A stored directory (a run, an index, a checkpoint) holds what its `manifest.json` lists and nothing else: a file that is
missing, unlisted or different is refused, whatever folder it is in. Of a stored directory inside another, such as a run's
index, the outer manifest lists the inner one alone, which vouches for the rest. Beside the listed files may be logs
(`BESIDE`), and files whose names begin with a dot, which nothing of xmc ever reads.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from xmc.errors import StoreError, boundary
from xmc.storage.exchange import restore
from xmc.storage.files import read_json
from xmc.storage.fingerprints import sha256_file, sha256_quietly
from xmc.storage.libraries import library_versions
from xmc.version import __version__

__all__ = [
    "BESIDE",
    "FORMAT_VERSION",
    "LOG",
    "MANIFEST",
    "SIGNATURE",
    "TENSORBOARD",
    "is_entry",
    "is_plain_name",
    "listed_files",
    "read_manifest",
    "refuse_foreign_directory",
    "refuse_unlisted",
    "require_free",
    "verify_all",
    "verify_files",
    "write_manifest",
]

FORMAT_VERSION = 4
MANIFEST = "manifest.json"
LOG = "metrics.jsonl"
"""A log that grows while a directory is rewritten: carried over, never listed in the manifest."""
TENSORBOARD = "tensorboard"
"""A folder of logs that are open while a directory is rewritten: moved over, never listed in the manifest."""
SIGNATURE = "manifest.sig"
"""A signature of the manifest, which cannot list it; see xmc.storage.signatures."""
BESIDE = frozenset({MANIFEST, SIGNATURE, LOG, TENSORBOARD, "README.md"})
"""What may be in a stored directory, and not in a folder in it, without being listed: nothing that an answer depends on."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


def read_manifest(path: str | Path, kind: str, verify: bool = True, quietly: bool = False) -> dict[str, Any]:
    """Read the manifest of the directory `path`, and verify that the directory holds exactly the files that it lists.

    Of directories inside with a manifest of their own, the names of files are compared, and `read_manifest` of each verifies
    the files.

    verify: False leaves the files to a later call. quietly: no progress is reported, and no thread started.

    Raises
    ------
    StoreError: no such directory, no or broken manifest, another kind or format version, or a file that is missing,
        unlisted, truncated, or changed since it was written; the message names it.
    """
    path = Path(path)
    restore(path)
    if not path.is_dir():
        wrong = "is a file" if path.exists() else "does not exist"
        raise StoreError(f"{path} {wrong}; name the directory of a saved {kind}.")
    manifest = _described(path, kind)
    if manifest["kind"] != kind:
        raise StoreError(f"{path} holds a saved {manifest['kind']}; a saved {kind} is asked for.")
    if manifest["format_version"] != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {manifest['format_version']}; this xmc reads version {FORMAT_VERSION}."
        )
    _require_entries(path, manifest["files"])
    if verify:
        refuse_unlisted(path, _names(path, manifest["files"]), BESIDE)
        verify_files(path, manifest["files"], quietly=quietly)
    return manifest


def listed_files(path: Path, kind: str) -> set[str]:
    """Names of all files of a stored directory but its own manifest, with those of directories inside. None is verified.

    StoreError as `read_manifest`.
    """
    return _names(path, read_manifest(path, kind, verify=False)["files"])


def verify_all(path: Path, kind: str) -> None:
    """Verify a stored directory and all stored directories inside it; StoreError as `read_manifest`."""
    for name in read_manifest(path, kind)["files"]:
        if PurePosixPath(name).name == MANIFEST:
            folder = (path / name).parent
            verify_all(folder, _described(folder)["kind"])


def verify_files(
    root: Path,
    files: Mapping[str, Mapping[str, Any]],
    names: Collection[str] | None = None,
    quietly: bool = False,
    what: str = MANIFEST,
) -> None:
    """Compare files with the size and SHA-256 that a manifest, or another listing, has of them.

    names: of the files to look at; None for all. Those that are not listed are left out. quietly: as of `read_manifest`.
    what: names the listing in errors.
    StoreError names the first file that is not as listed.
    """
    entries = [
        (name, int(entry["size"]), str(entry["sha256"]))
        for name, entry in files.items()
        if names is None or name in names
    ]
    if quietly or len(entries) == 1:
        for entry in entries:
            _verify_file(root, what, *entry, sha256_quietly if quietly else sha256_file)
        return
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        for verified in [pool.submit(_verify_file, root, what, *entry, sha256_file) for entry in entries]:
            verified.result()


def refuse_unlisted(root: Path, names: Collection[str], beside: Collection[str] = ()) -> None:
    """Raise StoreError for the first file or folder below `root` that is not among these names, nor `beside` them at its top.

    Names that begin with a dot are passed over. Links to folders are refused, wherever they lead.
    """
    listed = set(names)
    folders = {str(folder) for name in listed for folder in PurePosixPath(name).parents}
    for name, is_folder, is_link in _entries(root, folders):
        if name in listed or name in beside:
            continue
        if is_folder and name in folders:
            if is_link:
                raise StoreError(
                    f"{root / name} is a link to a folder, where files were written; put the files themselves there, or copy "
                    f"the directory again."
                )
            continue
        raise StoreError(
            f"{root / name} is not among the files that {root} lists: somebody put it there, and it could change what is "
            f"read. Move it away, or copy the directory again."
        )


def is_plain_name(name: object) -> bool:
    """Whether something names a file below a directory: relative, with slashes, and without steps upwards."""
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and str(path) == name and name != "."


def write_manifest(root: Path, kind: str, properties: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """Write the manifest of a directory that is complete otherwise, and return it. Empty folders are removed.

    known: SHA-256 of files by name, of those that were hashed already. OSError where the system cannot write.
    """
    for folder in sorted((folder for folder in root.rglob("*") if folder.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    inner = {manifest.parent for manifest in root.rglob(MANIFEST)}
    listed = [
        file
        for file in sorted(root.rglob("*"))
        if file.is_file() and (file.name == MANIFEST or not inner & set(file.parents))
    ]
    names = [file.relative_to(root).as_posix() for file in listed]
    new = [name for name in names if name not in known]
    with ThreadPoolExecutor() as pool:
        digests = {**known, **dict(zip(new, pool.map(lambda name: sha256_file(root / name), new), strict=True))}
    manifest = {
        "kind": kind,
        "format_version": FORMAT_VERSION,
        "libraries": {"python": sys.version.split()[0], "xmc": __version__, **library_versions()},
        "properties": dict(properties),
        "files": {name: {"size": (root / name).stat().st_size, "sha256": digests[name]} for name in names},
    }
    (root / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def refuse_foreign_directory(path: Path, kind: str) -> None:
    """Raise StoreError where writing a directory of `kind` to `path` would replace something that is not one."""
    restore(path)
    if not path.exists() or (
        path.is_dir()
        and all(entry.name in (LOG, TENSORBOARD) or entry.name.startswith(f".{LOG}.") for entry in path.iterdir())
    ):  # a log, or what a killed process left of writing it
        return
    if not path.is_dir():
        raise StoreError(f"{path} is a file; name a directory for the {kind}.")
    try:
        found = _described(path, kind)["kind"]
    except StoreError:
        found = None
    if found != kind:
        raise StoreError(f"{path} exists and is not an xmc {kind}; name another directory or remove it first.")


def require_free(path: Path, kind: str, overwrite: bool = False) -> None:
    """Raise StoreError where a directory of `kind` cannot be written to `path`, before the work whose result it is to hold.

    That is where `path` holds something else, or a directory of that kind and `overwrite` is not set.
    """
    refuse_foreign_directory(path, kind)
    if not overwrite and (path / MANIFEST).exists():
        raise StoreError(f"{path} already holds a {kind}; name another directory, or overwrite it explicitly.")


def _described(path: Path, kind: str = "directory of xmc") -> dict[str, Any]:
    """The manifest of a directory, of another format version or kind perhaps; its list of files is not looked at."""
    file = path / MANIFEST
    if not file.exists():
        raise StoreError(f"{path} holds no {MANIFEST}, so it is not a saved {kind}.")
    manifest = read_json(file, StoreError, "It is not a manifest written by xmc; copy the directory again.")
    wrong = _wrong_in(manifest)
    if wrong:
        raise StoreError(f"{file} is not a manifest written by xmc: {wrong}. Copy the directory again.")
    return dict(manifest)


def _require_entries(path: Path, files: Mapping[str, Any]) -> None:
    for name, entry in files.items():
        if not is_plain_name(name) or name == MANIFEST:
            raise StoreError(
                f"{path / MANIFEST} lists {name!r}, which lies outside of {path} or is no name of a file in it."
            )
        if not is_entry(entry):
            raise StoreError(
                f"{path / MANIFEST} is not a manifest written by xmc: it has no size and SHA-256 of {name!r}, but "
                f"{entry!r:.100}. Copy the directory again."
            )


def _wrong_in(manifest: Any) -> str:
    """What a manifest lacks; "" for nothing."""
    if not isinstance(manifest, dict):
        return f"it holds a {type(manifest).__name__}"
    forms = {"kind": str, "format_version": int, "properties": dict, "files": dict}
    for key, form in forms.items():
        if type(manifest.get(key)) is not form:
            return f"{key!r} is no {form.__name__} in it"
    return ""


def is_entry(entry: Any) -> bool:
    """Whether something is what a listing says of a file: its size and its SHA-256 in hexadecimal."""
    return (
        isinstance(entry, dict)
        and type(entry.get("size")) is int
        and entry["size"] >= 0
        and isinstance(entry.get("sha256"), str)
        and _DIGEST.fullmatch(entry["sha256"]) is not None
    )


def _names(path: Path, files: Mapping[str, Any]) -> set[str]:
    """Names of files, those that manifests inside list among them."""
    names = set(files)
    for name in [name for name in files if PurePosixPath(name).name == MANIFEST]:
        folder = PurePosixPath(name).parent
        inner = _described(path / folder)["files"]
        _require_entries(path / folder, inner)
        names |= {f"{folder}/{file}" for file in _names(path / folder, inner)}
    return names


def _entries(root: Path, folders: Collection[str]) -> Iterator[tuple[str, bool, bool]]:
    """Names below a directory, whether they are of folders, and whether of links; those in other folders are left out."""
    waiting = [""]
    while waiting:
        parent = waiting.pop()
        with boundary(StoreError, f"{root / parent} cannot be listed"), os.scandir(root / parent) as entries:
            here = sorted((entry.name, entry.is_dir(), entry.is_symlink()) for entry in entries)
        for base, is_folder, is_link in here:
            if base.startswith("."):
                continue
            name = f"{parent}{base}"
            yield name, is_folder, is_link
            if is_folder and not is_link and name in folders:
                waiting.append(f"{name}/")


def _verify_file(root: Path, listing: str, name: str, size: int, digest: str, digest_of: Callable[[Path], str]) -> None:
    file, said = root / name, "the manifest" if listing == MANIFEST else listing
    with boundary(StoreError, f"{file} cannot be read"):
        if root.resolve() not in file.resolve().parents:
            raise StoreError(f"{root / listing} lists {name!r}, which lies outside of {root}.")
        if not file.exists():
            raise StoreError(f"{file} is missing; the directory is not whole. Copy it again or make it anew.")
        if not file.is_file():
            raise StoreError(f"{file} is a folder, or otherwise no file; the directory is not as it was written.")
        actual = file.stat().st_size
        if actual != size:
            raise StoreError(f"{file} has {actual} bytes where {said} says {size}: it was truncated or edited.")
        if digest_of(file) != digest:
            raise StoreError(f"{file} does not match its SHA-256 in {listing}: it was edited or is corrupt.")
