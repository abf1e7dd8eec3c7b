"""How one service (or the SDK) calls another: one channel a service, and what every call carries.

A stub made here sends the token, on whose behalf, and the chain that the call belongs to; it gives calls a deadline,
fills in request ids so that creates can be retried, and raises domain errors, not grpc.RpcError. Base install only.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from penstock.errors import Unavailable
from penstock.rpc.addresses import check_connect
from penstock.rpc.caller import AUTHORIZATION, ON_BEHALF_OF, encode_on_behalf_of
from penstock.rpc.errors import from_rpc_error
from penstock.rpc.options import DEFAULT_TIMEOUT_SECONDS, channel_options

S = TypeVar("S")
Metadata = Sequence[tuple[str, str]]
_behalf: ContextVar[tuple[str, str] | None] = ContextVar("penstock_on_behalf_of", default=None)


@contextmanager
def on_behalf_of(project: str, subject: str) -> Iterator[None]:
    """Make the calls within the block on behalf of `subject`, who may act in `project` only (and so may the calls)."""
    token = _behalf.set((project, subject))
    try:
        yield
    finally:
        _behalf.reset(token)


class Channels:
    """Channels to services, opened when first used.

    `addresses` maps a service's short name to `host:port` and may be filled later; `token_source` gives the token for
    calls to a service; `ca` (a PEM file) turns TLS on; `metadata` gives what else to send with every call.
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        token_source: Callable[[str], str],
        *,
        ca: Path | None = None,
        metadata: Callable[[], Metadata] = tuple,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
    ) -> None:
        self._addresses = addresses
        self._token_source = token_source
        self._credentials = grpc.ssl_channel_credentials(ca.read_bytes()) if ca else None
        self._metadata = metadata
        self._timeout = timeout
        self._open: dict[tuple[str, str], grpc.aio.Channel] = {}
        self._stubs: dict[tuple[Any, str], Any] = {}

    def stub(self, make: Callable[[grpc.aio.Channel], S], service: str) -> S:
        """The stub `make` (a generated class) for calls to `service`, such as `stub(TrainingServiceStub, "training")`.

        Its methods raise PenstockError: Unavailable also if no address of the service is known.
        """
        key = (make, service)
        if key not in self._stubs:
            self._stubs[key] = make(cast(grpc.aio.Channel, _StubChannel(self, service)))
        return cast(S, self._stubs[key])

    def address(self, service: str) -> str:
        """Where a service listens, `host:port`. Raises Unavailable if that is not known."""
        address = self._addresses.get(service)
        if address is None:
            raise Unavailable(f"No address of the service '{service}' is known: start it, or set PENSTOCK_ADDRESSES.")
        return address

    def channel(self, service: str, full_name: str) -> grpc.aio.Channel:
        """The bare channel for calls of the rpc service `full_name` at `service`'s address."""
        address = self.address(service)
        key = (address, full_name)
        if key not in self._open:
            self._open[key] = self._connect(address, full_name)
        return self._open[key]

    def _connect(self, address: str, full_name: str) -> grpc.aio.Channel:
        check_connect(address, tls=self._credentials is not None)
        options = channel_options([full_name])
        if self._credentials is not None:
            return grpc.aio.secure_channel(address, self._credentials, options=options)
        return grpc.aio.insecure_channel(address, options=options)

    def call_metadata(self, service: str) -> list[tuple[str, str]]:
        """What a call to `service` carries now."""
        entries = [(AUTHORIZATION, f"Bearer {self._token_source(service)}"), *self._metadata()]
        behalf = _behalf.get()
        if behalf is not None:
            entries.append((ON_BEHALF_OF, encode_on_behalf_of(*behalf)))
        return entries

    @property
    def timeout(self) -> float:
        """The deadline of a call that gives none, in seconds; streams have none."""
        return self._timeout

    async def close(self) -> None:
        """Close all channels; running calls are cancelled."""
        for channel in self._open.values():
            await channel.close()
        self._open.clear()


class _StubChannel:
    """What a generated stub takes for a channel: it asks for one callable per method."""

    def __init__(self, channels: Channels, service: str) -> None:
        self._channels = channels
        self._service = service

    def unary_unary(self, path: str, **coders: Any) -> Callable[..., Any]:
        return _single(self._channels, self._service, path, lambda channel: channel.unary_unary(path, **coders))

    def stream_unary(self, path: str, **coders: Any) -> Callable[..., Any]:
        return _single(self._channels, self._service, path, lambda channel: channel.stream_unary(path, **coders))

    def unary_stream(self, path: str, **coders: Any) -> Callable[..., Any]:
        return _streaming(self._channels, self._service, path, lambda channel: channel.unary_stream(path, **coders))

    def stream_stream(self, path: str, **coders: Any) -> Callable[..., Any]:
        return _streaming(self._channels, self._service, path, lambda channel: channel.stream_stream(path, **coders))


class _Opened:
    """The callable of one method on the channel of the moment: an address may change when its process comes back."""

    def __init__(self, channels: Channels, service: str, path: str, make: Callable[[grpc.aio.Channel], Any]) -> None:
        self._channels, self._service, self._make = channels, service, make
        self._full_name = path.split("/")[1]
        self._channel: grpc.aio.Channel | None = None
        self._callable: Any = None

    def __call__(self, request: Any, timeout: float | None, metadata: Metadata) -> Any:
        channel = self._channels.channel(self._service, self._full_name)
        if channel is not self._channel:
            self._channel, self._callable = channel, self._make(channel)
        entries = (*self._channels.call_metadata(self._service), *metadata)
        return self._callable(request, timeout=timeout, metadata=entries)


def _single(channels: Channels, service: str, path: str, make: Callable[[grpc.aio.Channel], Any]) -> Callable[..., Any]:
    opened = _Opened(channels, service, path, make)

    async def call(request: Any, *, timeout: float | None = None, metadata: Metadata = ()) -> Any:
        limit = channels.timeout if timeout is None else timeout
        try:
            return await opened(with_request_id(request), limit, metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    return call


def _streaming(
    channels: Channels, service: str, path: str, make: Callable[[grpc.aio.Channel], Any]
) -> Callable[..., Any]:
    opened = _Opened(channels, service, path, make)

    async def call(request: Any, *, timeout: float | None = None, metadata: Metadata = ()) -> AsyncIterator[Any]:
        running = opened(request, timeout, metadata)
        try:
            async for message in running:
                yield message
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            running.cancel()

    return call


def with_request_id(request: Any) -> Any:
    """The request with a `request_id` if its type has one and it is empty, so that sending it twice does no harm."""
    if not isinstance(request, Message) or "request_id" not in request.DESCRIPTOR.fields_by_name:
        return request
    message: Any = request
    if message.request_id:
        return request
    copy = type(message)()
    copy.CopyFrom(message)
    copy.request_id = str(uuid.uuid4())
    return copy
