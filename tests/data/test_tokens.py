"""Ragged tokens and their cache: content, types, keys, damage, and two processes at once."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from xmc.data.token_cache import CHUNK, TokenCache, cached_tokens, read_tokens, write_tokens
from xmc.data.tokens import RaggedTokens
from xmc.encoders.static.hashing import hash_features
from xmc.errors import StoreError

TEXTS = ["a boat", "", "two hulls, two sails", "東京 🚤", "x" * 300]


def code_points(texts: Sequence[str]) -> RaggedTokens:
    """One token a code point: needs 8, 16 or 32 bits depending on the text."""
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return RaggedTokens(np.array([ord(letter) for text in texts for letter in text], np.uint64), offsets)


class Counting:
    """`code_points`, counting how often it is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, texts: Sequence[str]) -> RaggedTokens:
        self.calls += 1
        return code_points(texts)


def texts_of(tokens: RaggedTokens) -> list[str]:
    return [
        "".join(map(chr, tokens.values[start:end]))
        for start, end in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
    ]


def test_take_keeps_order_and_repeats() -> None:
    taken = code_points(TEXTS).take(np.array([2, 1, 2, 0]))
    assert texts_of(taken) == [TEXTS[2], "", TEXTS[2], TEXTS[0]]
    assert taken.offsets.dtype == np.int64
    nothing = code_points(TEXTS).take(np.zeros(0, np.int64))
    assert len(nothing) == 0
    assert nothing.offsets.tolist() == [0]


@pytest.mark.parametrize(
    ("text", "dtype"), [("", np.uint8), ("boat", np.uint8), ("ÿ", np.uint8), ("Ā", np.uint16), ("🚤", np.uint32)]
)
@pytest.mark.parametrize("cached", [True, False])
def test_values_have_the_narrowest_type(text: str, dtype: type, cached: bool, tmp_path: Path) -> None:
    tokens = cached_tokens([text, "a"], code_points, "points", TokenCache(tmp_path) if cached else None)
    assert tokens.values.dtype == dtype
    assert tokens.offsets.dtype == np.int64
    assert texts_of(tokens) == [text, "a"]


@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
def test_chunks_join_without_a_seam(count: int, tmp_path: Path) -> None:
    """The widest token comes last, so that chunks of different types are joined."""
    texts = [f"text {row}" for row in range(count)] + ["🚤"] * (count > 0)
    for cache in (None, TokenCache(tmp_path)):
        assert texts_of(cached_tokens(texts, code_points, "points", cache)) == texts


def test_second_call_reads_a_memory_map(tmp_path: Path) -> None:
    featurize = Counting()
    first = cached_tokens(TEXTS, featurize, "points", TokenCache(tmp_path))
    second = cached_tokens(TEXTS, featurize, "points", TokenCache(tmp_path))
    assert featurize.calls == 1
    assert texts_of(second) == texts_of(first) == TEXTS
    (file,) = tmp_path.iterdir()
    if sys.platform == "linux":
        assert str(file) in Path("/proc/self/maps").read_text()
    with pytest.raises(ValueError, match="read-only"):
        second.values[0] = 0


def test_what_a_killed_process_left_goes_when_the_file_is_read(tmp_path: Path) -> None:
    """Where another process has written the file since; what is being written stays."""
    cache = TokenCache(tmp_path)
    cached_tokens(["a boat"], hash_features, "k", cache)
    file = cache.file(["a boat"], "k")
    left, new = (file.with_name(f".{file.name}.{name}.tmp") for name in ("0123456789ab", "ba9876543210"))
    left.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(left, (0, 0))
    cached_tokens(["a boat"], hash_features, "k", cache)
    assert sorted(tmp_path.iterdir()) == sorted([file, new])


def test_arrow_columns_lists_and_nulls_share_a_cache(tmp_path: Path) -> None:
    featurize = Counting()
    column = pa.chunked_array([["not this", "a boat"], [None], TEXTS[2:]])[1:]
    for texts in (TEXTS, tuple(TEXTS), column, column.cast(pa.large_string())):
        assert texts_of(cached_tokens(texts, featurize, "points", TokenCache(tmp_path))) == TEXTS
    assert featurize.calls == 1
    assert texts_of(cached_tokens(column, featurize, "points", None)) == TEXTS


def test_key_depends_on_everything_that_matters(tmp_path: Path) -> None:
    """Other key, other text, other order, other cuts between texts, one text more: each has a file of its own."""
    variants = [(TEXTS, "points"), (TEXTS, "point"), (TEXTS[::-1], "points"), ([*TEXTS, ""], "points")]
    variants += [(["a", "b"], "k"), (["ab", ""], "k"), (["", "ab"], "k"), (["ab"], "k")]
    for texts, key in variants:
        assert texts_of(cached_tokens(texts, code_points, key, TokenCache(tmp_path))) == texts
    assert len(list(tmp_path.iterdir())) == len(variants)


def damage_file(content: bytes, how: str) -> bytes:
    middle = len(content) // 2
    return {
        "empty": b"",
        "cut short": content[:-1],
        "cut in half": content[:middle],
        "another file": b"not an Arrow file at all" * 10,
        "a value changed": content.replace(b"boat", b"goat"),
        "the checksum changed": content.replace(b"sha256", b"sha257"),
    }[how]


@pytest.mark.parametrize(
    "how", ["empty", "cut short", "cut in half", "another file", "a value changed", "the checksum changed"]
)
def test_damaged_cache_is_reported_and_built_again(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["a boat", "a sail"]
    featurize = Counting()
    cached_tokens(texts, featurize, "points", TokenCache(tmp_path))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage_file(whole, how))
    assert file.read_bytes() != whole
    with pytest.raises(StoreError, match=file.name):
        read_tokens(file)
    with caplog.at_level(logging.WARNING, logger="xmc.data.tokens"):
        assert texts_of(cached_tokens(texts, featurize, "points", TokenCache(tmp_path))) == texts
    assert featurize.calls == 2
    assert [record.name for record in caplog.records] == ["xmc.data.tokens"]
    assert str(file) in caplog.text
    assert file.read_bytes() == whole
    cached_tokens(texts, featurize, "points", TokenCache(tmp_path))
    assert featurize.calls == 2


def test_any_flipped_byte_is_found_or_harmless(tmp_path: Path) -> None:
    """In one process, so that a damaged length that led outside of the map would end the test run."""
    file = tmp_path / "tokens.arrow"
    tokens = RaggedTokens(np.arange(300, 340, dtype=np.uint16), np.array([0, 10, 10, 40], np.int64))
    write_tokens(tokens, file)
    content = file.read_bytes()
    found = 0
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x81
        # A new name each time: a file that is still mapped must not be written over.
        damaged = tmp_path / f"{place}.arrow"
        damaged.write_bytes(changed)
        try:
            read = read_tokens(damaged)
        except StoreError:
            found += 1
            continue
        finally:
            damaged.unlink()
        assert read.values.dtype == tokens.values.dtype
        assert read.values.tolist() == tokens.values.tolist()
        assert read.offsets.tolist() == tokens.offsets.tolist()
    assert found > tokens.values.nbytes + tokens.offsets.nbytes


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        cached_tokens(TEXTS, code_points, "points", TokenCache(tmp_path / "file" / "cache"))


def test_optional_cache_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = TokenCache(tmp_path / "file" / "cache", 1 << 20, optional=True)
    for texts in (TEXTS, TEXTS[1:]):
        assert texts_of(cached_tokens(texts, code_points, "points", cache)) == texts
    (record,) = caplog.records
    assert str(tmp_path / "file") in record.getMessage()
    assert "token_cache" in record.getMessage()


def test_bounded_cache_drops_what_was_used_longest_ago(tmp_path: Path) -> None:
    columns = [[f"{letter} boat"] * 100 for letter in "abcd"]
    size = cached_tokens(columns[0], code_points, "points", None).values.nbytes
    cache = TokenCache(tmp_path, 4 * size + 7_000)  # of three columns, whose files hold offsets and a schema too
    files = [cache.file(texts, "points") for texts in columns]
    for age, (texts, file) in enumerate(zip(columns[:3], files[:3], strict=True)):
        cached_tokens(texts, code_points, "points", cache)
        os.utime(file, (1_000.0 + age, 1_000.0 + age))
    assert sorted(tmp_path.iterdir()) == sorted(files[:3])
    featurize = Counting()
    cached_tokens(columns[0], featurize, "points", cache)  # used now
    assert featurize.calls == 0
    cached_tokens(columns[3], code_points, "points", cache)
    assert sorted(tmp_path.iterdir()) == sorted([files[0], files[2], files[3]])


def test_bounded_cache_is_read_into_memory_and_does_not_keep_what_is_larger(tmp_path: Path) -> None:
    featurize, cache = Counting(), TokenCache(tmp_path, 10_000)
    first, second = (cached_tokens(TEXTS, featurize, "points", cache) for _ in range(2))
    assert featurize.calls == 1
    assert texts_of(first) == texts_of(second) == TEXTS
    (file,) = tmp_path.iterdir()
    if sys.platform == "linux":  # another machine may remove the file, which would end a process that has it mapped
        assert str(file) not in Path("/proc/self/maps").read_text()
    large = ["a boat" * 10_000]
    assert texts_of(cached_tokens(large, code_points, "points", cache)) == large
    assert list(tmp_path.iterdir()) == [file]


def test_failed_featurize_leaves_nothing(tmp_path: Path) -> None:
    def fail(texts: Sequence[str]) -> RaggedTokens:
        raise RuntimeError(f"no features for {len(texts)} texts")

    with pytest.raises(RuntimeError, match="no features for 5 texts"):
        cached_tokens(TEXTS, fail, "points", TokenCache(tmp_path))
    assert list(tmp_path.iterdir()) == []


PROCESS = """
import sys, time
from pathlib import Path
from xmc.data.token_cache import TokenCache, cached_tokens
from xmc.encoders.static.hashing import hash_features

directory, me, other = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
texts = [f"a boat with {row} hulls" for row in range(20_000)]

def featurize(chunk):
    # Wait for the other process, so that both build the same file at once.
    (directory / f"{me}.building").touch()
    deadline = time.monotonic() + 60
    while not (directory / f"{other}.building").exists():
        assert time.monotonic() < deadline, "the other process never began"
        time.sleep(0.01)
    return hash_features(chunk)

tokens = cached_tokens(texts, featurize, "static-1", TokenCache(directory / "cache"))
print(len(tokens), int(tokens.values.astype("u8").sum()), int(tokens.offsets.sum()))
"""


def test_two_processes_build_the_same_file_at_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path), *names],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for names in (("one", "two"), ("two", "one"))
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    expected = hash_features([f"a boat with {row} hulls" for row in range(20_000)])
    line = f"{len(expected)} {int(expected.values.astype('u8').sum())} {int(expected.offsets.sum())}\n"
    # Standard error is empty: no progress bar where there is no terminal, and no warning.
    assert outputs == [(line, ""), (line, "")]
    (file,) = (tmp_path / "cache").iterdir()
    assert read_tokens(file).values.tolist() == expected.values.tolist()


def test_numba_featurizer_survives_its_simplest_threading_layer() -> None:
    """Where OpenMP is missing, numba's layer is "workqueue", and it aborts the process when two threads enter it."""
    code = (
        "from xmc.data.token_cache import cached_tokens\n"
        "from xmc.encoders.static.hashing import hash_features\n"
        f"print(len(cached_tokens(['a boat'] * {3 * CHUNK}, hash_features, 'static-1', None)))"
    )
    environment = os.environ | {"NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, f"{3 * CHUNK}\n"), done.stderr
