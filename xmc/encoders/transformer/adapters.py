"""Low-rank adapters of a frozen backbone, through peft: added, saved alone, read, merged."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from xmc.config import LoRAConfig
from xmc.errors import ConfigError, require_package
from xmc.storage.expected_tensors import FLOATS, Expected, torch_tensors
from xmc.storage.tensors import described_tensors

__all__ = ["add_adapters", "load_adapters", "merged_backbone", "save_adapters"]

PREFIX = "base_model.model."
"""Before each name in peft's files."""


def add_adapters(backbone: Any, config: LoRAConfig) -> None:
    """Put untrained adapters, float32, on the linear layers of a backbone, and freeze all else (Hu et al., LoRA, ICLR 2022).

    Raises DependencyError where peft is not installed, ConfigError where a target is no linear layer.
    """
    require_package("peft", f"encoder.lora.rank is {config.rank}", "peft")
    from peft import inject_adapter_in_model

    targets = _targets(backbone, config)
    inject_adapter_in_model(_peft_config(config, targets), backbone)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.float()


def save_adapters(backbone: Any, config: LoRAConfig, directory: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors, as peft reads them, into an existing directory."""
    from peft import get_peft_model_state_dict

    tensors: Mapping[str, Tensor] = get_peft_model_state_dict(backbone)
    save_file(
        {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        directory / "adapter_model.safetensors",
    )
    _peft_config(config, _targets(backbone, config)).save_pretrained(directory)


def load_adapters(backbone: Any, config: LoRAConfig, directory: Path) -> None:
    """Add adapters that `save_adapters` wrote; ValueError where they do not fit, StoreError for tensors that are none."""
    from peft import set_peft_model_state_dict

    file = directory / "adapter_model.safetensors"
    described = described_tensors(file)
    for name, tensor in described.items():
        if "lora_A" in name and tensor.shape[:1] != (config.rank,):
            raise ValueError(
                f"its adapters are said to be of rank {config.rank}, but {name!r} has the shape {list(tensor.shape)}"
            )
    if not any("lora_A" in name for name in described):
        raise ValueError(f"{file.name} holds no adapters")
    read = torch_tensors(
        file, {name: Expected((None,) * len(tensor.shape), FLOATS) for name, tensor in described.items()}
    )
    add_adapters(backbone, config)
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in read.items()}
    outcome = set_peft_model_state_dict(backbone, tensors)
    lacking = [name for name in outcome.missing_keys if "lora_" in name]
    if lacking or outcome.unexpected_keys:
        raise ValueError(f"its adapters do not fit the backbone: {(lacking or outcome.unexpected_keys)[0]}.")


def merged_backbone(backbone: Any) -> nn.Module:
    """A copy of the backbone with its adapters added into the weights, and gone."""
    from peft.tuners.lora import LoraLayer

    merged: Any = copy.deepcopy(backbone)
    for name, module in list(merged.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            owner, _, last = name.rpartition(".")
            setattr(merged.get_submodule(owner), last, module.get_base_layer())
    if hasattr(merged, "peft_config"):
        del merged.peft_config
    for parameter in merged.parameters():
        parameter.requires_grad_(True)
    backbone_without_adapters: nn.Module = merged
    return backbone_without_adapters


def _targets(backbone: Any, config: LoRAConfig) -> list[str]:
    """The linear layers that have adapters; all but those of BERT's own pooler, which no embedding passes."""
    linear = {
        name.removesuffix(".base_layer")
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and "lora_" not in name and not name.startswith("pooler.")
    }
    if not linear:
        raise ConfigError(f"A {type(backbone).__name__} has no linear layers for adapters; set encoder.lora.rank to 0.")
    if not config.target:
        return sorted(linear)
    for target in config.target:
        if not any(name == target or name.endswith("." + target) for name in linear):
            kinds = sorted({name.rpartition(".")[2] for name in linear})
            raise ConfigError(
                f"encoder.lora.target {target!r} is no linear layer of the backbone; its are {', '.join(kinds)}."
            )
    return sorted(config.target)


def _peft_config(config: LoRAConfig, targets: list[str]) -> Any:
    from peft import LoraConfig, TaskType

    return LoraConfig(
        r=config.rank,
        lora_alpha=config.rank if config.alpha is None else config.alpha,
        use_rslora=config.rank_stabilized,
        lora_dropout=config.dropout,
        use_dora=config.weight_decomposed,
        target_modules=targets,
        bias="none",
        task_type=TaskType.FEATURE_EXTRACTION,
        inference_mode=False,
    )
