"""Files of 300 MB are converted and predicted in bounded memory, by processes of their own."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import ENVIRONMENT
from worlds import colours, tiny_config

import xmc

SMALL, LARGE = 100 << 20, 300 << 20
MORE = 160 << 20
"""Bytes that a source of LARGE may take beyond one of SMALL: of memory that grows with rows there are hashes and offsets."""


def rows() -> Iterator[tuple[str, str, list[str]]]:
    """Queries of about 3 KB, with line breaks and quotes."""
    words = " ".join(f'"word {number}", and' for number in range(170))
    row = 0
    while True:
        yield f"q{row}", f"red {row}\n{words}", [f"label {row % 50}", f"label {row % 7}"]
        row += 1


def write(path: Path, size: int) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if path.suffix == ".csv":
            writer.writerow(["uid", "text", "labels"])
        for uid, text, labels in rows():
            if path.suffix == ".csv":
                writer.writerow([uid, text, ";".join(labels)])
            else:
                file.write(json.dumps({"uid": uid, "text": text, "labels": labels}) + "\n")
            if file.tell() > size:
                return path
    return path


MEASURED = """
import resource, subprocess, sys
code = subprocess.call([sys.executable, "-m", "xmc", *sys.argv[1:]], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""A small program runs the command: what a process took before it became the command counts too."""


def peak(*arguments: object) -> int:
    """Bytes of memory that a command takes at most."""
    command = [sys.executable, "-c", MEASURED, *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) << 10


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is another elsewhere")
@pytest.mark.parametrize(
    "ending", [pytest.param(".csv", marks=pytest.mark.slow), pytest.param(".jsonl", marks=pytest.mark.nightly)]
)
def test_large_sources_take_as_much_memory_as_small_ones(tmp_path: Path, ending: str) -> None:
    xmc.train(colours(), tiny_config(epochs=1), out=tmp_path / "run")
    converted, predicted = {}, {}
    for size in (SMALL, LARGE):
        source = write(tmp_path / f"in{size}{ending}", size)
        out = tmp_path / str(size)
        separator = ("--separator", ";") if ending == ".csv" else ()
        converted[size] = peak("data", "convert", source, out / "data", *separator)
        predicted[size] = peak("predict", tmp_path / "run", "--input", source, "--output", out / "predicted", "-k", 1)
        source.unlink()
    print(ending, converted, predicted)
    assert converted[LARGE] < converted[SMALL] + MORE
    assert predicted[LARGE] < predicted[SMALL] + MORE
