"""Parts of training: their states do not collide, checkpoints and the estimate are made of what they say."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from worlds import colours, tiny_config

from xmc.data.tokens import RaggedTokens
from xmc.encoders.dual import DualEncoder, build_encoder
from xmc.training import parts
from xmc.training.assembly import part_kinds
from xmc.training.callbacks import Callbacks
from xmc.training.checkpoints import Checkpoints
from xmc.training.distributed import World
from xmc.training.embedding import encode_labels
from xmc.training.estimate import estimate
from xmc.training.negatives import NegativeSource
from xmc.training.negatives.bank import BankedLabels
from xmc.training.optimizers.updates import Updates
from xmc.training.parts import Sizes
from xmc.training.randomness import Purpose
from xmc.training.resuming import write_checkpoint
from xmc.training.trainer import Trainer, prepare_run

TRAINING = Path(parts.__file__).parent
PROTOTYPES = {
    "label_vectors": "prototypes",
    "label_vectors.clusters": 4,
    "label_vectors.heads": 4,
    "label_vectors.feedforward": 32,
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "bank": {"negatives": "bank"},
    "joined": {
        "negatives": ["clusters", "shortlist", "sampled"],
        "negatives.shortlist.size": 2,
        "negatives.shortlist.window_end": 4,
    },
    "supervision": {"supervision": {"estimator": "posterior", "recorded": 0.5, "candidates": 4, "first_epoch": 1}},
    "prototypes": {**PROTOTYPES, "negatives": {"kind": "clusters", "first_epoch": 1}},
    "prototypes and a bank": {**PROTOTYPES, "negatives": "bank", "objective.loss": "softmax"},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_parameters_move_last_and_each_kind_is_there_once(name: str) -> None:
    kinds = part_kinds(tiny_config(**CONFIGURATIONS[name]))
    assert kinds[-1] is Updates
    assert len(set(kinds)) == len({kind.name for kind in kinds}) == len(kinds)
    assert any(issubclass(kind, NegativeSource) for kind in kinds)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_checkpoint_holds_what_the_parts_say(name: str, tmp_path: Path) -> None:
    run = prepare_run(colours(), tiny_config(epochs=1, **CONFIGURATIONS[name]), torch.device("cpu"), World())
    trainer = Trainer(run, tmp_path / "run", Callbacks((), True))
    trainer.fit()
    names: list[str] = []
    for part in run.parts:
        state = part.state()
        names += [*state.shared, *state.rows]
        assert all(len(tensor) == 12 for tensor in state.rows.values())
    assert len(set(names)) == len(names)
    checkpoints = Checkpoints(tmp_path / "run", run.config.checkpoint)
    write_checkpoint(run, checkpoints)
    latest = checkpoints.latest()
    assert latest is not None
    assert latest.names == set(names)
    held = sum(latest.tensor(name).numel() * latest.tensor(name).element_size() for name in names)
    assert held <= 1.2 * sum(part.checkpoint_bytes(run) for part in run.parts) + 1000


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_estimate_is_the_sum_of_what_the_parts_say(name: str) -> None:
    data, config = colours(), tiny_config(**CONFIGURATIONS[name])
    model = build_encoder(config, 0, torch.Generator().manual_seed(0))
    memory = estimate(data, config).memory
    said: dict[str, float] = {}
    for kind in part_kinds(config):
        takes = kind.memory(Sizes(config, model, 12, 400, 1))
        assert not set(takes) & set(said)
        said |= takes
    step = {"embeddings of a step", "scores", "activations"}
    assert {key: value for key, value in memory.items() if key not in step} == said
    assert sum(memory.values()) == pytest.approx(sum(said.values()) + sum(memory[key] for key in step))
    assert all(np.isfinite(value) and value > 0 for value in memory.values())


def test_label_texts_are_encoded_once_for_all_parts_that_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prototypes cluster them, and the bank holds them."""
    config = tiny_config(**CONFIGURATIONS["prototypes and a bank"])
    run = prepare_run(colours(), config, torch.device("cpu"), World())
    calls: list[World] = []

    def counted(model: DualEncoder, features: RaggedTokens, world: World) -> torch.Tensor:
        calls.append(world)
        return encode_labels(model, features, world)

    monkeypatch.setattr(parts, "encode_labels", counted)
    run.begin()
    bank = run.find(BankedLabels)
    assert bank is not None
    assert torch.equal(bank.bank.embeddings, encode_labels(run.model, run.data.label_features, run.world))
    assert len(calls) == 1
    assert "first_label_texts" not in vars(run)


def test_draws_have_random_numbers_of_their_own() -> None:
    """A purpose stands in one place, but for clusters, whose seed is of different points in its two places."""
    found = [re.findall(r"Purpose\.([A-Z_]+)", file.read_text(encoding="utf-8")) for file in TRAINING.rglob("*.py")]
    counts = Counter(name for names in found for name in names)
    assert set(counts) == {purpose.name for purpose in Purpose}
    assert {name for name, count in counts.items() if count > 1} == {"CLUSTERS"}
