"""A run that an earlier version saved loads, and answers as it did then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import colours

import xmc
from xmc.errors import InputError
from xmc.search.stages import SearchState, Stage

OLD = Path(__file__).resolve().parents[1] / "data" / "old-runs"


class AsTheyAre(Stage):
    """A stage that changes nothing."""

    name = "as they are"

    def __call__(self, state: SearchState) -> SearchState:
        return state


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return dict(json.loads((OLD / "first.json").read_text(encoding="utf-8")))


def test_it_predicts_the_same(expected: dict[str, Any]) -> None:
    retriever = xmc.Retriever.load(OLD / "first")
    uids, scores = retriever.predict(expected["texts"], k=5)
    assert uids.tolist() == expected["uids"]
    np.testing.assert_allclose(scores, np.array(expected["scores"]), atol=1e-6)
    ids, _ = retriever.search(expected["texts"], k=3)
    assert ids.tolist() == expected["ids"]
    assert retriever.predict(expected["texts"], k=2, where='tone == "cold"')[0].tolist() == expected["cold"]


def test_its_calibration_holds(expected: dict[str, Any]) -> None:
    retriever = xmc.Retriever.load(OLD / "first")
    _, probabilities = retriever.predict_proba(expected["texts"], k=5)
    np.testing.assert_allclose(probabilities, np.array(expected["probabilities"]), atol=1e-6)
    sets = retriever.predict_sets(expected["texts"], recall=0.8)
    assert [list(labels.labels) for labels in sets] == expected["sets"]


def test_it_is_evaluated_the_same(expected: dict[str, Any]) -> None:
    values = xmc.evaluate(xmc.Retriever.load(OLD / "first"), colours()).values
    assert values == pytest.approx(expected["metrics"], abs=1e-9)


def test_it_can_be_saved_anew(expected: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(OLD / "first", tmp_path / "run")
    retriever = xmc.Retriever.load(tmp_path / "run")
    retriever.add_labels(["magenta"])
    retriever.save(tmp_path / "run", overwrite=True)
    again = xmc.Retriever.load(tmp_path / "run")
    assert again.labels.uids.to_pylist()[-1] == "magenta"
    assert again.predict(expected["texts"][:20], k=1)[0].tolist() == [row[:1] for row in expected["uids"][:20]]


def test_its_calibration_is_for_its_labels_still(
    expected: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A calibration of format 1 named labels and index in another way, and no stages of search."""
    described = json.loads((OLD / "first" / "calibration" / "calibration.json").read_text(encoding="utf-8"))
    assert described["format"] == 1
    xmc.Retriever.load(OLD / "first").save(tmp_path / "run")
    for directory in (OLD / "first", tmp_path / "run"):
        retriever = xmc.Retriever.load(directory)
        assert retriever.fits_calibration()
        retriever.predict_proba(expected["texts"][:2], k=2)
        assert not [record for record in caplog.records if record.name != "xmc.config"]  # which names old keys
        retriever.add_labels(["a kind of thing that is new"])
        assert not retriever.fits_calibration()
        assert [record.name for record in caplog.records if record.name != "xmc.config"] == ["xmc.search.calibrated"]
        caplog.clear()
    described = json.loads((tmp_path / "run" / "calibration" / "calibration.json").read_text(encoding="utf-8"))
    assert (described["format"], described["source"]["stages"]) == (2, None)


def test_its_calibration_is_for_no_further_stages(expected: dict[str, Any]) -> None:
    retriever = xmc.Retriever.load(OLD / "first")
    retriever.use_stages([AsTheyAre()])
    with pytest.raises(InputError, match="without the stage 'as they are', which the search has"):
        retriever.predict_proba(expected["texts"][:2], k=2)
