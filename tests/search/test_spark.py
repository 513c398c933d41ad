"""The recipe for Spark in docs/processes.md, run by a Spark of two workers on this machine."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from pages import ROOT, Page

import xmc


@pytest.mark.slow
def test_the_recipe_for_spark_gives_what_predict_gives(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed; pip install pyspark")
    pytest.importorskip("pandas", reason="mapInPandas needs pandas; pip install pandas")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java 17 or later, and there is no java on the path")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    shutil.copytree(run, "runs/demo")
    (recipe,) = (block.code for block in Page(ROOT / "docs" / "processes.md").blocks if "mapInPandas(" in block.code)
    local = {"spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
    spark = sql.SparkSession.builder.master("local[2]").config(map=local).getOrCreate()
    try:
        names = {"spark": spark}
        exec(compile(recipe, "docs/processes.md", "exec"), names)
        rows = {row["id"]: list(row["labels"]) for row in names["labelled"].collect()}
    finally:
        spark.stop()
    texts = [f"a boat with {number} hulls" for number in range(1000)]
    expected = xmc.Retriever.load(run).predict(texts, k=3)[0].tolist()
    assert [rows[number] for number in range(1000)] == expected
