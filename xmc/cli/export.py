"""`xmc export`: a run that needs nothing outside of it, or its encoder for sentence-transformers or onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from xmc.cli.console import say


def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    out: Annotated[Path, typer.Argument(help="Directory to write.")],
    to: Annotated[
        Literal["run", "sentence-transformers", "onnx"],
        typer.Option(help="What to write; sentence-transformers and onnx are the encoder alone."),
    ] = "run",
    tower: Annotated[
        Literal["query", "label"] | None,
        typer.Option(help="sentence-transformers: whose encoder, where they have one each."),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="onnx: weights of 8 bits; what that costs is said.")] = False,
    dataset: Annotated[
        str | None, typer.Option(help="onnx: say P@1 too, on this data set's queries that training kept aside.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="onnx: those of this split in place of them.")] = None,
) -> None:
    """Merge a run's adapters into the backbone they were trained on, and save it whole, or its encoder alone."""
    from xmc.errors import InputError
    from xmc.search.retriever import Retriever
    from xmc.search.run_directory import RunDirectory

    if to != "sentence-transformers" and tower is not None:
        raise InputError("--tower chooses an encoder for --to sentence-transformers; all else holds both.")
    if to != "onnx" and (int8 or dataset is not None or split is not None):
        raise InputError("--int8, --dataset and --split are for --to onnx.")
    if split is not None and dataset is None:
        raise InputError("--split is of a data set; name it with --dataset.")
    if to == "sentence-transformers":
        Retriever.load(run).export_sentence_transformers(out, tower)
        say(f"encoder in {out}; SentenceTransformer({str(out)!r}) loads it")
    elif to == "onnx":
        retriever = Retriever.load(run, device="cpu", precision="float32")
        judged = None if dataset is None else _judged(retriever, dataset, split)
        say(_sentence(out, retriever.export_onnx(out, int8=int8, judged=judged)))
    else:
        RunDirectory(out).require_free()
        retriever = Retriever.load(run)
        retriever.model.merge()
        retriever.save(out)
        say(f"run with its whole backbone in {out}")


def _judged(retriever: Any, name: str, split: str | None) -> Any:
    """Queries that the run was not trained on, with the uids of their true labels."""
    import numpy as np

    from xmc.data.dataset import Dataset
    from xmc.evaluation.held_aside import queries_to_fit_on

    dataset = Dataset.load(name)
    aside, _ = queries_to_fit_on(retriever, dataset, split, share=1.0)
    truth, uids = aside.targets.truth, np.array(dataset.labels.uids.to_pylist(), object)
    rows = np.split(truth.indices, truth.indptr[1:-1])
    return aside.queries.texts.to_pylist(), [uids[of_query].tolist() for of_query in rows]


def _sentence(out: Path, settings: dict[str, Any]) -> str:
    accuracy = settings["accuracy"]
    said = (
        f"{settings['precision']} encoder in {out}, for onnxruntime: over {accuracy['texts']:,} texts its embeddings have a "
        f"cosine of {accuracy['mean_cosine']:.5f} in the mean, {accuracy['least_cosine']:.5f} at least, to float32's."
    )
    if "P@1" in accuracy:
        said += (
            f" P@1 {accuracy['P@1']:.2f}, {accuracy['P@1 float32']:.2f} in float32; the first label is the same for "
            f"{accuracy['same_first_label']:.1f}% of the queries."
        )
    return said
