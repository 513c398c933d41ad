"""xmc.light: the labels, scores and refusals of a static run, without torch."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from worlds import COLOURS, colours, tiny_config

import xmc
from xmc.encoders.static.hashing import hash_features
from xmc.encoders.static.normalising import normalised
from xmc.errors import InputError, StoreError
from xmc.light import LightRetriever
from xmc.light.features import bags_of_features
from xmc.storage.manifests import MANIFEST

QUERIES = [
    "red and blue",
    "pink",
    "a GREEN — thing, very green",
    "crème brûlée",
    "東京タワー",
    "ABSOLUTELY nothing known",
] * 20
CHARACTERS = ["a", "b", "Z", "9", " ", "-", "é", "東", "😀", "\u0301", "ß", "İ", "ﬁ", "\x00", "ʼ", "Σ"]
ROUNDING = 2e-6
"""Of scores, which are sums of float32 in another order: sixteen units in the last place of a cosine."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("light") / "run"
    xmc.train(colours(), tiny_config(epochs=4), directory)
    return directory


def require_equal(directory: Path, k: int = 5) -> None:
    """The light predictor gives the labels and scores of the full one."""
    full, light = xmc.Retriever.load(directory).exact(), LightRetriever.load(directory)
    labels, scores = light.predict(QUERIES, k)
    expected, expected_scores = full.predict(QUERIES, k)
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(light.embed_queries(QUERIES), full.embed_queries(QUERIES), rtol=0, atol=ROUNDING)
    close = np.abs(np.diff(expected_scores, axis=1)) < ROUNDING  # whose order rounding may change
    apart = ~(np.pad(close, ((0, 0), (1, 0))) | np.pad(close, ((0, 0), (0, 1)), constant_values=True))
    assert apart.any()
    assert (labels == expected)[apart].all()


def test_features_are_those_of_the_full_encoder() -> None:
    draw = random.Random(0)
    texts = ["", "a", "!", "x" * 5000, "東" * 2000, *QUERIES[:6]]
    texts += ["".join(draw.choices(CHARACTERS, k=draw.randrange(40))) for _ in range(400)]
    for some in (texts, [], *([text] for text in texts[:40])):
        expected = hash_features(some)
        values, offsets = bags_of_features(*normalised(some))
        assert offsets.tolist() == expected.offsets.tolist()
        for start, end in itertools.pairwise(offsets.tolist()):
            assert sorted(values[start:end].tolist()) == sorted(expected.values[start:end].tolist())


def test_labels_and_scores_are_those_of_the_full_retriever(run: Path) -> None:
    require_equal(run)
    light = LightRetriever.load(run)
    assert light.predict(["pink"], 1)[0].tolist() == [["PINK"]]
    assert light.label_texts(["PINK"]) == xmc.Retriever.load(run).texts(["PINK"])
    assert (len(light), light.dimension) == (len(COLOURS), 32)
    assert repr(light) == f"<LightRetriever: {len(COLOURS)} labels, dimension 32; {run}>"


def test_changed_and_cut_runs(run: Path, tmp_path: Path) -> None:
    retriever = xmc.Retriever.load(run)
    retriever.remove_labels(["PINK", "RED"])
    retriever.add_labels(["crimson velvet"], uids=["CRIMSON"])
    retriever.save(tmp_path / "changed")
    require_equal(tmp_path / "changed")
    assert "PINK" not in LightRetriever.load(tmp_path / "changed").predict(["pink"], 100)[0]
    retriever.cut(8).save(tmp_path / "cut")
    require_equal(tmp_path / "cut")


def test_a_replaced_run_is_not_mixed_with_the_one_before(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    light = LightRetriever.load(copy)
    expected = light.predict(QUERIES, 3)
    retriever = xmc.Retriever.load(copy)
    retriever.remove_labels(["PINK", "RED"])
    retriever.cut(8).save(copy, overwrite=True)
    for before, after in zip(expected, light.predict(QUERIES, 3), strict=True):
        assert (before == after).all()


def test_edges(run: Path) -> None:
    light = LightRetriever.load(run)
    assert light.predict([], 5)[0].shape == (0, 5)
    assert light.predict(["red"], 500)[0].shape == (1, len(COLOURS))
    assert light.predict(["red"], 0)[1].shape == (1, 0)
    assert np.isfinite(light.predict([" "], 2, allow_empty=True)[1]).all()
    with pytest.raises(InputError, match="put a single text into a list"):
        light.predict("red")
    with pytest.raises(InputError, match="k must be at least 0"):
        light.predict(["red"], -1)
    with pytest.raises(InputError, match="The text of query 1 is empty"):
        light.predict(["red", ""])
    with pytest.raises(InputError, match="takes texts alone, but query 0 is 7"):
        light.predict([7])  # type: ignore[list-item]
    with pytest.raises(InputError, match="There is no label 'MAUVE'"):
        light.label_texts(["MAUVE"])
    with pytest.raises(InputError, match="There is no label None"):
        light.label_texts([None])  # type: ignore[list-item]


def test_threads_share_a_predictor(run: Path) -> None:
    light = LightRetriever.load(run)
    expected, results = light.predict(QUERIES)[1], list[np.ndarray]()
    threads = [threading.Thread(target=lambda: results.append(light.predict(QUERIES)[1])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [np.array_equal(result, expected) for result in results] == [True] * 4


def test_damaged_runs_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        LightRetriever.load(tmp_path / "none")
    for name in ("index/embeddings.arrow", "encoder/encoder.safetensors", "labels.parquet"):
        copy = shutil.copytree(run, tmp_path / name.replace("/", "-"))
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(StoreError, match="does not match its SHA-256"):
            LightRetriever.load(copy)
    copy = shutil.copytree(run, tmp_path / "cut-short")
    file = copy / "encoder/encoder.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StoreError, match="cannot be read as a safetensors file"):
        LightRetriever.load(copy, verify=False)


def test_runs_that_need_more_are_refused(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "transformer")
    (copy / "encoder/encoder.json").write_text('{"kind": "transformer"}')
    with pytest.raises(InputError, match=r"encoder 'transformer'.*xmc export .* --to onnx"):
        LightRetriever.load(copy, verify=False)
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"] |= {name: {"size": 0, "sha256": "0" * 64} for name in ("stages.json", "memory/queries.parquet")}
    (copy / MANIFEST).write_text(json.dumps(manifest))
    (copy / "stages.json").write_text('[{"name": "rerank", "options": {}}]')
    with pytest.raises(InputError, match=r"a memory of queries and the stage 'rerank'.*load it with xmc.Retriever"):
        LightRetriever.load(copy, verify=False)


@pytest.mark.slow
def test_nothing_heavy_is_loaded(run: Path) -> None:
    """pandas is installed here, and what asks pyarrow for it would be seen."""
    code = (
        "import sys\n"
        "from xmc.light import LightRetriever\n"
        "assert 'pyarrow' not in sys.modules\n"
        f"print(LightRetriever.load({str(run)!r}).predict(['pink', 'crème'], 1)[0][0][0])\n"
        "print([name for name in ('torch', 'numba', 'transformers', 'scipy', 'faiss', 'pandas', 'rich', 'pydantic') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["PINK", "[]"]
