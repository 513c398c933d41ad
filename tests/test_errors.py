"""Messages are one visible line, and a boundary turns what other libraries raise into them."""

from __future__ import annotations

import errno
import zlib

import pytest

from xmc.errors import LONGEST_CAUSE, LONGEST_MESSAGE, DataError, StoreError, XMCError, boundary
from xmc.shown import one_line, visible


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a boat", "a boat"),
        ("thé 茶 🜚 क्‍ष", "thé 茶 🜚 क्‍ष"),
        ("\x1b[31mred\x1b]8;;http://x\x07", "\\x1b[31mred\\x1b]8;;http://x\\x07"),
        ("abc\u202edef\u2066\u200b", "abc\\u202edef\\u2066\\u200b"),
        (
            "a\nb\r\tc\x85\u2028",
            "a\\nb\\r\\tc\\x85\\u2028".replace("\\n", "\\x0a").replace("\\r", "\\x0d").replace("\\t", "\\x09"),
        ),
        ("half \ud800, tag \U000e0041", "half \\ud800, tag \\U000e0041"),
    ],
)
def test_what_a_terminal_obeys_is_made_visible(text: str, seen: str) -> None:
    assert visible(text) == seen


def test_a_message_is_one_line_of_bounded_length() -> None:
    error = DataError("line 3:\n  the value \x1b[2J is\r\nwrong; " + "long " * 10_000_000 + "and the remedy.")
    assert str(error).startswith("line 3: the value \\x1b[2J is wrong; long long")
    assert str(error).endswith("long and the remedy.")
    assert len(str(error)) <= LONGEST_MESSAGE
    assert one_line("abc", 3) == "abc"
    assert len(one_line("word " * 40, 100)) <= 100


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "Permission denied"),
        (MemoryError(), "there is not enough memory for it"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deeply"),
        (KeyError("size"), "'size' is missing"),
        (
            zlib.error("Error -3 while decompressing data: invalid block type"),
            "Error -3 while decompressing data: invalid block type",
        ),
        (ValueError("first.\nsecond."), "first. second"),
        (ValueError("x" * 10_000), "x" * 50),
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_boundary_makes_a_sentence_of_anything(raised: Exception, said: str) -> None:
    with pytest.raises(StoreError) as caught, boundary(StoreError, "FILE cannot be read", "Copy it again."):
        raise raised
    assert str(caught.value).startswith(f"FILE cannot be read: {said}")
    assert str(caught.value).endswith(". Copy it again.")
    assert len(str(caught.value)) < LONGEST_CAUSE + 100
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), DataError("row 3 is bad.")])
def test_a_boundary_lets_our_own_errors_and_requests_to_stop_pass(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as caught, boundary(StoreError, "FILE cannot be read"):
        raise raised
    assert caught.value is raised
    assert not isinstance(raised, XMCError) or str(raised) == "row 3 is bad."


def test_a_panic_of_a_library_is_an_error_of_its_file() -> None:
    class PanicException(BaseException):
        """What pyo3 raises for a panic; it is no Exception."""

    with (
        pytest.raises(StoreError, match="cannot be read: index out of bounds"),
        boundary(StoreError, "FILE cannot be read"),
    ):
        raise PanicException("index out of bounds")
