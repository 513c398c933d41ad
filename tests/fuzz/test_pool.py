"""What the harness itself must see: a child that ends, one that hangs, a traceback, a loss; and it goes on after each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = """
import ctypes, json, sys
from pathlib import Path
from random import Random
from fuzzing import pool
from fuzzing.targets import Case, Target
from xmc.errors import InputError

STATES = [Random(seed).getstate() for seed in range(9)]

class Numbered(Target):
    def damaged(self, files, chance):
        return {"seed": str(STATES.index(chance.getstate())).encode()}

def endless():
    while True:
        pass

def read(case: Case) -> None:
    seed = int(case.only.read_text())
    assert seed != 5, "a row is lost"
    if seed == 2:
        raise InputError("It is refused.")
    if seed == 4:
        raise ValueError("not one of xmc")
    more = {1: lambda: ctypes.string_at(0), 3: endless, 6: lambda: bytes(1 << 40), 7: sys.exit}
    more.get(seed, int)()

pool.SECONDS = 1.0
target = Numbered("numbered", lambda folder: (folder / "seed").touch(), read, alternatives=True)
results = pool.run_target(target, Path(sys.argv[1]), list(range(9)), [])
failed = {seed: outcome.where for seed, outcome, _ in results.failures.values()}
print(json.dumps([results.counts, failed]))
"""


def test_what_comes_of_a_case(tmp_path: Path) -> None:
    paths = os.pathsep.join(str(path) for path in (HERE, HERE.parent / "helpers"))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "toy")]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    counts, failed = json.loads(done.stdout)
    assert counts == {"sound": 2, "crash": 1, "refused": 1, "time": 1, "traceback": 3, "lost": 1}
    assert sorted(failed) == ["1", "3", "4", "5", "6", "7"]
    assert failed["1"].startswith("SIGSEGV")
    assert failed["5"] == "AssertionError: a row is lost"
    kept = tmp_path / "toy" / "failed" / "1"
    assert (kept / "changed" / "seed").read_bytes() == b"1"
    assert (kept / "said.txt").read_text().startswith("crash SIGSEGV")
