"""Reading a backbone and its tokenizer, and facts about a backbone."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xmc.encoders.transformer.soundness import require_sound_backbone
from xmc.errors import require_package
from xmc.storage.fingerprints import fingerprint_of, sha256_file

__all__ = [
    "first_position",
    "positions",
    "quietly",
    "read_backbone",
    "read_tokenizer",
    "weights_digest",
]


def read_backbone(directory: Path, dtype: str, stored: bool = False) -> nn.Module:
    """The model, without a head, from a directory in Hugging Face layout or a GGUF file.

    stored: whether a run wrote the directory.
    Only safetensors and GGUF weights are read, and code in the directory is never run. ValueError where the weights do not
    fill the model or its configuration is not of them, DependencyError where a package is wanted; for files that are broken,
    anything that transformers and safetensors raise.
    """
    from transformers import AutoModel

    file, options = _gguf(directory), _options(directory)
    if directory.is_dir():
        require_sound_backbone(directory, stored)
    # The bar of GGUF files heeds no setting.
    bar = contextlib.nullcontext() if file is None else contextlib.redirect_stderr(io.StringIO())
    with quietly(), bar:
        backbone, loading = AutoModel.from_pretrained(
            use_safetensors=file is None, dtype=getattr(torch, dtype), output_loading_info=True, **options
        )
    if backbone.config.is_encoder_decoder:
        raise ValueError("it is an encoder with a decoder; xmc encodes with models that have one stack of layers.")
    if not hasattr(backbone.config, "hidden_size"):
        raise ValueError(f"a {type(backbone).__name__} is no model of text alone; name a directory of its text model.")
    # Embeddings are pooled from the last layer; what a checkpoint holds or lacks of BERT's own pooler does not matter.
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ValueError(f"its weights lack {missing[0]} and {len(missing) - 1} more.")
    if file is not None:  # its weights are no longer quantised, and are saved as any others
        backbone.hf_quantizer = None
        del backbone.config.quantization_config
    backbone.config.use_cache = False  # one forward pass a text: keys and values would be kept for nothing
    checked: nn.Module = backbone
    return checked


def read_tokenizer(directory: Path) -> Any:
    """The tokenizer in such a directory or file; code in it is never run."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(**_options(directory))


def first_position(backbone: Any) -> int:
    """The position of a text's first token: 0, but RoBERTa and its kin count from the padding token's id + 1."""
    table = _table_of_positions(backbone)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def positions(backbone: Any) -> int | None:
    """Number of tokens that the backbone has positions for; None where it does not say."""
    table = _table_of_positions(backbone)
    if table is not None:
        return table.num_embeddings - first_position(backbone)
    if hasattr(backbone, "embeddings"):  # an encoder whose positions are relative
        return None
    known: int | None = getattr(backbone.config, "max_position_embeddings", None)
    return known


def _table_of_positions(backbone: Any) -> nn.Embedding | None:
    """The learned vectors of absolute positions, where the backbone has them."""
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    return table if isinstance(table, nn.Embedding) else None


def weights_digest(directory: Path) -> str:
    """A SHA-256 over those of the weight files and the config.json of a directory, or of a GGUF file."""
    file = _gguf(directory)
    files = [file] if file is not None else [directory / "config.json", *sorted(directory.glob("*.safetensors"))]
    return fingerprint_of((weights.name, sha256_file(weights)) for weights in files)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Reading and writing weights takes a moment; transformers would draw bars, and list the head that is left out."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _options(directory: Path) -> dict[str, Any]:
    """What transformers is to read, and how. DependencyError where it lacks a package for that."""
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    file = _gguf(directory)
    if file is None:
        return {"pretrained_model_name_or_path": directory, **options}
    for name in ("gguf", "accelerate"):
        require_package(name, f"{file} is a GGUF file", "gguf accelerate")
    return {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name, **options}


def _gguf(directory: Path) -> Path | None:
    """The GGUF file that a path names or holds; None where there are safetensors. ValueError for several."""
    if directory.is_file():
        return directory if directory.suffix == ".gguf" else None
    files = sorted(directory.glob("*.gguf"))
    if not files or any(directory.glob("*.safetensors")):
        return None
    if len(files) > 1:
        raise ValueError(f"it holds several GGUF files, {', '.join(file.name for file in files)}; name one of them.")
    return files[0]
