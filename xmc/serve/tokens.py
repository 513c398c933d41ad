"""Who may change labels: those who know the token."""

from __future__ import annotations

import hmac

from xmc.serve.failures import Refusal
from xmc.serve.settings import TOKEN

__all__ = ["require_token"]


def require_token(authorization: str | None, token: str | None) -> None:
    """Raise Refusal where the header `Authorization` does not carry the server's token, or the server has none (401, 403)."""
    if token is None:
        raise Refusal(
            403, f"This server was started without a token and changes no labels; set {TOKEN}, or --token-file."
        )
    kind, _, given = (authorization or "").partition(" ")
    if kind.lower() != "bearer" or not given:
        raise Refusal(401, "Changes need the header `Authorization: Bearer TOKEN`.", www_authenticate="Bearer")
    if not hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode()):
        raise Refusal(401, "The token is not that of this server.", www_authenticate="Bearer")
