"""The corridor of a search: its stages, and a stage from outside of the package in library calls, jobs and calibration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from families import members_restored
from worlds import calibrated_run, colours

import xmc
from xmc.batch import predict_files
from xmc.calibration.decisions import Policy
from xmc.calibration.sets import Wanted
from xmc.data.dataset import Dataset
from xmc.encoders.dual import DualEncoder
from xmc.errors import ConfigError, InputError, StoreError
from xmc.evaluation.check import check, check_texts
from xmc.search.answers import AnswerParts
from xmc.search.reasons import Reason, joined_reasons
from xmc.search.stages import PLAIN_STAGES, STAGES, Corridor, SearchRequest, SearchState, Stage

TEXTS = ["red and blue", "pink", "black and white", "a grey thing", "cyan"]


class Backwards(Stage):
    """The first `most` candidates in reverse order, with scores that fall all the same."""

    name = "backwards"

    def __init__(self, most: int) -> None:
        self.most = most

    @property
    def options(self) -> dict[str, Any]:
        return {"most": self.most}

    def wanted(self, k: int) -> int:
        return max(k, self.most)

    def __call__(self, state: SearchState) -> SearchState:
        ids, scores = state.ranked()
        order = np.tile(np.arange(ids.shape[1]), (len(ids), 1))
        order[:, : self.most] = order[:, : self.most][:, ::-1]
        turned = replace(state.ordered(order), scores=scores)
        if not state.request.explain:
            return turned
        said = np.full(ids.shape, None, object)
        for place in np.ndindex(len(ids), self.most):
            said[place] = (Reason("turned", float(place[1])),)
        return turned.explained(said)


class Remembers(Stage):
    """Changes nothing, holds for queries alone, and keeps a word in a file of the run."""

    name = "remembers"
    for_queries_alone = True

    def __init__(self, said: str) -> None:
        self.said = said

    @classmethod
    def for_model(cls, model: DualEncoder, directory: Path, **options: Any) -> Remembers:
        return cls(json.loads((directory / "said.json").read_text()), **options)

    def save(self, directory: Path) -> None:
        (directory / "said.json").write_text(json.dumps(self.said))

    def __call__(self, state: SearchState) -> SearchState:
        return state


class Everything(Stage):
    """All labels for every query, allowed or not, in the order of their rows."""

    name = "everything"

    def __call__(self, state: SearchState) -> SearchState:
        ids = np.tile(state.labels.ids, (len(state.encoded()), 1))
        return replace(state, ids=ids, scores=np.zeros(ids.shape, np.float32))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with members_restored():
        for stage in (Backwards, Everything, Remembers):
            STAGES.register(stage.name, stage)
        yield


@pytest.fixture(scope="module")
def data() -> Dataset:
    return colours()


@pytest.fixture(scope="module")
def run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrated_run(data, tmp_path_factory.mktemp("stages") / "run", 8)


@pytest.fixture
def retriever(run: Path) -> xmc.Retriever:
    return xmc.Retriever.load(run)


@pytest.mark.parametrize("name", [*PLAIN_STAGES, "backwards", "everything"])
def test_every_stage_keeps_the_contract(retriever: xmc.Retriever, name: str) -> None:
    """Rows stay in their order and depend on their query alone; scores fall; options make the stage again."""
    options: dict[str, Any] = {"backwards": {"most": 3}}.get(name, {})
    stage = STAGES[name].for_model(retriever.model, Path(), **options)
    assert (stage.name, stage.options) == (name, options)
    again = STAGES[name].for_model(retriever.model, Path(), **json.loads(json.dumps(stage.options)))
    assert again.fingerprint == stage.fingerprint
    assert stage.wanted(5) >= 5
    corridor = Corridor.for_model(retriever.model, [] if name in PLAIN_STAGES else [stage])

    def after(texts: list[str]) -> SearchState:
        state = corridor.begin(SearchRequest(4), retriever.labels, texts)
        for each in corridor.stages:
            state = each(state)
            if each.name == name:
                break
        return state

    state, turned = after(TEXTS), after(TEXTS[::-1])
    np.testing.assert_allclose(state.encoded(), turned.encoded()[::-1], atol=1e-6)
    if name != "encode":
        ids, scores = state.ranked()
        assert ids.shape == scores.shape
        assert (ids.dtype, scores.dtype) == (np.int64, np.float32)
        assert ids.tolist() == turned.ranked()[0][::-1].tolist()
        assert (np.diff(scores, axis=1) <= 0).all()


def test_fingerprints_change_with_what_a_stage_does(retriever: xmc.Retriever) -> None:
    assert Backwards(3).fingerprint != Backwards(4).fingerprint
    assert len(set(retriever.corridor.fingerprints.values())) == 3
    narrower = retriever.cut(16)
    before, after = retriever.corridor.fingerprints, narrower.corridor.fingerprints
    assert before["encode"] != after["encode"]
    assert (before["candidates"], before["cut"]) == (after["candidates"], after["cut"])


def test_library_job_and_calibration_run_the_same_stages(
    retriever: xmc.Retriever, data: Dataset, tmp_path: Path
) -> None:
    plain = retriever.search(TEXTS, k=5)[0]
    retriever.use_stages([Backwards(3)])
    turned = retriever.search(TEXTS, k=5)[0]
    assert turned.tolist() == plain[:, [2, 1, 0, 3, 4]].tolist()
    assert retriever.search(TEXTS, k=1)[0].tolist() == plain[:, 2:3].tolist()  # it wants three to give one
    calibration = xmc.calibrate(retriever, data, candidates=8)
    assert list(calibration.source.stages or {}) == ["encode", "candidates", "backwards", "cut"]
    first = calibration.reliability[0]
    assert sum(part.true * part.predictions for part in first.bins) < 0.5 * sum(part.predictions for part in first.bins)
    retriever.save(tmp_path / "run")
    loaded = xmc.Retriever.load(tmp_path / "run")
    assert [(stage.name, stage.options) for stage in loaded.stages] == [("backwards", {"most": 3})]
    labels, probabilities = loaded.predict_proba(TEXTS, k=5)
    assert labels.tolist() == retriever.labels.uids_of(turned).tolist()
    pq.write_table(pa.table({"uid": list("abcde"), "text": TEXTS}), tmp_path / "in.parquet")
    predict_files(tmp_path / "run", tmp_path / "in.parquet", tmp_path / "out", k=5, probabilities=True)
    written = pq.read_table(tmp_path / "out")
    assert written["labels"].to_pylist() == labels.tolist()
    np.testing.assert_allclose(written["probabilities"].to_pylist(), probabilities, atol=1e-6)
    loaded.add_labels(["magenta"])
    for other in (loaded.exact(), loaded.cut(16)):
        assert [stage.name for stage in other.stages] == ["backwards"]
    assert xmc.evaluate(loaded, data).values["P@1"] < 20


def test_labels_that_a_stage_brings_are_filtered(retriever: xmc.Retriever) -> None:
    retriever.use_stages([Everything()])
    uids = retriever.labels.uids.to_pylist()
    assert retriever.predict(TEXTS, k=4)[0].tolist() == [uids[:4]] * 5
    found, scores = retriever.predict(
        TEXTS[:2], k=4, include=["PINK", "RED", "GREY"], exclude=[["RED"], ["PINK", "GREY"]]
    )
    in_order = [uid for uid in uids if uid in ("PINK", "GREY")]
    assert found.tolist() == [[*in_order, None, None], ["RED", None, None, None]]
    assert np.isneginf(scores).tolist() == [[False, False, True, True], [False, True, True, True]]
    each = retriever.predict(TEXTS[:2], k=2, include=[["RED"], ["PINK"]])[0]
    assert each.tolist() == [["RED", None], ["PINK", None]]
    similar = retriever.similar_labels(["RED"], k=12)[0][0].tolist()
    assert set(similar) == {*uids, None} - {"RED"}


def test_a_calibration_refuses_other_stages(retriever: xmc.Retriever, data: Dataset, tmp_path: Path) -> None:
    retriever.use_stages([Backwards(3)])
    calls = (
        lambda: retriever.predict_proba(TEXTS, k=2),
        lambda: retriever.predict_sets(TEXTS, recall=0.5),
        lambda: retriever.predict_sets(TEXTS, significance=0.2),
        lambda: retriever.decide(TEXTS),
        lambda: retriever.p_values(TEXTS[:1], [["RED"]]),
        lambda: retriever.answer(TEXTS, 2, decide=Policy()),
        lambda: check(retriever, data),
        lambda: check_texts(retriever, TEXTS * 20),
    )
    for call in calls:
        with pytest.raises(
            InputError, match=r"made without the stage 'backwards', which the search has: `xmc calibrate`"
        ):
            call()
    assert retriever.predict(TEXTS, k=2)[0].shape == (5, 2)
    retriever.save(tmp_path / "run")
    pq.write_table(pa.table({"uid": list("abcde"), "text": TEXTS}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="made without the stage 'backwards'"):
        predict_files(tmp_path / "run", tmp_path / "in.parquet", tmp_path / "out", k=2, decide="automatic=0.9")
    xmc.calibrate(retriever, data, candidates=8)
    retriever.predict_proba(TEXTS, k=2)
    for stages, message in {
        (): "with the stage 'backwards', which the search lacks",
        (Backwards(4),): "for another stage 'backwards' than the search has",
        (Backwards(3), Everything()): "without the stage 'everything', which the search has",
    }.items():
        retriever.use_stages(stages)
        with pytest.raises(InputError, match=message):
            retriever.predict_proba(TEXTS, k=2)
    xmc.calibrate(retriever, data, candidates=8)
    retriever.use_stages([Everything(), Backwards(3)])
    with pytest.raises(InputError, match="for the same stages in another order"):
        retriever.predict_proba(TEXTS, k=2)


def test_stages_that_cannot_be(retriever: xmc.Retriever, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'backwards' stands more than once"):
        retriever.use_stages([Backwards(3), Backwards(4)])
    with pytest.raises(ConfigError, match="'cut' stands more than once"):
        retriever.use_stages([STAGES["cut"]()])
    retriever.use_stages([Backwards(3)])
    retriever.save(tmp_path / "run")
    STAGES.unregister("backwards")
    try:
        with pytest.raises(StoreError, match=r"needs the stage 'backwards'.*import what registers it"):
            xmc.Retriever.load(tmp_path / "run")
    finally:
        STAGES.register("backwards", Backwards)
    other = Backwards(3)
    other.__class__ = type("Unregistered", (Backwards,), {"name": "unregistered"})
    retriever.use_stages([other])
    with pytest.raises(ConfigError, match="no stage 'unregistered'"):
        retriever.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_run_without_further_stages_has_no_file_for_them(run: Path) -> None:
    assert not (run / "stages.json").exists()
    assert xmc.Retriever.load(run).stages == ()


def test_an_answer_holds_what_the_calls_give(retriever: xmc.Retriever) -> None:
    labels, scores = retriever.predict(TEXTS, k=4)
    answer = retriever.answer(TEXTS, 4)
    assert answer.uids.tolist() == labels.tolist()
    assert answer.scores.tolist() == scores.tolist()
    assert (answer.probabilities, answer.decisions, answer.sets, answer.regions) == (None, None, None, None)
    judged = retriever.answer(TEXTS, 4, probabilities=True, decide=Policy(0.6, 0.2), sets=Wanted(recall=0.5))
    probabilities = retriever.predict_proba(TEXTS, 4)[1]
    assert judged.probabilities is not None
    assert judged.probabilities.tolist() == probabilities.tolist()
    assert judged.decisions is not None
    for row, decision in zip(judged.decisions, retriever.decide(TEXTS, 0.6, 0.2), strict=True):
        assert (row == "automatic").sum() == min(len(decision.automatic), 4)
    sets = retriever.predict_sets(TEXTS, recall=0.5)
    assert judged.sets is not None
    assert [labels.labels for labels in judged.sets] == [labels.labels for labels in sets]
    regions = retriever.answer(TEXTS, 4, sets=Wanted(significance=0.2)).regions
    assert regions == retriever.predict_sets(TEXTS, significance=0.2, limit=20)
    before = answer.version
    retriever.add_labels(["magenta"])
    assert retriever.answer(TEXTS, 4).version > before
    assert answer.uids.tolist() == labels.tolist()
    with pytest.raises(InputError, match="leave out where, or probabilities"):
        retriever.answer(TEXTS, 4, probabilities=True, where='uid == "RED"')
    with pytest.raises(InputError, match="k must be at most the 8 candidates"):
        retriever.answer(TEXTS, 9, probabilities=True)


@pytest.mark.parametrize("sets", [None, Wanted(recall=0.5), Wanted(significance=0.2)])
@pytest.mark.parametrize("probabilities", [False, True])
def test_answers_as_columns_and_dictionaries(
    retriever: xmc.Retriever, sets: Wanted | None, probabilities: bool
) -> None:
    parts = AnswerParts(probabilities, sets, Policy() if probabilities else None)
    for texts in (TEXTS, []):
        answer = retriever.answer(texts, 3, probabilities=probabilities, sets=sets, decide=parts.decide)
        columns = answer.columns(label_texts=True)
        schema = parts.schema(label_texts=True)
        assert pa.table(columns).schema == schema
        plain = json.loads(json.dumps(answer.to_dict()))
        assert plain["version"] == answer.version
        assert [row["labels"] for row in plain["answers"]] == answer.uids.tolist()
        assert all(set(row) == set(schema.names) - {"texts"} for row in plain["answers"])
    good = np.array([True, False, True])
    columns = retriever.answer(TEXTS[:2], 3, probabilities=probabilities, sets=sets).columns(good=good)
    for name, column in columns.items():
        assert column.is_null().to_pylist() == [False, True, False], name


def test_what_a_stage_says_is_told(retriever: xmc.Retriever) -> None:
    retriever.use_stages([Backwards(3)])
    assert "explanation" not in retriever.answer(TEXTS, 4).to_dict()["answers"][0]
    answer = retriever.answer(TEXTS, 4, where='uid != "RED"', explain=True)
    turned = [[{"kind": "turned", "value": float(place), "text": ""}] for place in range(3)]
    said = answer.to_dict()["answers"][1]["explanation"]
    assert [[one for one in reasons if one["kind"] != "word"] for reasons in said] == [*turned, []]


def test_stages_add_to_what_others_say() -> None:
    first, second = np.full((1, 2), None, object), np.full((1, 2), None, object)
    first[0, 0], second[0, 0] = (Reason("a", 1.0),), (Reason("b", 2.0),)
    second[0, 1] = (Reason("c", 3.0, "text", "uid"),)
    assert joined_reasons(None, first) is first
    assert joined_reasons(first, second)[0].tolist() == [(Reason("a", 1.0), Reason("b", 2.0)), second[0, 1]]
    assert joined_reasons(first, np.full((1, 2), None, object))[0, 1] is None


def test_exact_scores_of_labels_by_id(retriever: xmc.Retriever) -> None:
    corridor = retriever.corridor
    state = corridor.begin(SearchRequest(3), retriever.labels, TEXTS)
    with pytest.raises(InputError, match="after 'candidates'"):
        state.scores_of(np.zeros((len(TEXTS), 1), np.int64))
    state = corridor["candidates"](corridor["encode"](state))
    ids, scores = state.ranked()
    np.testing.assert_allclose(state.scores_of(ids), scores, atol=1e-6)
    wider = np.concatenate([ids, np.full((len(ids), 1), -1), np.full((len(ids), 1), 10**6)], axis=1)
    assert (state.scores_of(wider)[:, :-2] == state.scores_of(ids)).all()
    assert (state.scores_of(wider)[:, -2:] == -np.inf).all()


def test_a_stage_keeps_files_with_a_run(retriever: xmc.Retriever, tmp_path: Path) -> None:
    retriever.use_stages([Backwards(3), Remembers("kept")])
    retriever.save(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "stages").iterdir()] == ["remembers"]
    again = xmc.Retriever.load(tmp_path / "run")
    assert again.stages[1].said == "kept"  # type: ignore[attr-defined]
    (tmp_path / "run" / "stages" / "remembers" / "said.json").write_text('"other"')
    with pytest.raises(StoreError, match=r"said\.json"):
        xmc.Retriever.load(tmp_path / "run")


def test_labels_like_others_are_searched_without_what_is_for_queries(retriever: xmc.Retriever) -> None:
    plain = retriever.similar_labels(["RED"], 3)
    retriever.use_stages([Remembers("kept"), Backwards(3)])
    assert retriever.corridor.of_labels().further == retriever.stages[1:]
    assert retriever.similar_labels(["RED"], 3)[0].tolist() == [plain[0][0, ::-1].tolist()]


def test_answers_do_not_depend_on_tokens_made_ahead(retriever: xmc.Retriever) -> None:
    features = retriever.model.query_encoder.featurize(TEXTS, "query")
    state = retriever.corridor.begin(SearchRequest(0), retriever.labels, TEXTS)
    made_ahead = retriever.corridor.encode(replace(state, queries=features, features=features))
    np.testing.assert_allclose(made_ahead, retriever.embed_queries(TEXTS), atol=1e-6)


def test_a_corridor_with_another_stage_is_a_corridor(retriever: xmc.Retriever) -> None:
    before, other = Corridor.for_model(retriever.model, [Backwards(3)]), Backwards(4)
    after = before.replaced(other)
    assert after.further == (other,)
    assert [stage.name for stage in after.stages] == [stage.name for stage in before.stages]
    assert after.fingerprints["backwards"] != before.fingerprints["backwards"]
    assert before["backwards"] is before.further[0]
    with pytest.raises(ConfigError, match="'backwards' stands more than once"):
        Corridor((*after.stages, other))


def test_a_stage_out_of_place_says_so(retriever: xmc.Retriever) -> None:
    state = SearchState(SearchRequest(3), replace(retriever.labels, held=None), TEXTS)
    with pytest.raises(InputError, match="let the stage come after 'encode'"):
        state.encoded()
    with pytest.raises(InputError, match="let the stage come after 'candidates'"):
        Backwards(3)(state)
    with pytest.raises(InputError, match="searched elsewhere"):
        STAGES["candidates"]()(replace(state, embeddings=np.zeros((1, 32), np.float32)))
    with pytest.raises(InputError, match="a search that holds their embeddings"):
        STAGES["encode"].for_model(retriever.model, Path())(replace(state, queries=[xmc.Query(labels=["RED"])]))
