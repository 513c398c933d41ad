"""Backbones of many families with random weights, two layers and 16 dimensions, as directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from small_models import SPECIAL, WORDS, write_tokenizer

__all__ = ["CAUSAL", "FAMILIES", "write_backbone"]

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
DECODER = {**SIZES, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 32}
ENCODER = {**SIZES, "max_position_embeddings": 32}
SLIDING = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", ENCODER),
    "distilbert": (
        "DistilBert",
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 32},
    ),
    "roberta": ("Roberta", {**ENCODER, "max_position_embeddings": 34}),
    "xlm-roberta": ("XLMRoberta", {**ENCODER, "max_position_embeddings": 34}),
    "electra": ("Electra", {**ENCODER, "embedding_size": 12}),
    "modernbert": ("ModernBert", {**ENCODER, "local_attention": 6, "global_attn_every_n_layers": 2}),
    "llama": ("Llama", DECODER),
    "mistral": ("Mistral", {**DECODER, "sliding_window": 5}),
    "smollm3": ("SmolLM3", DECODER),
    "qwen2": ("Qwen2", {**DECODER, "use_sliding_window": True, **SLIDING}),
    "qwen3": ("Qwen3", DECODER),
    "gemma": ("Gemma", DECODER),
    "gemma3": ("Gemma3Text", {**DECODER, **SLIDING}),
    "mpnet": ("MPNet", {**ENCODER}),
    "gemma2": ("Gemma2", {**DECODER, **SLIDING, "attn_logit_softcapping": 5.0}),
}
"""By name: the beginning of the names of its classes in the package transformers, and its sizes."""
CAUSAL = ("llama", "mistral", "smollm3", "qwen2", "qwen3", "gemma", "gemma3", "gemma2")


def write_backbone(directory: Path, family: str, **changes: Any) -> Path:
    """A backbone of a family with random weights far from zero, and a word-level tokenizer."""
    import transformers

    name, sizes = FAMILIES[family]
    options = {"vocab_size": len(SPECIAL + WORDS), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, **sizes}
    if family == "modernbert":
        options |= {"cls_token_id": 2, "sep_token_id": 3}
    config = getattr(transformers, f"{name}Config")(**options | changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}Model")(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3)
    model.save_pretrained(directory)
    write_tokenizer(directory, special=family not in CAUSAL, end="[SEP]")
    return directory
