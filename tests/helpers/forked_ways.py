"""A program that loads a run, and uses it in children of every kind that people have.

    python forked_ways.py RUN WAY ...

Each way says its name where the children answer as the parent does. A child that hangs ends the program by its alarm.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from forked_child import TEXTS

import xmc
from xmc.light import LightRetriever

AT_MOST = 120
"""Seconds after which a child hangs."""
Labels = list[list[str]]


def labels_of(retriever: xmc.Retriever | LightRetriever) -> Labels:
    """What a retriever answers to many texts."""
    return np.asarray(retriever.predict(TEXTS, k=1)[0]).astype(str).tolist()  # type: ignore[no-any-return]


def in_child(work: Callable[[], object]) -> None:
    """Do work in a forked child; RuntimeError where that ends otherwise than well."""
    child = os.fork()
    if not child:
        faulthandler.register(signal.SIGALRM, chain=True)  # a child that hangs says where, and ends
        signal.alarm(AT_MOST)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status:
        raise RuntimeError(f"a child ended with status {status}")


def same(retriever: xmc.Retriever | LightRetriever, expected: Labels) -> None:
    """That a retriever answers what it should."""
    assert labels_of(retriever) == expected


class Answers(torch.utils.data.Dataset[str]):
    """A data set for workers of a DataLoader that answers queries."""

    def __init__(self, retriever: xmc.Retriever) -> None:
        self.retriever = retriever

    def __len__(self) -> int:
        return 8

    def __getitem__(self, row: int) -> str:
        return str(self.retriever.predict([TEXTS[row]], k=1)[0][0, 0])


def executor(retriever: xmc.Retriever, expected: Labels) -> None:
    """concurrent.futures, with "fork" and with "spawn"."""
    for method in ("fork", "spawn"):
        with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
            assert list(pool.map(labels_of, [retriever] * 2, timeout=AT_MOST)) == [expected] * 2


def loader(retriever: xmc.Retriever, expected: Labels) -> None:
    """Workers of torch's DataLoader, forked and spawned."""
    for method in ("fork", "spawn"):
        loaded = torch.utils.data.DataLoader(
            Answers(retriever), batch_size=4, num_workers=2, multiprocessing_context=method, timeout=AT_MOST
        )
        assert [text for batch in loaded for text in batch] == [row[0] for row in expected[:8]]


def meanwhile(retriever: xmc.Retriever, expected: Labels) -> None:
    """Forks while other threads search and change labels."""
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            retriever.predict(TEXTS[:500], k=1)

    def change() -> None:
        while not stop.is_set():
            retriever.add_labels(["zebra crossing"], ["Z"])
            retriever.remove_labels(["Z"])

    threads = [threading.Thread(target=work) for work in (search, search, change)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            in_child(lambda: retriever.predict(TEXTS, k=1))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    in_child(lambda: same(retriever, expected))


def grandchild(retriever: xmc.Retriever, expected: Labels) -> None:
    """A child of a child, when the child has searched too."""

    def child() -> None:
        same(retriever, expected)
        in_child(lambda: same(retriever, expected))

    in_child(child)


def light(retriever: xmc.Retriever, expected: Labels) -> None:
    """The light predictor."""
    opened = LightRetriever.load(sys.argv[1])
    in_child(lambda: same(opened, labels_of(opened)))
    answered = labels_of(opened)
    in_child(lambda: same(opened, answered))


def training(retriever: xmc.Retriever, expected: Labels) -> None:
    """Training in a child, after the parent has trained and searched."""
    from worlds import colours, tiny_config

    data = colours()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_child(lambda: xmc.train(data, tiny_config(epochs=1), folder / "child"))
        assert len(xmc.Retriever.load(folder / "child")) == 12
        xmc.train(data, tiny_config(epochs=1), folder / "parent")
        in_child(lambda: xmc.train(data, tiny_config(epochs=1), folder / "second"))
        in_child(lambda: xmc.evaluate(retriever, data))


WAYS = {way.__name__: way for way in (executor, loader, meanwhile, grandchild, light, training)}


def main() -> None:
    """Try the ways."""
    retriever = xmc.Retriever.load(sys.argv[1])
    expected = labels_of(retriever)
    for name in sys.argv[2:]:
        WAYS[name](retriever, expected)
        print(name, flush=True)


if __name__ == "__main__":
    main()
