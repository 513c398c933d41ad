"""The installed libraries that matter to what is stored: their versions, and which of the distributions of FAISS is there."""

from __future__ import annotations

import contextlib

from xmc.errors import DependencyError

__all__ = ["FAISS_DISTRIBUTIONS", "faiss_distributions", "library_versions", "refuse_two_faiss"]

FAISS_DISTRIBUTIONS = (
    "faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs",  # FAISS's own
    "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu-cu12-cuvs", "faiss-gpu-cu13-cuvs", "faiss-cuda", "faiss",
)  # fmt: skip
"""Distributions that are all imported as `faiss`: pip writes each of them into the same folder."""
_LIBRARIES = ("torch", "numpy", "numba", "pyarrow", "transformers", "triton")


def library_versions() -> dict[str, str]:
    """The installed version of each library that is noted with what is stored, FAISS by the name of its distribution."""
    return _installed(_LIBRARIES) | faiss_distributions()


def faiss_distributions() -> dict[str, str]:
    """The distributions of FAISS that are installed, with their versions."""
    return _installed(FAISS_DISTRIBUTIONS)


def refuse_two_faiss() -> None:
    """Raise DependencyError where several distributions of FAISS are installed: files of one overwrite the other's."""
    names = list(faiss_distributions())
    if len(names) > 1:
        kept, *others = sorted(names, key=lambda name: name == "faiss-cpu")
        raise DependencyError(
            f"{' and '.join(names)} are installed together, and both are imported as faiss: files of one have overwritten "
            f"the other's. Keep one: pip uninstall --yes {' '.join(names)}; pip install {kept} (or {' or '.join(others)})."
        )


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    from importlib import metadata  # which takes longer to load than all else that opens a stored directory

    versions = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
