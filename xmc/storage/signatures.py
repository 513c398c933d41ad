"""Signatures of runs: who vouches for the manifest, which vouches for every file. Ed25519, by the package cryptography."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from xmc.errors import InputError, StoreError, boundary, require_package
from xmc.storage.manifests import MANIFEST, SIGNATURE, verify_all
from xmc.storage.run_layout import KIND

__all__ = ["SIGNATURE", "Key", "new_key", "sign", "signed_by", "verify"]

FORMAT, ALGORITHM = 1, "ed25519"
PURPOSE = b"xmc manifest, format 1\n"
"""Signed before the bytes of the manifest, so that a signature that a key made for something else is none of a run."""
LONGEST = 1 << 16
"""Bytes of a file with a signature or a key at most."""

Key: TypeAlias = "str | Path"
"""A public key: one line such as "ed25519:BASE64", PEM text, or the file that either stands in."""


def new_key(file: str | Path) -> str:
    """Write a new private key into a file that only its owner may read (PEM), and the public key into FILE.pub.

    Returns the public key in one line. Raises StoreError for a file that is there already or cannot be written,
    DependencyError without the package cryptography.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    file, key = Path(file), Ed25519PrivateKey.generate()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private = key.private_bytes(encoding, form, serialization.NoEncryption())
    public = _line(key.public_key())
    for place, content, mode in ((file, private, 0o600), (Path(f"{file}.pub"), public.encode() + b"\n", 0o644)):
        with boundary(StoreError, f"{place} cannot be written", "A key is never overwritten; name another file."):
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(content)
    return public


def sign(run: str | Path, key: str | Path) -> str:
    """Sign a run: its manifest.json, which lists every file with its SHA-256, by a private key in a file (PEM).

    Every file is verified before. Returns the public key in one line. Raises StoreError for a run that is not whole, InputError
    for a file that holds no Ed25519 key, DependencyError without the package cryptography.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    run = Path(run)
    with boundary(
        InputError, f"{key} is not a file with an Ed25519 key without a password", "Make one: xmc sign --new-key FILE"
    ):
        private = load_pem_private_key(_bytes_of(Path(key)), None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("it is a key of another kind")
    manifest = _verified(run)
    public = _line(private.public_key())
    content = {
        "format": FORMAT,
        "algorithm": ALGORITHM,
        "public_key": public,
        "signature": base64.b64encode(private.sign(PURPOSE + manifest)).decode(),
    }
    temporary = run / f".{SIGNATURE}.{os.getpid()}.tmp"
    with boundary(StoreError, f"{run / SIGNATURE} cannot be written"):
        try:
            with temporary.open("w", encoding="utf-8") as opened:
                opened.write(json.dumps(content, indent=2) + "\n")
                opened.flush()
                os.fsync(opened.fileno())
            temporary.replace(run / SIGNATURE)
        finally:
            temporary.unlink(missing_ok=True)
    return public


def verify(run: str | Path, key: Key | None = None) -> str:
    """Verify that a run is as it was signed, every file of it, and by whom.

    key: the public key that it must be signed with. Without it the run may be signed by anybody: compare the public key that is
    returned, in one line, with one that you have from elsewhere.
    Raises StoreError for a run that is not signed, signed by another key, or changed since; InputError for what is no public
    key, DependencyError without the package cryptography.
    """
    run = Path(run)
    public, manifest = _signed_by(run, None if key is None else [key])
    if _verified(run) != manifest:
        raise StoreError(f"{run / MANIFEST} was changed while it was read.")
    return public


@contextlib.contextmanager
def signed_by(run: Path, keys: Sequence[Key]) -> Iterator[None]:
    """A context in which a run is read. StoreError unless one of some public keys signed its manifest, before and behind.

    Files are compared with the manifest by whoever reads them.
    """
    if isinstance(keys, (str, Path)):
        raise InputError("trusted_keys is a list of public keys; put a single key into a list.")
    _, before = _signed_by(run, keys)
    yield
    if _manifest_of(run) != before:
        raise StoreError(f"{run / MANIFEST} was changed while it was read.")


def _signed_by(run: Path, keys: Sequence[Key] | None) -> tuple[str, bytes]:
    """Who signed a run, and the bytes of its manifest; StoreError where none of the keys did, or, without keys, nobody."""
    _require_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    trusted = None if keys is None else [_public_key(key) for key in keys]
    file = run / SIGNATURE
    if not run.is_dir():
        raise StoreError(f"{run} does not exist, or is a file; name the directory of a saved run.")
    if not file.exists():
        raise StoreError(f"{run} is not signed: it has no {SIGNATURE}. Sign it with xmc sign, or trust it unsigned.")
    with boundary(StoreError, f"{file} is not a signature written by xmc"):
        content = json.loads(_bytes_of(file))
        if content["format"] != FORMAT or content["algorithm"] != ALGORITHM:
            raise ValueError(f"it is of format {content['format']!r:.20}, algorithm {content['algorithm']!r:.20}")
        public = _raw_of_line(str(content["public_key"]))
        signature = base64.b64decode(str(content["signature"]), validate=True)
    line = f"{ALGORITHM}:{base64.b64encode(public).decode()}"
    if trusted is not None and public not in trusted:
        raise StoreError(f"{run} is signed by another key than those that are trusted: by {line}.")
    with boundary(StoreError, f"{run / MANIFEST} cannot be read"):
        manifest = (run / MANIFEST).read_bytes()
    with boundary(StoreError, f"{file} cannot be checked"):
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, PURPOSE + manifest)
        except InvalidSignature:
            raise StoreError(
                f"{file} is not a signature of this manifest: {run / MANIFEST} was changed since it was signed, or it is of "
                f"another run."
            ) from None
    return line, manifest


def _verified(run: Path) -> bytes:
    """The bytes of a run's manifest, once every file that it and the manifests inside of it list is verified."""
    before = _manifest_of(run)
    verify_all(run, KIND)
    if _manifest_of(run) != before:
        raise StoreError(f"{run / MANIFEST} was changed while it was read.")
    return before


def _manifest_of(directory: Path) -> bytes:
    if not directory.is_dir():
        raise StoreError(f"{directory} does not exist, or is a file; name the directory of a saved run.")
    with boundary(StoreError, f"{directory} holds no {MANIFEST}, so it is not a saved run"):
        return (directory / MANIFEST).read_bytes()


def _public_key(key: Key) -> bytes:
    """The 32 bytes of a public key; InputError for anything else."""
    with boundary(
        InputError, f"{str(key)!r:.100} is not a public key", 'A public key is "ed25519:BASE64", PEM, or a file of one.'
    ):
        text = str(key).strip()
        if not text.startswith((f"{ALGORITHM}:", "-----BEGIN")):
            text = _bytes_of(Path(key)).decode("ascii").strip()
        if text.startswith(f"{ALGORITHM}:"):
            return _raw_of_line(text)
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        public = load_pem_public_key(text.encode())
        if not isinstance(public, Ed25519PublicKey):
            raise ValueError("it is of another kind than Ed25519")
        return public.public_bytes_raw()


def _raw_of_line(line: str) -> bytes:
    algorithm, _, encoded = line.partition(":")
    raw = base64.b64decode(encoded, validate=True)
    if algorithm != ALGORITHM or len(raw) != 32:
        raise ValueError("it is not 32 bytes of Ed25519")
    return raw


def _line(public: Any) -> str:
    return f"{ALGORITHM}:{base64.b64encode(public.public_bytes_raw()).decode()}"


def _bytes_of(file: Path) -> bytes:
    """The content of a small file; ValueError for a large one."""
    with file.open("rb") as opened:
        content = opened.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise ValueError(f"it has more than {LONGEST:,} bytes")
    return content


def _require_cryptography() -> None:
    require_package("cryptography", "Signatures of runs are made and checked by Ed25519", "cryptography")
