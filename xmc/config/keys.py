"""The keys of older versions, and what each is called now."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["GONE", "NEW_KEYS", "TEXTS", "as_written", "family_part"]

_STATIC = ("dimension", "table_rows", "weight_slots", "kind_scales")
_TRANSFORMER = (
    "directory", "pooling", "max_length", "attention", "query_prompt", "label_prompt", "images.dimension", "images.most",
    "lora.rank", "lora.alpha", "lora.rank_stabilized", "lora.dropout", "lora.weight_decomposed", "lora.target",
    "projection", "dtype", "dropout", "frozen_layers", "gradient_checkpointing", "compile", "shard",
)  # fmt: skip
_PROTOTYPES = (
    "clusters", "initial", "centroids", "momentum", "heads", "feedforward", "dropout", "text_weight",
    "label_to_query_weight", "regularisation",
)  # fmt: skip
_OBJECTIVE = (
    "loss", "temperature", "learn_temperature", "positives_per_query", "positives_drawn", "positives_propensity",
    "in_batch_positives", "nested_dimensions", "relevance_weights", "distillation.teacher", "distillation.labels",
    "distillation.temperature", "distillation.weight",
)  # fmt: skip
_NEGATIVES = {
    "bank": ("hard", "refresh", "unbiased", "positives"),
    "shortlist": ("size", "window_start", "window_end", "refresh_steps", "index"),
    "clusters": ("first_epoch", "refresh_epochs", "size", "doubling_epochs"),
}

TEXTS = "transformer.micro_batch_size"
"""A number of texts that were encoded at once; what takes its place is a number of tokens, and "auto" for old files."""

NEW_KEYS: Mapping[str, str | None] = {
    **{f"static.{name}": f"encoder[static].{name}" for name in _STATIC},
    **{f"transformer.{name}": f"encoder[transformer].{name}" for name in _TRANSFORMER},
    TEXTS: "encoder[transformer].tokens_per_micro_batch",
    "transformer.images.learning_rate": "optimizer.learning_rate.images",
    "transformer.quantization": None,
    "transformer.liger": None,
    "label_vector_dropout": "label_vectors[residual].dropout",
    "label_vector_moments": "label_vectors[residual].moments",
    "label_vector_memory": "label_vectors[residual].memory",
    **{f"prototypes.{name}": f"label_vectors[prototypes].{name}" for name in _PROTOTYPES},
    "prototypes.learning_rate": "optimizer.learning_rate.prototypes",
    **{name: f"objective.{name}" for name in _OBJECTIVE},
    "margin.negatives": "objective.loss[triplet_margin].negatives",
    "margin.least": "objective.loss[triplet_margin].least",
    "margin.most": "objective.loss[triplet_margin].most",
    "margin.temperature": "objective.loss[triplet_margin].temperature",
    "sampled_negatives": "negatives[sampled].count",
    **{f"{kind}.{name}": f"negatives[{kind}].{name}" for kind, names in _NEGATIVES.items() for name in names},
    "learning_rate": "optimizer.learning_rate.encoder",
    "weight_learning_rate": "optimizer.learning_rate.feature_weights",
    "label_vector_learning_rate": "optimizer.learning_rate.label_vectors",
    "warmup": "optimizer.warmup",
    "warmup_steps": "optimizer.warmup",
    "weight_decay": "optimizer.weight_decay",
    "epsilon": "optimizer.epsilon",
    "max_gradient_norm": "optimizer.max_gradient_norm",
    "token_dropout": "data.token_dropout",
    "label_token_dropout": "data.label_token_dropout",
    "validation_steps": "validation.steps",
    "validation_metric": "validation.metric",
    "patience": "validation.patience",
}
"""Old key: new key. A new key of one kind names it in brackets; None stands for an option that is gone.

Keys that are called as before are not here, and two that a plain value stands for: `validation` (now `validation.share`) and
`negatives`, whose kinds were joined by "+". The old `margin.negatives` is also
`label_vectors[prototypes].regularisation_negatives`.
"""

GONE: Mapping[str, object] = {"transformer.quantization": "none", "transformer.liger": False}
"""Options that are gone: the value that an old file may have, which is what xmc does."""


def family_part(new: str) -> tuple[str, str, str] | None:
    """The family, the kind and the rest of a key of one kind, such as encoder[static].dimension; None for other keys."""
    family, bracket, rest = new.partition("[")
    if not bracket:
        return None
    kind, _, name = rest.partition("].")
    return family, kind, name


def as_written(new: str) -> str:
    """A key of `NEW_KEYS` as users write it: encoder.dimension, or negatives.bank.hard where kinds stand in a list."""
    parts = family_part(new)
    if parts is None:
        return new
    family, kind, name = parts
    return f"{family}.{kind}.{name}" if family == "negatives" else f"{family}.{name}"
