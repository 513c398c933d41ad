"""A transformer in ONNX Runtime, its weights in int8: what others run on CPUs."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from encode_methods import PADDED, in_order, pooled
from encode_problems import FORWARD, Method, Problem
from retrieval import CACHE
from torch import Tensor, nn

from xmc.encoders.transformer.backbones import read_backbone
from xmc.errors import require_package

__all__ = ["onnx_method"]


def onnx_method(problem: Problem) -> Method:
    """Forward alone, batches in order of length, padded to their longest; mean pooling in torch.

    DependencyError where a package is missing.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require_package(package, "ONNX Runtime is to run the model in int8", "onnx onnxscript onnxruntime")
    session = _session(_exported(problem))
    padding = problem.encoder.texts.padding
    batches = [
        (rows, problem.padded(rows, padding)) for rows in problem.batches(PADDED[problem.device], by_length=True)
    ]

    def forward() -> list[Tensor]:
        return [_embeddings(session, inputs) for _, inputs in batches]

    return Method(
        "ONNX Runtime int8", "int8", lambda: in_order(forward(), [rows for rows, _ in batches]), {FORWARD: forward}
    )


def _embeddings(session: Any, inputs: dict[str, Tensor]) -> Tensor:
    (hidden,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return pooled(torch.from_numpy(hidden), inputs["attention_mask"])


@cache
def _session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


class _States(nn.Module):
    """The last hidden states alone, of inputs by position, as an export wants them."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state


def _exported(problem: Problem) -> Path:
    """The model with weights in int8 and activations that are quantised as they come; exported once."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder = CACHE / "onnx" / problem.name
    quantised = folder / "int8.onnx"
    if quantised.exists():
        return quantised
    folder.mkdir(parents=True, exist_ok=True)
    example = problem.padded(problem.batches(4, by_length=False)[0], problem.encoder.texts.padding)
    texts, tokens = torch.export.Dim("texts"), torch.export.Dim("tokens")
    whole = folder / "float32.onnx"
    torch.onnx.export(
        _States(read_backbone(problem.directory, "float32")).eval(),
        tuple(example.values()),
        str(whole),
        input_names=list(example),
        output_names=["states"],
        dynamic_shapes={"ids": {0: texts, 1: tokens}, "mask": {0: texts, 1: tokens}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    quantize_dynamic(str(whole), str(quantised), weight_type=QuantType.QInt8)
    whole.unlink()
    return quantised
