"""What nobody foresaw: one sentence, and a written report with what is needed to mend it."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path

from xmc.errors import XMCError, cause_in_words
from xmc.shown import one_line, visible
from xmc.storage.caches import user_cache
from xmc.terminal import show_any_text
from xmc.version import __version__

__all__ = ["FAULT", "MISTAKE", "RemoteFault", "tell", "watch_threads", "without_secrets", "write_report"]

MISTAKE = 2
"""Exit code where the user, or who looks after the machine, can mend it: EX_USAGE of old, and what shells use."""
FAULT = 70
"""Exit code of what nobody foresaw: EX_SOFTWARE of sysexits.h."""
KEPT = 20
"""Reports in the folder, at most; the oldest go."""
LONGEST_REPORT = 200_000
"""Characters of a report, at most."""
LONGEST_LINE = 600
PACKAGES = (
    "torch", "numpy", "scipy", "numba", "pyarrow", "safetensors", "tokenizers", "transformers", "pydantic", "typer", "rich",
    "faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "triton", "ray", "uvicorn", "starlette", "scikit-learn", "onnxruntime",
)  # fmt: skip
"""Those whose versions a report names."""
_REFUSALS = "ENOSPC EDQUOT EFBIG EROFS EACCES EPERM EMFILE ENFILE ENAMETOOLONG ELOOP ENOTDIR EISDIR"
_MACHINE = frozenset(getattr(errno, name) for name in _REFUSALS.split() if hasattr(errno, name))
"""Refusals of the file system that say by themselves what is to be done."""
_SECRET_NAME = r"(?:token|secret|passw(?:or)?d|passphrase|api[-_]?key|access[-_]?key|credentials?|signature|sig)"
_SECRETS = (
    (re.compile(r"(://)[^/\s@'\"]+@"), r"\1***@"),
    (re.compile(rf"([?&](?:X-Amz-[\w-]+|[\w-]*{_SECRET_NAME})=)[^&\s'\"]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"(\bBearer\s+)\S+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(?:hf_|gh[pousr]_|github_pat_|sk-|xox[a-z]-|AKIA|eyJ)[\w.-]{12,}"), "***"),
)
_SECRET_OPTION = re.compile(rf"--?[\w-]*{_SECRET_NAME}", re.IGNORECASE)
_RANDOM = re.compile(r"(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])(?=[^0-9]*[0-9])[\w+=-]{32,}")


class RemoteFault(Exception):
    """A fault of another process: what it said, and its traceback."""

    def __init__(self, said: str, trace: str) -> None:
        super().__init__(said)
        self.trace = trace


def tell(error: BaseException) -> int:
    """Say on standard error what nobody foresaw, and write a report of it; returns the exit code.

    MISTAKE, without a report, for a full disk, a missing right and the like; FAULT for all else. Never raises an Exception:
    where no report can be written that is said too.
    """
    show_any_text()
    said = one_line(cause_in_words(error), LONGEST_LINE)
    if _is_of_machine(error):
        named = getattr(error, "filename", None)
        place = f"{_name(named)} cannot be read or written" if named is not None else "a file cannot be read or written"
        _say(f"error: {place}: {said}.")
        return MISTAKE
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        detail = f" ({one_line(str(error), LONGEST_LINE)})" if str(error) else ""
        _say(f"error: the memory of this machine is not enough for what was asked{detail}.")
    else:
        kind = type(error).__name__
        _say(f"error: {kind if kind == said else f'{kind}: {said}'}. This is a fault of xmc, or of this machine.")
    try:
        report = write_report(error)
    except Exception as problem:
        _say(f"no report could be written ({cause_in_words(problem)}); it happened {_place(error)}")
    else:
        _say(
            f"report: {visible(str(report))}: it may quote names and texts of yours; read it, and send it with an issue to "
            f"the project xmc-retrieval"
        )
    return FAULT


def watch_threads() -> None:
    """Let a thread that ends by an error say so in a sentence, with a report, in place of a traceback."""

    def hook(failed: threading.ExceptHookArgs) -> None:
        if isinstance(failed.exc_value, XMCError):
            _say(f"error: {failed.exc_value}")
        elif failed.exc_value is not None and not isinstance(failed.exc_value, SystemExit):
            tell(failed.exc_value)

    threading.excepthook = hook


def write_report(error: BaseException, folders: Sequence[Path] | None = None) -> Path:
    """Write what is known of an error into a file that its owner alone can read; returns its path.

    folders: tried one after the other; by default `reports` in the user's cache, and the system's folder of temporary files.
    The newest KEPT reports stay there. Raises OSError where none can be written to.
    """
    text = _report(error)
    last: Exception = OSError("there is no folder for it")
    for folder in _folders() if folders is None else folders:
        try:
            return _written(text, folder)
        except OSError as problem:
            last = problem
    raise last


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text without what looks like a token, a password or a key, and without values of such environment variables."""
    for name, value in environment.items():
        if re.search(rf"{_SECRET_NAME}|KEY$", name, re.IGNORECASE) and len(value) >= 8:
            text = text.replace(value, "***")
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _report(error: BaseException) -> str:
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    remote = getattr(error, "trace", "")
    parts = (
        f"xmc {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC, process {os.getpid()}, rank {os.environ.get('RANK', '-')}",
        f"command: {_command()}",
        f"packages: {', '.join(_versions())}",
        f"encodings: {sys.getfilesystemencoding()}, {getattr(sys.stdout, 'encoding', None)}",
        "",
        trace,
        f"In the other process:\n{remote}" if remote else "",
    )
    return visible(without_secrets("\n".join(parts)), "\n")[-LONGEST_REPORT:]


def _command() -> str:
    """The command line without values that look like secrets."""
    words: list[str] = []
    for number, word in enumerate(sys.argv):
        option, sign, _ = word.partition("=")
        if number and _SECRET_OPTION.fullmatch(sys.argv[number - 1]):
            words.append("***")
        elif sign and _SECRET_OPTION.fullmatch(option):
            words.append(f"{option}=***")
        else:
            words.append("***" if _RANDOM.fullmatch(word) else word)
    return " ".join(map(repr, words))


def _versions() -> list[str]:
    found = []
    for name in PACKAGES:
        with contextlib.suppress(Exception):  # a broken installation is no reason for no report
            found.append(f"{name} {metadata.version(name)}")
    return found


def _folders() -> list[Path]:
    folders = []
    with contextlib.suppress(RuntimeError):
        folders.append(user_cache() / "reports")
    with contextlib.suppress(OSError):
        folders.append(Path(tempfile.gettempdir()))
    return folders


def _written(text: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now().strftime("%Y%m%d-%H%M%S-%f")  # to the microsecond: names are in the order of reports
    handle, name = tempfile.mkstemp(prefix=f"xmc-fault-{now}-", suffix=".txt", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    written = Path(name)
    for old in sorted(set(folder.glob("xmc-fault-*.txt")) - {written})[: 1 - KEPT]:
        with contextlib.suppress(OSError):
            old.unlink()
    return written


def _is_of_machine(error: BaseException) -> bool:
    if not isinstance(error, Exception) or isinstance(error, MemoryError):
        return False
    refused = isinstance(error, OSError) and error.errno in _MACHINE
    return refused or "No space left on device" in str(error)


def _name(name: object) -> str:
    return visible(os.fsdecode(name) if isinstance(name, (str, bytes)) else str(name))


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return visible(f"at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else "nowhere")


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # standard error is closed, full, or not there
        print(line, file=sys.stderr, flush=True)
