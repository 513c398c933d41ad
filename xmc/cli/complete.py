"""What the shell completes: names of data sets, configurations and keys, as the program itself knows them.

Each function is given what has been typed of a word. Nothing is imported before a shell asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "configurations",
    "data_sets",
    "designs",
    "devices",
    "formats",
    "keys",
    "measures",
    "output_formats",
    "settings",
    "splits",
]


def configurations(incomplete: str) -> list[str]:
    """Shipped configurations, and YAML files."""
    from xmc.config.shipped import shipped_configs

    return _beginning([*shipped_configs(), *_paths(incomplete, "*.yaml", "*.yml")], incomplete)


def data_sets(incomplete: str) -> list[str]:
    """Shipped data sets, and directories."""
    from xmc.data.dataset import SHIPPED

    names = sorted(file.parent.name for file in SHIPPED.glob("*/dataset.json"))
    return _beginning([*names, *_paths(incomplete)], incomplete)


def keys(incomplete: str) -> list[str]:
    """Keys and sections of the configuration."""
    from xmc.config.explain import explained_keys

    return _beginning((key.name for key in explained_keys()), incomplete)


def settings(incomplete: str) -> list[str]:
    """Keys of the configuration with an equals sign."""
    return [key + "=" for key in keys(incomplete)]


def formats(incomplete: str) -> list[str]:
    """Formats of data sets."""
    from xmc.data.readers import READERS

    return _beginning(READERS, incomplete)


def designs(incomplete: str) -> list[str]:
    """Designs of an index."""
    from xmc.indexes.designs import DESIGNS
    from xmc.indexes.engines.faiss import STORAGES

    return _beginning(["auto", *DESIGNS, *STORAGES, "HNSW32", "IVF256,Flat"], incomplete)


def devices(incomplete: str) -> list[str]:
    """Devices of torch's."""
    return _beginning(["auto", "cpu", "cuda"], incomplete)


def splits(incomplete: str) -> list[str]:
    """Splits that a data set usually has."""
    return _beginning(["train", "validation", "test", "calibration"], incomplete)


def output_formats(incomplete: str) -> list[str]:
    """Formats that jobs write."""
    from xmc.batch.formats import OUTPUT_FORMATS

    return _beginning(OUTPUT_FORMATS, incomplete)


def measures(incomplete: str) -> list[str]:
    """Metrics of evaluations, behind those that are typed already, separated by commas."""
    from xmc.metrics import METRICS

    typed = incomplete[: incomplete.rfind(",") + 1]
    return _beginning((typed + name for name in METRICS), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _paths(incomplete: str, *patterns: str) -> list[str]:
    """Directories that begin as typed, with a slash, and files of some patterns."""
    typed = Path(incomplete)
    folder = typed if incomplete.endswith("/") else typed.parent
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return []
    files = [str(path) for path in inside if any(path.match(pattern) for pattern in patterns)]
    return [f"{path}/" for path in inside if path.is_dir() and not path.name.startswith(".")] + files
