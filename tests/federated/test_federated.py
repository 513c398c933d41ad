"""Federated rounds: what clients send, what stays with them, and that neither processes nor interruptions change a result."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import environment, run
from scipy.sparse import csr_matrix
from typer.testing import CliRunner
from worlds import colours, tiny_config

import xmc
from xmc.cli import app
from xmc.config import TrainConfig
from xmc.config.federated import FederatedConfig
from xmc.data.dataset import Dataset
from xmc.encoders.dual import build_encoder
from xmc.errors import ConfigError, DataError, InputError, StoreError
from xmc.training.distributed import World
from xmc.training.federated import federate
from xmc.training.federated.averaging import Average, Update
from xmc.training.federated.clients import clients_in, split_clients
from xmc.training.federated.pseudo_labels import Named, agreed, with_pseudo_labels
from xmc.training.supervision.known import KnownPairs
from xmc.training.weights import shared_tensors


def few_colours(every: int = 8) -> Dataset:
    """Of each eighth query the labels are known."""
    data = colours()
    positives = data.split("train").positives
    labelled = np.arange(positives.shape[0]) % every == 0
    kept = csr_matrix(positives.multiply(labelled[:, None]))
    kept.eliminate_zeros()
    return data.with_evidence("train", positives=kept, labelled=labelled)


def config_of(**changes: object) -> TrainConfig:
    return tiny_config(epochs=3, batch_size=32, validation={"split": "test"}, **changes)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return few_colours()


@pytest.fixture(scope="module")
def clients(data: Dataset) -> list[Dataset]:
    return split_clients(data, 3, "subject", config_of())


def test_clients_have_every_query_once_and_no_first_label_in_common() -> None:
    data = colours()
    clients = split_clients(data, 3, "subject", config_of())
    uids = [uid for client in clients for uid in client.split("train").uids.to_pylist()]
    assert sorted(uids) == sorted(data.split("train").uids.to_pylist())
    firsts = [{labels.indices[0] for labels in client.split("train").positives} for client in clients]
    assert sum(map(len, firsts)) == len(set.union(*firsts)) == len(data.labels)
    sizes = [len(client.split("train")) for client in split_clients(data, 3, "chance", config_of())]
    assert sorted(sizes) == [133, 133, 134]


def test_the_average_is_the_mean_by_numbers_of_queries() -> None:
    config = config_of(label_vectors="residual")
    server = build_encoder(config, 0, torch.Generator().manual_seed(0))
    average, expected = Average(server, World()), {}
    before = {name: tensor.detach().double() for name, tensor in shared_tensors(server).items()}
    for size, seed in ((1, 1), (3, 2)):
        model = build_encoder(config, 12, torch.Generator().manual_seed(0))
        assert model.label_vectors is not None
        with torch.no_grad():
            changed = torch.arange(0, 4096, 7 * seed)
            moved = torch.randn(len(changed), 32, generator=torch.Generator().manual_seed(seed))
            model.query_encoder.table.vectors[changed] += moved  # type: ignore[union-attr, operator]
            model.label_vectors += 1
        update = Update.between(server, model, size)
        assert update.bytes == len(changed) * (8 + 4 * 32)  # of changed rows alone, and no label vectors
        for name, tensor in shared_tensors(model).items():
            expected[name] = expected.get(name, 0) + (tensor.detach().double() - before[name]) * size / 4
        average.add(update)
    average.finish()
    for name, tensor in shared_tensors(server).items():
        torch.testing.assert_close(tensor.detach(), (before[name] + expected[name]).float(), rtol=1e-6, atol=1e-7)


def test_the_surer_model_names_the_label_and_agreement_teaches(data: Dataset) -> None:
    known = KnownPairs(data.targets("train"), config_of())
    rows = np.array([1, 2, 3, 4])
    local = Named(np.array([[3], [4], [5], [6]]), np.float32([[0.9], [0.2], [0.6], [0.4]]))
    average = Named(
        np.array([[3, 1], [7, 4], [6, 5], [6, 0]]), np.float32([[0.5, 0.3], [0.8, 0.1], [0.5, 0.4], [0.3, 0.1]])
    )
    entries = with_pseudo_labels(known, rows, local, average, 0.5)
    named = {row: entries.labels[entries.indptr[row] : entries.indptr[row + 1]].tolist() for row in rows}
    assert named == {1: [3], 2: [7], 3: [5], 4: []}
    assert np.isin(known.given.keys, entries.keys).all()
    assert entries.pull.sum() == known.given.pull.sum() + 3
    taught = agreed(rows, local, average, len(known.targets), 12)
    assert np.flatnonzero(np.diff(taught.indptr)).tolist() == [1, 4]
    np.testing.assert_allclose(taught[4].toarray()[0, [6, 0]], [0.75, 0.25], rtol=1e-6)


def test_queries_without_labels_are_learned_from(clients: list[Dataset], data: Dataset, tmp_path: Path) -> None:
    result = federate(clients, config_of(), tmp_path / "run", validation=[data])
    first, *later = result.rounds
    unlabelled = int((~data.labelled("train")).sum())
    assert first.pseudo_labels == first.agreeing == 0
    assert first.validation is not None
    assert all(0 < one.agreeing <= unlabelled and 0 < one.pseudo_labels <= unlabelled for one in later)
    assert xmc.evaluate(tmp_path / "run", data)["P@1"] == pytest.approx(later[-1].validation)
    assert not (tmp_path / "run.checkpoints").exists()
    unvalidated = config_of().changed(**{"validation.split": None})
    alone = federate(clients, unvalidated, tmp_path / "alone", FederatedConfig(pseudo_labels=False))
    assert all(one.pseudo_labels == one.agreeing == 0 for one in alone.rounds)


class _Interrupting(logging.Handler):
    """Presses Ctrl-C the first time that a message is logged, once or several times."""

    def __init__(self, message: str, presses: int) -> None:
        super().__init__(logging.INFO)
        self.message, self.presses = message, presses

    def emit(self, record: logging.LogRecord) -> None:
        while self.presses and self.message in record.getMessage():
            self.presses -= 1
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interrupting() -> Iterator[Callable[[str, int], None]]:
    logger = logging.getLogger("xmc.training")
    level, added = logger.level, []

    def add(message: str, presses: int) -> None:
        added.append(_Interrupting(message, presses))
        logger.addHandler(added[-1])

    logger.setLevel(logging.INFO)
    yield add
    logger.setLevel(level)
    for handler in added:
        logger.removeHandler(handler)


def test_interrupted_rounds_go_on_as_if_they_had_not_been(
    clients: list[Dataset], tmp_path: Path, interrupting: Callable[[str, int], None]
) -> None:
    """Twice in the second round: at once, when the first client's files are a round ahead; and then after the round."""
    config, out = config_of().changed(**{"validation.split": None}), tmp_path / "parts"
    federate(clients, config, tmp_path / "whole")
    interrupting("checkpoint of step 2 written", 2)
    with pytest.raises(KeyboardInterrupt):
        federate(clients, config, out)
    assert [path.name for path in sorted(tmp_path.glob("parts.checkpoints/client-1.checkpoints/step-*"))] == [
        "step-000000001",
        "step-000000002",
    ]
    interrupting("checkpoint of step 2 written", 1)
    stopped = federate(clients, config, out, resume=True)
    assert stopped.interrupted
    assert [one.round for one in stopped.rounds] == [1, 2]
    assert len(xmc.Retriever.load(out).predict(["item 3 red"], k=1)[0]) == 1
    with pytest.raises(StoreError, match="epochs"):
        federate(clients, config.changed(epochs=4), out, resume=True)
    resumed = federate(clients, config, out, resume=True)
    assert not resumed.interrupted
    assert [one.round for one in resumed.rounds] == [1, 2, 3]
    require_same_runs(tmp_path / "whole", out)


def test_what_clients_kept_of_rounds_that_nobody_goes_on_from_is_gone(
    clients: list[Dataset], tmp_path: Path, interrupting: Callable[[str, int], None]
) -> None:
    """Once since the average is damaged, so that the first round begins; and once since others begin without `resume`."""
    config, out = config_of().changed(**{"validation.split": None, "epochs": 4}), tmp_path / "run"
    kept = tmp_path / "run.checkpoints"
    interrupting("checkpoint of step 3 written", 1)
    assert federate(clients, config, out).interrupted
    (kept / "step-000000003" / "state.json").write_text("damaged")
    interrupting("checkpoint of step 3 written", 1)
    again = federate(clients, config, out, resume=True)
    assert [one.round for one in again.rounds] == [1, 2, 3]
    federate(clients[:2], config.changed(epochs=1), out, overwrite=True)
    assert not kept.exists()  # what stands there is taken for a run that is not whole


@pytest.mark.slow
def test_two_processes_give_what_one_gives(data: Dataset, tmp_path: Path) -> None:
    data.save(tmp_path / "data")
    (tmp_path / "config.yaml").write_text(config_of().to_yaml())
    command = ["-m", "xmc", "federated", str(tmp_path / "config.yaml"), "--dataset", str(tmp_path / "data")]
    command += ["--number", "3", "--rounds", "2", "--out"]
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path / "one")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "trained for 2 rounds of 3 clients" in done.stdout
    assert "trained for 2 rounds of 3 clients" in run(2, [*command, str(tmp_path / "two")])
    require_same_runs(tmp_path / "one", tmp_path / "two")


def require_same_runs(one: Path, other: Path) -> None:
    first, second = xmc.Retriever.load(one), xmc.Retriever.load(other)
    for (name, tensor), (_, compared) in zip(
        shared_tensors(first.model).items(), shared_tensors(second.model).items(), strict=True
    ):
        assert torch.equal(tensor, compared), name


def test_refusals(clients: list[Dataset], data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There are 4 rounds and 3 epochs; set epochs to at least 4"):
        federate(clients, config_of(), tmp_path / "run", FederatedConfig(rounds=4))
    with pytest.raises(ConfigError, match=r"calibration is 0\.1, which federated rounds have nothing for"):
        federate(clients, config_of(calibration=0.1), tmp_path / "run")
    with pytest.raises(ConfigError, match="prototypes"):
        federate(clients, config_of(label_vectors="prototypes", negatives="in-batch", objective={
            "loss": "softmax", "positives_per_query": 1}), tmp_path / "run")  # fmt: skip
    with pytest.raises(InputError, match="1 clients; federated rounds need two or more"):
        federate(clients[:1], config_of(), tmp_path / "run")
    with pytest.raises(
        DataError, match=r"validation\.split is 'test', but the data set 'colours' has the splits train"
    ):
        federate(clients, config_of(), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"validation\.steps is 5, which federated rounds have nothing for"):
        federate(clients, config_of().changed(**{"validation.steps": 5}), tmp_path / "run")
    unlabelled = clients[1].with_evidence("train", positives=csr_matrix(clients[1].split("train").positives.shape))
    unvalidated = config_of().changed(**{"validation.split": None})
    with pytest.raises(DataError, match="No training query of client 2 of 3, colours, has a positive label"):
        federate([clients[0], unlabelled, clients[2]], unvalidated, tmp_path / "run")
    judged = data.with_evidence(
        "test",
        positives=csr_matrix(data.split("test").positives.shape),
        labelled=np.zeros(len(data.split("test")), bool),
    )
    with pytest.raises(DataError, match=r"validation\.split is 'test', none of whose queries is labelled"):
        federate(clients, config_of(), tmp_path / "run", validation=[judged])
    assert not list(tmp_path.iterdir())  # before anything is trained
    with pytest.raises(ConfigError, match="The number of clients is 13; it must be from 2 to that of labels, 12"):
        split_clients(data, 13, "subject", config_of())


def test_clients_in_folders_have_the_same_labels(clients: list[Dataset], tmp_path: Path) -> None:
    for number, client in enumerate(clients[:2]):
        client.save(tmp_path / str(number))
    shutil.copytree(tmp_path / "1", tmp_path / ".1.0123abcd.tmp")  # as a process that is killed leaves it
    assert [len(client.split("train")) for client in clients_in(tmp_path)] == [
        len(client.split("train")) for client in clients[:2]
    ]
    (tmp_path / "config.yaml").write_text(config_of().changed(**{"validation.split": None}).to_yaml())
    command = ["federated", str(tmp_path / "config.yaml"), "--clients", str(tmp_path), "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*command, "--rounds", "1"])
    assert done.exit_code == 0, done.output
    assert f"trained for 1 rounds of 2 clients, run in {tmp_path / 'run'}" in "".join(done.stdout.splitlines())
    refused = CliRunner().invoke(app, [*command, "--dataset", "wordnet-8k"])
    assert isinstance(refused.exception, ConfigError) or "Name either --clients DIRECTORY" in refused.output
    refused = CliRunner().invoke(app, [*command, "--number", "2"])
    assert "with --clients leave them out" in str(refused.exception) + refused.output
    colours([f"the {name}" for name in data_names()]).save(tmp_path / "2")
    with pytest.raises(DataError, match="2 has other labels than"):
        clients_in(tmp_path)
    with pytest.raises(DataError, match="has 0 folders with a data set"):
        clients_in(tmp_path / "0")


def data_names() -> list[str]:
    return [str(text) for text in colours().labels.texts.to_pylist()]
