"""What a member of the family of losses is, and the family: losses by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from inspect import Parameter, signature
from typing import Any

from torch import Tensor

from xmc.errors import InputError
from xmc.kernels.losses.rows import Options
from xmc.kernels.positives import Positives
from xmc.registry import Registry

__all__ = ["LOSSES", "Loss", "argument_names", "require_settings"]

SPEED_OPTIONS = ("tile_bytes", "keep_bytes")
"""Options that change how a loss is computed and not what it is; a loss that does not take them ignores them."""


@dataclass(frozen=True)
class Loss:
    """A loss as its callers see it: every member is called alike, and says what it needs.

    function: computes the loss, a scalar, from (queries [B, D], labels [L, D], positives, temperature) and options by name;
        without `temperature` where `takes_temperature` is False.
    over_all_labels: whether the loss is defined over all labels only, so that a sample of labels makes no sense.
    takes_temperature: whether scores are divided by a temperature τ.
    splits_labels: whether labels may be split over processes, with the option `shard`; where not, every process needs all
        labels.
    settings: arguments of the function by name, such as k, that do not change from batch to batch.
    """

    function: Callable[..., Tensor]
    over_all_labels: bool = False
    takes_temperature: bool = True
    splits_labels: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return self.function.__name__

    def with_settings(self, **settings: Any) -> Loss:
        """The same loss with some arguments of its function fixed.

        Raises InputError for an argument that the function does not have.
        """
        require_settings(f"The loss {self.name}", self.function, settings)
        return replace(self, settings={**self.settings, **settings})

    def __call__(
        self,
        queries: Tensor,
        labels: Tensor,
        positives: Positives,
        temperature: float | Tensor = 0.05,
        **options: Any,
    ) -> Tensor:
        """The loss of a batch, a scalar.

        queries: [B, D], labels: [L, D], positives: B rows of labels. temperature: τ > 0, not used where `takes_temperature`
        is False. options: those of the function, and of `Options`; one that is None counts as not given.

        Raises InputError for an option that the loss does not take, save for those that only concern speed, and for
        `log_inclusion` where a loss of some labels needs no correction for them being a sample.
        """
        known = argument_names(self.function)
        arguments = dict(self.settings)
        for name, value in options.items():
            if value is None:
                continue
            if name in known:
                arguments[name] = value
            elif not self._ignores(name):
                raise InputError(f"The loss {self.name} takes no {name}; it takes {', '.join(known)}.")
        if self.takes_temperature:
            return self.function(queries, labels, positives, temperature, **arguments)
        return self.function(queries, labels, positives, **arguments)

    def _ignores(self, option: str) -> bool:
        """Whether an option that the function does not take makes no difference to the loss."""
        return option in SPEED_OPTIONS or (option == "log_inclusion" and not self.over_all_labels)


@cache
def argument_names(function: Callable[..., Tensor]) -> tuple[str, ...]:
    """What a loss function takes by name only, in order; a function with `**options` takes all of `Options`."""
    names = []
    for name, parameter in signature(function).parameters.items():
        if parameter.kind is Parameter.KEYWORD_ONLY:
            names.append(name)
        elif parameter.kind is Parameter.VAR_KEYWORD:
            names.extend(Options.__annotations__)
    return tuple(names)


def require_settings(loss: str, function: Callable[..., Tensor], settings: Iterable[str]) -> None:
    """Raise InputError, which begins with `loss`, for a setting that a loss function does not take by name."""
    known = argument_names(function)
    for name in settings:
        if name not in known:
            raise InputError(f"{loss} has no setting {name!r}; it has {', '.join(known)}.")


LOSSES: Registry[Loss] = Registry("loss")
"""The losses by name; a file of a loss registers it here."""
