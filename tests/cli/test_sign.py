"""`xmc sign`, `xmc verify` and `--trusted-key`, and the same from Python, over a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import fail
from commands import xmc as command

import xmc
from xmc.errors import StoreError

pytest.importorskip("cryptography", reason="cryptography is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from worlds import colours

    out = tmp_path_factory.mktemp("signed") / "run"
    config = xmc.TrainConfig.from_mapping(
        {"encoder": {"kind": "static", "dimension": 16, "table_rows": 512}, "epochs": 1}
    )
    xmc.train(colours(), config, out=out)
    return out


def test_a_run_is_signed_verified_and_loaded_by_trusted_keys_alone(run: Path, tmp_path: Path) -> None:
    key, other = tmp_path / "key.pem", tmp_path / "other.pem"
    made = command("sign", "--new-key", key)
    assert made.returncode == 0, made.stderr
    assert f"public key in {key}.pub: ed25519:" in made.stdout.replace("\n", "")
    fail(command("sign", "--new-key", key), "never overwritten")
    fail(command("sign", run), "Name a run and a key")
    fail(command("verify", run), "is not signed")
    with pytest.raises(StoreError, match="is not signed"):
        xmc.Retriever.load(run, trusted_keys=[Path(f"{key}.pub")])

    signed = command("sign", run, "--key", key)
    assert signed.returncode == 0, signed.stderr
    public = xmc.verify(run, Path(f"{key}.pub"))
    assert public in command("verify", run, "--key", f"{key}.pub").stdout.replace("\n", "")
    command("sign", "--new-key", other)
    fail(command("verify", run, "--key", f"{other}.pub"), "signed by another key")
    fail(command("search", run, "red", "--trusted-key", f"{other}.pub"), "signed by another key")
    found = command("search", run, "red", "--trusted-key", f"{other}.pub", "--trusted-key", public)
    assert found.returncode == 0, found.stderr

    retriever = xmc.Retriever.load(run, trusted_keys=[public])
    assert retriever.predict(["red"], k=1)[0].shape == (1, 1)
    retriever.save(tmp_path / "copy")
    with pytest.raises(StoreError, match="is not signed"):  # what is saved is another run
        xmc.Retriever.load(tmp_path / "copy", trusted_keys=[public])
    assert xmc.sign(tmp_path / "copy", key) == public
    assert xmc.Retriever.load(tmp_path / "copy", trusted_keys=[public]).predict(["red"], k=1)[0].shape == (1, 1)
