"""Client interceptors: the token, a deadline where none is given, domain errors for RpcErrors, and last writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message

from penstock.rpc.errors import from_rpc_error

DEFAULT_DEADLINE = 60.0  # seconds, for calls that are not streams


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _DetailsOfCall(_Details, grpc.ClientCallDetails):
    """What grpc wants to see again, with the token and a deadline added."""


class Session(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """What all calls of one client share; `last_writes` maps resource names to the sequence of the last write seen."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        self.last_writes: dict[str, int] = {}

    def _details(self, call: grpc.ClientCallDetails, default_deadline: float | None) -> _DetailsOfCall:
        metadata = list(call.metadata or [])
        if self._token:
            metadata.append(("authorization", f"Bearer {self._token}"))
        timeout = call.timeout if call.timeout is not None else default_deadline
        return _DetailsOfCall(call.method, timeout, metadata, call.credentials, call.wait_for_ready, call.compression)

    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """Call; raise a PenstockError for any other status than OK."""
        call = continuation(self._details(client_call_details, DEFAULT_DEADLINE), request)
        try:
            response = call.result()
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        self._remember(response)
        return call

    def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """Call a stream; its iterator raises a PenstockError where it breaks."""
        return _Stream(continuation(self._details(client_call_details, None), request))

    def _remember(self, response: Message) -> None:
        fields = response.DESCRIPTOR.fields_by_name
        if "name" in fields and "sequence" in fields and response.sequence:  # type: ignore[attr-defined]
            name, sequence = response.name, response.sequence  # type: ignore[attr-defined]
            self.last_writes[name] = max(sequence, self.last_writes.get(name, 0))


class _Stream:
    """An iterator over a server stream that speaks in domain errors and can be cancelled."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    def cancel(self) -> None:
        """End the stream."""
        self._call.cancel()
