"""Whether the services' process answers. One that hangs has not ended, and looks alive to all who do not ask it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

PATIENCE = 2.0  # seconds for an answer
HUNG_AFTER = 6  # looks without an answer: half a minute, as the supervisor looks

_NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def serves(port: int) -> bool:
    """Whether gRPC calls at 127.0.0.1:`port` are served: what they need is there too."""
    return await _check(port) == health_pb2.HealthCheckResponse.SERVING


async def answers(port: int) -> bool:
    """Whether anything is answered at 127.0.0.1:`port`, be it that calls cannot be served now."""
    return await _check(port) is not None


async def _check(port: int) -> int | None:
    """The health that is told; None without an answer."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # its types know synchronous channels only
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            return None if error.code() in _NO_ANSWER else health_pb2.HealthCheckResponse.UNKNOWN
        return int(answer.status)


class Hung:
    """Says after HUNG_AFTER looks in a row without an answer that only a restart will help; one answer is enough."""

    def __init__(self, answers: Callable[[], Awaitable[bool]]) -> None:
        self._answers = answers
        self._missed = 0

    async def __call__(self) -> bool:
        """Look once."""
        self._missed = 0 if await self._answers() else self._missed + 1
        if self._missed < HUNG_AFTER:
            return False
        self._missed = 0
        return True
