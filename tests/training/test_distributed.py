"""Several real processes through gloo: losses, whole runs, and what happens when one dies."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import TESTS, environment, run, torchrun
from worlds import colours, tiny_config

import xmc
from xmc.storage.manifests import LOG
from xmc.training.checkpoints import Checkpoints


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_losses_with_labels_split_over_processes(processes: int) -> None:
    output = run(processes, [str(TESTS / "distributed_losses.py")])
    assert int(re.findall(r"compared (\d+)", output)[0]) >= 120


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("distributed") / "one"
    subprocess.run(
        [sys.executable, str(TESTS / "distributed_training.py"), str(out)], check=True, env=environment(), timeout=300
    )
    return out


@pytest.mark.slow
def test_runs_of_several_processes_equal_those_of_one(one_process: Path) -> None:
    """Two processes, the last run's root killed in step 8; three go on with it."""
    static = ("all", "supervision", "sampled", "soft-topk", "propensities", "prototypes", "margins")
    names = [*(f"static-{name}" for name in static), "bert-bank"]
    two, three = one_process.parent / "two", one_process.parent / "three"
    with pytest.raises(AssertionError, match="SIGKILL"):
        run(2, [str(TESTS / "distributed_training.py"), str(two), *names, "bert-split=8"])
    for name in names:
        require_equal_runs(one_process / name, two / name)
    assert len(losses(two / "bert-split")) == 8
    shutil.copytree(two / "bert-split.checkpoints", three / "bert-split.checkpoints")
    shutil.copytree(two / "bert-split", three / "bert-split")
    output = run(3, [str(TESTS / "distributed_training.py"), str(three), "static-all", "bert-split"])
    assert "resumed after step 5 of 14" in output
    for name in ("static-all", "bert-split"):
        require_equal_runs(one_process / name, three / name)


def require_equal_runs(one: Path, several: Path) -> None:
    expected, found = losses(one), losses(several)
    assert len(found) == len(expected) >= 8
    np.testing.assert_allclose(found, expected, rtol=1e-4, err_msg=several.name)
    cosines = (xmc.Retriever.load(one).embeddings * xmc.Retriever.load(several).embeddings).sum(1)
    assert cosines.min() > 0.999, several.name


def losses(directory: Path) -> list[float]:
    lines = [json.loads(line) for line in (directory / LOG).read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_a_process_that_dies_ends_the_job_and_is_named(tmp_path: Path) -> None:
    data = colours()
    data.save(tmp_path / "data")
    config = tiny_config(epochs=5000, checkpoint={"steps": 5})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    arguments = ["-m", "xmc", "train", str(tmp_path / "config.yaml"), "--dataset", str(tmp_path / "data")]
    command = torchrun(2, [*arguments, "--out", str(tmp_path / "run")])
    job = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        wait_for(tmp_path / "run" / LOG, 12)
        victim = next(pid for pid in children(job.pid) if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
        os.kill(victim, signal.SIGKILL)
        _, errors = job.communicate(timeout=600)  # not a bound on how fast, but on waiting for ever
    finally:
        job.kill()
    assert job.returncode != 0
    assert re.search(r"rank\s*: 1", errors), errors
    assert "SIGKILL" in errors
    steps = len(losses(tmp_path / "run"))
    checkpoint = Checkpoints(tmp_path / "run", config.checkpoint).latest()
    assert checkpoint is not None
    assert steps - 6 <= checkpoint.state["progress"]["steps"] <= steps


def wait_for(log: Path, lines: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if log.exists() and len(log.read_text().splitlines()) >= lines:
            return
        time.sleep(0.1)
    raise TimeoutError("training did not start")


def children(parent: int) -> list[int]:
    return [
        int(pid) for task in Path(f"/proc/{parent}/task").iterdir() for pid in (task / "children").read_text().split()
    ]
