"""A transformer encoder's files: encoder.json, backbone/ and encoder.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from xmc.config import LoRAConfig
from xmc.encoders.sentence_transformers.modules import Dense
from xmc.encoders.transformer.adapters import load_adapters, save_adapters
from xmc.encoders.transformer.backbones import quietly, read_backbone, read_tokenizer, weights_digest
from xmc.encoders.transformer.settings import TransformerParts, TransformerSettings

__all__ = ["read_parts", "write_parts"]


def write_parts(parts: TransformerParts, tensors: Mapping[str, Tensor], kind: str, directory: Path) -> None:
    """Write parts and tensors into an existing directory.

    backbone/ is in Hugging Face layout; with adapters it holds these alone, as peft reads them, and the tokenizer.
    tensors: what the encoder has besides the backbone, by name. kind: the encoder's name, written into encoder.json.
    """
    layers = [{"activation": layer.activation_name, "bias": layer.linear.bias is not None} for layer in parts.dense]
    lora = None if parts.lora is None else parts.lora.to_mapping()
    stored = {"kind": kind, "transformer": asdict(parts.settings), "dense": layers, "lora": lora}
    (directory / "encoder.json").write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    if parts.lora is None:
        with quietly():
            parts.backbone.save_pretrained(directory / "backbone")  # type: ignore[operator]
    else:
        (directory / "backbone").mkdir()
        save_adapters(parts.backbone, parts.lora, directory / "backbone")
    parts.tokenizer.save_pretrained(directory / "backbone")
    save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, directory / "encoder.safetensors")


def read_parts(directory: Path) -> tuple[TransformerParts, dict[str, Tensor]]:
    """Read what `write_parts` wrote: the parts, and the tensors of what is not the backbone.

    Raises ValueError for files that do not fit together or a backbone that adapters need and that is gone, and what
    transformers and safetensors raise for broken files.
    """
    stored = json.loads((directory / "encoder.json").read_text(encoding="utf-8"))
    settings = _settings(stored["transformer"])
    lora = None if stored["lora"] is None else LoRAConfig.from_mapping(stored["lora"])
    base = directory / "backbone" if lora is None else _base(settings)
    backbone = read_backbone(base, settings.dtype)
    tokenizer = read_tokenizer(directory / "backbone")
    if lora is not None:
        load_adapters(backbone, lora, directory / "backbone")
    tensors = load_file(directory / "encoder.safetensors")
    dense = [
        Dense.from_tensors(
            tensors[f"dense.{i}.linear.weight"], tensors.get(f"dense.{i}.linear.bias"), layer["activation"]
        )
        for i, layer in enumerate(stored["dense"])
    ]
    return TransformerParts(backbone, tokenizer, settings, dense, lora), tensors


def _settings(stored: Mapping[str, Any]) -> TransformerSettings:
    """Settings as they were saved; ValueError for weights of four bits, which older versions offered."""
    settings = dict(stored)
    if settings.pop("quantization", "none") != "none":
        raise ValueError("its backbone has weights of 4 bits, which this version does not read")
    settings.pop("micro_batch_size", None)  # older versions counted texts
    return TransformerSettings(**settings)


def _base(settings: TransformerSettings) -> Path:
    """The directory of the backbone that adapters were trained on; ValueError where it is gone or holds another."""
    base = Path(settings.base)
    remedy = "Put it back, or load a run that `xmc export` made whole while it was there."
    if not base.exists():
        raise ValueError(f"its adapters need the backbone in {base}, which is not there. {remedy}")
    if weights_digest(base) != settings.base_digest:
        raise ValueError(f"its adapters were trained on other weights than those in {base}. {remedy}")
    return base
