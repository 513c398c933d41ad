"""What a sentence-transformers directory says of itself: modules, pooling, dense layers, normalisation, length."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from xmc.errors import ConfigError

__all__ = ["Dense", "Modules", "read_modules"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.activation.Tanh": nn.Tanh,
    "torch.nn.modules.activation.ReLU": nn.ReLU,
    "torch.nn.modules.activation.GELU": nn.GELU,
}


class Dense(nn.Module):
    """A linear layer with an activation, as sentence-transformers stores it after pooling."""

    def __init__(self, inputs: int, outputs: int, bias: bool, activation: str) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ConfigError(
                f"The activation {activation!r} of a Dense module is not one of {', '.join(_ACTIVATIONS)}."
            )
        self.linear = nn.Linear(inputs, outputs, bias)
        self.activation_name = activation
        self.activation = _ACTIVATIONS[activation]()

    @classmethod
    def from_tensors(cls, weight: Tensor, bias: Tensor | None, activation: str) -> Dense:
        """A layer that holds the given weight [out, in] and bias [out]."""
        layer = cls(weight.shape[1], weight.shape[0], bias is not None, activation)
        layer.linear.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
        return layer

    def forward(self, embeddings: Tensor) -> Tensor:
        """[n, in] to [n, out]."""
        out: Tensor = self.activation(self.linear(embeddings))
        return out


@dataclass(frozen=True)
class Modules:
    """The parts of a model directory; None where it does not say."""

    backbone: Path
    pooling: str | None = None
    max_length: int | None = None
    normalize: bool = False
    prompt: str = ""
    dense: list[Dense] = field(default_factory=list)


def read_modules(directory: Path) -> Modules:
    """Read modules.json and what it points to; a plain Hugging Face directory is its own backbone.

    Raises ConfigError for a module that xmc does not have, or files that cannot be read.
    """
    if not (directory / "modules.json").is_file():
        return Modules(directory)
    backbone, pooling, normalize = directory, None, False
    dense: list[Dense] = []
    for module in _json(directory / "modules.json"):
        kind, folder = str(module["type"]).rpartition(".")[2], directory / str(module["path"])
        if kind == "Transformer":
            backbone = folder
        elif kind == "Pooling":
            pooling = _pooling(_json(folder / "config.json"), folder)
        elif kind == "Dense":
            dense.append(_dense(folder))
        elif kind == "Normalize":
            normalize = True
        else:
            raise ConfigError(f"{directory / 'modules.json'} has a module {module['type']!r}, which xmc does not have.")
    settings_file = backbone / "sentence_bert_config.json"
    settings = _json(settings_file) if settings_file.is_file() else {}
    length = settings.get("max_seq_length")
    return Modules(backbone, pooling, int(length) if length else None, normalize, _prompt(directory), dense)


def _pooling(config: dict[str, Any], folder: Path) -> str | None:
    named = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if not chosen and isinstance(config.get("pooling_mode"), str):
        return str(config["pooling_mode"])
    if len(chosen) != 1 or chosen[0] not in named:
        raise ConfigError(f"{folder} asks for the pooling {' + '.join(chosen) or 'none'}; xmc has mean and cls.")
    return named[chosen[0]]


def _dense(folder: Path) -> Dense:
    config = _json(folder / "config.json")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ConfigError(f"{folder} has no model.safetensors; pickled weights are not read.")
    tensors = load_file(weights)
    return Dense.from_tensors(
        tensors["linear.weight"].to(torch.float32),
        tensors["linear.bias"].to(torch.float32) if "linear.bias" in tensors else None,
        str(config.get("activation_function", "torch.nn.modules.activation.Tanh")),
    )


def _prompt(directory: Path) -> str:
    """The default prompt, if the directory names one."""
    file = directory / "config_sentence_transformers.json"
    config = _json(file) if file.is_file() else {}
    return str((config.get("prompts") or {}).get(config.get("default_prompt_name"), "") or "")


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
