"""What a directory with a backbone may not say: sizes that its weights do not bear out, and code; before a model is built."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from xmc.errors import StoreError
from xmc.storage.tensors import DescribedTensor, described_tensors

__all__ = ["require_sound_backbone"]

LONGEST_CONFIG = 1 << 22
"""Bytes of config.json at most."""
LONGEST_TOKENIZER = 1 << 28
"""Bytes of a file of a tokenizer at most; those of 250,000 tokens in use have 35 MB."""
MOST_LAYERS = 1_000
MOST_EXPERTS = 10_000
MOST = 1 << 40
"""Any other number in a configuration at most."""
ATTENTIONS = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "grouped_mm", "batched_mm")
"""Implementations that come with transformers or an installed package; any other name is one that it would download."""
SPARE = 1 << 24
"""Weights that a model may have beside those in its files: a pooler that is not used, tables of positions."""
NO_WEIGHTS = ("position_ids", "token_type_ids")
"""Ends of names of tensors of whole numbers that old checkpoints hold."""


def require_sound_backbone(directory: Path, stored: bool = False) -> None:
    """Raise ValueError for a configuration that no model should be built of, given the files with its weights.

    directory: in Hugging Face layout, with safetensors. stored: whether a run wrote it, which writes no adapters beside weights
    that transformers would add to them, and no GGUF files.
    """
    if stored:
        further = sorted(
            file.name for file in directory.iterdir() if file.name == "adapter_config.json" or file.suffix == ".gguf"
        )
        if further:
            raise ValueError(f"backbone/ holds {further[0]}, which does not belong there")
    for file in directory.iterdir():
        if file.suffix in (".json", ".txt", ".model") and file.stat().st_size > LONGEST_TOKENIZER:
            raise ValueError(f"{file.name} has {file.stat().st_size:,} bytes; the most is {LONGEST_TOKENIZER:,}")
    config = directory / "config.json"
    if not config.is_file():
        return  # transformers says what it wants
    if config.stat().st_size > LONGEST_CONFIG:
        raise ValueError(f"config.json has {config.stat().st_size:,} bytes; the most is {LONGEST_CONFIG:,}")
    described = json.loads(config.read_text(encoding="utf-8"))
    if not isinstance(described, dict):
        raise ValueError("config.json is not a JSON object")
    for key, value in _entries(described):
        _require_modest(key, value)
    weights = _weights(directory)
    if weights is not None:
        _require_borne_out(directory, weights)


def _entries(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All values of a configuration with the names that they stand under."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _entries(value, str(name))
    elif isinstance(values, list):
        if len(values) > MOST_EXPERTS and "layer" in key:
            yield key, len(values)
        for value in values:
            yield from _entries(value, key)
    else:
        yield key, values


def _require_modest(key: str, value: Any) -> None:
    if "_implementation" in key and isinstance(value, str) and value not in ATTENTIONS:
        raise ValueError(f"config.json asks for the {key} {value!r:.100}, which transformers would have to download")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    layers = "layer" in key and not key.endswith(("eps", "prob", "range", "dropout", "id", "idx", "size"))
    most = MOST_LAYERS if layers or "depth" in key else MOST_EXPERTS if "expert" in key and "size" not in key else MOST
    if isinstance(value, int) and abs(value) > most:
        raise ValueError(f"config.json has {key} {value:.3g}, where {most:,} is the most")


def _weights(directory: Path) -> int | None:
    """Number of weights in the files of a directory; None where there are none. ValueError for tensors that are no weights."""
    whole = directory / "model.safetensors"
    files = [whole] if whole.is_file() else sorted(directory.glob("model-*.safetensors"))
    count = 0
    for file in files:
        for name, tensor in _described(file).items():
            if tensor.dtype not in ("F64", "F32", "F16", "BF16") and not name.endswith(NO_WEIGHTS):
                raise ValueError(f"{file.name} holds the weights {name!r} as {tensor.dtype}, which are no weights")
            count += math.prod(tensor.shape)
    return count if files else None


def _described(file: Path) -> dict[str, DescribedTensor]:
    try:
        return described_tensors(file)
    except StoreError as error:  # whether it is a run's file or the user's is for the caller to say
        raise ValueError(str(error)) from error


def _require_borne_out(directory: Path, weights: int) -> None:
    """ValueError where a model of the configuration has far more weights than there are; it is built of sizes alone."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = AutoModel.from_config(config, trust_remote_code=False)
    wanted = sum(parameter.numel() for parameter in model.parameters())
    if wanted > 2 * weights + SPARE:
        raise ValueError(f"config.json is of a model of {wanted:,} weights, but the files hold {weights:,}")
