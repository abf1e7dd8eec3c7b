"""Reflection tells what there is to call: to whoever has a token. Health tells nothing, and anybody may ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from penstock.errors import PenstockError
from penstock.rpc.auth import Authorizer, plain_metadata
from penstock.rpc.calls import Context, Handler
from penstock.rpc.errors import status_code, to_status

_PREFIX = "/grpc.reflection."


class ReflectionGuard(grpc.aio.ServerInterceptor):
    """Lets calls of reflection through that come with a valid token, and all others."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler that gRPC found."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(_PREFIX):
            return handler
        behaviour: Any = handler.stream_stream

        async def guarded(requests: Any, context: Context) -> AsyncIterator[Any]:
            try:
                self._authorizer.identify(plain_metadata(context.invocation_metadata()))
            except PenstockError as error:
                await context.abort(status_code(to_status(error)), error.message)
            async for answer in behaviour(requests, context):
                yield answer

        make: Any = grpc.stream_stream_rpc_method_handler
        return make(guarded, handler.request_deserializer, handler.response_serializer)  # type: ignore[no-any-return]
