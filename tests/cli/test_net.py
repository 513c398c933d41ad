"""The net below all commands: one sentence, a written report, exit code 70; what others mean by an exception stays."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ENVIRONMENT, fail, xmc

from xmc.faults import KEPT, RemoteFault, without_secrets, write_report

FAULTY = Path(__file__).parents[1] / "helpers" / "faulty_command.py"


def faulty(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, FAULTY, "fail", *arguments],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "XMC_CACHE": str(tmp_path / "cache"), **environment},
    )


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("value", r"error: ValueError: a \\x1b\[31mvalue of hf_\w+\. This is a fault of xmc, or of this machine\."),
        ("memory", "error: the memory of this machine is not enough for what was asked"),
        ("end-of-file", "error: EOFError: too early. This is a fault"),
        ("pipe", "error: BrokenPipeError: Broken pipe. This is a fault"),
        ("group", "error: PanicException: of Rust. This is a fault"),
    ],
)
def test_what_nobody_foresaw_is_a_sentence_and_a_report(tmp_path: Path, kind: str, said: str) -> None:
    done = faulty(tmp_path, kind)
    assert done.returncode == 70, done.stderr
    first, second = done.stderr.splitlines()
    assert re.match(said, first)
    report = Path(second.removeprefix("report: ").partition(".txt:")[0] + ".txt")
    assert report.parent == tmp_path / "cache" / "reports"
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    text = report.read_text(encoding="utf-8")
    assert "Traceback" in text
    assert f"command: 'xmc' 'fail' '{kind}'" in text
    assert "xmc 0." in text
    assert "numpy" in text
    assert "hf_" not in text
    assert "\x1b" not in text


def test_what_others_mean_stays(tmp_path: Path) -> None:
    for kind, code, said in (
        ("disk", 2, "error: /x/y cannot be read or written: the disk is full.\n"),
        ("interrupt", 130, ""),
        ("exit", 5, ""),
        ("typer", 3, ""),
        ("mistake", 2, "error: a \\u202emistake\n"),
    ):
        done = faulty(tmp_path, kind)
        assert (done.returncode, done.stderr) == (code, said), kind
    assert not (tmp_path / "cache").exists()
    done = faulty(tmp_path, "thread")
    assert done.returncode == 0
    assert done.stderr.startswith("error: ValueError: in a thread. This is a fault")
    assert len(list((tmp_path / "cache" / "reports").iterdir())) == 1


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = faulty(tmp_path, "value", "--reports", str(tmp_path), XMC_CACHE=str(tmp_path / "file"))
    assert done.returncode == 70
    assert f"report: {tmp_path}/xmc-fault-" in done.stderr  # in the folder of temporary files
    done = faulty(tmp_path, "value", "--reports", str(tmp_path / "file"), XMC_CACHE=str(tmp_path / "file"))
    assert done.returncode == 70
    assert re.search(
        r"no report could be written \(.+\); it happened at .*faulty_command.py:\d+ in _raise", done.stderr
    )
    assert "Traceback" not in done.stderr


def test_the_newest_reports_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    reports = [write_report(ValueError(str(number)), [tmp_path]) for number in range(KEPT + 3)]
    left = {path.name for path in tmp_path.glob("xmc-fault-*")}
    assert left == {path.name for path in reports[-KEPT:]}
    assert (tmp_path / "mine.txt").exists()
    text = write_report(RemoteFault("there", "a trace \x1b"), [tmp_path]).read_text(encoding="utf-8")
    assert "In the other process:\na trace \\x1b" in text


def test_secrets_are_left_out() -> None:
    environment = {
        "HF_TOKEN": "s3cret-value",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtn",
        "HOME": "/home/somebody",
        "X_KEY": "short",
    }
    text = (
        "s3cret-value wJalrXUtn /home/somebody short s3://me:pw@host/x?X-Amz-Signature=abc&part=1 Bearer abc.def "
        "github_pat_0123456789abcdef AKIAABCDEFGHIJKLMNOP --token-file t.txt"
    )
    assert without_secrets(text, environment) == (
        "*** *** /home/somebody short s3://***@host/x?X-Amz-Signature=***&part=1 Bearer *** *** *** --token-file t.txt"
    )


def test_a_reader_that_leaves_and_a_full_disk_behind_standard_output(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, FAULTY, "fail", "many-lines"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**ENVIRONMENT, "XMC_CACHE": str(tmp_path / "cache")},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(5)
        process.stdout.close()
        assert process.wait() == 1
        assert process.stderr.read() == b""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "xmc", "config", "schema"], stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
    assert done.returncode == 2
    assert done.stderr == b"error: a file cannot be read or written: the disk is full.\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="arguments are text on Windows")
def test_arguments_that_are_no_text_and_streams_that_cannot_show_them(tmp_path: Path) -> None:
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}
    for arguments, said in (
        ([b"search", b"n\xff", b"x"], b"is not text in"),
        ([b"search", "nir\u202egends".encode(), b"x"], b"does not exist; name the directory of a saved run"),
        ([b"train", b"--set", b"epochs=\xff"], b"is not text in"),
    ):
        for environment in (ascii_only, ENVIRONMENT):
            done = subprocess.run(
                [sys.executable.encode(), b"-m", b"xmc", *arguments], capture_output=True, env=environment
            )
            assert done.returncode == 2, done.stderr
            assert said in done.stderr
            assert done.stderr.isascii()
            assert b"Traceback" not in done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "xmc", "config", "explain"], capture_output=True, env=ascii_only
    )  # a long text with other characters
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_what_is_wrong_with_a_command_line_is_shown_and_not_obeyed() -> None:
    done = xmc("predict", "run", "--input", "x", "--output", "y", "--on-bad-row", "f\x1b[31mo")
    fail(done, "'--on-bad-row'")
    assert "Value error" not in done.stderr
    assert "\x1b" not in done.stderr
    for arguments in (["s\x1b[31mearch"], ["search", "run", "--\x1b]8;;x"], ["config", "init", "a", "\u202eb"]):
        done = xmc(*arguments)
        assert done.returncode == 2
        assert "\\x1b" in done.stderr or "\\u202e" in done.stderr
        assert not set("\x1b\u202e") & set(done.stderr)
