"""The encoders by the name that a configuration and a saved encoder call them."""

from __future__ import annotations

from xmc.encoders.base import Encoder
from xmc.encoders.static.encoder import StaticEncoder
from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.registry import Registry

__all__ = ["ENCODERS"]

ENCODERS: Registry[type[Encoder]] = Registry("encoder", {"static": StaticEncoder, "transformer": TransformerEncoder})
"""To add an encoder, register its class under its `kind`; tests/encoders/test_encoders_contract.py says what it must do."""
