"""The command: which targets, how many cases, and the table at the end."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from fuzzing.all_targets import TARGETS
from fuzzing.folders import Changes, files_of
from fuzzing.pool import Results, run_target
from fuzzing.targets import Target
from fuzzing.worker import Outcome

__all__ = ["main"]

ROUND = 40
"""Cases of a target before it is the turn of the next."""
CORPUS = Path(__file__).parents[1] / "corpus"
WORDS = ("refused", "sound", "traceback", "lost", "crash", "time", "no memory")


def main(arguments: list[str] | None = None, targets: Mapping[str, Target] = TARGETS) -> int:
    """Fuzz; 1 where anything came out but a sound result or an error of xmc, 2 where no target is meant."""
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description="Damaged inputs of every format.")
    parser.add_argument("--minutes", type=float, help="let all targets take turns for so long, by fresh seeds")
    parser.add_argument("--cases", type=int, default=100, help="number of cases of each target, without --minutes")
    parser.add_argument("--scaled", action="store_true", help="fewer cases of dear targets, as their `slow` says")
    parser.add_argument("--first", type=int, help="first seed; by default 0, and a fresh one with --minutes")
    parser.add_argument("--targets", nargs="*", default=["*"], help="names, or patterns such as 'run *'")
    parser.add_argument("--processes", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="folder for inputs that failed")
    parser.add_argument("--json", type=Path, help="write the number of cases by outcome there too")
    parser.add_argument("--list", action="store_true", help="print the names of the targets alone")
    options = parser.parse_args(arguments)
    chosen = [target for name, target in targets.items() if any(fnmatch(name, pattern) for pattern in options.targets)]
    if options.list or not chosen:
        print("\n".join(targets) if options.list else f"no target is called {' '.join(options.targets)}")
        return 0 if options.list else 2
    with _folder() as root:
        results = fuzz(chosen, root, options)
    return report(results, options)


def fuzz(chosen: list[Target], root: Path, options: argparse.Namespace) -> dict[str, Results]:
    """The results by target. root: a folder for what is written meanwhile."""
    results = {target.name: Results() for target in chosen}
    until = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    fresh = random.randrange(1 << 40) if options.minutes else 0
    first = fresh if options.first is None else options.first
    print(f"seeds from {first} on, {len(chosen)} targets, {options.processes} processes", flush=True)
    for number, seeds in enumerate(_rounds(options, first)):
        for target in chosen:
            if time.monotonic() >= until:
                return results
            saved = saved_cases(target.name)
            own = list(seeds)[: max(1, options.cases * target.slow // 2000)] if options.scaled else list(seeds)
            own = [*(-1 - place for place in range(len(saved) if number == 0 else 0)), *own]
            folder = root / target.name.replace("/", " ")
            results[target.name].extend(run_target(target, folder, own, saved, options.processes, until))
            if (folder / "failed").is_dir():
                shutil.copytree(folder / "failed", options.keep / folder.name, dirs_exist_ok=True)
                shutil.rmtree(folder / "failed")
            if options.minutes is None:
                print(_line(target.name, results[target.name]), flush=True)
                shutil.rmtree(folder, ignore_errors=True)
    return results


def report(results: dict[str, Results], options: argparse.Namespace) -> int:
    """Print the table and the failures; 1 where there are any."""
    if options.minutes is not None:
        print("\n".join(_line(name, result) for name, result in results.items()))
    total = Results()
    for result in results.values():
        total.extend(result)
    print(_line("all", total))
    for kind, found in _by_kind(results).items():
        name, seed, outcome, _ = found[0]
        everywhere = ", ".join(f"{other} ({count})" for other, _, _, count in found)
        print(f"\n{kind}\n  in {everywhere}\n{_end(outcome)}")
        print(f"  again: python -m fuzzing --targets '{name}' --first {seed} --cases 1")
    if options.json is not None:
        options.json.write_text(json.dumps({name: dict(result.counts) for name, result in results.items()}))
    return 1 if total.failed else 0


def saved_cases(target: str) -> list[Changes]:
    """The files that are changed by inputs that are kept: those that failed once, and others worth it."""
    folder = CORPUS / target.replace("/", " ")
    return [dict(files_of(case)) for case in sorted(folder.iterdir())] if folder.is_dir() else []


def _rounds(options: argparse.Namespace, first: int) -> Iterator[range]:
    if options.minutes is None:
        yield range(first, first + options.cases)
        return
    while True:
        yield range(first, first + ROUND)
        first += ROUND


def _by_kind(results: Mapping[str, Results]) -> dict[str, list[tuple[str, int, Outcome, int]]]:
    """The failures of all targets, by what they have in common: target, first seed, what came out, number of cases."""
    found: dict[str, list[tuple[str, int, Outcome, int]]] = {}
    for name, result in results.items():
        for kind, (seed, outcome, count) in result.failures.items():
            found.setdefault(kind, []).append((name, seed, outcome, count))
    return found


def _end(outcome: Outcome) -> str:
    """The innermost lines of a stack: the last ones of Python's, the first ones of faulthandler's."""
    lines = outcome.said.strip().splitlines()
    shown = lines[:12] if outcome.word in ("crash", "time") else lines[-12:]
    return "\n".join(f"    {line[:200]}" for line in shown)


def _line(name: str, results: Results) -> str:
    counts, cases = results.counts, sum(results.counts.values())
    told = "  ".join(f"{word} {counts[word]:,}" for word in WORDS)
    return f"{name:<26} {cases:>7,} cases  {told}  {cases / max(results.seconds, 0.01):.1f}/s"


@contextmanager
def _folder() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="xmc-fuzz-"))
    os.environ["XMC_CACHE"] = str(root / "cache")
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)
