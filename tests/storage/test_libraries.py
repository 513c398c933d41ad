"""Which FAISS is installed: noted with what is stored, and refused where there are two."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from xmc.errors import DependencyError
from xmc.storage.directories import atomic_directory
from xmc.storage.libraries import faiss_distributions, refuse_two_faiss
from xmc.storage.manifests import read_manifest


def install(folder: Path, distribution: str) -> None:
    """What pip leaves of a distribution, so far as metadata goes."""
    described = folder / f"{distribution.replace('-', '_')}-1.15.1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.15.1\n")


def test_a_manifest_names_the_faiss_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = faiss_distributions()
    refuse_two_faiss()
    (tmp_path / "packages").mkdir()
    install(tmp_path / "packages", "faiss-gpu-cuvs")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    with atomic_directory(tmp_path / "stored", "index"):
        pass
    libraries = read_manifest(tmp_path / "stored", "index")["libraries"]
    assert libraries["faiss-gpu-cuvs"] == "1.15.1"
    assert {name: libraries[name] for name in here} == here
    assert libraries["torch"] == metadata.version("torch")


def test_two_distributions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("faiss-gpu", "faiss-gpu-cu12"):
        install(tmp_path, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DependencyError, match="faiss-gpu and faiss-gpu-cu12 are installed together") as refused:
        refuse_two_faiss()
    assert "pip uninstall --yes" in str(refused.value)
