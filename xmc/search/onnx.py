"""A run's encoder as ONNX graphs with all that their callers need, and what rounding costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from xmc.arrays import Embeddings
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Side
from xmc.encoders.dual import DualEncoder
from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.encoders.transformer.onnx_graph import (
    INPUTS,
    OUTPUT,
    EmbeddingGraph,
    plain_encoder,
    quantise,
    write_graph,
)  # fmt: skip
from xmc.errors import ConfigError, InputError
from xmc.indexes.scan import exact_search
from xmc.progress import tracked
from xmc.search.labels import LabelVersion
from xmc.storage.directories import atomic_directory
from xmc.storage.manifests import require_free

__all__ = ["Judged", "export_onnx"]

Judged: TypeAlias = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Texts of queries, and the uids of the true labels of each."""

EXPORTED = "ONNX model"
"""What a manifest calls exported graphs."""
SETTINGS = "onnx.json"
CHECKED_TEXTS = 500
"""Number of label texts whose embeddings are compared, where no queries are given."""
TEXTS_TOGETHER = 32


def export_onnx(
    model: DualEncoder,
    labels: LabelVersion,
    directory: str | Path,
    int8: bool = False,
    judged: Judged | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the encoders of a run as ONNX graphs with pooling, projection and normalisation; the content of onnx.json.

    The directory holds encoder.onnx, or query_encoder.onnx and label_encoder.onnx where the two differ, the tokenizer of each
    as the package tokenizers reads it, and onnx.json: prompts as token ids, lengths, names, and how equal the embeddings are
    to those of torch in float32. What was learned of each label itself (residual vectors, prototypes) is not in a graph: it is
    in the label embeddings of the run.

    int8: weights of 8 bits by onnxruntime's dynamic quantisation. judged: queries with their labels; onnx.json then says P@1
    in float32 and of the graph, over all labels of the run.

    Raises ConfigError for what cannot be written, such as a static encoder or one of images, DependencyError for a missing
    package, StoreError where the directory holds something else, or graphs and `overwrite` is not set.
    """
    directory = Path(directory)
    require_free(directory, EXPORTED, overwrite)
    texts = _texts(labels, judged)
    shared = model.query_encoder is model.label_encoder
    towers: dict[str, tuple[list[Side], Any]] = (
        {"encoder": (["query", "label"], model.query_encoder)}
        if shared
        else {"query_encoder": (["query"], model.query_encoder), "label_encoder": (["label"], model.label_encoder)}
    )
    settings: dict[str, Any] = {"precision": "int8" if int8 else "float32", "inputs": list(INPUTS), "output": OUTPUT}
    settings |= {"dimension": model.dimension, "unit_length": model.normalize}
    with atomic_directory(directory, EXPORTED) as temporary:
        for name, (sides, encoder) in towers.items():
            plain = plain_encoder(_transformer(encoder))
            graph = EmbeddingGraph(plain, model.normalize, model.served)
            _write(graph, temporary / f"{name}.onnx", int8, plain.texts.padding)
            tokenizer = "tokenizer.json" if shared else f"{name.removesuffix('_encoder')}_tokenizer.json"
            plain.texts.write(temporary / tokenizer)
            for side in sides:
                settings[side] = {"file": f"{name}.onnx", "tokenizer": tokenizer, **plain.texts.to_dict(side)}
            if "query" in sides:
                both = _both(graph, plain, temporary / f"{name}.onnx", texts)
                settings["accuracy"] = _accuracy(*both) | _found(labels, *both, judged)
        (temporary / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return settings


def _transformer(encoder: Any) -> TransformerEncoder:
    if isinstance(encoder, TransformerEncoder):
        return encoder
    raise ConfigError(
        f"The encoder {encoder.kind} is no transformer, and has no graph to write. A static run needs none: "
        f"xmc.light.LightRetriever.load reads its directory without torch."
    )


def _texts(labels: LabelVersion, judged: Judged | None) -> list[str]:
    """The texts that are compared: those of queries, or of the first labels."""
    if judged is None:
        return [text or "" for text in labels.texts[:CHECKED_TEXTS].to_pylist()]
    if len(judged[0]) != len(judged[1]) or not len(judged[0]):
        raise InputError(
            f"judged must be texts and as many lists of uids, but are {len(judged[0])} and {len(judged[1])}."
        )
    return list(judged[0])


def _write(graph: EmbeddingGraph, file: Path, int8: bool, padding: int) -> None:
    whole = file.with_name("whole.onnx") if int8 else file
    write_graph(graph, whole, padding)
    if int8:
        quantise(whole, file)
        for left in file.parent.glob("whole.onnx*"):
            left.unlink()


@torch.no_grad()
def _both(
    graph: EmbeddingGraph, encoder: TransformerEncoder, file: Path, texts: Sequence[str]
) -> tuple[Embeddings, Embeddings]:
    """Embeddings [n, D] of query texts by torch in float32, and by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    features = encoder.featurize(texts, "query")
    order = np.argsort(features.lengths, kind="stable")
    blocks = []
    starts = range(0, len(order), TEXTS_TOGETHER)
    for start in tracked(starts, "comparing embeddings", unit=f"batches of {TEXTS_TOGETHER}"):
        inputs = _padded(features.take(order[start : start + TEXTS_TOGETHER]), encoder.texts.padding)
        (computed,) = session.run(None, inputs)
        blocks.append((graph(*map(torch.from_numpy, inputs.values())).numpy(), computed))
    back = np.argsort(order)
    by_torch, by_onnx = (np.concatenate(parts)[back] for parts in zip(*blocks, strict=True))
    return by_torch, by_onnx


def _padded(features: RaggedTokens, padding: int) -> dict[str, Any]:
    """Token ids and mask, int64 [n, T], by the names of a graph's inputs."""
    mask = np.arange(max(1, int(features.lengths.max(initial=1))))[None] < features.lengths[:, None]
    ids = np.full(mask.shape, padding, np.int64)
    ids[mask] = features.values
    return dict(zip(INPUTS, (ids, mask.astype(np.int64)), strict=True))


def _accuracy(by_torch: Embeddings, by_onnx: Embeddings) -> dict[str, Any]:
    lengths = np.linalg.norm(by_torch, axis=1) * np.linalg.norm(by_onnx, axis=1)
    cosines = np.einsum("nd,nd->n", by_torch, by_onnx) / np.where(lengths == 0, 1, lengths)
    cosines = cosines[lengths > 0]
    return {
        "texts": len(by_torch),
        "mean_cosine": round(float(cosines.mean()), 6),
        "least_cosine": round(float(cosines.min()), 6),
        "largest_difference": float(np.abs(by_torch - by_onnx).max()),
    }


def _found(labels: LabelVersion, by_torch: Embeddings, by_onnx: Embeddings, judged: Judged | None) -> dict[str, Any]:
    """How often the first label is true, in per cent, and how often both have the same one."""
    if judged is None:
        return {}
    first = []
    for embeddings in (by_torch, by_onnx):
        queries = np.ascontiguousarray(embeddings, np.float32)
        first.append(labels.uids_at(exact_search(queries, labels.index.blocks, 1, labels.alive)[1])[:, 0])
    right = [[uid in true for uid, true in zip(uids, map(set, judged[1]), strict=True)] for uids in first]
    return {
        "queries": len(by_torch),
        "P@1 float32": round(100 * float(np.mean(right[0])), 2),
        "P@1": round(100 * float(np.mean(right[1])), 2),
        "same_first_label": round(100 * float(np.mean(first[0] == first[1])), 2),
    }
