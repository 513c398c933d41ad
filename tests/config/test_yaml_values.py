"""YAML documents are bounded in length, depth, numbers and what aliases make of them; whatever is wrong is one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xmc.config import TrainConfig
from xmc.config.commented import commented_yaml
from xmc.config.yaml_values import DEEPEST, LONGEST_DOCUMENT, MOST_VALUES, read_yaml
from xmc.errors import LONGEST_MESSAGE, ConfigError

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Of 330 bytes, which stand for 9 to the ninth values."""


def test_plain_values_are_read_as_before() -> None:
    text = "epochs: 4\nname: x\nlists: [1, 2.5, true, null, 'a']\nagain: &one {k: v}\nalias: *one\nmerged: {<<: *one, l: w}\n"
    assert read_yaml(text, "TEXT") == {
        "epochs": 4,
        "name": "x",
        "lists": [1, 2.5, True, None, "a"],
        "again": {"k": "v"},
        "alias": {"k": "v"},
        "merged": {"k": "v", "l": "w"},
    }
    everything = commented_yaml(TrainConfig())
    assert TrainConfig.from_mapping(read_yaml(everything, "TEXT")) == TrainConfig()
    assert 4 * len(everything) < LONGEST_DOCUMENT


REFUSED = {
    "alias bomb": (BOMB, f"more than {MOST_VALUES:,} values, those that aliases repeat counted"),
    "long text repeated": (f"a: &a {'x' * 100_000}\nb: [{'*a, ' * 40_000}]", "those that aliases repeat counted"),
    "list that holds itself": ("a: &a [*a]", "those that aliases repeat counted"),
    "mapping that holds itself": ("a: &a {b: {c: *a}}", "those that aliases repeat counted"),
    "deep lists": ("[" * 5_000, f"nested deeper than {DEEPEST} levels"),
    "deep mappings": ("".join(f"{' ' * depth}k:\n" for depth in range(400)), f"nested deeper than {DEEPEST} levels"),
    "long document": ("a: " + "x" * LONGEST_DOCUMENT, "it has 262,147 characters"),
    "digits": ("a: " + "9" * 5_000, "a number of 5,000 characters"),
    "sexagesimal": ("a: 1" + ":59" * 20_000, "a number of 60,001 characters"),
    "sexagesimal fraction": ("a: 1" + ":59" * 300 + ".5", "a number of 903 characters"),
    "no date": ("a: 2020-13-45", "month must be in 1..12"),
    "key twice": ("a: 1\na: 2", "the key 'a' stands twice"),
    "key that is a list": ("? [a]\n: 1", "unhashable key"),
    "code": ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "control characters": ("a: \x07", "special characters are not allowed"),
    "half a surrogate pair": ("a: \ud800", "special characters are not allowed"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_documents_that_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match="TEXT is not valid YAML: ") as raised:
        read_yaml(text, "TEXT is not valid YAML")
    said = str(raised.value)
    assert message in said
    assert len(said) <= LONGEST_MESSAGE
    assert said.isprintable()
    with pytest.raises(ConfigError, match=r"^The value of the setting epochs is not valid YAML: "):
        TrainConfig.from_mapping({}, [f"epochs={text}"])


def test_configurations_without_end(tmp_path: Path) -> None:
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=r"zero.yaml cannot be read: it is a character device, and not a file"):
        TrainConfig.load(tmp_path / "zero.yaml")
    with pytest.raises(ConfigError, match=r"cannot be read: it is a folder, and not a file"):
        TrainConfig.load(tmp_path)
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match=r"large.yaml cannot be read: it has more than 1,048,576 bytes"):
        TrainConfig.load(tmp_path / "large.yaml")


PROGRAM = """
import resource, sys
from xmc.config import TrainConfig
from xmc.errors import XMCError
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)
try:
    TrainConfig.load(sys.argv[1])
except XMCError as error:
    print(len(str(error)))
"""


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.yaml").write_text(BOMB)
    command = [sys.executable, "-c", PROGRAM, tmp_path / "bomb.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 500
