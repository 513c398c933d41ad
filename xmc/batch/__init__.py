"""Batch jobs over files: predictions and embeddings, in parts that are whole or absent; one machine, or Ray."""

from __future__ import annotations

from xmc.batch.embed import embed_files
from xmc.batch.options import Columns, JobOptions
from xmc.batch.predict import predict_files
from xmc.batch.summary import Summary
from xmc.calibration.decisions import Policy

__all__ = ["Columns", "JobOptions", "Policy", "Summary", "embed_files", "predict_files"]
