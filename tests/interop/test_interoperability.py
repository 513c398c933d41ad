"""sentence-transformers directories in and out, compared with the library itself."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import fail, xmc
from small_models import (
    HIDDEN,
    WORDS,
    minilm_directory,
    write_bert,
    write_decoder,
    write_json,
    write_sentence_transformer,
)
from worlds import colours, tiny_config

from xmc.cli.export import export
from xmc.config import TrainConfig, TransformerConfig
from xmc.encoders.dual import build_encoder
from xmc.errors import ConfigError, InputError, StoreError
from xmc.evaluation.evaluate import evaluate
from xmc.search.retriever import Retriever
from xmc.training.trainer import train

sentence_transformers: Any = pytest.importorskip(
    "sentence_transformers", reason="the package sentence-transformers is not installed"
)
MEAN = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
CLS = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
LABELS = ["boat", "dog", "cat", "house", "sea"]
QUERIES = [
    "a boat with two hulls",
    "the dog sleeps",
    "été 東 京 unheard",
    "the cat runs on the sea and in its house " * 9,
]
TANH = "torch.nn.modules.activation.Tanh"


def load(directory: Path) -> Any:
    return sentence_transformers.SentenceTransformer(str(directory), device="cpu")


def retriever(transformer: dict[str, Any], **changes: Any) -> Retriever:
    """An untrained run; what a directory does not hold has random weights."""
    config = TrainConfig.from_mapping({"encoder": {"kind": "transformer", **transformer}, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_encoder(config, 0, torch.Generator().manual_seed(0))
    return Retriever.from_model(model, LABELS, LABELS, config)


def same(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
    distances = np.linalg.norm(ours[:, None] - ours[None], axis=2) + 9 * np.eye(len(ours))
    assert distances.min() > 0.002  # so that the comparison tells one text from another


def test_minilm_without_training(tmp_path: Path) -> None:
    labels = ["a boat with several hulls", "monetary policy", "a domestic animal"]
    own = Retriever.from_sentence_transformers(
        minilm_directory(), labels, columns={"price": [1, 2, 3]}, precision="float32"
    )
    questions = [
        "catamaran",
        "The central bank raised its rate.",
        "my cat is asleep",
        "naïve café 東京 🚤",
        "long " * 400,
    ]
    model = load(minilm_directory())
    same(own.embed_queries(questions), model.encode(questions))
    found, scores = own.predict(questions[:3], k=3)
    assert found[:, 0].tolist() == labels
    similarity = model.similarity(model.encode(questions[:3]), model.encode(labels)).numpy()
    np.testing.assert_allclose(scores, -np.sort(-similarity), atol=1e-5)
    assert own.predict(["catamaran"], k=1, where="price > 1")[0].item() != labels[0]
    own.add_labels(["a kind of cheese"])
    assert own.predict(["cheddar on a toast"], k=1)[0].item() == "a kind of cheese"
    own.save(tmp_path / "run")
    assert Retriever.load(tmp_path / "run").predict(["cheddar on a toast"], k=1)[0].item() == "a kind of cheese"
    own.export_sentence_transformers(tmp_path / "model")
    same(own.embed_queries(questions), load(tmp_path / "model").encode(questions))


def test_trained_further_from_its_configuration(tmp_path: Path) -> None:
    data = colours(WORDS[3:15])
    directory = write_sentence_transformer(tmp_path / "model", MEAN, normalize=True)
    names = data.labels.texts.to_pylist()
    own = Retriever.from_sentence_transformers(directory, names, data.labels.uids.to_pylist(), precision="float32")
    own.save(tmp_path / "run")
    changes = [
        "epochs=4",
        "optimizer.learning_rate=1e-2",
        "batch_size=32",
        "data.token_dropout=0",
        "data.label_token_dropout=0",
    ]
    config = TrainConfig.load(tmp_path / "run" / "config.yaml", [*changes, "encoder.dropout=0"])
    transformer = TransformerConfig.of(config.encoder)
    assert transformer is not None
    assert (config.negatives_named, transformer.directory) == ("bank", str(directory))
    train(data, config, tmp_path / "trained")

    before, after = (evaluate(Retriever.load(tmp_path / name), data).values["P@1"] for name in ("run", "trained"))
    assert after > before + 10
    trained = Retriever.load(tmp_path / "trained")
    trained.export_sentence_transformers(tmp_path / "exported")
    same(trained.embed_queries(QUERIES), load(tmp_path / "exported").encode(QUERIES))
    again = Retriever.from_sentence_transformers(tmp_path / "exported", names, precision="float32")
    same(trained.embed_queries(QUERIES), again.embed_queries(QUERIES))


@pytest.mark.parametrize("document", ["document", "passage"])
def test_prompts_by_name(document: str, tmp_path: Path) -> None:
    directory = write_sentence_transformer(tmp_path / "model", MEAN)
    prompts = {"query": "the dog: ", document: "in the house ", "other": "sails "}
    write_json(directory / "config_sentence_transformers.json", {"prompts": prompts})
    own = Retriever.from_sentence_transformers(directory, LABELS, precision="float32")
    assert own.config.encoder.query_prompt == "the dog: {text}"
    assert own.config.encoder.label_prompt == "in the house {text}"
    model = load(directory)
    unit = {"normalize_embeddings": True}  # the directory's own are not; scores are cosines all the same
    same(own.embed_queries(QUERIES), model.encode_query(QUERIES, **unit))
    same(own.embeddings, model.encode(LABELS, prompt_name=document, **unit))
    own.export_sentence_transformers(tmp_path / "exported")
    exported = load(tmp_path / "exported")
    assert exported.prompts == {"query": "the dog: ", "document": "in the house "}
    assert exported.default_prompt_name is None
    same(own.embed_queries(QUERIES), exported.encode_query(QUERIES))
    same(own.embeddings, exported.encode_document(LABELS))
    own.export_sentence_transformers(tmp_path / "labels", "label")
    same(own.embeddings, load(tmp_path / "labels").encode(LABELS))
    other = Retriever.from_sentence_transformers(directory, LABELS, query_prompt="{text}", precision="float32")
    assert other.config.encoder.label_prompt == "in the house {text}"
    same(other.embed_queries(QUERIES), model.encode(QUERIES, **unit))


def test_default_prompt_and_lower_case(tmp_path: Path) -> None:
    directory = write_sentence_transformer(
        tmp_path / "model", CLS, settings={"max_seq_length": 9, "do_lower_case": True}
    )
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    write_json(directory / "tokenizer.json", tokenizer | {"normalizer": None})
    write_json(
        directory / "config_sentence_transformers.json", {"prompts": {"x": "The sea "}, "default_prompt_name": "x"}
    )
    own = Retriever.from_sentence_transformers(directory, LABELS, precision="float32")
    texts = [text.upper() for text in QUERIES]
    unit = {"normalize_embeddings": True}
    same(own.embed_queries(texts), load(directory).encode(texts, **unit))
    own.export_sentence_transformers(tmp_path / "exported")
    exported = load(tmp_path / "exported")
    same(own.embed_queries(texts), exported.encode(texts))
    same(own.embeddings, exported.encode(LABELS))
    assert exported.max_seq_length == 9


def test_inner_products(tmp_path: Path) -> None:
    directory = write_sentence_transformer(tmp_path / "model", MEAN)
    file = directory / "config_sentence_transformers.json"
    write_json(file, {"similarity_fn_name": "dot"})
    own = Retriever.from_sentence_transformers(directory, LABELS, precision="float32")
    model = load(directory)
    same(own.embed_queries(QUERIES), model.encode(QUERIES))
    scores = np.sort(model.similarity(model.encode(QUERIES), model.encode(LABELS)).numpy())[:, ::-1]
    np.testing.assert_allclose(own.predict(QUERIES, k=5)[1], scores, rtol=1e-4)
    own.export_sentence_transformers(tmp_path / "exported")
    assert load(tmp_path / "exported").similarity_fn_name == "dot"
    write_json(file, {"similarity_fn_name": "euclidean"})
    with pytest.raises(ConfigError, match="compares by euclidean; xmc compares by cosine or inner product"):
        Retriever.from_sentence_transformers(directory, LABELS)


CASES: dict[str, dict[str, Any]] = {
    "mean": {"pooling": "mean"},
    "cls": {"pooling": "cls", "max_length": 7},
    "projection": {"projection": 5},
    "prompts": {"query_prompt": "the cat {text}", "label_prompt": "{text}"},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
@pytest.mark.parametrize("dense", [False, True], ids=["", "dense"])
@pytest.mark.parametrize("served", [None, 3], ids=["", "cut"])
@pytest.mark.parametrize("normalize", [False, True], ids=["", "unit"])
def test_exported_bert(
    changes: dict[str, Any], dense: bool, served: int | None, normalize: bool, tmp_path: Path
) -> None:
    directory = write_sentence_transformer(tmp_path / "model", MEAN, dense=(7, TANH) if dense else None)
    own = retriever({"directory": str(directory), **changes}, normalize=normalize)
    if served is not None:
        own = own.cut(served)
    own.export_sentence_transformers(tmp_path / "exported")
    exported = load(tmp_path / "exported")
    assert exported.get_embedding_dimension() == own.model.dimension
    same(own.embed_queries(QUERIES), exported.encode_query(QUERIES))
    same(own.embeddings, exported.encode_document(LABELS))


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_exported_decoder_with_adapters(family: str, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the package peft is not installed")
    directory = write_decoder(tmp_path / "model", family)
    prompts = {"query_prompt": "the cat {text}", "label_prompt": "{text}"}
    own = retriever({"directory": str(directory), "pooling": "last", "lora": {"rank": 2}, **prompts})
    encoder = own.model.query_encoder
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    own.export_sentence_transformers(tmp_path / "exported")
    exported = load(tmp_path / "exported")
    same(own.embed_queries(QUERIES), exported.encode_query(QUERIES))
    same(own.model.embed_labels(LABELS), exported.encode_document(LABELS))


def test_towers(tmp_path: Path) -> None:
    own = retriever({"directory": str(write_bert(tmp_path / "bert"))}, share_towers=False)
    with torch.no_grad():
        for parameter in own.model.label_encoder.parameters():
            parameter.mul_(1.5)
    with pytest.raises(InputError, match="one encoder for queries and another for labels; choose one"):
        own.export_sentence_transformers(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    own.export_sentence_transformers(tmp_path / "query", "query")
    own.export_sentence_transformers(tmp_path / "label", "label")
    same(own.embed_queries(QUERIES), load(tmp_path / "query").encode(QUERIES))
    same(own.model.embed_labels(QUERIES), load(tmp_path / "label").encode(QUERIES))
    assert not np.allclose(own.embed_queries(QUERIES), own.model.embed_labels(QUERIES), atol=0.01)


def refused(own: Retriever, directory: Path, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        own.export_sentence_transformers(directory)
    assert not directory.exists()


def test_what_sentence_transformers_cannot_hold(tmp_path: Path) -> None:
    bert, llama = str(write_bert(tmp_path / "bert")), str(write_decoder(tmp_path / "llama"))
    out = tmp_path / "out"
    refused(retriever({"directory": bert, "images": {"dimension": 4}}), out, "embeds images beside a text")
    refused(retriever({"directory": llama, "attention": "bidirectional"}), out, "attention is bidirectional")
    refused(retriever({"directory": llama, "pooling": "eos"}), out, "does not put an end-of-sequence token")
    refused(
        retriever({"directory": bert, "query_prompt": "{text} sails"}),
        out,
        "query prompt '{text} sails' has words after",
    )
    glued = Retriever.from_sentence_transformers(bert, LABELS, label_prompt="sea{text}")
    refused(glued, out, "would cut 'seaboat' into other tokens than this run.*End the label prompt with a blank")


def test_eos_that_the_tokenizer_puts_itself(tmp_path: Path) -> None:
    directory = write_bert(tmp_path / "bert")
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    write_json(directory / "tokenizer_config.json", settings | {"eos_token": "[SEP]"})
    own = retriever({"directory": str(directory), "pooling": "eos"})
    own.export_sentence_transformers(tmp_path / "exported")
    same(own.embed_queries(QUERIES), load(tmp_path / "exported").encode(QUERIES))


def test_prompts_that_are_tokenised_otherwise_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = write_bert(tmp_path / "bert")
    with caplog.at_level(logging.WARNING):
        Retriever.from_sentence_transformers(directory, LABELS, query_prompt="the {text}", label_prompt="a {text}")
        assert not caplog.records
        Retriever.from_sentence_transformers(directory, LABELS, query_prompt="sea{text}")
    assert "the query prompt 'sea' is tokenised apart from the text" in caplog.text


def test_directories_and_labels_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'all-MiniLM-L6-v2' is not a directory\. xmc downloads no models"):
        Retriever.from_sentence_transformers("all-MiniLM-L6-v2", LABELS)
    directory = write_sentence_transformer(tmp_path / "model", MEAN | {"include_prompt": False}, dense=(7, TANH))
    with pytest.raises(InputError, match="must be a list of label texts"):
        Retriever.from_sentence_transformers(directory, "boat")
    with pytest.raises(InputError, match="'boat' is given more than once"):
        Retriever.from_sentence_transformers(directory, ["boat", "boat"])
    with pytest.raises(ConfigError, match="max_length must be of type"):
        Retriever.from_sentence_transformers(directory, LABELS, max_length="long")  # type: ignore[arg-type]
    assert len(Retriever.from_sentence_transformers(directory, [])) == 0
    write_json(directory / "config_sentence_transformers.json", {"prompts": {"query": "the "}})
    with pytest.raises(ConfigError, match="leaves its prompts out of the pooling"):
        Retriever.from_sentence_transformers(directory, LABELS)
    write_json(directory / "config_sentence_transformers.json", {"prompts": ["the "]})
    with pytest.raises(ConfigError, match="are not a mapping of names to texts"):
        Retriever.from_sentence_transformers(directory, LABELS)
    write_json(directory / "config_sentence_transformers.json", {})
    dense = json.loads((directory / "2_Dense" / "config.json").read_text())
    write_json(directory / "2_Dense" / "config.json", dense | {"use_residual": True})
    with pytest.raises(ConfigError, match="a residual connection"):
        Retriever.from_sentence_transformers(directory, LABELS)


def test_command(tmp_path: Path) -> None:
    own = retriever({"directory": str(write_bert(tmp_path / "bert"))})
    own.model.label_vectors = torch.nn.Parameter(torch.ones(len(LABELS), own.model.dimension))
    own.save(tmp_path / "run")
    done = xmc("export", tmp_path / "run", tmp_path / "out", "--to", "sentence-transformers")
    assert done.returncode == 0, done.stderr
    assert f"encoder in {tmp_path / 'out'}" in done.stdout
    assert "residual vectors of 5 labels belong to the labels" in " ".join(done.stderr.split())
    same(own.embed_queries(QUERIES), load(tmp_path / "out").encode(QUERIES))
    with pytest.raises(StoreError, match="already holds a sentence-transformers model"):
        export(tmp_path / "run", tmp_path / "out", "sentence-transformers")
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"tower": "query"}, "--tower chooses an encoder for"),
        ({"int8": True}, "--int8, --dataset and --split are for --to onnx"),
        ({"to": "onnx", "split": "test"}, "--split is of a data set; name it with --dataset"),
        ({"to": "sentence-transformers", "tower": "both"}, "tower must be query or label, but is 'both'"),
    ]
    for options, message in mistakes:
        with pytest.raises(InputError, match=message):
            export(tmp_path / "run", tmp_path / "x", **options)
    fail(xmc("export", tmp_path / "run", tmp_path / "x", "--to", "tensorrt"), "'tensorrt' is not one of 'run'")
    assert not (tmp_path / "x").exists()


def test_the_static_encoder_is_refused(tmp_path: Path) -> None:
    config = tiny_config()
    model = build_encoder(config, 0, torch.Generator())
    refused(Retriever.from_model(model, LABELS, LABELS, config), tmp_path / "out", "no module that hashes words")


def test_an_export_replaces_only_an_export(tmp_path: Path) -> None:
    own = retriever({"directory": str(write_bert(tmp_path / "bert"))})
    own.export_sentence_transformers(tmp_path / "out")
    with pytest.raises(StoreError, match="already holds a sentence-transformers model"):
        own.export_sentence_transformers(tmp_path / "out")
    own.export_sentence_transformers(tmp_path / "out", overwrite=True)
    with pytest.raises(StoreError, match="not an xmc sentence-transformers model"):
        own.export_sentence_transformers(tmp_path / "bert", overwrite=True)
