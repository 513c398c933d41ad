"""Names of a run directory's files and folders, and what names the model that label embeddings were made by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xmc.storage.fingerprints import fingerprint_of

__all__ = [
    "CALIBRATION",
    "CONFIG",
    "ENCODERS",
    "INDEX",
    "KIND",
    "LABELS",
    "MEMORY",
    "METRICS",
    "MODEL",
    "STAGES_FILE",
    "STAGES_FOLDER",
    "TUNING_QUERIES",
    "has_memory",
    "model_name",
    "part_of",
    "source_of",
]

KIND = "run"
"""What a manifest calls a run."""
CONFIG, METRICS, TUNING_QUERIES, CALIBRATION = "config.yaml", "metrics.json", "tuning-queries.arrow", "calibration"
STAGES_FOLDER = "stages"
"""Holds a folder of each stage that has more than its options."""
LABELS, INDEX, STAGES_FILE = "labels.parquet", "index", "stages.json"
MEMORY = "memory"
"""Holds remembered queries: an index over their vectors, their texts and labels."""
ENCODERS, MODEL = ("encoder", "query_encoder", "label_encoder"), "model.safetensors"
"""Folders and a file that label embeddings are made from."""
_PARTS = {
    **dict.fromkeys((*ENCODERS, MODEL), "model"),
    **dict.fromkeys((LABELS, INDEX), "labels"),
    MEMORY: "memory",
    CONFIG: "configuration",
    METRICS: "metrics",
    TUNING_QUERIES: "tuning queries",
    CALIBRATION: "calibration",
    **dict.fromkeys((STAGES_FILE, STAGES_FOLDER), "stages"),
}


def part_of(name: str) -> str:
    """What a file of a run belongs to, of the parts that are changed each for itself, such as "labels"."""
    return _PARTS.get(name.split("/")[0], "something else")


def source_of(manifest: Mapping[str, Any]) -> str:
    """What names the model of a run, given the manifest of the run."""
    return model_name({name: entry["sha256"] for name, entry in manifest["files"].items()})


def model_name(digests: Mapping[str, str]) -> str:
    """What names the model of a run, given the SHA-256 of files by name; other files than those of the model do not count."""
    of_model = {name: digest for name, digest in digests.items() if name.split("/")[0] in (*ENCODERS, MODEL)}
    return f"model {fingerprint_of(of_model)}"


def has_memory(manifest: Mapping[str, Any]) -> bool:
    """Whether a run, given its manifest, remembers queries."""
    return any(name.startswith(f"{MEMORY}/") for name in manifest["files"])
