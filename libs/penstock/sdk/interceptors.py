"""Client interceptors: the token, a deadline, patience with a platform that restarts, domain errors, last writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message

from penstock.errors import PenstockError
from penstock.rpc.channels import with_request_id
from penstock.rpc.errors import from_rpc_error
from penstock.sdk import retries
from penstock.sdk.following import FIRST_PATIENCE

DEFAULT_DEADLINE = 60.0  # seconds, for calls that are not streams
REMEMBERED = 100  # resources whose last write is remembered


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
    """What all calls of one client share; `last_writes` maps resource names to the sequence of the last write seen.

    A platform that does not answer is asked again for `patience` seconds, if the call may be repeated. `is_kept_up`
    tells of one that has not answered yet whether it is there.
    """

    def __init__(
        self, token: str | None, patience: float = retries.PATIENCE, is_kept_up: Callable[[], bool] = lambda: False
    ) -> None:
        self._token = token
        self._patience = patience
        self._is_kept_up = is_kept_up
        self._answered = False
        self.last_writes: dict[str, int] = {}

    @property
    def is_there(self) -> bool:
        """Whether the platform has answered already, or is known to be kept up."""
        return self._answered or self._is_kept_up()

    def _details(self, call: grpc.ClientCallDetails, default_deadline: float | None) -> _DetailsOfCall:
        metadata = list(call.metadata or [])
        if self._token:
            metadata.append(("authorization", f"Bearer {self._token}"))
        timeout = call.timeout if call.timeout is not None else default_deadline
        return _DetailsOfCall(call.method, timeout, metadata, call.credentials, call.wait_for_ready, call.compression)

    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """Call, and again if that may help; raise a PenstockError for any other status than OK."""
        again = retries.repeatable(client_call_details.method)
        request = with_request_id(request) if again else request
        details = self._details(client_call_details, DEFAULT_DEADLINE)
        failing: float | None = None  # since when
        attempt = 0
        while True:
            call = continuation(details, request)
            try:
                response = call.result()
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
                self._answered = self._answered or retries.answered(error)
                failing = failing or time.monotonic()
                if not again or not self._wait(failure, attempt, time.monotonic() - failing):
                    raise failure from None
                attempt += 1
            else:
                self._remember(response)
                return call

    def _wait(self, failure: PenstockError, attempt: int, waited: float) -> bool:
        """Wait before another attempt; False if there is no point in one."""
        patience = self._patience if self.is_there else min(self._patience, FIRST_PATIENCE)
        if not retries.may_pass(failure) or waited >= patience:
            return False
        time.sleep(retries.DELAYS[min(attempt, len(retries.DELAYS) - 1)])
        return True

    def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """Call a stream; its iterator raises a PenstockError where it breaks."""
        return _Stream(continuation(self._details(client_call_details, None), request), self._remember)

    def _remember(self, response: Message) -> None:
        self._answered = True
        fields = response.DESCRIPTOR.fields_by_name
        if "name" in fields and "sequence" in fields and response.sequence:  # type: ignore[attr-defined]
            name, sequence = response.name, response.sequence  # type: ignore[attr-defined]
            self.last_writes[name] = max(sequence, self.last_writes.pop(name, 0))  # as the newest
            if len(self.last_writes) > REMEMBERED:
                del self.last_writes[next(iter(self.last_writes))]


class _Stream:
    """An iterator over a server stream that speaks in domain errors and can be cancelled."""

    def __init__(self, call: Any, remember: Callable[[Message], None]) -> None:
        self._call = call
        self._remember = remember

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            message = next(self._call)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        self._remember(message)
        return message

    def cancel(self) -> None:
        """End the stream."""
        self._call.cancel()
