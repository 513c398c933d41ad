"""`xmc serve`: answer requests over HTTP from a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xmc.cli.console import say
from xmc.cli.units import parse_bytes, parse_seconds


def serve(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen at; 0 for any that is free.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
    device: Annotated[
        str, typer.Option(help='Where encoder and search run: "auto", "cpu", or a device such as cuda:0.')
    ] = "auto",
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the token that changes of labels need.", show_default="the environment's XMC_TOKEN"
        ),
    ] = None,
    max_texts: Annotated[int, typer.Option(min=1, help="Texts in a request.")] = 256,
    max_text: Annotated[str, typer.Option(help="Length of a text, such as 64kB.")] = "64KiB",
    max_body: Annotated[str, typer.Option(help="Length of a request's body.")] = "4MiB",
    max_k: Annotated[int, typer.Option(min=1, help="Labels for each text.")] = 1_000,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests under way in a process; more get 429.")] = 1_024,
    timeout: Annotated[str, typer.Option(help="Time for a request to come, and as long for its answer.")] = "10s",
    window: Annotated[
        float, typer.Option(min=0, help="Milliseconds that a batch may wait for requests on their way, under load.")
    ] = 5.0,
) -> None:
    """Answer requests over HTTP: labels of texts, embeddings, and changes of labels. SIGTERM and Ctrl-C end it gracefully."""
    from xmc.serve.settings import Limits, Settings, read_token
    from xmc.serve.workers import serve as answer_requests

    limits = Limits(
        texts=max_texts,
        text_bytes=parse_bytes(max_text, "--max-text"),
        k=max_k,
        body_bytes=parse_bytes(max_body, "--max-body"),
        waiting=max_waiting,
        seconds=parse_seconds(timeout, "--timeout"),
        window=window / 1_000,
    )
    answer_requests(Settings(run, host, port, workers, device, limits, read_token(token_file)), say)
