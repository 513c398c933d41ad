"""`--dry-run`: every recipe passes it, it writes nothing, and what it counts is what a step then does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_models import minilm_directory, write_decoder
from typer.testing import CliRunner
from worlds import colours, logged_steps, tiny_config, wordnet_part

import xmc
from xmc.cli import app
from xmc.config import TrainConfig
from xmc.errors import ConfigError
from xmc.training.estimate import estimate

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tmp_path_factory.mktemp("llama"))


def test_there_are_recipes() -> None:
    assert len(NAMES) >= 14
    models = {"dexml", "ngame", "minilm", "static", "prime", "vixml", "smollm2"}
    assert {name.split("-")[0] for name in NAMES} == models | {"counted", "missing", "voted", "wrong"}


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_can_be_estimated(name: str, bert: Path, llama: Path, tmp_path: Path) -> None:
    """With a small model in place of the one that it names; such a model has 24 positions, three of them for images."""
    arguments = [
        "train",
        str(CONFIGS / f"{name}.yaml"),
        "--dataset",
        "wordnet-8k",
        "--dry-run",
        "--out",
        str(tmp_path / "run"),
    ]
    text = (CONFIGS / f"{name}.yaml").read_text()
    if "transformer" in text:
        model = llama if "lora" in text else bert
        arguments += ["--set", f"encoder.directory={model}", "--set", "encoder.max_length=21"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    for part in ("encoder parameters", "embeddings of a step", "memory in all", "all steps at that rate"):
        assert part in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"negatives": "bank", "negatives.bank.hard": 0, "negatives.bank.refresh": 40},
        {"negatives": "sampled", "negatives.sampled.count": 500},
        {"negatives": "in-batch", "objective.positives_per_query": 1},
    ],
    ids=str,
)
def test_work_is_what_a_step_does(changes: dict[str, object], tmp_path: Path) -> None:
    data, config = wordnet_part(640), tiny_config(epochs=1, **changes)
    found = estimate(data, config)
    xmc.train(data, config, tmp_path / "run")
    lines = logged_steps(tmp_path / "run")
    texts = sum(line["texts"] for line in lines) / len(lines)
    tokens = sum(line["tokens"] for line in lines) / len(lines)
    assert found.work["steps"][0] == len(lines) == 10
    expected = found.work["queries a step"][0] + found.work["labels encoded a step"][0]
    # Queries share some of their positives, which the estimate counts once each.
    assert 0.6 * expected <= texts <= 1.02 * expected
    assert 0.6 * found.work["tokens encoded a step"][0] <= tokens <= 1.2 * found.work["tokens encoded a step"][0]


def test_memory_of_parameters_and_vectors_is_exact_and_split_over_processes() -> None:
    data, config = wordnet_part(100), tiny_config(**{"label_vectors.moments": "bfloat16"})
    one, four = estimate(data, config), estimate(data, config, processes=4)
    assert one.memory["encoder parameters"] == 4 * (4096 * 32 + 4096 + 1)
    assert one.memory["label vectors"] == 4 * 7488 * 32
    assert one.memory["label vectors' moments"] == 2 * 2 * 7488 * 32
    assert four.memory["label vectors"] == one.memory["label vectors"] / 4
    assert four.memory["encoder parameters"] == one.memory["encoder parameters"]
    assert four.total < one.total


def test_gradient_cache_bounds_the_activations() -> None:
    data = wordnet_part(600)
    settings = {"directory": str(minilm_directory()), "tokens_per_micro_batch": 128}
    sizes = []
    for cached in (False, True):
        config = TrainConfig.from_mapping(
            {"encoder": {"kind": "transformer", **settings}, "negatives": "in-batch", "gradient_cache": cached}
        )
        found = estimate(data, config)
        sizes.append(found.memory["activations"])
    assert sizes[1] < 0.05 * sizes[0]


def test_the_rate_is_that_of_the_device_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """The static encoder trains on the CPU also where there is a GPU, which this machine cannot measure."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert estimate(wordnet_part(100), tiny_config()).work["a step at the rate of matrix products here"][0] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective.nested_dimensions": [1024]}, r"nested_dimensions must be below the 32 of the encoder"),
        ({"label_vectors": {"kind": "prototypes", "heads": 3}}, r"heads must divide the embedding's 32 dimensions"),
    ],
    ids=str,
)
def test_what_training_refuses_is_refused_before_it(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    data, config = colours(), tiny_config(**changes)
    with pytest.raises(ConfigError, match=message):
        estimate(data, config)
    with pytest.raises(ConfigError, match=message):
        xmc.train(data, config, tmp_path / "run")
