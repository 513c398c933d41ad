"""Pages of documentation: their blocks of code, and how these are run or, where they cannot be, checked."""

from __future__ import annotations

import functools
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner
from warm_process import warm_commands

from xmc.cached import cached_property
from xmc.cli import app
from xmc.config import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```\s*$", re.DOTALL | re.MULTILINE
)
MARK = re.compile(r"<!-- not run:(?P<reason>[^\n]*?)-->\s*\Z")
NEEDS = re.compile(r"^<!-- needs: (?P<run>\S+) -->$", re.MULTILINE)
PACKAGE = re.compile(r"^<!-- needs package: (\w+) -->$", re.MULTILINE)
INLINE = re.compile(r"`((?:xmc|python benchmarks/run\.py|make) [^`]+)`")
PROGRAMS = ("xmc", "make", "python", "torchrun", "pip", "ray")
NAMED_OPTION = re.compile(r"^\W*?(?P<first>--[a-z][a-z\d-]*)(?P<more>(?: +--?[a-z][a-z\d-]*)*)")


@dataclass(frozen=True)
class Block:
    """Fenced code, its language ("" for none), the line of its first line, and why it is not run, None where it is."""

    language: str
    code: str
    line: int
    reason: str | None


@dataclass(frozen=True)
class Page:
    """A page in the working tree."""

    path: Path

    @property
    def name(self) -> str:
        """Its path in the working tree."""
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[Block]:
        """Its fenced blocks in order."""
        found = []
        for match in FENCE.finditer(self.text):
            mark = MARK.search(self.text[: match.start()])
            code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
            line = self.text.count("\n", 0, match.start("code")) + 1
            found.append(Block(match["language"], code, line, mark and mark["reason"].strip()))
        return found

    @property
    def prose(self) -> str:
        """The text without the blocks."""
        return FENCE.sub("", self.text)

    @property
    def run(self) -> str | None:
        """The run directory that its code takes as given."""
        found = NEEDS.search(self.text)
        return found and found["run"]

    @property
    def packages(self) -> list[str]:
        """The packages that its code imports, and that may be missing."""
        return PACKAGE.findall(self.text)


def run_blocks(page: Page) -> int:
    """Run a page from top to bottom in the working directory: Python in one namespace, shell commands in between."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    environment = {
        **os.environ,
        "PATH": f"{warm_commands()}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "160",
    }
    count = 0
    for block in page.blocks:
        if block.reason is not None or block.language not in ("python", "bash"):
            continue
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, str(page.path), "exec"), namespace)
        else:
            command = ["bash", "-e", "-o", "pipefail", "-c", block.code]
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            assert done.returncode == 0, f"{page.name}, line {block.line}: exit code {done.returncode}\n{said}"
        count += 1
    return count


def commands(code: str) -> Iterator[list[str]]:
    """The words of each command in a shell block; comments, loops and here-documents are left out."""
    code = re.sub(r"<<'?(\w+)'?.*?^\1$", "", code, flags=re.DOTALL | re.MULTILINE)
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();|&")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();|&"):
                words = words[
                    next((i for i, one in enumerate(words) if not re.match(r"[A-Z_]+=|(do|if|then|!)$", one)), 0) :
                ]
                if words and words[0] in PROGRAMS:
                    yield words
                words = []
            else:
                words.append(word)


def check_command(words: list[str]) -> None:
    """That the subcommands, options, keys, recipes, tables and targets that a command names exist."""
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(words[1:2]) <= set(targets), words
    elif words[:2] == ["python", "benchmarks/run.py"]:
        _check_benchmark(words[2:])
    elif words[0] == "xmc" or ("-m" in words and words[words.index("-m") + 1] == "xmc"):
        _check_xmc(words[words.index("xmc") + 1 :])
    elif words[0] == "python" and len(words) > 1 and not words[1].startswith("-"):
        assert (ROOT / words[1]).is_file(), words


def _check_xmc(words: list[str]) -> None:
    group = list(words[:2] if words[:1] in (["config"], ["data"], ["hub"], ["labels"], ["votes"]) else words[:1])
    known = options(*(name for name in group if not name.startswith("-")))
    used = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", word)}
    assert used <= known, f"xmc {' '.join(words)}: there is no {', '.join(sorted(used - known))}"
    settings = [after for word, after in itertools.pairwise(words) if word == "--set"]
    recipes = [word for word in words if word.startswith("configs/")]
    for recipe in recipes:
        TrainConfig.load(ROOT / recipe, [text for text in settings if "..." not in text])
    if settings and not recipes:
        TrainConfig.from_mapping({}, [text for text in settings if "=" in text and "..." not in text])


def _check_benchmark(words: list[str]) -> None:
    source = (ROOT / "benchmarks" / "run.py").read_text(encoding="utf-8")
    assert words[0] == "TABLE" or (f'"{words[0]}"' in source and (ROOT / "benchmarks" / f"{words[0]}.py").is_file()), (
        words
    )
    assert all(f'"{word}"' in source for word in words if word.startswith("--")), words


@functools.cache
def options(*command: str) -> frozenset[str]:
    """What `xmc COMMAND --help` lists; fails where there is no such command."""
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "250", "NO_COLOR": "1", "TERM": "dumb"})
    assert done.exit_code == 0, f"xmc {' '.join(command)}: {done.output}"
    found = {"--help"}
    for line in done.output.splitlines():
        match = NAMED_OPTION.match(line)
        if match is not None:
            found |= {match["first"], *match["more"].split()}
    return frozenset(found)
