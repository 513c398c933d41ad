"""A data set in another process, with another working directory."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from worlds import colours

from xmc.data.dataset import Dataset
from xmc.data.images.ragged import RaggedImages


def test_a_pickled_data_set_is_found_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Dataset.from_lists(
        "boats", ["sea"], {"train": (["a boat"], [[0]])}, images={"train": RaggedImages.from_arrays([np.ones((1, 4))])}
    ).save("boats")
    data = Dataset.load("boats")
    Path("pickled").write_bytes(pickle.dumps(data))
    (tmp_path / "elsewhere").mkdir()
    code = (
        "import pickle; from pathlib import Path; print(pickle.loads(Path('../pickled').read_bytes()).split('train'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd="elsewhere", capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{data.split('train')!r}\n", done.stderr
    assert "with images" in done.stdout
    assert data.directory == Path("boats")


def test_a_data_set_in_memory_is_pickled_whole() -> None:
    data = colours()
    for other in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert repr(other) == repr(data)
        assert other.labels.texts == data.labels.texts
        assert (other.split("test").positives != data.split("test").positives).nnz == 0
