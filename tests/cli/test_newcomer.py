"""A newcomer's messy CSV: at most five commands to a first useful prediction, each proposed by what the one before printed."""

from __future__ import annotations

import random
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from commands import fail, xmc

TOPICS = {
    "Schiff": "ein großes Boot auf dem Meer",
    "thé": "où boire une tasse de thé à Paris",
    "Käse": "ein Stück Käse vom Markt",
    "Rad": "ein schnelles Rad am Fluß",
    "Buch": "ein altes Buch im Café gelesen",
}


def messy(path: Path) -> None:
    """3,000 rows in Latin-1, with another separator of labels than usual, labels that stand twice, and empty cells."""
    choice = random.Random(0)
    lines = ["text;labels"]
    for row in range(3_000):
        one, other = choice.sample(list(TOPICS), 2)
        text = "" if row % 97 == 0 else f"{TOPICS[one]} und {TOPICS[other]}, Nummer {row}"
        labels = "" if row % 101 == 0 else "|".join([one, other, one] if row % 3 else [one, other])
        lines.append(f"{text};{labels}")
    path.write_bytes("\n".join(lines).encode("latin-1"))


def proposed(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The next command: the first that is proposed, also by an error."""
    assert done.returncode in (0, 2)
    assert "Traceback" not in done.stderr
    return shlex.split(re.findall(r"^next: xmc (.*)$", done.stdout + done.stderr, re.MULTILINE)[0])


@pytest.mark.slow
def test_a_messy_table_to_a_useful_prediction_in_five_commands(tmp_path: Path) -> None:
    messy(tmp_path / "tickets.csv")
    command = ["data", "convert", "tickets.csv", "tickets"]
    asked = []
    for _ in range(5):
        asked.append(command)
        done = xmc(*command, cwd=tmp_path)
        if command[0] == "search" and done.returncode == 0:
            break
        command = proposed(done)
    else:
        pytest.fail(f"no prediction after {asked}: {done.stdout}{done.stderr}")
    assert [words[:2] for words in asked[:3]] == [["data", "convert"]] * 3
    assert asked[1][-2:] == ["--encoding", "cp1252"]
    assert asked[2][-3:] == ["--separator", "|", "--overwrite"]
    assert asked[3][0] == "train"
    query = asked[4][2]
    expected = {name for name, text in TOPICS.items() if query[:20] in text or text.startswith(query[:20])}
    assert expected
    shown = [line for line in done.stdout.splitlines() if any(name in line for name in TOPICS)]
    assert any(name in shown[0] for name in expected)


def test_errors_propose_the_command_again(tmp_path: Path) -> None:
    """With the option that does without the error, whatever reads the file."""
    (tmp_path / "in.csv").write_bytes("Text;labels\nthé;a\n".encode("latin-1"))
    command = ["data", "convert", "in.csv", "--text-column=Txt", "--encoding", "ascii", "out"]
    asked = []
    for _ in range(2):
        done = xmc(*command, cwd=tmp_path)
        assert done.returncode == 2
        command = proposed(done)
        asked.append(command[3:])
    column = ["--text-column", "Text"]
    (tmp_path / "other.csv").write_text("name;body;tags\na;b;c\n")
    fail(
        xmc("data", "convert", "other.csv", "other", cwd=tmp_path),
        "has no columns 'labels' and 'text', only name, body, tags; name the right ones by --labels-column and --text-column.",
    )
    assert asked == [["--encoding", "ascii", "out", *column], ["out", *column, "--encoding", "cp1252"]]
    assert xmc(*command, cwd=tmp_path).returncode == 0
