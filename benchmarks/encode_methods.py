"""Methods of the table encode: this library, the bare Hugging Face model, sentence-transformers."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from encode_problems import BOTH, ENCODE, FORWARD, Method, Problem
from retrieval import CACHE
from torch import Tensor

from xmc.encoders.dual import DualEncoder
from xmc.encoders.transformer.backbones import quietly, read_backbone
from xmc.storage.directories import atomic_directory

__all__ = ["PADDED", "in_order", "methods", "padded_states", "pooled", "xmc_method"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BATCHES = (32, 128)
"""Batch sizes of sentence-transformers: its default, and a larger one."""
PADDED = {"cpu": 32, "cuda": 1024}
"""Texts of a padded batch of the bare model, in order of length: few on a CPU, where padding costs more than calls."""


def methods(problem: Problem, precisions: Sequence[str] = tuple(DTYPES)) -> Iterator[Method]:
    """This library first, in each precision, then the others; those whose package is missing are named and left out."""
    for precision in precisions:
        yield xmc_method(problem, precision)
    for precision in precisions:
        yield _hugging_face(problem, precision)
    if importlib.util.find_spec("sentence_transformers") is None:
        print("sentence-transformers is left out, it is not installed: pip install sentence-transformers", flush=True)
        return
    for precision in precisions:
        for size in BATCHES:
            yield _sentence_transformers(problem, precision, size)


def xmc_method(problem: Problem, precision: str) -> Method:
    """This library's encoder in a precision."""
    encoder = copy.deepcopy(problem.encoder)
    encoder.compute_in(precision)
    dual = DualEncoder(encoder, encoder)

    def step() -> None:
        embeddings = encoder(problem.tokens)
        embeddings.backward(problem.gradient.to(embeddings.dtype))
        encoder.collect_gradients()
        encoder.zero_grad(set_to_none=True)

    @torch.no_grad()
    def forward() -> Tensor:
        return encoder(problem.tokens)

    calls = {FORWARD: forward, BOTH: step, ENCODE: lambda: dual.embed_labels(problem.texts.texts)}
    return Method(f"xmc {precision}", precision, lambda: _host(forward()), calls)


def _hugging_face(problem: Problem, precision: str) -> Method:
    """The backbone by itself, padded to the longest text of a batch, the texts in order of length; mean pooling."""
    backbone = _backbone(_directory(problem), precision, problem.device)
    padding = problem.encoder.texts.padding
    batches = [
        (rows, problem.padded(rows, padding)) for rows in problem.batches(PADDED[problem.device], by_length=True)
    ]

    def step() -> None:
        for rows, inputs in batches:
            embeddings = padded_states(backbone, inputs)
            embeddings.backward(problem.gradient[rows].to(embeddings.dtype))
        backbone.zero_grad(set_to_none=True)

    @torch.no_grad()
    def forward() -> list[Tensor]:
        return [padded_states(backbone, inputs) for _, inputs in batches]

    def embed() -> Tensor:
        return _host(in_order(forward(), [rows for rows, _ in batches]))

    return Method(f"Hugging Face model {precision}", precision, embed, {FORWARD: forward, BOTH: step})


def padded_states(backbone: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Embeddings [n, D] of a padded batch, on the backbone's device."""
    inputs = {name: tensor.to(backbone.device, non_blocking=True) for name, tensor in inputs.items()}
    return pooled(backbone(**inputs).last_hidden_state, inputs["attention_mask"])


def pooled(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean [n, D] of the states [n, T, D] that the mask [n, T] is one for."""
    weights = mask[:, :, None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def in_order(parts: list[Tensor], rows: list[Any]) -> Tensor:
    """Embeddings [n, D] in the order of the texts, given those of each batch and the batches' rows."""
    places = torch.cat([torch.as_tensor(part) for part in rows])
    return torch.cat([part.cpu() for part in parts])[places.argsort()]


@cache
def _backbone(directory: Path, precision: str, device: str) -> Any:
    return read_backbone(directory, precision).eval().to(device)


def _sentence_transformers(problem: Problem, precision: str, size: int) -> Method:
    """Its encode, and a training step's forward and backward pass: batches as they come, tokenised ahead, its own padding."""
    model = _sentence_transformer(_directory(problem), precision, problem.device)
    model.max_seq_length = problem.encoder.settings.max_length
    texts = list(problem.texts.texts)
    batches = [(rows, model.preprocess([texts[row] for row in rows])) for rows in problem.batches(size, False)]

    def step() -> None:
        for rows, inputs in batches:
            moved = {name: one.to(problem.device) if isinstance(one, Tensor) else one for name, one in inputs.items()}
            embeddings = model(moved)["sentence_embedding"]
            embeddings.backward(problem.gradient[rows].to(embeddings.dtype))
        model.zero_grad(set_to_none=True)

    def encode() -> Tensor:
        return model.encode(texts, batch_size=size, convert_to_tensor=True, show_progress_bar=False)

    calls = {ENCODE: lambda: encode().cpu().float().numpy(), BOTH: step}
    return Method(f"sentence-transformers {precision}, batches of {size}", precision, lambda: _host(encode()), calls)


@cache
def _sentence_transformer(directory: Path, precision: str, device: str) -> Any:
    from sentence_transformers import SentenceTransformer

    options = {"dtype": DTYPES[precision]}
    with quietly():
        return SentenceTransformer(str(directory), device=device, model_kwargs=options, local_files_only=True).eval()


def _directory(problem: Problem) -> Path:
    """The model in Hugging Face layout, which everybody reads: a GGUF file's is written once.

    Without its chat template, in which sentence-transformers would wrap every text.
    """
    if (problem.directory / "config.json").exists():
        return problem.directory
    directory = CACHE / "models" / problem.name
    if not directory.exists():
        with atomic_directory(directory, "model") as temporary, quietly():
            problem.encoder.backbone.save_pretrained(temporary)
            tokenizer = copy.deepcopy(problem.encoder.tokenizer)
            tokenizer.chat_template = None
            tokenizer.save_pretrained(temporary)
    return directory


def _host(embeddings: Tensor) -> Tensor:
    return embeddings.detach().float().cpu()
