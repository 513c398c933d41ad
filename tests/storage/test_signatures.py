"""Signatures of runs, by the real package: what was changed, or is of another, is refused."""

from __future__ import annotations

import json
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xmc.errors import InputError, StoreError
from xmc.storage.directories import atomic_directory
from xmc.storage.manifests import SIGNATURE
from xmc.storage.signatures import new_key, sign, signed_by, verify

pytest.importorskip("cryptography", reason="cryptography is not installed")


def written(path: Path, text: str = "content") -> Path:
    """A stored directory of the kind of a run, with another inside."""
    with atomic_directory(path, "run") as temporary:
        (temporary / "file.txt").write_text(text)
        with atomic_directory(temporary / "index", "index") as inner:
            (inner / "inner.txt").write_text(text)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    new_key(tmp_path / "key.pem")
    return tmp_path / "key.pem"


def test_a_signed_run_is_verified_by_each_form_of_its_key(tmp_path: Path, key: Path) -> None:
    run = written(tmp_path / "run")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    line = sign(run, key)
    assert {file: file.read_bytes() for file in before} == before
    public = Path(f"{key}.pub")
    assert public.read_text().strip() == line
    from cryptography.hazmat.primitives import serialization

    pem = serialization.load_pem_private_key(key.read_bytes(), None).public_key()
    text = pem.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    for given in (None, line, public, str(public), text):
        assert verify(run, given) == line
    with signed_by(run, ["ed25519:" + "A" * 43 + "=", line]):
        assert (run / "manifest.json").is_file()
    sign(run, key)  # again
    assert verify(run, line) == line


def test_private_keys_are_private_and_never_overwritten(tmp_path: Path, key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    with pytest.raises(StoreError, match=r"key\.pem cannot be written: .* never overwritten"):
        new_key(key)
    (tmp_path / "other.pem.pub").write_text("there")
    with pytest.raises(StoreError, match=r"other\.pem\.pub cannot be written"):
        new_key(tmp_path / "other.pem")
    assert key.read_bytes() == before


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a file": (lambda run: (run / "file.txt").write_text("changed"), r"file\.txt does not match its SHA-256"),
    "a file of the index": (lambda run: (run / "index" / "inner.txt").write_text("changed"), r"inner\.txt does not match"),
    "an unlisted file": (lambda run: (run / "further.txt").write_text("x"), r"further\.txt"),
    "a missing file": (lambda run: (run / "file.txt").unlink(), r"file\.txt is missing"),
    "the manifest": (lambda run: (run / "manifest.json").open("a").write(" "), "was changed since"),
    "no manifest": (lambda run: (run / "manifest.json").unlink(), r"manifest\.json cannot be read"),
    "no signature": (lambda run: (run / SIGNATURE).unlink(), "is not signed"),
    "a signature cut short": (lambda run: (run / SIGNATURE).write_text("{"), "is not a signature written"),
    "no JSON": (lambda run: (run / SIGNATURE).write_bytes(b"\xff"), "is not a signature written"),
    "a huge one": (lambda run: (run / SIGNATURE).write_bytes(b" " * 100_000), "is not a signature written"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_refused(tmp_path: Path, key: Path, change: str) -> None:
    run = written(tmp_path / "run")
    line = sign(run, key)
    CHANGES[change][0](run)
    for given in (None, line):
        with pytest.raises(StoreError, match=CHANGES[change][1]):
            verify(run, given)


@pytest.mark.parametrize(
    "edit", [{"format": 2}, {"algorithm": "rsa"}, {"signature": "AAAA"}, {"signature": 7}, {"public_key": "x"}]
)
def test_signatures_that_are_none(tmp_path: Path, key: Path, edit: dict[str, Any]) -> None:
    run = written(tmp_path / "run")
    sign(run, key)
    content = json.loads((run / SIGNATURE).read_text()) | edit
    (run / SIGNATURE).write_text(json.dumps(content))
    with pytest.raises(StoreError, match="is not a signature"):
        verify(run)


def test_keys_of_others(tmp_path: Path, key: Path) -> None:
    run, other = written(tmp_path / "run"), new_key(tmp_path / "other.pem")
    line = sign(run, key)
    with pytest.raises(
        StoreError, match=f"is signed by another key than those that are trusted: by {re.escape(line[:20])}"
    ):
        verify(run, other)
    with pytest.raises(StoreError, match="is signed by another key"), signed_by(run, []):
        pass
    content = json.loads((run / SIGNATURE).read_text()) | {"public_key": other}
    (run / SIGNATURE).write_text(json.dumps(content))  # its own key in the place of the signer's
    with pytest.raises(StoreError, match="was changed since"):
        verify(run, other)


def test_a_signature_copied_from_another_run(tmp_path: Path, key: Path) -> None:
    first, second = written(tmp_path / "first"), written(tmp_path / "second", "another content")
    line = sign(first, key)
    shutil.copy(first / SIGNATURE, second / SIGNATURE)
    with pytest.raises(StoreError, match="or it is of another run"):
        verify(second, line)


def test_writing_a_run_anew_drops_its_signature(tmp_path: Path, key: Path) -> None:
    run = written(tmp_path / "run")
    line = sign(run, key)
    written(run)
    with pytest.raises(StoreError, match="is not signed"):
        verify(run, line)


def test_mistakes_are_sentences(tmp_path: Path, key: Path) -> None:
    run = written(tmp_path / "run")
    with pytest.raises(StoreError, match="does not exist"):
        sign(tmp_path / "nothing", key)
    for wrong in (tmp_path / "none.pem", run / "file.txt", Path(f"{key}.pub")):
        with pytest.raises(InputError, match="is not a file with an Ed25519 key"):
            sign(run, wrong)
    sign(run, key)
    for given in (
        "ed25519:AAAA",
        "ed25519:" + "ä" * 44,
        "nothing",
        str(key),
        "-----BEGIN PUBLIC KEY-----",
        "x" * 10_000,
    ):
        with pytest.raises(InputError, match="is not a public key"):
            verify(run, given)
    with pytest.raises(InputError, match="put a single key into a list"), signed_by(run, str(key)):
        pass


def test_a_manifest_that_changes_while_the_run_is_read(tmp_path: Path, key: Path) -> None:
    run = written(tmp_path / "run")
    line = sign(run, key)
    with pytest.raises(StoreError, match="was changed while it was read"), signed_by(run, [line]):
        (run / "manifest.json").write_text("{}")


def test_a_damaged_run_is_not_signed(tmp_path: Path, key: Path) -> None:
    run = written(tmp_path / "run")
    (run / "index" / "inner.txt").write_text("changed")
    with pytest.raises(StoreError, match=r"inner\.txt does not match"):
        sign(run, key)
    assert not (run / SIGNATURE).exists()
