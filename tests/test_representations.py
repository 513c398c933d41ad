"""What things say that they are: one line each, with sizes, where they are and where they are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_models import MEAN, write_sentence_transformer
from worlds import calibrated_run, colours, tiny_config

import xmc
from xmc.calibration.decisions import Policy
from xmc.data.images.ragged import RaggedImages
from xmc.indexes.factory import build_index
from xmc.indexes.fields import Fields


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrated_run(colours(), tmp_path_factory.mktemp("representations") / "run", candidates=5)


def test_data_sets_say_what_they_hold(tmp_path: Path) -> None:
    data = colours()
    assert repr(data) == "<Dataset 'colours': 12 labels, 400 train queries, 100 test queries; in memory>"
    data.save(tmp_path / "data")
    stored = xmc.Dataset.load(tmp_path / "data")
    assert repr(stored) == f"<Dataset 'colours': 12 labels, 400 train queries, 100 test queries; {tmp_path / 'data'}>"
    split = data.split("test")
    assert repr(split) == f"<Split: 100 queries, 12 labels, {split.positives.nnz} positive pairs>"
    assert repr(data.labels) == "<DataLabels: 12 labels>"
    excluded = split.targets(np.array([[0, 1], [2, 3]]))
    pairs = f"pairs: {split.positives.nnz} positive, 0 rejected, 2 excluded"
    assert repr(excluded) == f"<Targets: 100 queries, 12 labels; {pairs}>"
    rejected = xmc.Dataset.from_lists(
        "judged",
        ["sea", "ship"],
        {"train": (["a boat"], [[0]])},
        rejected={"train": [[1]]},
        images={"train": RaggedImages.from_arrays([np.ones((1, 4))])},
    )
    said = "<Split: 1 queries, 2 labels, 1 positive pairs, 1 rejected, with images>"
    assert repr(rejected.split("train")) == said


def test_retrievers_and_their_parts_say_what_they_are(run: Path) -> None:
    retriever = xmc.Retriever.load(run)
    index, encoder = "12 labels, dimension 32, index exact on cpu", "135,168 parameters, on cpu"
    assert repr(retriever) == f"<Retriever: {index}, static encoder on cpu, calibrated; {run}>"
    assert repr(retriever.index) == f"<LabelIndex: {index}>"
    assert repr(retriever.index.snapshot()) == f"<IndexSnapshot: {index}>"
    assert repr(retriever.labels.index) == f"<IndexVersion: {index}>"
    assert repr(retriever.labels) == f"<LabelVersion 1: {index}>"
    assert repr(retriever.model.query_encoder) == f"<StaticEncoder: dimension 32, {encoder}>"
    towers = f"encoder {retriever.model.query_encoder!r}, residual vectors of 12 labels"
    assert repr(retriever.model) == f"<DualEncoder: dimension 32, {towers}>"
    assert (
        repr(retriever.calibration) == "<Calibration: 5 candidates, from 120 queries of 'colours', split 'calibration'>"
    )
    tokens = retriever.model.query_encoder.featurize(["a", "b"])
    assert repr(tokens) == f"<RaggedTokens: 2 texts, {len(tokens.values)} tokens (uint32)>"
    retriever.set_columns({"uid": ["RED"], "price": [3]})
    retriever.remove_labels(["PINK"])
    removed = "11 labels (1 removed ones are kept), dimension 32, index exact on cpu"
    assert repr(retriever.labels) == f"<LabelVersion 3: {removed}, columns price>"
    assert repr(retriever) == f"<Retriever: {removed}, static encoder on cpu, calibrated; {run}, changed since>"
    assert repr(build_index("HNSW8", 4)) == "<LabelIndex: 0 labels, dimension 4, index HNSW8 on cpu>"
    assert repr(Fields({"title": 2, "image": 1})) == "<Fields: title 2, image 1>"


def test_answers_say_what_they_hold(run: Path) -> None:
    retriever = xmc.Retriever.load(run)
    assert repr(retriever.answer(["red"], 3)) == "<Answer: 1 query, 3 labels each>"
    answer = retriever.answer(["red", "blue"], 3, probabilities=True, decide=Policy(0.9, 0.1))
    assert repr(answer) == "<Answer: 2 queries, 3 labels each, with probabilities, decisions>"


def test_results_say_how_it_went(run: Path, tmp_path: Path) -> None:
    evaluation = xmc.evaluate(xmc.Retriever.load(run), colours())
    first = f"<Metrics: 100 queries; P@1 {evaluation.values['P@1']:.2f}, P@3 "
    assert repr(evaluation.metrics).startswith(first)
    assert repr(evaluation) == f"<Evaluation: {evaluation.seconds:.1f} s; {evaluation.metrics!r}>"
    result = xmc.train(colours(), tiny_config(epochs=1), tmp_path / "run")
    went = f"{result.steps} steps in {result.seconds:.1f} s, last loss {result.loss:.4f}"
    assert repr(result) == f"<TrainResult: trained: {went}, run in {tmp_path / 'run'}>"


def test_transformers_and_classifiers_say_what_they_are(tmp_path: Path) -> None:
    model = write_sentence_transformer(tmp_path / "model", MEAN)
    retriever = xmc.Retriever.from_sentence_transformers(model, ["a boat", "the dog"])
    index = "2 labels, dimension 16, index exact on cpu"
    assert repr(retriever) == f"<Retriever: {index}, transformer encoder on cpu; not saved>"
    encoder = retriever.model.query_encoder
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert repr(encoder) == f"<TransformerEncoder: dimension 16, {count:,} parameters, on cpu>"
    classifier = xmc.XMCClassifier(epochs=2, random_state=0)
    assert repr(classifier.fit(["red", "blue"], ["a", "b"])) == "XMCClassifier(epochs=2, random_state=0)"
