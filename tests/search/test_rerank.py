"""Re-ranking: what it does to results, with filters, live labels and other stages; how it is asked for, stored and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from small_backbones import write_backbone
from typer.testing import CliRunner
from worlds import colours, tiny_config

import xmc
from xmc.batch import predict_files
from xmc.cli import app
from xmc.encoders.dual import build_encoder
from xmc.errors import ConfigError, InputError, StoreError
from xmc.search.fitted import FittedOn
from xmc.search.other_encoder import OtherEncoder
from xmc.search.reasons import Reason
from xmc.search.rerank.features import FeatureContext, columns_of
from xmc.search.rerank.logistic import LogisticModel
from xmc.search.rerank.registry import FEATURES
from xmc.search.rerank.stage import Rerank

TEXTS = ["red and blue", "pink", "black and white", "a grey thing", "cyan", "green or orange"]
SHORTLIST = 5


def weighing(columns: dict[str, float], features: list[Any], shortlist: int = SHORTLIST) -> Rerank:
    """A re-ranker that weighs some columns of its features, and no others."""
    names = columns_of(tuple(features))
    weights = np.array([columns.get(name, 0.0) for name in names])
    model = LogisticModel(np.zeros(len(names)), np.ones(len(names)), weights, 0.25)
    return Rerank(features, model, shortlist, FittedOn("data", "validation"))


def other_encoder() -> OtherEncoder:
    model = build_encoder(tiny_config(seed=5), 0, torch.Generator().manual_seed(5))
    return OtherEncoder(model.eval(), "another")


@pytest.fixture
def plain(run: Path) -> xmc.Retriever:
    return xmc.Retriever.load(run)


@pytest.fixture
def turned(plain: xmc.Retriever) -> xmc.Retriever:
    """The first five in reverse order: the later the better."""
    context = FeatureContext(plain.labels, np.arange(12, dtype=np.int32))
    plain.use_stages([weighing({"scores.log_rank": 1.0}, [FEATURES["scores"].from_context(context)])])
    return plain


@pytest.fixture
def beside(plain: xmc.Retriever) -> xmc.Retriever:
    """Ordered by another encoder, of random weights."""
    context = FeatureContext(plain.labels, np.zeros(12, np.int32), other_encoder())
    features = [FEATURES[name].from_context(context) for name in ("scores", "cosine")]
    plain.use_stages([weighing({"cosine.similarity": 1.0}, features)])
    return plain


def test_the_first_candidates_are_scored_anew_and_the_others_follow(turned: xmc.Retriever) -> None:
    before, scores = turned.search(TEXTS, 12, rerank=False)
    after, new = turned.search(TEXTS, 12)
    assert after[:, :SHORTLIST].tolist() == before[:, SHORTLIST - 1 :: -1].tolist()
    assert after[:, SHORTLIST:].tolist() == before[:, SHORTLIST:].tolist()
    assert new[:, :SHORTLIST] == pytest.approx(np.tile(0.25 + np.log(np.arange(5, 0, -1)), (6, 1)))
    expected = 0.25 + scores[:, SHORTLIST:] - scores[:, [SHORTLIST - 1]]
    assert new[:, SHORTLIST:] == pytest.approx(expected, abs=1e-6)
    assert new.dtype == np.float32
    assert turned.search(TEXTS, 12, rerank=True)[0].tolist() == after.tolist()


@pytest.mark.parametrize("kind", ["turned", "beside"])
def test_results_depend_neither_on_k_nor_on_other_queries(kind: str, request: pytest.FixtureRequest) -> None:
    retriever: xmc.Retriever = request.getfixturevalue(kind)
    ids, scores = retriever.search(TEXTS, 12)
    for k in (1, 3, 5, 6):
        fewer = retriever.search(TEXTS, k)
        assert (fewer[0].tolist(), fewer[1].tolist()) == (ids[:, :k].tolist(), scores[:, :k].tolist())
    for row, text in enumerate(TEXTS):
        alone = retriever.search([text], 12)
        assert (alone[0][0].tolist(), alone[1][0].tolist()) == (ids[row].tolist(), scores[row].tolist())
    assert (np.diff(scores, axis=1) <= 0).all()


def test_filters_leave_labels_out_before_the_shortlist(turned: xmc.Retriever) -> None:
    allowed = ["RED", "BLUE", "PINK"]
    labels, scores = turned.predict(TEXTS, 5, include=allowed)
    plain, _ = turned.predict(TEXTS, 5, include=allowed, rerank=False)
    assert labels[:, :3].tolist() == plain[:, 2::-1].tolist()
    assert (labels[:, 3:] == None).all()  # noqa: E711
    assert (scores[:, 3:] == -np.inf).all()
    excluded, _ = turned.predict(TEXTS, 11, exclude=["RED"])
    assert "RED" not in excluded


def test_a_reason_tells_the_score_before(turned: xmc.Retriever) -> None:
    before = turned.answer(TEXTS, 12, rerank=False)
    answer = turned.answer(TEXTS, 12, explain=True)
    assert answer.explanation is not None
    for query in range(len(TEXTS)):
        scores = dict(zip(before.ids[query], before.scores[query].tolist(), strict=True))
        said = [reasons[0] for reasons in answer.explanation[query]]
        assert said == [Reason("re-ranked", scores[label]) for label in answer.ids[query]]


def test_labels_like_a_label_are_not_re_ranked(turned: xmc.Retriever) -> None:
    plain = turned.similar_labels(["RED"], 5, rerank=False)
    assert turned.similar_labels(["RED"], 5)[0].tolist() == plain[0].tolist()
    with pytest.raises(InputError, match="rerank=True demands a re-ranker, and this search has none"):
        turned.similar_labels(["RED"], 5, rerank=True)


def test_what_cannot_be_asked_is_refused(run: Path, turned: xmc.Retriever) -> None:
    with pytest.raises(InputError, match="diversity and rerank=True both order the labels; leave one of them out"):
        turned.predict(TEXTS, 3, diversity=0.5, rerank=True)
    diverse = turned.predict(TEXTS, 3, diversity=0.5)
    assert diverse[0].tolist() == turned.predict(TEXTS, 3, diversity=0.5, rerank=False)[0].tolist()
    with pytest.raises(InputError, match=r"this search has none; fit one with xmc\.fit_reranker"):
        xmc.Retriever.load(run).predict(TEXTS, rerank=True)
    scores = turned.stages[0].features[0]  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"model is of 1 features, but the families scores have 6: scores\.score, "):
        Rerank([scores], LogisticModel(np.zeros(1), np.ones(1), np.ones(1), 0.0))
    with pytest.raises(ConfigError, match="shortlist must be at least 1, but is 0"):
        weighing({}, [scores], 0)


def test_a_run_keeps_its_re_ranker(beside: xmc.Retriever, tmp_path: Path) -> None:
    beside.save(tmp_path / "run")
    stored = xmc.Retriever.load(tmp_path / "run")
    assert stored.search(TEXTS, 12)[1].tolist() == beside.search(TEXTS, 12)[1].tolist()
    assert stored.corridor.fingerprints == beside.corridor.fingerprints
    assert stored.stages[0].fitted_on == FittedOn("data", "validation")
    assert "stages rerank" in repr(stored)
    files = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run/stages").rglob("*")}
    assert {"stages/rerank/model/logistic.safetensors", "stages/rerank/cosine/labels.arrow"} <= files
    (stage,) = json.loads((tmp_path / "run/stages.json").read_text())
    assert stage["options"]["features"] == ["scores", "cosine"]


def test_a_re_ranker_of_another_format_is_refused(beside: xmc.Retriever, tmp_path: Path) -> None:
    beside.stages[0].save(tmp_path)
    (tmp_path / "cosine/labels.arrow").write_bytes(b"no labels")
    with pytest.raises(StoreError, match=r"labels\.arrow cannot be read as vectors of labels"):
        Rerank.for_model(beside.model, tmp_path, **beside.stages[0].options)
    (tmp_path / "model/logistic.safetensors").unlink()
    with pytest.raises(StoreError, match=r"The re-ranker in .* cannot be read"):
        Rerank.for_model(beside.model, tmp_path, **{**beside.stages[0].options, "features": ["scores"]})


def test_the_fingerprint_follows_what_was_fitted(turned: xmc.Retriever) -> None:
    context = FeatureContext(turned.labels, np.arange(12, dtype=np.int32))
    scores = FEATURES["scores"].from_context(context)
    same = weighing({"scores.log_rank": 1.0}, [scores])
    other = weighing({"scores.log_rank": 2.0}, [scores])
    recounted = FEATURES["scores"].from_context(FeatureContext(turned.labels, np.ones(12, np.int32)))
    assert same.fingerprint == turned.stages[0].fingerprint
    assert len({same.fingerprint, other.fingerprint, weighing({"scores.log_rank": 1.0}, [recounted]).fingerprint}) == 3


def test_another_encoder_gives_the_similarity(beside: xmc.Retriever) -> None:
    ids, scores = beside.search(TEXTS, SHORTLIST)
    encoder = other_encoder().model
    texts = beside.labels.texts.to_pylist()
    vectors = encoder.embed_labels(texts).astype(np.float16).astype(np.float64)
    expected = np.take_along_axis(encoder.embed_queries(TEXTS) @ vectors.T, ids, 1) + 0.25
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_another_encoder_follows_labels_that_change(beside: xmc.Retriever, tmp_path: Path) -> None:
    beside.add_labels(["red and blue"])
    beside.update_labels(["a grey thing"], ["GREY"])
    labels, scores = beside.predict(["red and blue", "a grey thing"], 5)
    assert labels[:, 0].tolist() == ["red and blue", "GREY"]
    assert scores[:, 0] == pytest.approx(1.25, abs=2e-3)
    beside.remove_labels(["PINK"])
    beside.save(tmp_path / "run")
    stored = xmc.Retriever.load(tmp_path / "run")
    assert stored.search(TEXTS, 5)[1].tolist() == beside.search(TEXTS, 5)[1].tolist()


def test_another_encoder_needs_texts(beside: xmc.Retriever) -> None:
    with pytest.raises(InputError, match="re-ranker has an encoder of its own, which needs texts"):
        beside.predict(beside.embed_queries(TEXTS), 3)
    assert beside.predict(beside.embed_queries(TEXTS), 3, rerank=False)[0].shape == (6, 3)
    mixed = xmc.Query(texts={"red": 1.0, "blue": -0.5})
    assert beside.predict([mixed], 3)[0].shape == (1, 3)
    silent = beside.predict([xmc.Query(labels=["RED"])], SHORTLIST)[1]
    assert silent == pytest.approx(0.25)


@pytest.mark.parametrize("kind", ["turned", "beside"])
def test_jobs_re_rank_as_the_library_does(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    retriever: xmc.Retriever = request.getfixturevalue(kind)
    retriever.save(tmp_path / "run")
    source = tmp_path / "texts.jsonl"
    texts = colours().split("test").texts.to_pylist()
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for rerank in (None, False):
        predict_files(tmp_path / "run", source, tmp_path / str(rerank), 4, rerank=rerank)
        table = pq.read_table(tmp_path / str(rerank))
        labels, scores = retriever.predict(texts, 4, rerank=rerank)
        assert table["labels"].to_pylist() == labels.tolist()
        assert table["scores"].to_pylist() == scores.tolist()


def test_the_command_line_asks_for_it_or_leaves_it_out(turned: xmc.Retriever, run: Path, tmp_path: Path) -> None:
    turned.save(tmp_path / "run")
    shown = {}
    for option in ("--rerank", "--no-rerank"):
        result = CliRunner().invoke(app, ["search", str(tmp_path / "run"), "red", "-k", "1", option])
        assert result.exit_code == 0, result.output
        shown[option] = result.output
    assert "RED" in shown["--no-rerank"]
    assert shown["--rerank"] != shown["--no-rerank"]
    source = tmp_path / "texts.csv"
    source.write_text("text\nred\n")
    command = ["predict", str(run), "--input", str(source), "--output", str(tmp_path / "out"), "--rerank"]
    with pytest.raises(InputError, match="rerank=True demands a re-ranker"):
        CliRunner().invoke(app, command, catch_exceptions=False)


def cross_encoder(directory: Path, classes: int = 1) -> Path:
    """A sequence classifier with random weights, small."""
    import transformers

    write_backbone(directory, "bert")
    config = transformers.BertConfig.from_pretrained(directory, num_labels=classes)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = transformers.BertForSequenceClassification(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("classes", [1, 2])
def test_a_cross_encoder_reads_each_pair(plain: xmc.Retriever, tmp_path: Path, classes: int) -> None:
    import transformers

    directory = cross_encoder(tmp_path / "cross", classes)
    context = FeatureContext(plain.labels, np.zeros(12, np.int32), cross_encoder=directory)
    plain.use_stages([weighing({"cross_encoder.logit": 1.0}, [FEATURES["cross_encoder"].from_context(context)])])
    ids, scores = plain.search(TEXTS, SHORTLIST)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    texts = plain.labels.texts.to_pylist()
    for query in range(3):
        for column in range(SHORTLIST):
            tokens = tokenizer(TEXTS[query], texts[ids[query, column]], return_tensors="pt")
            with torch.no_grad():
                logits = model(**tokens).logits[0]
            expected = float(logits[-1] - (logits[0] if classes == 2 else 0)) + 0.25
            assert scores[query, column] == pytest.approx(expected, abs=1e-4)
    plain.save(tmp_path / "run")
    stored = xmc.Retriever.load(tmp_path / "run")
    assert stored.corridor.fingerprints == plain.corridor.fingerprints
    assert stored.search(TEXTS, 5)[1].tolist() == plain.search(TEXTS, 5)[1].tolist()
    with pytest.raises(InputError, match="has a cross-encoder, which reads the texts of queries"):
        plain.predict([xmc.Query(texts={"red": 1.0, "blue": 1.0})], 3)


def test_what_is_no_cross_encoder_is_refused(plain: xmc.Retriever, tmp_path: Path) -> None:
    empty = FeatureContext(plain.labels, np.zeros(12, np.int32))
    with pytest.raises(InputError, match="name the directory of one with cross_encoder="):
        FEATURES["cross_encoder"].from_context(empty)
    three = FeatureContext(plain.labels, empty.counts, cross_encoder=cross_encoder(tmp_path / "three", 3))
    with pytest.raises(ConfigError, match="but this one has 3"):
        FEATURES["cross_encoder"].from_context(three)
    headless = FeatureContext(plain.labels, empty.counts, cross_encoder=write_backbone(tmp_path / "headless", "bert"))
    with pytest.raises(
        ConfigError, match=r"headless' cannot be read as a cross-encoder: its weights lack classifier\.bias"
    ):
        FEATURES["cross_encoder"].from_context(headless)


def test_passages_are_reranked_however_they_are_given(plain: xmc.Retriever) -> None:
    context = FeatureContext(plain.labels, np.zeros(12, np.int32), other_encoder())
    features = [FEATURES[name].from_context(context) for name in ("scores", "cosine")]
    plain.use_stages([weighing({"cosine.similarity": 1.0}, features)])
    text, options = "red and blue things on a grey table", xmc.PassageOptions(tokens=4, stride=4)
    given = xmc.Query(passages=["red and blue things", "on a grey table"])
    batch = plain.search(["pink", given, "cyan"], 12)
    alone, cut = plain.search([given], 12), plain.search([text], 12, passages=options)
    for ids, scores in (alone, cut):
        np.testing.assert_array_equal(ids[0], batch[0][1])
        np.testing.assert_array_equal(scores[0], batch[1][1])
    encoder = other_encoder().model
    passages = encoder.embed_queries(list(given.passages)).mean(axis=0)
    likeness = (
        encoder.embed_labels(plain.texts([plain.labels.uids[int(row)].as_py() for row in batch[0][1, :5]])) @ passages
    )
    assert (np.diff(likeness) <= 1e-6).all()
