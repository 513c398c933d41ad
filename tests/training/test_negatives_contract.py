"""What every source of negatives keeps to, whichever it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from worlds import colours, tiny_config

from xmc.data.targets import Targets
from xmc.encoders.dual import build_encoder
from xmc.errors import ConfigError
from xmc.training.assembly import part_kinds
from xmc.training.batches import batches_of_epoch
from xmc.training.checkpoints import Checkpoints
from xmc.training.data import prepare
from xmc.training.negatives import NEGATIVES, JoinedNegatives, NegativeSource, StepLabels
from xmc.training.negatives.all_labels import AllLabels
from xmc.training.negatives.in_batch import InBatch
from xmc.training.parts import Sizes, TrainingRun
from xmc.training.resuming import resume_run, write_checkpoint
from xmc.training.supervision.known import KnownPairs

QUERIES, LABELS = 400, 12
OPTIONS: dict[str, dict[str, int]] = {
    "sampled": {"count": 3},
    "shortlist": {"size": 2, "window_end": 4, "refresh_steps": 3},
    "clusters": {"first_epoch": 1, "size": 5},
    "bank": {"hard": 1, "refresh": 2},
}


def world(kind: str, **changes: object) -> TrainingRun:
    """A begun run with one source; of each query one label was judged not relevant, and one counts nowhere."""
    config = tiny_config(
        negatives={"kind": kind, **OPTIONS.get(kind, {})},
        **changes,
    )
    model = build_encoder(config, LABELS, torch.Generator().manual_seed(0))
    data = prepare(colours(), config, model)
    rng, positives = np.random.default_rng(0), data.training.positives
    judged = [rng.choice(np.flatnonzero(row == 0), 2, replace=False) for row in positives.toarray()]
    rows = np.arange(QUERIES)
    rejected = csr_matrix((np.ones(QUERIES, bool), (rows, [pair[0] for pair in judged])), positives.shape)
    excluded = np.stack([rows, [pair[1] for pair in judged]], axis=1)
    known = KnownPairs(Targets.from_pairs(positives, rejected, excluded), config)
    return assembled(TrainingRun(config, model, replace(data, known=known)))


def assembled(run: TrainingRun) -> TrainingRun:
    for kind in part_kinds(run.config):
        run.parts.append(kind.from_run(run))
    for part in run.parts:
        part.begin(run)
    return run


def sources(run: TrainingRun) -> list[NegativeSource]:
    return [part for part in run.parts if isinstance(part, NegativeSource)]


def labels_of(run: TrainingRun, step: int, rows: np.ndarray) -> StepLabels:
    batch = run.data.known.batch(step, rows)
    for part in run.parts:
        part.before_step(run, batch)
    queries = torch.nn.functional.normalize(torch.ones(len(rows), run.model.dimension))
    return JoinedNegatives(sources(run), LABELS).labels_of(batch, queries)


@pytest.mark.parametrize("kind", NEGATIVES)
def test_a_step_scores_what_it_must_and_nothing_twice(kind: str) -> None:
    run = world(kind)
    assert [source.kind for source in sources(run)] == [kind]
    for step in range(6):
        rows = np.arange(step * 5, step * 5 + 3)
        chosen = labels_of(run, step, rows)
        scored = chosen.rows.tolist()
        assert scored == sorted(set(scored))
        assert set(chosen.fresh.tolist()) <= set(scored)
        targets = run.data.known.targets
        for query, row in enumerate(rows):
            part = chosen.targets
            entries = slice(int(part.indptr[query]), int(part.indptr[query + 1]))
            labels = chosen.rows[part.labels[entries]]
            pull, push = part.pull[entries], part.push[entries]
            assert labels[pull > 0].tolist() == targets.positives[row].indices.tolist()
            assert (
                labels[push > 0].tolist() == targets.rejected[row].indices.tolist()
            )  # always scored, never mined away
            assert set(labels[(pull == 0) & (push == 0)].tolist()) <= set(targets.excluded[row].indices.tolist())


@pytest.mark.parametrize("kind", NEGATIVES)
def test_what_is_excluded_is_never_pushed(kind: str) -> None:
    run = world(kind)
    for step in range(6):
        rows = np.arange(step * 5, step * 5 + 3)
        chosen = labels_of(run, step, rows)
        excluded = run.data.known.targets.excluded[rows].toarray()[:, chosen.rows]
        left_out = chosen.targets.exclude
        dense = np.zeros_like(excluded)
        if left_out is not None:
            dense[left_out.rows.numpy(), left_out.indices.numpy()] = True
        assert (dense == excluded).all()


@pytest.mark.parametrize("kind", NEGATIVES)
def test_the_same_step_has_the_same_labels_and_a_checkpoint_keeps_what_is_needed(kind: str, tmp_path: Path) -> None:
    run, again = world(kind), world(kind)
    rows = np.arange(20, 40)
    for step in range(5):
        one, other = labels_of(run, step, rows), labels_of(again, step, rows)
        assert torch.equal(one.rows, other.rows)
        assert torch.equal(one.fresh, other.fresh)
    order = batches_of_epoch(run, sources(run), 0)
    checkpoints = Checkpoints(tmp_path / "run", run.config.checkpoint)
    run.progress.steps = 5
    write_checkpoint(run, checkpoints)
    resumed = TrainingRun(run.config, run.model, run.data)
    for part in part_kinds(run.config):
        resumed.parts.append(part.from_run(resumed))
    resume_run(resumed, checkpoints)
    assert resumed.progress.steps == 5
    for step in range(5, 9):
        one, other = labels_of(run, step, rows), labels_of(resumed, step, rows)
        assert torch.equal(one.rows, other.rows)
        assert torch.equal(one.fresh, other.fresh)
    for batch, expected in zip(batches_of_epoch(resumed, sources(resumed), 0), order, strict=True):
        assert np.array_equal(batch, expected)
    for part in (*run.parts, *again.parts, *resumed.parts):
        part.close()


@pytest.mark.parametrize("kind", NEGATIVES)
def test_what_it_costs_is_counted_before_anything_starts(kind: str) -> None:
    run = world(kind)
    source = type(sources(run)[0])
    scored, encoded = source.count(run.config, LABELS, 3.0, 2.0)
    assert encoded <= max(scored, LABELS)
    assert source.scores_all == (scored == LABELS and kind in ("all", "bank"))
    small, large = (source.memory(Sizes(run.config, run.model, labels, 400, 1)) for labels in (1_000, 2_000))
    assert set(small) == set(large)
    assert all(0 < small[name] <= large[name] for name in small)


def test_one_that_scores_every_label_stands_alone() -> None:
    with pytest.raises(ConfigError, match="negatives all scores every label; it cannot be joined with others"):
        JoinedNegatives([InBatch(), AllLabels()], LABELS)
    with pytest.raises(ConfigError, match=r"There is no kind of negatives 'shortlst'; .* Did you mean 'shortlist'"):
        NEGATIVES["shortlst"]


def test_rejected_labels_change_what_a_sample_is_likely_to_hold() -> None:
    """They come along with their queries, so their inclusion is as likely as that of positives."""
    run = world("sampled")
    (source,) = sources(run)
    counts = run.data.known.targets.truth.getnnz(axis=0) + run.data.known.targets.rejected.getnnz(axis=0)
    mean = len(run.data.training) / run.steps_per_epoch
    expected = np.log(1 - (1 - 3 / LABELS) * (1 - counts / QUERIES) ** mean)
    values = source.log_inclusion(np.arange(LABELS))
    assert values is not None
    np.testing.assert_allclose(values, expected, rtol=1e-4)
