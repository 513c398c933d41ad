"""Which queries stages of search are fitted on, and that calibration leaves them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import xmc
from xmc.data.dataset import Dataset
from xmc.errors import DataError, InputError
from xmc.evaluation.held_aside import queries_to_calibrate_on, queries_to_fit_on
from xmc.search.fitted import FittedOn
from xmc.search.stages import SearchState, Stage


class Fitted(Stage):
    """Changes nothing, and was fitted on some queries."""

    name = "fitted"

    def __init__(self, on: FittedOn) -> None:
        self.fitted_on = on

    def __call__(self, state: SearchState) -> SearchState:
        return state


def test_half_of_the_calibration_queries_is_fitted_on_and_left_out(run: Path, data: Dataset) -> None:
    retriever = xmc.Retriever.load(run)
    every = queries_to_calibrate_on(retriever, data, "calibration")
    fitting, on = queries_to_fit_on(retriever, data)
    assert (on.split, on.share) == ("calibration", 0.5)
    assert FittedOn.from_dict(on.to_dict()) == on
    retriever.use_stages([Fitted(on)])
    left = queries_to_calibrate_on(retriever, data, "calibration")
    uids = [set(aside.queries.uids.to_pylist()) for aside in (every, fitting, left)]
    assert uids[1] | uids[2] == uids[0]
    assert not uids[1] & uids[2]
    assert abs(len(uids[1]) - len(uids[0]) / 2) < 4 * np.sqrt(len(uids[0]) / 4)
    assert left.targets.truth.shape[0] == len(left.queries)
    assert len(queries_to_calibrate_on(retriever, data, "test").queries) == len(data.split("test"))
    retriever.use_stages([Fitted(queries_to_fit_on(retriever, data, share=1.0)[1])])
    with pytest.raises(
        DataError, match=r"has 0 queries to learn from, 4\d\d others that stages were fitted on left out"
    ):
        queries_to_calibrate_on(retriever, data, "calibration")


def test_queries_of_training_are_refused(run: Path, data: Dataset) -> None:
    retriever = xmc.Retriever.load(run)
    with pytest.raises(DataError, match="was trained on the split 'train'"):
        queries_to_fit_on(retriever, data, "train")
    with pytest.raises(DataError, match="has no split 'validation', only train, test"):
        queries_to_fit_on(retriever, data, "validation")
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="share of queries to fit on must lie in"):
            queries_to_fit_on(retriever, data, share=share)
    assert queries_to_fit_on(retriever, data, "test")[1] == FittedOn(data.fingerprint, "test", 1.0)
