"""A transformer encoder's files: encoder.json, backbone/ and encoder.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import Tensor

from xmc.config import LoRAConfig
from xmc.encoders.sentence_transformers.modules import Dense
from xmc.encoders.transformer.adapters import load_adapters, save_adapters
from xmc.encoders.transformer.backbones import positions, quietly, read_backbone, read_tokenizer, weights_digest
from xmc.encoders.transformer.pooling import POOLINGS
from xmc.encoders.transformer.settings import TransformerParts, TransformerSettings
from xmc.storage.expected_tensors import FLOATS, Expected, torch_tensors
from xmc.storage.tensors import DescribedTensor, described_tensors

__all__ = ["read_parts", "write_parts"]

LONGEST_SETTINGS = 1 << 20
"""Bytes of encoder.json at most."""
MOST = 1 << 24
"""Tokens of a text, and any other size in encoder.json, at most."""


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

    Raises StoreError for tensors that the settings do not demand, ValueError for files that do not fit together or a backbone
    that adapters need and that is gone, and what transformers and safetensors raise for broken files.
    """
    file = directory / "encoder.json"
    if file.stat().st_size > LONGEST_SETTINGS:
        raise ValueError(f"{file.name} has {file.stat().st_size:,} bytes; the most is {LONGEST_SETTINGS:,}")
    stored = json.loads(file.read_text(encoding="utf-8"))
    settings = _settings(stored["transformer"])
    lora = None if stored["lora"] is None else LoRAConfig.from_mapping(stored["lora"])
    base = directory / "backbone" if lora is None else _base(settings)
    described = described_tensors(directory / "encoder.safetensors")
    layers = [(str(layer["activation"]), bool(layer["bias"])) for layer in stored["dense"]]
    backbone = read_backbone(base, settings.dtype, stored=lora is None)
    known = positions(backbone)
    if known is not None and settings.max_length > known:
        raise ValueError(
            f"its texts have {settings.max_length:,} tokens at most, but the backbone has {known:,} positions"
        )
    tokenizer = read_tokenizer(directory / "backbone")
    if lora is not None:
        load_adapters(backbone, lora, directory / "backbone")
    config: Any = backbone.config
    tensors = torch_tensors(
        directory / "encoder.safetensors", _expected(settings, layers, described, int(config.hidden_size))
    )
    dense = [
        Dense.from_tensors(
            tensors[f"dense.{place}.linear.weight"], tensors.get(f"dense.{place}.linear.bias"), activation
        )
        for place, (activation, _) in enumerate(layers)
    ]
    return TransformerParts(backbone, tokenizer, settings, dense, lora), tensors


def _settings(stored: Mapping[str, Any]) -> TransformerSettings:
    """Settings as they were saved; ValueError for weights of four bits, which older versions offered."""
    settings = dict(stored)
    if settings.pop("quantization", "none") != "none":
        raise ValueError("its backbone has weights of 4 bits, which this version does not read")
    settings.pop("micro_batch_size", None)  # older versions counted texts
    checked = TypeAdapter(TransformerSettings).validate_python(asdict(TransformerSettings(**settings)))
    sizes = {
        "max_length": checked.max_length,
        "most_images": checked.most_images,
        "projection": checked.projection or 1,
    }
    sizes |= {
        "tokens_per_micro_batch": checked.tokens_per_micro_batch or 1,
        "image_dimension": checked.image_dimension + 1,
    }
    for name, size in sizes.items():
        if not 1 <= size <= MOST:
            raise ValueError(f"its {name} is {size}, which is not from 1 to {MOST:,}")
    if checked.dtype not in ("float32", "bfloat16") or checked.pooling not in POOLINGS:
        raise ValueError(f"its dtype is {checked.dtype!r:.100} and its pooling {checked.pooling!r:.100}")
    return checked


def _expected(
    settings: TransformerSettings,
    layers: Sequence[tuple[str, bool]],
    described: Mapping[str, DescribedTensor],
    hidden: int,
) -> dict[str, Expected]:
    """What encoder.safetensors must hold, beside a backbone with states of `hidden` numbers."""
    expected, width = {}, hidden
    for place, (_, bias) in enumerate(layers):
        name = f"dense.{place}.linear"
        tensor = described.get(f"{name}.weight")
        outputs = tensor.shape[0] if tensor and tensor.shape else 0
        expected[f"{name}.weight"] = Expected((outputs, width), FLOATS)
        if bias:
            expected[f"{name}.bias"] = Expected((outputs,), FLOATS)
        width = outputs
    if settings.projection:
        expected["projection.weight"] = Expected((settings.projection, width), FLOATS)
    if settings.image_dimension:
        expected["image_projection.weight"] = Expected((hidden, settings.image_dimension), FLOATS)
        expected["image_projection.bias"] = Expected((hidden,), FLOATS)
    return expected


def _base(settings: TransformerSettings) -> Path:
    """The directory of the backbone that adapters were trained on; ValueError where it is gone or holds another."""
    base = Path(settings.base)
    remedy = "Put it back, or load a run that `xmc export` made whole while it was there."
    if not base.exists():
        raise ValueError(f"its adapters need the backbone in {base}, which is not there. {remedy}")
    if weights_digest(base) != settings.base_digest:
        raise ValueError(f"its adapters were trained on other weights than those in {base}. {remedy}")
    return base
