"""Image files embedded by a pretrained vision model."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from PIL import Image
from torch import Tensor

from xmc.errors import ConfigError, boundary
from xmc.storage.small_files import require_regular

__all__ = ["VisionModel"]

logger = logging.getLogger("xmc.data")
Embedding = npt.NDArray[np.float16]
REFUSALS = (ValueError, TypeError, LookupError, ArithmeticError)
"""What a processor or a model raises for an image; a RuntimeError may be the device's, which is no fault of the image."""


class VisionModel:
    """A vision model of transformers and its image processor, in float32, so that the device hardly matters.

    dimension: numbers I of an embedding: what get_image_features gives where the model has it, else its pooler, else the mean
    over the last hidden state, also where the weights of the pooler are not in the directory.
    """

    def __init__(self, directory: Path, device: str = "auto") -> None:
        """Load from a Hugging Face directory with safetensors weights; code in it is never run.

        device: as torch calls it, or "auto". Raises ConfigError for a directory or a device that cannot be used.
        """
        if not directory.is_dir():
            raise ConfigError(f"--model {str(directory)!r} is not a directory with a vision model.")
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        # The same processor whether torchvision is there or not: the two kinds resize a little differently.
        kind = {"backend": "pil"} if int(transformers.__version__.split(".")[0]) >= 5 else {"use_fast": False}
        with boundary(ConfigError, f"{directory} cannot be loaded as a vision model with safetensors weights"):
            self.processor = transformers.AutoImageProcessor.from_pretrained(directory, **kind, **options)
            model, loading = transformers.AutoModel.from_pretrained(
                directory, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
            )
            self.model = model.eval()
            self._pooled = self._is_whole(directory, loading["missing_keys"])
            self.device = torch.device("cpu")
            self.dimension = self._features(self._prepared([Image.new("RGB", (32, 32))])).shape[1]
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        with boundary(ConfigError, f"--device {device!r} cannot be used"):
            self.device = torch.device(name)
            self.model.to(self.device)

    @staticmethod
    def _is_whole(directory: Path, missing: Sequence[str]) -> bool:
        """Whether the pooler has weights too. What is not in the file has random numbers, which are no embeddings."""
        others = sorted(name for name in missing if "pooler" not in name.split("."))
        if others:
            raise ValueError(f"its weights lack {others[0]} and {len(others) - 1} more.")
        if missing:
            logger.warning("%s has no weights of a pooler; the mean of the last hidden state is taken", directory)
        return not missing

    def embed(
        self, paths: Sequence[Path], batch_size: int, done: Callable[[int], object] = lambda count: None
    ) -> tuple[Embedding, list[str]]:
        """Embeddings float16 [n, I] of n files, and for each the reason why it has none, "" where it has one. Rows without
        are 0.

        done: called with the number of files of each batch.
        """
        embeddings, reasons = np.zeros((len(paths), self.dimension), np.float16), [""] * len(paths)
        with ThreadPoolExecutor() as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _read says it instead
            for start in range(0, len(paths), batch_size):
                files = list(pool.map(_read, paths[start : start + batch_size]))
                embedded = iter(self._embed([file for file in files if not isinstance(file, str)]))
                for row, file in enumerate(files, start):
                    result = file if isinstance(file, str) else next(embedded)
                    if isinstance(result, str):
                        reasons[row] = result
                    else:
                        embeddings[row] = result
                done(len(files))
        return embeddings, reasons

    def _embed(self, images: list[Image.Image]) -> list[Embedding | str]:
        """The embedding of each image, or why it has none."""
        if not images:
            return []
        try:
            features = self._features(self._prepared(images)).cpu().numpy()
        except REFUSALS as error:
            if len(images) == 1:
                return [f"the model cannot take it: {_line(error)}"]
            return [result for image in images for result in self._embed([image])]  # only the refused one has none then
        with np.errstate(over="ignore"):
            embeddings = features.astype(np.float16)
        return [row if np.isfinite(row).all() else "its embedding is not finite in float16" for row in embeddings]

    def _prepared(self, images: list[Image.Image]) -> Any:
        return self.processor(images=images, return_tensors="pt")

    @torch.no_grad()
    def _features(self, inputs: Any) -> Tensor:
        inputs = inputs.to(self.device)
        if hasattr(self.model, "get_image_features"):
            output = self.model.get_image_features(**inputs)
        else:
            output = self.model(**inputs)
        if not isinstance(output, Tensor):
            pooled = getattr(output, "pooler_output", None) if self._pooled else None
            output = _mean(output.last_hidden_state) if pooled is None else pooled.flatten(1)
        if output.ndim != 2:
            raise ValueError(
                f"a {type(self.model).__name__} gives {output.ndim - 1} dimensions an image, not a vector."
            )
        vectors: Tensor = output.float()
        return vectors


def _mean(hidden: Tensor) -> Tensor:
    """The mean over the places of [n, places, I], or of a convolution's [n, I, height, width]."""
    return hidden.mean(1) if hidden.ndim == 3 else hidden.flatten(2).mean(2)


def _read(path: Path) -> Image.Image | str:
    """The image in RGB, or why it cannot be had."""
    try:
        require_regular(path)
        with Image.open(path) as image:
            most = Image.MAX_IMAGE_PIXELS
            if most is not None and image.width * image.height > most:
                return f"it has {image.width} x {image.height} pixels, more than the {most} that Pillow takes for safe"
            return image.convert("RGB")
    except FileNotFoundError:
        return "there is no such file"
    except MemoryError:  # which says nothing about the file
        raise
    except Exception as error:  # Pillow's readers raise whatever damaged bytes lead them to
        return _line(error)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
