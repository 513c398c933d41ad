"""A program that loads runs, forks, and compares what children answer with what the parent does.

    python forked_child.py RUN ...

Children are forked twice: when the runs are loaded and nothing more, and when the parent has searched with them.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import xmc

TEXTS = [f"item {number} {'red' if number % 2 else 'blue'}" for number in range(3000)]
"""More than one thread of any pool would take alone."""
AT_MOST = 60.0
"""Seconds after which a child hangs."""


def answers(retriever: xmc.Retriever) -> dict[str, Any]:
    """What each kind of call gives; labels are added last."""
    uids, scores = retriever.predict(TEXTS, k=1)
    found: dict[str, Any] = {"uids": uids.astype(str), "scores": scores, "ids": retriever.search(TEXTS, k=1)[0]}
    found["queries"] = retriever.embed_queries(TEXTS)
    with ThreadPoolExecutor(2) as pool:
        found["threads"] = [part[1] for part in pool.map(lambda half: retriever.predict(half, k=1), halves())]
    retriever.add_labels(TEXTS[:100])
    found["added"] = retriever.embeddings[-100:]
    found["after"] = retriever.predict(TEXTS[:100], k=1)[1]
    return found


def halves() -> list[list[str]]:
    """The texts in two lists."""
    return [TEXTS[::2], TEXTS[1::2]]


def child_answers(retriever: xmc.Retriever, folder: Path) -> dict[str, Any]:
    """What a forked child answers; TimeoutError where it hangs, ValueError where it ends otherwise."""
    file = folder / f"{time.monotonic_ns()}.npz"
    child = os.fork()
    if not child:
        try:
            np.savez(file, **answers(retriever))
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(3)
        os._exit(0)
    end = time.monotonic() + AT_MOST
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, 9)
            os.waitpid(child, 0)
            raise TimeoutError(f"the child of {retriever} hangs")
        time.sleep(0.02)
    if ended[1]:
        raise ValueError(f"the child of {retriever} ended with status {ended[1]}")
    return dict(np.load(file))


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """That two processes gave the same, up to rounding, which depends on the number of threads."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if np.asarray(value).dtype.kind == "f":
            np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5, err_msg=key)
        else:
            np.testing.assert_array_equal(found[key], value, err_msg=key)


def main() -> None:
    """Compare, and say what was."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        retrievers = [xmc.Retriever.load(run, device="cpu") for run in sys.argv[1:]]
        only_loaded = [child_answers(retriever, folder) for retriever in retrievers]
        for retriever in retrievers:
            retriever.predict(TEXTS)
        searched = [child_answers(retriever, folder) for retriever in retrievers]
    for retriever, *children in zip(retrievers, only_loaded, searched, strict=True):
        expected = answers(retriever)
        for child in children:
            assert_same(child, expected)
        print(retriever.index.design.name)


if __name__ == "__main__":
    main()
