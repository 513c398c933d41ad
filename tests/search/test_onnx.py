"""Encoders written as ONNX: in onnxruntime they give the embeddings that torch gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import MEAN, minilm_directory, write_bert, write_decoder, write_sentence_transformer
from worlds import tiny_config

import xmc
from xmc.config import TrainConfig
from xmc.encoders.dual import build_encoder
from xmc.errors import ConfigError, InputError, StoreError

TEXTS = [
    "a boat with two hulls",
    "dog",
    "the cat sleeps in its house and the dog runs on the sea and on the sea",
    "été",
]


def untrained(**config: Any) -> xmc.Retriever:
    """A retriever over a few labels whose weights are random."""
    settings = TrainConfig.from_mapping({"negatives": "bank", "precision": "float32", **config})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = build_encoder(settings, 0, torch.Generator())
        for name, parameter in model.named_parameters():
            if "lora_" in name:  # which begin as nothing
                torch.nn.init.normal_(parameter, std=0.3)
    model.compute_in("float32")
    return xmc.Retriever.from_model(model, ["BOAT", "DOG", "CAT"], ["a boat", "dog", "cat"], settings)


def embedded(directory: Path, side: str, texts: list[str]) -> Any:
    """Embeddings by onnxruntime and the package tokenizers alone, by what onnx.json says."""
    import onnxruntime
    from tokenizers import Tokenizer

    settings = json.loads((directory / "onnx.json").read_text())
    how = settings[side]
    tokenizer = Tokenizer.from_file(str(directory / how["tokenizer"]))
    prepared = [how["prefix"] + text for text in texts]
    if how["lower_case"]:
        prepared = [text.lower() for text in prepared]
    keep = slice(-how["room"], None) if how["truncation"] == "left" else slice(how["room"])
    encodings = tokenizer.encode_batch(prepared, add_special_tokens=False)
    rows = [[*how["before"], *encoding.ids[keep], *how["after"]] for encoding in encodings]
    ids = np.full((len(rows), max(map(len, rows))), how["padding"], np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    session = onnxruntime.InferenceSession(str(directory / how["file"]), providers=["CPUExecutionProvider"])
    (values,) = session.run([settings["output"]], {"input_ids": ids, "attention_mask": mask})
    return values


def require_equal(retriever: xmc.Retriever, directory: Path) -> None:
    for some in (TEXTS, TEXTS[1:2]):
        for side, by_torch in (("query", retriever.embed_queries), ("label", retriever.model.embed_labels)):
            np.testing.assert_allclose(embedded(directory, side, some), by_torch(some), rtol=0, atol=1e-5)


def test_what_has_no_graph_is_refused(tmp_path: Path) -> None:
    config = tiny_config()
    static = xmc.Retriever.from_model(build_encoder(config, 0, torch.Generator()), ["A"], ["a"], config)
    with pytest.raises(ConfigError, match=r"encoder static is no transformer.*xmc\.light\.LightRetriever"):
        static.export_onnx(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="judged must be texts and as many lists of uids, but are 1 and 0"):
        static.export_onnx(tmp_path / "out", judged=(["a"], []))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(StoreError, match="is not an xmc ONNX model"):
        static.export_onnx(tmp_path / "other")
    write_bert(tmp_path / "bert")
    images = {"kind": "transformer", "directory": str(tmp_path / "bert"), "images": {"dimension": 3}}
    with pytest.raises(ConfigError, match="embeds images beside a text, which is not written as ONNX"):
        untrained(encoder=images).export_onnx(tmp_path / "out")


@pytest.mark.slow
def test_an_encoder_of_two_towers_with_prompts_and_a_projection(tmp_path: Path) -> None:
    write_sentence_transformer(write_bert(tmp_path / "bert"), MEAN)
    encoder = {"kind": "transformer", "directory": str(tmp_path / "bert"), "projection": 7, "max_length": 12}
    prompts = {"query_prompt": "the dog {text} on", "label_prompt": "boat {text}"}
    retriever = untrained(encoder={**encoder, **prompts}, share_towers=False)
    with torch.no_grad():
        retriever.model.label_encoder.projection.weight *= torch.linspace(0.5, 2, 7)[:, None]  # type: ignore[operator, union-attr]
    judged = (["a boat", "dog"], [["BOAT"], ["CAT"]])
    settings = retriever.export_onnx(tmp_path / "out", judged=judged)
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"query_encoder.onnx", "label_encoder.onnx", "query_tokenizer.json", "label_tokenizer.json"} < names
    require_equal(retriever, tmp_path / "out")
    assert settings == json.loads((tmp_path / "out" / "onnx.json").read_text())
    first = retriever.predict(judged[0], 1)[0][:, 0].tolist()
    assert settings["accuracy"]["P@1"] == 50.0 * ((first[0] == "BOAT") + (first[1] == "CAT"))
    with pytest.raises(StoreError, match="already holds a"):
        retriever.export_onnx(tmp_path / "out")


@pytest.mark.slow
def test_a_decoder_with_adapters_that_attends_both_ways_and_is_cut(tmp_path: Path) -> None:
    write_decoder(tmp_path / "llama")
    encoder = {
        "kind": "transformer",
        "directory": str(tmp_path / "llama"),
        "pooling": "last",
        "attention": "bidirectional",
    }
    retriever = untrained(encoder={**encoder, "lora": {"rank": 2}}).cut(6)
    settings = retriever.export_onnx(tmp_path / "out")
    require_equal(retriever, tmp_path / "out")
    assert (settings["dimension"], settings["accuracy"]["least_cosine"]) == (6, pytest.approx(1, abs=1e-5))


@pytest.mark.slow
def test_minilm_in_float32_and_in_eight_bits(tmp_path: Path) -> None:
    labels = ["a boat with two hulls", "a dog", "a cat", "a house"]
    retriever = xmc.Retriever.from_sentence_transformers(minilm_directory(), labels, precision="float32")
    retriever.export_onnx(tmp_path / "whole")
    require_equal(retriever, tmp_path / "whole")
    settings = retriever.export_onnx(tmp_path / "small", int8=True)
    assert settings["precision"] == "int8"
    assert 0.98 < settings["accuracy"]["least_cosine"] < 1
    sizes = [(tmp_path / name / "encoder.onnx").stat().st_size for name in ("whole", "small")]
    assert sizes[1] < 0.3 * sizes[0]
    assert settings["query"]["before"] == [101]
