"""The Python SDK: `from penstock.sdk import Client`. Synchronous, typed, over the same gRPC API as everything else."""

from penstock.sdk.client import Client

__all__ = ["Client"]
