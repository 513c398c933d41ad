"""A dual encoder from a sentence-transformers directory, and a tower of one as such a directory."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from xmc.config import TrainConfig
from xmc.encoders.base import Side
from xmc.encoders.dual import DualEncoder, build_encoder
from xmc.encoders.precision import Precision
from xmc.encoders.sentence_transformers.modules import POOLED, Modules, read_modules
from xmc.encoders.transformer.backbones import quietly, read_tokenizer
from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.errors import ConfigError, InputError

__all__ = ["from_sentence_transformers", "to_sentence_transformers"]

logger = logging.getLogger("xmc.encoders")

PROMPT_NAMES: dict[Side, tuple[str, ...]] = {"query": ("query",), "label": ("document", "passage", "corpus")}
"""Names of prompts in sentence-transformers, by whose texts they are for."""
TEXT = "{text}"
IDENTITY = "torch.nn.modules.linear.Identity"
Layer = tuple[Tensor, Tensor | None, str]
"""Weight [out, in], bias [out] and activation of a Dense module."""


def from_sentence_transformers(
    directory: str | Path, texts: Sequence[str], index: str, precision: Precision = "auto", **options: Any
) -> tuple[DualEncoder, TrainConfig]:
    """The model of a directory, for labels without residual vectors, and the configuration that trains it further.

    Prompts that the directory has for queries and for documents are those of queries and labels, unless `options` (of
    TransformerConfig) name others. Embeddings are of unit length, unless the directory asks for inner products.
    texts: of some labels, with which it is checked, and said in the log, whether sentence-transformers cuts them into the
    same tokens. Raises ConfigError for a directory that cannot be used, with the reason.
    """
    root = Path(directory)
    if not root.is_dir():
        raise ConfigError(
            f"{str(directory)!r} is not a directory. xmc downloads no models: save one there, as with "
            f"SentenceTransformer(name).save_pretrained(directory)."
        )
    described = read_modules(root)
    transformer = {**_prompts(described, root), **{name: value for name, value in options.items() if value is not None}}
    config = TrainConfig.from_mapping(
        {
            "encoder": {"kind": "transformer", "directory": str(root.resolve()), **transformer},
            "normalize": described.normalize or _is_cosine(described.similarity, root),
            "negatives": "bank",  # which encodes few labels in a step, as a transformer needs it
            "index": index,
            "precision": precision,
        },
        source=f"the configuration for {root}",
    )
    model = build_encoder(config, 0, torch.Generator())
    encoder = model.query_encoder
    assert isinstance(encoder, TransformerEncoder)
    for side, prefix in _prefixes(encoder).items():
        text = None if prefix is None else _differing(encoder, side, prefix, encoder.tokenizer, texts)
        if text is not None:
            logger.warning(
                "the %s prompt %r is tokenised apart from the text, which gives other tokens than sentence-transformers' "
                "for %r; embeddings differ a little",
                side, prefix, text,
            )  # fmt: skip
    model.compute_in(config.precision)
    return model.eval(), config


def to_sentence_transformers(model: DualEncoder, directory: Path, tower: Side | None, texts: Sequence[str]) -> None:
    """Write an encoder into an existing directory, as `SentenceTransformer(directory)` reads it, for equal embeddings.

    tower: whose encoder; with one, its prompt becomes the default, and None is for an encoder that queries and labels share.
    texts: some that both must cut into the same tokens. A model that is cut to its first dimensions gets a Dense module that
    is. Raises ConfigError for what sentence-transformers cannot hold, InputError for a tower that must be, or cannot be, named.
    """
    encoder = _exportable(model, tower).merged()
    settings = encoder.settings
    prefixes = _prefixes(encoder)
    sides: list[Side] = ["query", "label"] if tower is None else [tower]
    pooling = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken", "eos": "lasttoken"}[settings.pooling]
    layers = _layers(encoder, model.served)
    with quietly():
        encoder.backbone.save_pretrained(directory)  # type: ignore[operator]
    _write_tokenizer(encoder, directory)
    _write_json(
        directory / "sentence_bert_config.json",
        {"max_seq_length": settings.max_length, "do_lower_case": settings.lower_case},
    )
    modules = ["Transformer", "Pooling", *["Dense"] * len(layers), *["Normalize"] * model.normalize]
    paths = ["", *(f"{place}_{kind}" for place, kind in enumerate(modules) if place)]
    for path in paths[1:]:
        (directory / path).mkdir()
    _write_json(
        directory / "modules.json",
        [
            {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for place, (kind, path) in enumerate(zip(modules, paths, strict=True))
        ],
    )
    width = int(encoder.backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    _write_json(
        directory / paths[1] / "config.json",
        {"word_embedding_dimension": width, **{f"pooling_mode_{mode}": mode == pooling for mode in modes}},
    )
    for path, layer in zip(paths[2:], layers, strict=False):
        _write_dense(layer, directory / path)
    prompts = {PROMPT_NAMES[side][0]: prefixes[side] for side in sides}
    has_default = len(set(prompts.values())) == 1 and any(prompts.values())
    _write_json(
        directory / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "prompts": prompts,
            "default_prompt_name": next(iter(prompts)) if has_default else None,
            "similarity_fn_name": "cosine" if model.normalize else "dot",
        },
    )
    _check_tokens(encoder, directory, {side: prefixes[side] or "" for side in sides}, texts)
    _say_what_is_left_out(model)


def _exportable(model: DualEncoder, tower: Side | None) -> TransformerEncoder:
    """The encoder of a tower; an error where sentence-transformers cannot hold it."""
    if tower not in (None, "query", "label"):
        raise InputError(f"tower must be query or label, but is {tower!r}.")
    if tower is None and model.query_encoder is not model.label_encoder:
        raise InputError(
            "This run has one encoder for queries and another for labels; choose one: tower query or label."
        )
    encoder = model.label_encoder if tower == "label" else model.query_encoder
    if not isinstance(encoder, TransformerEncoder):
        raise ConfigError(
            f"The encoder {encoder.kind} cannot be exported: sentence-transformers has no module that hashes words and "
            f"character n-grams. Export a run with a transformer, or use this one through xmc."
        )
    if encoder.image_dimension:
        raise ConfigError("This run embeds images beside a text, for which sentence-transformers has no module.")
    if encoder.settings.attention == "bidirectional":
        raise ConfigError(
            "encoder.attention is bidirectional, but sentence-transformers lets a decoder attend as it was trained; "
            "only a run with attention default can be exported."
        )
    if encoder.settings.pooling == "eos":
        tokens = encoder.tokenizer("a", truncation=True, max_length=encoder.settings.max_length)["input_ids"]
        if tokens[-1:] != [encoder.tokenizer.eos_token_id]:
            raise ConfigError(
                "encoder.pooling is eos, and the tokenizer does not put an end-of-sequence token itself, so that "
                "sentence-transformers would pool another token. Only a run with another pooling can be exported."
            )
    for side, prefix in _prefixes(encoder).items():
        if prefix is None and tower in (None, side):
            template = encoder.settings.query_prompt if side == "query" else encoder.settings.label_prompt
            raise ConfigError(
                f"The {side} prompt {template!r} has words after the text; sentence-transformers has prompts before it."
            )
    return encoder


def _prompts(described: Modules, root: Path) -> dict[str, str]:
    """Templates for queries and labels, where the directory has prompts that are named for one of them."""
    prefixes = {
        side: next((described.prompts[name] for name in names if described.prompts.get(name)), "")
        for side, names in PROMPT_NAMES.items()
    }
    if not any(prefixes.values()):
        return {}
    if not described.include_prompt:
        raise ConfigError(f"{root} leaves its prompts out of the pooling, which xmc does not have.")
    return {f"{side}_prompt": prefix + TEXT for side, prefix in prefixes.items()}


def _is_cosine(similarity: str | None, root: Path) -> bool:
    if similarity in (None, "cosine"):  # sentence-transformers' own default
        return True
    if similarity not in ("dot", "dot_score"):
        raise ConfigError(f"{root} compares by {similarity}; xmc compares by cosine or inner product.")
    return False


def _prefixes(encoder: TransformerEncoder) -> dict[Side, str | None]:
    """What stands before a text, by side; None where something stands after it."""
    settings = encoder.settings
    templates: dict[Side, str | None] = {"query": settings.query_prompt, "label": settings.label_prompt}
    prefixes: dict[Side, str | None] = {}
    for side, template in templates.items():
        if template is None:
            prefixes[side] = settings.prompt
        else:
            prefixes[side] = template.removesuffix(TEXT) if template.endswith(TEXT) else None
    return prefixes


def _layers(encoder: TransformerEncoder, served: int | None) -> list[Layer]:
    """Dense modules after the pooling, the last cut to the dimensions that are served."""
    layers: list[Layer] = [
        (layer.linear.weight, layer.linear.bias, layer.activation_name)  # type: ignore[union-attr, misc]
        for layer in encoder.dense
    ]
    if encoder.projection is not None:
        layers.append((encoder.projection.weight, None, IDENTITY))
    if served is not None and not layers:
        layers.append((torch.eye(encoder.dimension), None, IDENTITY))
    if served is not None:
        weight, bias, activation = layers[-1]
        layers[-1] = weight[:served], None if bias is None else bias[:served], activation
    return layers


def _write_dense(layer: Layer, directory: Path) -> None:
    weight, bias, activation = layer
    tensors = {"linear.weight": weight} | ({} if bias is None else {"linear.bias": bias})
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors"
    )
    outputs, inputs = weight.shape
    _write_json(
        directory / "config.json",
        {
            "in_features": inputs,
            "out_features": outputs,
            "bias": bias is not None,
            "activation_function": activation,
            "module_input_name": POOLED,
            "module_output_name": POOLED,
        },
    )


def _write_tokenizer(encoder: TransformerEncoder, directory: Path) -> None:
    """The tokenizer, which pads at the end as xmc does, and pads at all."""
    encoder.tokenizer.save_pretrained(directory)
    tokenizer = read_tokenizer(directory)
    tokenizer.padding_side, tokenizer.model_max_length = "right", encoder.settings.max_length
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.save_pretrained(directory)


def _check_tokens(
    encoder: TransformerEncoder, directory: Path, prefixes: dict[Side, str], texts: Sequence[str]
) -> None:
    """Raise ConfigError where the tokenizer, as sentence-transformers calls it, gives other tokens than the encoder's."""
    tokenizer = read_tokenizer(directory)
    for side, prefix in prefixes.items():
        text = _differing(encoder, side, prefix, tokenizer, texts)
        if text is not None:
            raise ConfigError(
                f"sentence-transformers would cut {prefix + text[:100]!r} into other tokens than this run, in which a prompt "
                f"is tokenised apart from the text and never cut; its embeddings would differ. End the {side} prompt with a "
                f"blank, or truncate at the right, and train again."
            )


def _differing(
    encoder: TransformerEncoder, side: Side, prefix: str, tokenizer: Any, texts: Sequence[str]
) -> str | None:
    """The first of some texts, or all of them as one long text, that the two cut into different tokens."""
    some = [*texts, " ".join([*texts, *["a"] * encoder.settings.max_length])]
    joint = [prefix + text for text in some]
    if encoder.settings.lower_case:
        joint = [text.lower() for text in joint]
    expected = tokenizer(joint, truncation=True, max_length=encoder.settings.max_length, padding=False)["input_ids"]
    features = encoder.featurize(some, side)
    ends = features.offsets.tolist()
    for number, text in enumerate(some):
        if features.values[ends[number] : ends[number + 1]].tolist() != expected[number]:
            return text
    return None


def _say_what_is_left_out(model: DualEncoder) -> None:
    if model.label_vectors is not None:
        logger.warning(
            "the residual vectors of %d labels belong to the labels and are not exported: the encoder alone ranks them "
            "otherwise than the run", len(model.label_vectors),
        )  # fmt: skip
    if model.prototypes is not None:
        logger.warning(
            "label prototypes belong to the labels and are not exported: the encoder alone ranks them otherwise than the run"
        )


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
