"""What a sentence-transformers directory says of itself: modules, pooling, dense layers, normalisation, length."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xmc.errors import ConfigError, StoreError, boundary
from xmc.storage.expected_tensors import FLOATS, Expected, torch_tensors

__all__ = ["Dense", "Modules", "read_modules"]

POOLED = "sentence_embedding"
"""What a module takes that comes after the pooling."""

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
    """The parts of a model directory; None where it does not say.

    prompt: what stands before every text. prompts: all that the directory has, by name.
    include_prompt: whether a prompt's tokens are pooled. similarity: how its embeddings are to be compared.
    """

    backbone: Path
    pooling: str | None = None
    max_length: int | None = None
    normalize: bool = False
    prompt: str = ""
    lower_case: bool = False
    dense: list[Dense] = field(default_factory=list)
    prompts: dict[str, str] = field(default_factory=dict)
    include_prompt: bool = True
    similarity: str | None = None


def read_modules(directory: Path) -> Modules:
    """Read modules.json and what it points to; a plain Hugging Face directory is its own backbone.

    Raises ConfigError for a module that xmc does not have, or files that cannot be read.
    """
    if not (directory / "modules.json").is_file():
        return Modules(directory)
    modules_file = directory / "modules.json"
    backbone, pooling, normalize, include_prompt = None, None, False, True
    described = _described(directory)
    prompts = {str(name): str(text or "") for name, text in (described.get("prompts") or {}).items()}
    prompt = prompts.get(str(described.get("default_prompt_name")), "")
    dense: list[Dense] = []
    try:
        modules = [(str(module["type"]), str(module["path"])) for module in _json(modules_file)]
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{modules_file} is not a list of modules with a type and a path.") from error
    for name, path in modules:
        kind, folder = name.rpartition(".")[2], directory / path
        if kind == "Transformer":
            backbone = folder
        elif kind == "Pooling":
            config = _object(folder / "config.json")
            pooling, include_prompt = _pooling(config, folder, prompt), config.get("include_prompt") is not False
        elif kind == "Dense" and not normalize:
            dense.append(_dense(folder))
        elif kind == "Normalize":
            normalize = True
        elif kind == "Dense":
            raise ConfigError(f"{modules_file} has a Dense module after Normalize, which xmc does not have.")
        else:
            raise ConfigError(f"{modules_file} has a module {name!r}, which xmc does not have.")
    if backbone is None:
        raise ConfigError(f"{modules_file} has no Transformer module.")
    # Old directories name the file after the model type, e.g. sentence_roberta_config.json.
    files = sorted(backbone.glob("sentence_*_config.json"))
    settings = _object(files[0]) if files else {}
    length = settings.get("max_seq_length")
    lower_case = bool(settings.get("do_lower_case", False))
    similarity = described.get("similarity_fn_name")
    return Modules(
        backbone,
        pooling,
        int(length) if length else None,
        normalize,
        prompt,
        lower_case,
        dense,
        prompts,
        include_prompt,
        None if similarity is None else str(similarity),
    )


def _pooling(config: dict[str, Any], folder: Path, prompt: str) -> str:
    if prompt and config.get("include_prompt") is False:
        raise ConfigError(f"{folder} leaves the prompt {prompt!r} out of the pooling, which xmc does not have.")
    named = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_lasttoken": "last",
    }
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if not chosen and isinstance(config.get("pooling_mode"), str):
        return {"lasttoken": "last"}.get(config["pooling_mode"], str(config["pooling_mode"]))
    if len(chosen) != 1 or chosen[0] not in named:
        raise ConfigError(
            f"{folder} asks for the pooling {' + '.join(chosen) or 'none'}; xmc has mean, cls and lasttoken."
        )
    return named[chosen[0]]


def _dense(folder: Path) -> Dense:
    config = _object(folder / "config.json")
    if config.get("use_residual") or config.get("module_input_name", POOLED) != POOLED:
        raise ConfigError(
            f"{folder} is a Dense module with a residual connection or other inputs than the pooled embedding, which xmc "
            f"does not have."
        )
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ConfigError(f"{folder} has no model.safetensors; pickled weights are not read.")
    expected = {
        "linear.weight": Expected((None, None), FLOATS),
        "linear.bias": Expected((None,), FLOATS, optional=True),
    }
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    with boundary(ConfigError, f"{weights} cannot be read as a Dense module"):
        try:
            read = torch_tensors(weights, expected)
        except StoreError as error:
            raise ValueError(str(error)) from error
        tensors = {name: tensor.to(torch.float32) for name, tensor in read.items()}
        return Dense.from_tensors(tensors["linear.weight"], tensors.get("linear.bias"), activation)


def _described(directory: Path) -> dict[str, Any]:
    """What config_sentence_transformers.json says, if there is one."""
    file = directory / "config_sentence_transformers.json"
    config = _object(file) if file.is_file() else {}
    if not isinstance(config.get("prompts") or {}, dict):
        raise ConfigError(f"The prompts of {file} are not a mapping of names to texts.")
    return config


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error


def _object(file: Path) -> dict[str, Any]:
    value = _json(file)
    if not isinstance(value, dict):
        raise ConfigError(f"{file} is not a JSON object.")
    return value
