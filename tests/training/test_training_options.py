"""What a transformer's training can be told: dropout, frozen layers, checkpointing, precision; logs and moments."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import WORDS
from torch import nn
from typer.testing import CliRunner
from worlds import colours, logged_steps, tiny_config

import xmc
from xmc.cli import app
from xmc.encoders.dual import DualEncoder, build_encoder
from xmc.errors import ConfigError
from xmc.storage.manifests import LOG, TENSORBOARD
from xmc.training.estimate import estimate
from xmc.training.optimizers import RowAdam
from xmc.training.optimizers.moments import Moments


def config(bert: Path, transformer: dict[str, Any] | None = None, **changes: Any) -> xmc.TrainConfig:
    values: dict[str, Any] = {
        "encoder": {
            "kind": "transformer",
            "directory": str(bert),
            "tokens_per_micro_batch": 128,
            **(transformer or {}),
        },
        "optimizer.learning_rate.encoder": 3e-3,
        "batch_size": 40,
        "epochs": 2,
        "objective.temperature": 0.1,
        "device": "cpu",
        **changes,
    }
    return xmc.TrainConfig.from_mapping(values)


def built(options: xmc.TrainConfig) -> DualEncoder:
    model = build_encoder(options, 12, torch.Generator().manual_seed(0))
    model.prepare_for_training(options)
    return model.train()


def embeddings(model: DualEncoder) -> torch.Tensor:
    torch.manual_seed(0)
    return model.queries(model.query_encoder.featurize(["a boat with two hulls", "the dog sleeps"]))


def test_dropout_is_what_was_asked_for(bert: Path) -> None:
    off, on = built(config(bert, {"dropout": 0.0})), built(config(bert, {"dropout": 0.5}))
    assert torch.equal(embeddings(off), embeddings(off.eval()))
    assert not torch.allclose(embeddings(on), embeddings(on.eval()), atol=0.05)
    assert {module.p for module in on.modules() if isinstance(module, nn.Dropout)} == {0.5}


def test_frozen_layers_stay_as_they_are(bert: Path, tmp_path: Path) -> None:
    options = config(bert, {"frozen_layers": 1}, epochs=1)
    before = dict(built(options).state_dict())
    xmc.train(colours(WORDS[3:15]), options, tmp_path / "run")
    after = xmc.Retriever.load(tmp_path / "run", device="cpu").model.state_dict()
    moved = {name for name, tensor in after.items() if name in before and not torch.equal(tensor, before[name])}
    assert moved
    assert not [name for name in moved if "embeddings." in name or "layer.0." in name]
    assert [name for name in moved if "layer.1." in name]
    with pytest.raises(ConfigError, match=r"frozen_layers is 3, but the backbone has 2 layers"):
        built(config(bert, {"frozen_layers": 3}))


def test_gradient_checkpointing_gives_the_same_gradients(bert: Path) -> None:
    found = []
    for checkpointing in (False, True):
        model = built(config(bert, {"dropout": 0.2, "gradient_checkpointing": checkpointing}))
        embeddings(model)[0].sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [{"precision": "bfloat16"}, {"gradient_cache": True, "optimizer.max_gradient_norm": 0.5, "negatives": "bank"}],
    ids=str,
)
def test_trains(changes: dict[str, Any], bert: Path, tmp_path: Path) -> None:
    xmc.train(colours(WORDS[3:15]), config(bert, {"dropout": 0.0}, epochs=5, **changes), tmp_path / "run")
    lines = logged_steps(tmp_path / "run")
    losses = [line["loss"] for line in lines]
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])
    assert all(line["gradient_norm"] > 0 for line in lines)
    for line in lines:
        assert sum(line["time"].values()) == pytest.approx(1, abs=1e-3)
        assert set(line["time"]) == {"data", "encode", "loss", "exchange", "optimizer"}
        assert line["tokens"] > line["texts"] > 40
    if "negatives" in changes:
        assert 0 < lines[-1]["bank"]["drift"] < 1


def test_clipping_bounds_the_gradient(bert: Path) -> None:
    """With plain gradient descent in place of Adam one could see it in the parameters; here in the gradients themselves."""
    from xmc.training.optimizers import Optimizers

    options = config(bert, {"dropout": 0.0}, optimizer={"learning_rate": 3e-3, "max_gradient_norm": 1e-3})
    model = built(options)
    optimizers = Optimizers(model, options)
    (100 * embeddings(model)[0, 0]).backward()
    seen: list[float] = []

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        seen.append(float(torch.stack([g.norm() for g in gradients]).norm()))

    assert optimizers.dense is not None
    optimizers.dense.register_step_pre_hook(look)
    norm = optimizers.step(1.0)
    assert norm > 0.1
    assert seen == [pytest.approx(1e-3, rel=1e-2)]


@pytest.mark.slow
def test_compiled_backbone_gives_the_same_embeddings(bert: Path) -> None:
    compiled, plain = built(config(bert, {"compile": True})), built(config(bert))
    torch.testing.assert_close(embeddings(compiled.eval()), embeddings(plain.eval()), rtol=1e-4, atol=1e-5)
    assert compiled.state_dict().keys() == plain.state_dict().keys()


def test_tensorboard_gets_what_the_log_gets(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = tiny_config(epochs=2, validation=0.2)
    (tmp_path / "config.yaml").write_text(options.to_yaml())
    colours().save(tmp_path / "data")
    arguments = ["train", str(tmp_path / "config.yaml"), "--dataset", str(tmp_path / "data"), "--tensorboard"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    events = EventAccumulator(str(tmp_path / "run" / TENSORBOARD))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    assert [(one.step, pytest.approx(one.value)) for one in events.Scalars("loss")] == losses
    assert {"time/encode", "queries_per_second", "validation/P@1"} <= set(events.Tags()["scalars"])
    xmc.Retriever.load(tmp_path / "run")


def test_validation_by_steps_and_by_another_metric(tmp_path: Path) -> None:
    options = tiny_config(
        validation=0.25, **{"validation.steps": 3, "validation.metric": "PSP@3", "validation.patience": 2}, epochs=30
    )
    result = xmc.train(colours(), options, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    found = {line["step"]: line["validation"]["PSP@3"] for line in lines if "validation" in line}
    assert sorted(found) == list(range(3, result.steps + 1, 3))
    best = max(found, key=lambda step: (found[step], -step))
    assert result.steps == best + 6
    kept = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (kept["training"]["steps"], kept["validation"]["PSP@3"]) == (best, found[best])
    with pytest.raises(ConfigError, match=r"validation\.metric must be one of P@1, .*, but is 'F1'"):
        xmc.train(colours(), tiny_config(validation=0.25, **{"validation.metric": "F1"}), tmp_path / "other")


def adam(kind: str, steps: int, gradient: Callable[[int], torch.Tensor]) -> tuple[torch.Tensor, RowAdam]:
    parameter = torch.zeros(6, 32)
    optimizer = RowAdam(parameter, moments=kind)
    rows = torch.tensor([0, 2, 5])
    for step in range(steps):
        optimizer.step(rows, gradient(step), 0.01)
    return parameter, optimizer


@pytest.mark.parametrize(("kind", "per_row"), [("float32", 256), ("bfloat16", 128), ("int8", 72)])
def test_small_moments_step_nearly_as_exact_ones(kind: str, per_row: int) -> None:
    def gradient(step: int) -> torch.Tensor:
        random = torch.Generator().manual_seed(step)
        signal = torch.linspace(-1, 1, 32).expand(3, 32) * torch.tensor([[1.0], [1e-3], [1e3]])
        return signal * (1 + 0.5 * torch.randn(3, 32, generator=random))

    exact, _ = adam("float32", 60, gradient)
    found, optimizer = adam(kind, 60, gradient)
    assert sum(t.numel() * t.element_size() for t in optimizer.moments.tensors.values()) == 6 * per_row
    assert not found[[1, 3, 4]].any()
    cosines = torch.nn.functional.cosine_similarity(found[[0, 2, 5]], exact[[0, 2, 5]])
    assert cosines.min() > (0.999 if kind == "bfloat16" else 0.97)
    # rounding the second moment's root up makes steps shorter, never longer
    assert found.abs().max() <= 1.02 * exact.abs().max()


def test_moments_survive_a_round_trip() -> None:
    for kind, error in (("float32", 0.0), ("bfloat16", 1 / 256), ("int8", 1 / 127)):
        moments = Moments.from_kind(kind, torch.zeros(4, 8))
        rows = torch.tensor([3, 1])
        first, second = torch.randn(2, 8), torch.rand(2, 8)
        moments.write(rows, first, second)
        read = moments.read(rows)
        assert (read[0] - first).abs().max() <= error * first.abs().max()
        assert (read[1].sqrt() - second.sqrt()).abs().max() <= error * second.sqrt().max() + 1e-7
        if kind == "int8":
            assert (read[1] >= second * (1 - 1e-5)).all()
        assert not moments.read(torch.tensor([0, 2]))[0].any()
        np.testing.assert_array_equal(moments.read(rows)[0].numpy(), read[0].numpy())


STARVED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from worlds import tiny_config, wordnet_part
import xmc
from xmc.training.log import TrainingLog
write = TrainingLog.write
def starve(self, step, **values):
    write(self, step, **values)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, used + 2**24))
TrainingLog.write = starve
static = {"dimension": 2048, "table_rows": 64, "weight_slots": 64}
xmc.train(wordnet_part(200), tiny_config(static=static), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_running_out_of_memory_says_what_to_lower(tmp_path: Path) -> None:
    """Label embeddings take 58 MiB at a time, where 16 are left."""
    arguments = [sys.executable, "-c", STARVED, str(Path(__file__).parents[1] / "helpers"), str(tmp_path / "run")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 1
    assert "TrainingError: Step 2 ran out of memory. Set gradient_cache, or lower" in done.stderr


def test_label_vectors_left_on_the_host(bert: Path, tmp_path: Path) -> None:
    options = config(bert, label_vectors={"kind": "residual", "memory": "host"})
    model = built(options).place(torch.device("meta"), vectors_on_host=True)
    assert model.label_vectors is not None
    assert model.label_vectors.device.type == "cpu"
    assert {p.device.type for name, p in model.named_parameters() if name != "label_vectors"} == {"meta"}
    assert "label vectors (host)" in estimate(colours(), options).memory
    xmc.train(colours(WORDS[3:15]), options, tmp_path / "host")
    xmc.train(colours(WORDS[3:15]), config(bert), tmp_path / "device")
    host, device = (xmc.Retriever.load(tmp_path / name).embeddings for name in ("host", "device"))
    np.testing.assert_array_equal(host, device)


@pytest.mark.cuda
def test_label_vectors_left_on_the_host_of_a_gpu(bert: Path, tmp_path: Path) -> None:
    for where in ("host", "device"):
        options = config(
            bert,
            device="cuda",
            label_vectors={"kind": "residual", "memory": where},
            optimizer={"max_gradient_norm": 1.0},
            negatives="in-batch",
        )
        xmc.train(colours(WORDS[3:15]), options, tmp_path / where)
    host, device = (xmc.Retriever.load(tmp_path / name).embeddings for name in ("host", "device"))
    np.testing.assert_allclose(host, device, atol=1e-3)
