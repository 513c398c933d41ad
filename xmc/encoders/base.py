"""What an encoder is: a module that turns texts into features once, and features into embeddings at every step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xmc.config import LearningRates
from xmc.data.images.ragged import RaggedImages
from xmc.data.tokens import RaggedTokens
from xmc.encoders.precision import Computed, Precision
from xmc.encoders.spans import word_spans
from xmc.errors import InputError

__all__ = ["Encoder", "Side", "TokenCost", "device_of"]

Side = Literal["query", "label"]
"""Whose text it is: a prompt may differ between the two."""


@dataclass(frozen=True)
class TokenCost:
    """What training an encoder takes for each token.

    forward_flops, backward_flops: floating point operations of one forward pass and of one backward pass.
    activation_bytes: memory that a forward pass holds for the backward pass.
    """

    forward_flops: float
    backward_flops: float
    activation_bytes: float


class Encoder(nn.Module, ABC):
    """Texts to embeddings in two stages, so that training tokenises every text once.

    `featurize` runs on the host, depends on no learned parameter and can be cached; `forward` is differentiable.
    Embeddings are L2-normalised by the dual encoder that owns the encoder, after residual vectors are added.

    A subclass implements `from_config`, `featurize`, `features_key`, `forward`, `save` and `load`, sets `kind` and
    `dimension`, and is registered in `xmc.encoders.registry.ENCODERS` under its kind. Everything else has a default.
    """

    kind: ClassVar[str]
    """The name used in configurations and in encoder.json, e.g. "static"."""

    dimension: int
    """Length D of an embedding."""

    has_tokenizer: ClassVar[bool] = True
    """Whether features are the tokens of a tokenizer, which are worth keeping between runs, and which people count. False where
    they are made as fast as they are read, such as hashes."""

    image_dimension: int = 0
    """Length of the image embeddings that the encoder takes along with a text; 0 where it takes none."""

    @property
    def tokens_per_micro_batch(self) -> int | None:
        """Number of tokens that `forward` encodes together; None where it encodes all that it is given together."""
        return None

    equal_calls: Callable[[int], int] | None = None
    """Function from the number of micro-batches of this process to the largest number of any process. Training sets it
    where the modules of `splittable_modules` are split: `micro_batches` must then return that number, of empty ones too."""

    @classmethod
    @abstractmethod
    def from_config(cls, options: Any, generator: torch.Generator) -> Encoder:
        """Build an encoder that is ready to be trained.

        options: the configuration's section of this kind. generator: draws initial values.
        Raises ConfigError for options that cannot be used.
        """

    @abstractmethod
    def featurize(self, texts: Sequence[str], side: Side = "query") -> RaggedTokens:
        """Token ids of each text, of an unsigned type; deterministic, independent of the other texts."""

    @property
    @abstractmethod
    def features_key(self) -> str:
        """A string that changes whenever `featurize` would give other features for the same text and side."""

    @abstractmethod
    def forward(self, features: RaggedTokens) -> Tensor:
        """Embeddings [n, D] of n feature sequences, not normalised; an empty sequence gives a zero or constant row."""

    def __repr__(self) -> str:
        """Dimension, number of parameters and device, in one line; `modules` and `children` give the rest."""
        count = sum(parameter.numel() for parameter in self.parameters())
        return f"<{type(self).__name__}: dimension {self.dimension}, {count:,} parameters, on {device_of(self)}>"

    def word_vectors(self, text: str) -> tuple[list[str], Tensor] | None:
        """The words of a text and vectors [words, D] whose sum is its embedding, as `forward` makes it without `drop`.

        None for an encoder whose embeddings are no sums over words.
        """
        return None

    @property
    def longest_text(self) -> int | None:
        """Number of a query text's tokens that `featurize` reads, where it cuts the text behind them; None for no limit."""
        return None

    def spans(self, text: str) -> npt.NDArray[np.int64]:
        """Where the tokens of a text are, int64 [n, 2]: the first character of each, and the one behind its last.

        Texts are cut into passages by them. By default words.
        """
        return word_spans(text)

    def fixed_tokens(self, features: RaggedTokens, side: Side) -> npt.NDArray[np.bool_]:
        """Which tokens `drop` never drops, bool [total]: those that do not come from the text itself."""
        return np.zeros(len(features.values), bool)

    def drop(
        self,
        features: RaggedTokens,
        dropout: float,
        generator: torch.Generator | None = None,
        side: Side = "query",
    ) -> RaggedTokens:
        """The sequences without a random share of their tokens: each is left out with the probability `dropout` in [0, 1).

        generator: draws them. side: whose texts they are. Raises InputError for another probability.
        """
        if not 0 <= dropout < 1:
            raise InputError(f"Token dropout must be in [0, 1), but is {dropout}.")
        if dropout == 0:
            return features
        mask = (torch.rand(len(features.values), generator=generator) >= dropout).numpy()
        mask |= self.fixed_tokens(features, side)
        ends = np.concatenate([[0], np.cumsum(mask)])[features.offsets]
        return RaggedTokens(features.values[mask], ends.astype(np.int64), features.images)

    def images_of(self, images: RaggedImages | None) -> RaggedImages | None:
        """What this encoder takes of a data set's images: all of them, or None where it takes none.

        Raises InputError for embeddings of another length than it takes.
        """
        if images is None or not self.image_dimension:
            return None
        if images.dimension != self.image_dimension:
            raise InputError(
                f"The encoder takes image embeddings of {self.image_dimension} numbers, but these have {images.dimension}."
            )
        return images

    def require_tokens(self, values: npt.NDArray[np.unsignedinteger]) -> None:
        """Raise InputError for values that `featurize` never gives. Encoders of hashed features accept every value."""

    def micro_batches(self, features: RaggedTokens) -> list[npt.NDArray[np.int64]]:
        """Rows of the sequences that `forward` encodes together, int64 [n] for each micro-batch, every row in one of them."""
        return [np.arange(len(features))] if len(features) else []

    @property
    def is_thread_safe(self) -> bool:
        """Whether copies of the encoder may compute in several threads at once."""
        return True

    def prepare_for_training(self, options: Any) -> None:
        """Apply what the configuration's section of this kind asks of training alone, such as dropout or frozen layers.

        Called once, before the first step. Raises ConfigError for options that cannot be used.
        """

    def compute_in(self, precision: Precision, device: torch.device | None = None) -> Computed:
        """Compute in a precision from now on, and say which; by default float32 whatever is asked for.

        Parameters, and their gradients once `collect_gradients` is called, stay of the type that they have.
        device: for which "auto" chooses; by default the one that the encoder is on.
        """
        return "float32"

    def collect_gradients(self) -> None:
        """After every backward pass, before gradients are read: give them to the parameters, where something else has them."""

    def working_bytes(self) -> int:
        """Memory that computing in another precision than that of the parameters takes beside them."""
        return 0

    def learning_rates(self, rates: LearningRates) -> dict[str, float]:
        """Highest learning rates of those parameters, by name, that the configuration gives a rate of their own."""
        return {}

    def splittable_modules(self) -> list[nn.Module]:
        """Modules whose parameters can be split over processes (FSDP2), a module after those that it contains.

        Raises ConfigError where they are not known. Empty where the encoder cannot be split; see `equal_calls`.
        """
        return []

    def token_cost(self) -> TokenCost:
        """What training takes for each token in the precision that is computed in, as an estimate.

        By default every weight but those of embedding tables is multiplied with every token: two operations in the forward
        pass, two in the backward pass, and two more where the weight is learned; two embeddings are kept for each token.
        """
        tables = {id(module.weight) for module in self.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))}
        return TokenCost(*self._flops(lambda name, parameter: id(parameter) not in tables), 8.0 * self.dimension)

    def gradient_bytes(self) -> int:
        """Memory of the gradients that a backward pass leaves: as much as all learned parameters."""
        return sum(p.numel() * p.element_size() for p in self.parameters() if p.requires_grad)

    def merged(self) -> Encoder:
        """An encoder of the same embeddings whose saved files suffice to load it; itself where that is so already.

        Raises ConfigError where that cannot be done.
        """
        return self

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write everything needed by `load` into an existing empty directory: safetensors and JSON only."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> Encoder:
        """Read an encoder written by `save`."""

    def _flops(self, meets: Callable[[str, nn.Parameter], bool]) -> tuple[float, float]:
        """Operations for each token of a forward and of a backward pass, if it is multiplied with the weights that it meets."""
        met = [parameter for name, parameter in self.named_parameters() if meets(name, parameter)]
        forward = sum(2 * parameter.numel() for parameter in met)
        return float(forward), float(forward + sum(2 * p.numel() for p in met if p.requires_grad))


def device_of(encoder: Encoder) -> torch.device:
    """Where an encoder's parameters are; the processor for one without any."""
    first = next(encoder.parameters(), None)
    return torch.device("cpu") if first is None else first.device
