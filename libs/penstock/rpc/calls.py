"""What surrounds every call on the server: identity, deadline, errors that become status, a log line, figures.

One interceptor does it for all four kinds of rpc, so no servicer does any of it. Methods that are not in the table
(health, reflection) pass through untouched.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import Message

from penstock.errors import InvalidArgument, PenstockError, Unauthenticated, Unavailable
from penstock.rpc.access import WRITES, Access, Method
from penstock.rpc.auth import Authorizer, plain_metadata
from penstock.rpc.caller import Caller, set_caller
from penstock.rpc.causes import cause_of, request_id_of
from penstock.rpc.decoding import Malformed, lenient
from penstock.rpc.denylist import OpenCall
from penstock.rpc.errors import (
    DETAILS_KEY,
    DeadlineExceeded,
    from_rpc_error,
    internal_status,
    status_code,
    to_status,
)
from penstock.rpc.figures import Figures
from penstock.store.outbox import current_cause

DEFAULT_DEADLINE_SECONDS = 60.0
MAX_RESOURCE_CHARS = 500
log = structlog.get_logger("penstock.rpc")

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True)
class AuditRecord:
    """A call that wanted to change something: who, what, to which resource, and the name of its final status."""

    caller: Caller
    method: str
    resource: str
    outcome: str
    request_id: str
    time: float


Audit = Callable[[AuditRecord], Awaitable[None]]


@dataclass
class Call:
    """One running call; filled in as it becomes known."""

    method: Method
    context: Context
    request_id: str
    metadata: Mapping[str, str]
    began: float = field(default_factory=time.perf_counter)
    caller: Caller | None = None
    resource: str = ""
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""


def _parts(handler: Handler) -> tuple[Callable[..., Handler], Any]:
    """How a handler of this kind is made, and the servicer's method in it."""
    match bool(handler.request_streaming), bool(handler.response_streaming):
        case False, False:
            return grpc.unary_unary_rpc_method_handler, handler.unary_unary
        case False, True:
            return grpc.unary_stream_rpc_method_handler, handler.unary_stream
        case True, False:
            return grpc.stream_unary_rpc_method_handler, handler.stream_unary
        case _:
            return grpc.stream_stream_rpc_method_handler, handler.stream_stream


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handlers of all methods in `methods`; see the module's text."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        authorizer: Authorizer,
        figures: Figures,
        audit: Audit | None = None,
        deadline: float = DEFAULT_DEADLINE_SECONDS,
    ) -> None:
        self._methods = methods
        self._authorizer = authorizer
        self._figures = figures
        self._audit = audit
        self._deadline = deadline
        self._audits: set[asyncio.Task[None]] = set()
        self._streams: set[OpenCall] = set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler that gRPC found."""
        handler = await continuation(handler_call_details)
        method = self._methods.get(handler_call_details.method)
        if handler is None or method is None:
            return handler
        return self._wrap(handler, method)

    def _wrap(self, handler: Handler, method: Method) -> Handler:
        make, behaviour = _parts(handler)
        around = self._streaming if handler.response_streaming else self._single
        return make(
            around(behaviour, method, handler.request_streaming),
            request_deserializer=lenient(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _single(self, behaviour: Any, method: Method, request_stream: bool) -> Any:
        async def single(request: Any, context: Context) -> Any:
            async with self._around(method, context, request) as call, self._limit(context, unlimited=request_stream):
                return await behaviour(self._admit(call, request, request_stream), context)

        return single

    def _streaming(self, behaviour: Any, method: Method, request_stream: bool) -> Any:
        # Written with context.write(), not yielded: a stream that is ended while its reader is slow must be ended here,
        # since gRPC itself, when cancelled in a write, sends no status and the client would wait forever.
        async def streaming(request: Any, context: Context) -> None:
            async with self._around(method, context, request) as call, self._ending(call):
                answers = behaviour(self._admit(call, request, request_stream), context)
                if inspect.isawaitable(answers):  # a servicer that writes by itself
                    await answers
                    return
                async with contextlib.aclosing(answers):
                    async for answer in answers:
                        await context.write(answer)

        return streaming

    def _admit(self, call: Call, request: Any, request_stream: bool) -> Any:
        """Check the request and give it back; of a stream of them, each when it comes."""
        if request_stream:
            return self._admit_each(call, request)
        self._admit_one(call, request)
        return request

    async def _admit_each(self, call: Call, requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
        async for request in requests:
            self._admit_one(call, request)
            yield request

    def _admit_one(self, call: Call, request: Message | Malformed) -> None:
        if isinstance(request, Malformed):
            raise InvalidArgument("The request cannot be parsed: it is damaged, or nested too deeply.")
        call.resource = call.resource or call.method.resource(request)[:MAX_RESOURCE_CHARS]
        if call.caller is not None:
            self._authorizer.check_request(call.caller, call.method, request)

    @contextlib.asynccontextmanager
    async def _around(self, method: Method, context: Context, request: Any) -> AsyncIterator[Call]:
        metadata = plain_metadata(context.invocation_metadata())
        call = Call(method, context, request_id_of(metadata), metadata)
        if isinstance(request, Message):  # the log and the audit name it even where the call is refused
            call.resource = method.resource(request)[:MAX_RESOURCE_CHARS]
        self._figures.began(method)
        try:
            self._identify(call)
            yield call
        except grpc.aio.AbortError:
            call.code = context.code() if isinstance(context.code(), grpc.StatusCode) else grpc.StatusCode.UNKNOWN
            raise
        except (asyncio.CancelledError, GeneratorExit):  # the client has gone
            call.code = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 - the one place where errors become status; unknown ones are logged
            await self._refuse(call, error)
        finally:
            self._record(call)

    def _identify(self, call: Call) -> None:
        if call.method.access is not Access.PUBLIC:
            call.caller = self._authorizer.identify(call.metadata)
            self._authorizer.admit(call.caller, call.method)
        set_caller(call.caller)
        current_cause.set(cause_of(call.metadata, call.caller, call.request_id))

    @contextlib.asynccontextmanager
    async def _limit(self, context: Context, *, unlimited: bool) -> AsyncIterator[None]:
        """Give a call without a deadline one; gRPC itself cancels a call whose own deadline has passed."""
        limit = None if unlimited or context.time_remaining() is not None else self._deadline
        try:
            async with asyncio.timeout(limit) as timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            text = f"The call took longer than {self._deadline:g} s: give it a deadline of its own."
            raise DeadlineExceeded(text) from error

    @contextlib.asynccontextmanager
    async def _ending(self, call: Call) -> AsyncIterator[None]:
        """Let a stream be ended from outside: its token is revoked or expires, or the server stops."""
        task = asyncio.current_task()
        if call.caller is None or task is None:
            yield
            return
        stream = OpenCall(call.caller, task)
        self._streams.add(stream)
        try:
            with self._authorizer.denylist.watching(stream):
                yield
        except asyncio.CancelledError:
            if stream.ended is None:
                raise
            task.uncancel()
            raise stream.ended from None
        finally:
            self._streams.discard(stream)

    async def _refuse(self, call: Call, error: Exception) -> None:
        """End the call with the status that the error stands for. Always raises."""
        if isinstance(error, grpc.RpcError):  # of a call that the servicer made
            error = from_rpc_error(error)
            known = not isinstance(error, Unauthenticated)  # the service's own token is nothing the caller can mend
        else:
            known = isinstance(error, PenstockError)
        if known and isinstance(error, PenstockError):
            status = to_status(error)
        else:
            incident = secrets.token_hex(6)
            log.error("unknown error", incident=incident, method=call.method.full_name, exc_info=error)
            status = internal_status(incident)
        call.code, call.message = status_code(status), status.message
        await call.context.abort(call.code, status.message, ((DETAILS_KEY, status.SerializeToString()),))

    def _record(self, call: Call) -> None:
        seconds = time.perf_counter() - call.began
        self._figures.ended(call.method, call.code, seconds)
        # Polls of services and reports of jobs come by the thousand and say nothing when they work.
        quiet = call.method.access in (Access.INTERNAL, Access.RUNNER) and call.code is grpc.StatusCode.OK
        (log.debug if quiet else log.info)(
            "call",
            method=call.method.full_name,
            code=call.code.name,
            ms=round(seconds * 1000, 2),
            resource=call.resource,
            subject=call.caller.subject if call.caller else "",
            project=call.caller.project if call.caller else "",
            request_id=call.request_id,
            **({"error": call.message} if call.message else {}),
        )
        if self._audit is not None and call.caller is not None and call.method.access in WRITES:
            self._audit_later(self._audit, call, call.caller)

    def _audit_later(self, audit: Audit, call: Call, caller: Caller) -> None:
        """Write the audit record beside the answer: its failure must not fail a call that is done."""
        record = AuditRecord(caller, call.method.full_name, call.resource, call.code.name, call.request_id, time.time())

        async def store() -> None:
            try:
                await audit(record)
            except Exception as error:  # noqa: BLE001 - whatever the hook raises, the record goes at least to the log
                log.error("audit record not stored", record=record, error=str(error))

        task = asyncio.create_task(store())
        self._audits.add(task)
        task.add_done_callback(self._audits.discard)

    async def drain(self) -> None:
        """End open streams (their clients reconnect elsewhere) and wait for audit records that are being written."""
        for stream in tuple(self._streams):
            stream.end(Unavailable("The server is stopping: open the stream again."))
        while self._audits:
            await asyncio.wait(tuple(self._audits))
