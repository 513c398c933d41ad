"""A run that is killed and resumed ends as one that never stopped; checkpoints are whole or absent."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from processes import environment, stopped_while
from repetitions import kills
from resumable_runs import configurations
from safetensors.torch import load_file
from small_models import write_bert
from worlds import colours, tiny_config

import xmc
from xmc.config import CheckpointConfig
from xmc.encoders.dual import DualEncoder, build_encoder
from xmc.errors import StoreError
from xmc.storage import directories, manifests
from xmc.storage.manifests import LOG
from xmc.training.checkpoints import Checkpoints, require_space
from xmc.training.optimizers import Optimizers
from xmc.training.prototypes import add_prototypes

TESTS = Path(__file__).parents[1] / "helpers"
NAMES = list(configurations(""))
KILLED = pytest.mark.xdist_group("resume")
"""In one process of the tests, so that the unbroken runs are trained once."""
TORN: list[bool] = []
"""Of each run that was to be killed while it wrote a checkpoint, whether it was."""


class Trainer:
    """Starts runs, each in a process of its own that can be killed."""

    def __init__(self, bert: Path) -> None:
        command = [sys.executable, str(TESTS / "resumable_runs.py"), str(bert)]
        # One thread each, or threads wait for one another while the test looks at files.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def start(self, name: str, out: Path) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name}\t{out}\n")
        self.process.stdin.flush()
        return self._number()

    def end(self) -> int:
        """The exit code of the run that was started last: 0, or minus the signal that ended it."""
        return self._number()

    def _number(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    one = Trainer(write_bert(tmp_path_factory.mktemp("bert")))
    yield one
    one.process.kill()


@pytest.fixture(scope="module")
def unbroken(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    runs = {name: tmp_path_factory.mktemp("unbroken") / "run" for name in NAMES}
    for name, out in runs.items():
        trainer.start(name, out)
        assert trainer.end() == 0
    return runs


def parameters(run: Path) -> dict[str, torch.Tensor]:
    files = [run / "model.safetensors", *sorted(run.glob("*encoder*/**/*.safetensors"))]
    return {f"{file.parent.name} {name}": tensor for file in files for name, tensor in load_file(file).items()}


def unfinished(out: Path) -> list[Path]:
    """The checkpoint that is being written."""
    return list(out.with_name("run.checkpoints").glob(".step-*.tmp"))


def steps(out: Path) -> int:
    return (out / LOG).read_text().count('"loss"') if (out / LOG).exists() else 0


@KILLED
@pytest.mark.slow
@pytest.mark.parametrize("trial", range(kills(6)))
def test_killed_at_random_and_resumed(trial: int, trainer: Trainer, unbroken: dict[str, Path], tmp_path: Path) -> None:
    """Every third is killed while a checkpoint is being written, the others at a random step."""
    chance = random.Random(trial)
    name, out = NAMES[trial % len(NAMES)], tmp_path / "run"
    total = steps(unbroken[name])
    pid = trainer.start(name, out)
    while_writing = trial // len(NAMES) % 3 == 0
    until = chance.randrange(1, total - 4 if while_writing else total - 2)  # a checkpoint comes every four steps
    end = time.monotonic() + 60
    while time.monotonic() < end and steps(out) < total:
        if steps(out) >= until and (not while_writing or stopped_while(pid, lambda: unfinished(out))):
            break
        if not while_writing:
            time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):  # it was faster than the signal
        os.kill(pid, signal.SIGKILL)
    if while_writing:
        TORN.append(bool(unfinished(out)))
    if trainer.end() != 0:
        trainer.start(name, out)
        assert trainer.end() == 0
    expected, found = parameters(unbroken[name]), parameters(out)
    assert set(found) == set(expected)
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key
    lines = [
        [line for line in map(json.loads, (run / LOG).read_text().splitlines()) if "startup_seconds" not in line]
        for run in (unbroken[name], out)
    ]
    for one, other in zip(*lines, strict=True):
        assert (one["step"], one.get("loss"), one.get("validation")) == (
            other["step"],
            other.get("loss"),
            other.get("validation"),
        )
    assert not out.with_name("run.checkpoints").exists()


@pytest.mark.slow
def test_a_checkpoint_holds_what_is_learned(trainer: Trainer, tmp_path: Path) -> None:
    """Of a model with adapters: these and the label vectors, not the weights that are frozen."""
    out = tmp_path / "run"
    pid = trainer.start("adapters", out)
    end = time.monotonic() + 60
    while time.monotonic() < end and not list(tmp_path.glob("run.checkpoints/step-*")):
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    trainer.end()
    (file, *_) = tmp_path.glob("run.checkpoints/step-*/tensors.safetensors")
    names = [name for name in load_file(file) if name.startswith("model.")]
    assert "model.label_vectors" in names
    assert any("lora_A" in name for name in names)
    assert not [name for name in names if "lora_" not in name and name.endswith(("weight", "bias"))]


@KILLED
@pytest.mark.slow
def test_some_were_killed_while_writing() -> None:
    if not TORN:
        pytest.skip("no run that was to be killed while it wrote a checkpoint came before this test")
    assert any(TORN)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path / "run", tiny_config().checkpoint)
    for step in (1, 2, 3):
        checkpoints.save(step, {"x": torch.full((3,), float(step))}, {"at": step})
    kept = sorted(path.name for path in checkpoints.directory.iterdir())
    assert kept == ["step-000000002", "step-000000003"]
    (checkpoints.directory / ".step-000000004.x.tmp").mkdir()
    file = checkpoints.directory / "step-000000003" / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    found = checkpoints.latest()
    assert found is not None
    assert found.state == {"at": 2}
    assert found.tensor("x", slice(1, 3)).tolist() == [2.0, 2.0]
    assert "An earlier checkpoint is used" in caplog.text
    with pytest.raises(StoreError, match="lacks 'y'"):
        found.tensor("y")
    assert not list(checkpoints.directory.glob(".*"))


def test_what_does_not_belong_is_refused(tmp_path: Path) -> None:
    data = colours()
    stopped = tiny_config(checkpoint={"steps": 5}, epochs=2)
    kill_after(7, stopped, tmp_path)
    with pytest.raises(StoreError, match=r"made with objective\.temperature = 0.1, not 0.2; resume with the same"):
        xmc.train(data, tiny_config(temperature=0.2, epochs=2), tmp_path / "run", resume=True)
    other = colours(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"])
    with pytest.raises(StoreError, match="is of another data set"):
        xmc.train(other, stopped, tmp_path / "run", resume=True)
    # what does not change the model may change
    result = xmc.train(data, tiny_config(epochs=2, tile_bytes=2**20, index="Flat"), tmp_path / "run", resume=True)
    assert result.steps == 12
    with pytest.raises(StoreError, match="finished: there is nothing to resume"):
        xmc.train(data, stopped, tmp_path / "run", resume=True)


@pytest.mark.slow
def test_resume_without_anything_begins_and_overwrite_begins_again(tmp_path: Path) -> None:
    data, config = colours(), tiny_config(epochs=1, checkpoint={"steps": 4})
    assert xmc.train(data, config, tmp_path / "new", resume=True).steps == 6
    kill_after(5, config, tmp_path)
    xmc.train(data, config, tmp_path / "run")  # not told to resume: the old checkpoint goes
    np.testing.assert_array_equal(
        xmc.Retriever.load(tmp_path / "run").embeddings, xmc.Retriever.load(tmp_path / "new").embeddings
    )


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from worlds import colours
import xmc
from xmc.training.log import TrainingLog
write = TrainingLog.write
def end(self, step, **values):
    write(self, step, **values)
    if step == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
TrainingLog.write = end
xmc.train(colours(), xmc.TrainConfig.load(sys.argv[3]), Path(sys.argv[4]))
"""


def kill_after(step: int, config: xmc.TrainConfig, folder: Path) -> None:
    (folder / "config.yaml").write_text(config.to_yaml())
    arguments = [sys.executable, "-c", KILLED, str(TESTS), str(step), str(folder / "config.yaml"), str(folder / "run")]
    assert subprocess.run(arguments).returncode == -signal.SIGKILL


FULL = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from worlds import colours, tiny_config
import xmc
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from xmc.training.log import TrainingLog
write = TrainingLog.write
def fill(self, step, **values):
    write(self, step, **values)
    if step == 7:  # from here on no file can be longer than this, as on a disk that is full
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
TrainingLog.write = fill
xmc.train(colours(), tiny_config(epochs=2, checkpoint={"steps": 5}), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_full_disk_while_writing_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", FULL, str(TESTS), str(tmp_path / "run")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 1
    assert "The checkpoint of step 10 cannot be written" in done.stderr
    assert "The last whole one is" in done.stderr
    result = xmc.train(colours(), tiny_config(epochs=2, checkpoint={"steps": 5}), tmp_path / "run", resume=True)
    assert result.steps == 12


def test_no_room_or_no_permission_is_said_before_training(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match=r"has \d+\.\d+ GiB of free space; the run and its checkpoints need 1\d+\.00 GiB"
    ):
        require_space(tmp_path / "runs" / "x", lambda: 2**30 * (10**6 + 1))
    require_space(tmp_path / "runs" / "x", lambda: 1)
    with pytest.raises(StoreError, match=r"/proc cannot be written to"):
        require_space(Path("/proc/nowhere/run"), lambda: 1)


@pytest.mark.slow
def test_ctrl_c_keeps_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    code = "import os, sys; sys.path.insert(0, sys.argv[1])\n" + KILLED.split("\n", 3)[3].replace("9)", "2)")
    config = tiny_config(epochs=2)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    arguments = [sys.executable, "-c", code, str(TESTS), "5", str(tmp_path / "config.yaml"), str(tmp_path / "run")]
    assert subprocess.run(["env", "--default-signal=INT", *arguments]).returncode == 0
    assert xmc.Retriever.load(tmp_path / "run").metrics.training.interrupted
    assert xmc.train(colours(), config, tmp_path / "run", resume=True).steps == 12
    whole = xmc.train(colours(), config, tmp_path / "whole")
    assert whole.steps == 12
    np.testing.assert_array_equal(
        xmc.Retriever.load(tmp_path / "run").embeddings, xmc.Retriever.load(tmp_path / "whole").embeddings
    )


@pytest.mark.parametrize(("module", "name"), [(directories, "sync"), (manifests, "sha256_file")])
def test_no_room_at_the_last_moment_is_told_of_the_checkpoint(
    module: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When all is written and goes to the disk, or is read for its checksum."""

    def full(_: Path) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = Checkpoints(tmp_path / "run", CheckpointConfig())
    checkpoints.save(1, {"a": torch.zeros(2)}, {})
    monkeypatch.setattr(module, name, full)
    with pytest.raises(
        StoreError,
        match=r"checkpoint of step 2 cannot be written to .*No space.*The last whole one is .*Make room and go on",
    ):
        checkpoints.save(2, {"a": torch.zeros(2)}, {})
    assert [path.name for path in checkpoints.directory.iterdir()] == ["step-000000001"]


def test_a_foreign_directory_in_a_checkpoints_place_is_named(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run", CheckpointConfig())
    (checkpoints.directory / "step-000000002").mkdir(parents=True)
    (checkpoints.directory / "step-000000002" / "mine").touch()
    with pytest.raises(StoreError, match=r"step-000000002 exists and is not an xmc checkpoint"):
        checkpoints.save(2, {"a": torch.zeros(2)}, {})


def test_a_parameter_without_gradients_so_far_is_trained_after_a_resume(tmp_path: Path) -> None:
    """AdamW has nothing of it, which is not the same as zeros."""
    config = tiny_config(share_towers=False, label_vectors="prototypes")
    checkpoints = Checkpoints(tmp_path / "run", CheckpointConfig())

    def made() -> tuple[DualEncoder, Optimizers]:
        model = build_encoder(config, 0, torch.Generator().manual_seed(0))
        model.prototypes = add_prototypes(model.dimension, 12, config)
        return model, Optimizers(model, config)

    def step(model: DualEncoder, optimizers: Optimizers, chosen: str) -> None:
        assert model.prototypes is not None
        dict(model.prototypes.named_parameters())[chosen].sum().backward()
        optimizers.step(1.0)

    model, optimizers = made()
    step(model, optimizers, "free_vectors")
    checkpoints.save(1, optimizers.state()[0], {})
    again, resumed = made()
    again.load_state_dict(model.state_dict())
    latest = checkpoints.latest()
    assert latest is not None
    resumed.load_state(latest, slice(0, 0))
    for one, of_one in ((model, optimizers), (again, resumed)):
        step(one, of_one, "combiner.linear1.weight")
        step(one, of_one, "free_vectors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
