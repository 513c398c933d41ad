"""Everything random in training is a function of the seed, the step and a purpose, so a resumed run repeats it."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch

__all__ = ["Purpose", "numpy_random", "seed_for", "torch_random"]


class Purpose(IntEnum):
    """What a stream of random numbers is for."""

    BATCHES = 0
    QUERY_TOKENS = 1
    LABEL_TOKENS = 2
    LABEL_VECTORS = 3
    BACKBONE = 4
    POSITIVES = 5
    SAMPLED = 6
    SHORTLIST = 7
    CLUSTERS = 8
    PROTOTYPES = 9
    BANK = 10
    FREE_VECTORS = 11
    CHANCE = 12
    HELD_OUT = 13


def seed_for(seed: int, step: int, purpose: Purpose, rank: int = 0, number: int = 0) -> int:
    """A seed of 63 bits. number: for a purpose that needs several in a step and process."""
    names = (seed, step, purpose, rank, number) if number else (seed, step, purpose, rank)
    return int(np.random.SeedSequence(names).generate_state(1, np.uint64)[0] >> np.uint64(1))


def numpy_random(seed: int, step: int, purpose: Purpose) -> np.random.Generator:
    """A fresh generator."""
    return np.random.default_rng(seed_for(seed, step, purpose))


def torch_random(seed: int, step: int, purpose: Purpose) -> torch.Generator:
    """A fresh generator on the CPU."""
    return torch.Generator().manual_seed(seed_for(seed, step, purpose))
