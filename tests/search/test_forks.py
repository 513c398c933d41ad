"""What a forked child must not wait for, and must not use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")

CODE = """
import os, signal, threading
import numpy as np, torch
from xmc.errors import InputError
from xmc.indexes.factory import index_version
from xmc.indexes.threads import shared_threads
from xmc.kernels.forks import in_forked_child, refuse_device_of_parent
from xmc.search.changes import Removed
from xmc.search.labels import LabelVersion
from xmc.search.store import LabelStore

vectors = np.eye(3, dtype=np.float32)
index = index_version("exact", vectors, vectors[:0])
store = LabelStore(LabelVersion.from_lists(["a", "b", "c"], ["a", "b", "c"], None, index))
held, leave = threading.Event(), threading.Event()


def change():
    with store.changing, shared_threads():
        held.set()
        leave.wait()


thread = threading.Thread(target=change)
thread.start()
held.wait()
refuse_device_of_parent("cuda:0")
assert not in_forked_child()
child = os.fork()
if not child:
    signal.alarm(60)  # ends a child that waits
    assert in_forked_child() and torch.get_num_threads() == 1
    store.apply(Removed(["a"]))
    refuse_device_of_parent("cpu")
    try:
        refuse_device_of_parent("cuda:0")
    except InputError as error:
        print(len(store.version), error, flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
leave.set()
thread.join()
print(len(store.version), torch.get_num_threads())
"""


def test_a_child_waits_for_no_thread_of_its_parent_and_is_refused_its_gpu() -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    in_child, in_parent = done.stdout.splitlines()
    assert in_child.startswith("2 This process was forked by one that uses 'cuda:0', which a forked child cannot use.")
    assert 'multiprocessing.get_context("spawn")' in in_child
    assert in_parent == "3 2"
