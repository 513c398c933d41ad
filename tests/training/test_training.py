"""Training: it learns, repeats, stops, and always leaves a run that loads."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import minilm_directory
from worlds import colours, logged_steps, tiny_config, wordnet_part

import xmc
from xmc.data.dataset import Dataset
from xmc.encoders.dual import unit
from xmc.errors import DataError, StoreError, TrainingError
from xmc.storage.manifests import LOG
from xmc.training.distributed import World
from xmc.training.negatives import JoinedNegatives
from xmc.training.negatives.all_labels import AllLabels
from xmc.training.negatives.sampled import Sampled
from xmc.training.supervision.known import KnownPairs


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"objective.loss": "softmax"},
        {"objective.loss": "multi_label_cluster_discrimination", "negatives": "sampled", "negatives.sampled.count": 5},
        {"objective.loss": "soft_topk"},
        {"objective.loss": "binary_cross_entropy"},
        {"negatives": "sampled", "negatives.sampled.count": 5},
        {"negatives": "in-batch"},
        {"negatives": "bank", "negatives.bank.hard": 1, "negatives.bank.refresh": 2, "negatives.bank.positives": 0.5},
        {
            "negatives": "bank",
            "objective.loss": "soft_topk",
            "label_vectors": "none",
            "negatives.bank.hard": 0,
            "negatives.bank.refresh": 6,
        },
        {
            "negatives": "shortlist",
            "negatives.shortlist.size": 2,
            "negatives.shortlist.window_start": 1,
            "negatives.shortlist.window_end": 6,
            "negatives.shortlist.refresh_steps": 10,
        },
        {
            "negatives": ["clusters", "sampled"],
            "negatives.sampled.count": 3,
            "negatives.clusters.size": 4,
            "negatives.clusters.doubling_epochs": [3, 5],
        },
        {"objective.positives_per_query": 1, "label_vectors.moments": "bfloat16"},
        {"label_vectors.moments": "int8"},
        {"gradient_cache": True},
        {"normalize": False, "objective.temperature": 1.0, "optimizer.learning_rate.encoder": 0.05},
        {"label_vectors": "none"},
        {"share_towers": False},
        {"objective.learn_temperature": True},
        {"objective.relevance_weights": True, "label_vectors.dropout": 0.2},
        {"index": "Flat"},
    ],
    ids=str,
)
def test_every_option_learns_an_easy_world(changes: dict[str, object], tmp_path: Path) -> None:
    data = colours()
    result = xmc.train(data, tiny_config(epochs=8, **changes), tmp_path / "run")
    assert not result.interrupted
    assert result.steps == 8 * (400 // 64)
    retriever = xmc.Retriever.load(tmp_path / "run")
    values = xmc.evaluate(retriever, data).values
    assert values["P@1"] >= 95
    assert values["R@10"] >= 99
    assert retriever.predict(["something purple"], k=1)[0].tolist() == [["PURPLE"]]


@pytest.mark.slow
def test_real_data_beats_the_label_texts_by_far(tmp_path: Path) -> None:
    """With 1,500 of 11,313 training queries; the most frequent labels alone reach P@1 of about 33."""
    data = wordnet_part()
    static = {"dimension": 64, "table_rows": 32_768, "weight_slots": 65_536}
    xmc.train(data, tiny_config(static=static), tmp_path / "run")
    values = xmc.evaluate(xmc.Retriever.load(tmp_path / "run"), data).values
    assert values["P@1"] >= 50
    assert values["R@100"] >= 60


def test_same_seed_same_model_other_seed_another(tmp_path: Path) -> None:
    data = colours()
    embeddings = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        xmc.train(data, tiny_config(seed=seed, negatives="sampled", **{"negatives.sampled.count": 4}), tmp_path / name)
        embeddings.append(xmc.Retriever.load(tmp_path / name).embeddings)
    np.testing.assert_array_equal(embeddings[0], embeddings[1])
    assert np.abs(embeddings[0] - embeddings[2]).max() > 0.01


def test_log_has_a_line_a_step(tmp_path: Path) -> None:
    result = xmc.train(colours(), tiny_config(), tmp_path / "run")
    lines = logged_steps(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, result.steps + 1))
    assert lines[-1]["loss"] == result.loss
    assert lines[0]["loss"] > lines[-1]["loss"]


def test_early_stopping_keeps_the_best_epoch(tmp_path: Path) -> None:
    config = tiny_config(validation=0.25, **{"validation.patience": 1}, epochs=30)
    result = xmc.train(colours(), config, tmp_path / "run")
    batches = 300 // 64
    assert result.steps < 30 * batches
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    scores = [line["validation"]["P@1"] for line in lines if "validation" in line]
    assert len(scores) == result.steps // batches
    kept = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert kept["validation"]["P@1"] == max(scores)
    assert kept["training"]["steps"] == batches * (scores.index(max(scores)) + 1)


INTERRUPTED = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from small_models import minilm_directory
from worlds import tiny_config, wordnet_part
import xmc
result = xmc.train(wordnet_part(), tiny_config(epochs=500), Path(sys.argv[2]))
print("interrupted" if result.interrupted else "finished", result.steps)
"""


def wait_for_steps(run: Path, steps: int) -> None:
    end = time.monotonic() + 300  # only where the process is kept from running
    while time.monotonic() < end:
        if (run / LOG).exists() and len((run / LOG).read_text().splitlines()) >= steps:
            return
        time.sleep(0.05)
    raise TimeoutError("training did not start")


@pytest.mark.slow
def test_ctrl_c_leaves_a_loadable_run(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", INTERRUPTED, str(Path(__file__).parents[1] / "helpers"), str(tmp_path / "run")]
    # A shell starts what runs in the background with SIGINT ignored, and a process hands that on.
    process = subprocess.Popen(["env", "--default-signal=INT", *arguments], stdout=subprocess.PIPE, text=True)
    try:
        wait_for_steps(tmp_path / "run", 5)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=600)  # a bound on waiting alone: it takes a second or two
    finally:
        process.kill()  # nothing, where it has ended
    state, steps = output.split()
    assert (process.returncode, state) == (0, "interrupted")
    assert 5 <= int(steps) < 500 * 23
    retriever = xmc.Retriever.load(tmp_path / "run")
    assert retriever.metrics.training.interrupted
    assert retriever.predict(["a boat"], k=3)[0].shape == (1, 3)


def test_a_ctrl_c_while_processes_agree_is_heard_after_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def most(world: World, count: int) -> int:
        if not asked:
            signal.raise_signal(signal.SIGINT)
        asked.append(count)
        return count

    monkeypatch.setattr(World, "most", most)
    result = xmc.train(colours(), tiny_config(), tmp_path / "run")
    assert (result.interrupted, result.steps, asked) == (True, 2, [0, 1])


def test_sigkill_leaves_the_old_run_whole(tmp_path: Path) -> None:
    xmc.train(colours(), tiny_config(), tmp_path / "run")
    before = xmc.Retriever.load(tmp_path / "run").predict(["red"], k=2)
    code = INTERRUPTED.replace("Path(sys.argv[2]))", "Path(sys.argv[2]), overwrite=True)")
    arguments = [sys.executable, "-c", code, str(Path(__file__).parents[1] / "helpers"), str(tmp_path / "run")]
    (tmp_path / "run" / LOG).unlink()  # so that what is waited for is a step of the new training
    process = subprocess.Popen(arguments)
    try:
        wait_for_steps(tmp_path / "run", 1)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    after = xmc.Retriever.load(tmp_path / "run").predict(["red"], k=2)
    assert before[0].tolist() == after[0].tolist()


def test_an_existing_run_is_kept_unless_told(tmp_path: Path) -> None:
    xmc.train(colours(), tiny_config(epochs=1), tmp_path / "run")
    with pytest.raises(StoreError, match="already holds a run"):
        xmc.train(colours(), tiny_config(epochs=1), tmp_path / "run")
    xmc.train(colours(), tiny_config(epochs=1, seed=3), tmp_path / "run", overwrite=True)
    assert xmc.Retriever.load(tmp_path / "run").config.seed == 3


def test_data_that_cannot_be_trained_on(tmp_path: Path) -> None:
    only_test = Dataset.from_lists("x", ["a"], {"test": (["q"], [[0]])})
    with pytest.raises(DataError, match="no split train, only test"):
        xmc.train(only_test, tiny_config(), tmp_path / "run")
    with pytest.raises(DataError, match="no training queries or no labels"):
        xmc.train(Dataset.from_lists("x", ["a"], {"train": ([], [])}), tiny_config(), tmp_path / "run")


def test_divergence_is_an_error_and_leaves_the_old_run(tmp_path: Path) -> None:
    data = colours()
    xmc.train(data, tiny_config(epochs=1), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"loss of step \d+ is (nan|inf): training diverged"):
        xmc.train(
            data, tiny_config(**{"optimizer.learning_rate.feature_weights": 1e6}), tmp_path / "run", overwrite=True
        )
    assert len(xmc.Retriever.load(tmp_path / "run")) == 12


def test_fewer_queries_than_a_batch_and_queries_without_anything(tmp_path: Path) -> None:
    data = Dataset.from_lists("x", ["a", "b", ""], {"train": (["red", "", "blue"], [[0], [1], []])})
    result = xmc.train(data, tiny_config(epochs=2), tmp_path / "run")
    assert result.steps == 2
    assert np.isfinite(result.loss)
    retriever = xmc.Retriever.load(tmp_path / "run")
    assert np.isfinite(retriever.embeddings).all()


def test_sampled_candidates() -> None:
    positives = colours().split("train").positives
    known = KnownPairs(colours().targets("train"), tiny_config())
    sampler = JoinedNegatives([Sampled(positives, 4, 64, seed=0)], 12)
    found = np.zeros(12)
    rounds = 3000
    rng = np.random.default_rng(0)
    for step in range(rounds):
        chosen = rng.choice(positives.shape[0], 2, replace=False)
        batch = known.batch(step, chosen)
        candidates = sampler.labels_of(batch, torch.zeros(0, 0))
        rows = candidates.rows.numpy()
        assert (np.diff(rows) > 0).all()
        assert set(batch.targets.labels.tolist()) <= set(rows)
        assert rows[candidates.targets.labels.numpy()].tolist() == batch.targets.labels.tolist()
        assert candidates.targets.exclude is None
        found[rows] += 1
    # π for a batch of 2: the sampler was told 64, so compare with its formula for 2.
    share = positives.getnnz(axis=0) / positives.shape[0]
    expected = 1 - (1 - 4 / 12) * (1 - share) ** 2
    np.testing.assert_allclose(found / rounds, expected, atol=0.03)
    everything = JoinedNegatives([AllLabels()], 12).labels_of(batch, torch.zeros(0, 0))
    assert everything.rows.tolist() == list(range(12))
    assert everything.log_inclusion is None


def test_unit_gradient() -> None:
    vectors = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, (vectors,))
    torch.testing.assert_close(unit(vectors), torch.nn.functional.normalize(vectors, dim=1))
    assert unit(torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.slow
def test_a_transformer_learns_and_is_loaded(tmp_path: Path) -> None:
    """The real MiniLM, separate towers and a learned temperature."""
    data = colours()
    config = xmc.TrainConfig.from_mapping(
        {
            "encoder": "transformer",
            "encoder.directory": str(minilm_directory()),
            "encoder.projection": 64,
            "encoder.tokens_per_micro_batch": 512,
            "share_towers": False,
            "objective.learn_temperature": True,
            "label_vectors": "none",
            "optimizer.learning_rate.encoder": 2e-4,
            "epochs": 2,
            "batch_size": 32,
            "device": "cpu",
        }
    )
    result = xmc.train(data, config, tmp_path / "run")
    assert result.steps == 24
    losses = [line["loss"] for line in logged_steps(tmp_path / "run")]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    retriever = xmc.Retriever.load(tmp_path / "run")
    assert retriever.model.temperature.item() != pytest.approx(config.objective.temperature)
    assert xmc.evaluate(retriever, data).values["P@1"] > 80
