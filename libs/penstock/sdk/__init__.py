"""The Python SDK: `from penstock.sdk import Client`. Synchronous, typed, over the same gRPC API as everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.sdk.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    """Import the client when it is asked for: gRPC takes longer to import than all else that the CLI needs."""
    if name != "Client":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from penstock.sdk.client import Client

    return Client
