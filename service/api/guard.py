"""The one door of the API: who is calling, may they call this, is the message readable, and how does it end.

Every method runs behind it. A method without a row in `rules/access.py` is denied. The caller's identity comes from the
certificate or a verified token, and what it may do from the database alone.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from service.api import ledger
from service.api.bearer import Bearers, token_in
from service.api.directory import Directory, Failures, Flights, certified, no_credential
from service.api.failures import abort, refusal_of
from service.api.ledger import Denials, Entry, Reads
from service.rules.access import MUTATIONS, SHOWN, Caller, Reach, Scope, Shown, authorise, scope_of
from service.rules.access_log import object_of
from service.rules.bearer import Token, refuse
from service.rules.errors import Refusal
from service.rules.limits import CallRates

RECHECK_S = 10.0
"""An open stream asks again this often: with `directory.CACHE_S` and a keepalive every 15 s, a disabled principal's
streams end within 30 s (specs: service, section 14)."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """Who calls the running method, and how far they reach by it."""

    caller: Caller
    reach: Reach

    @property
    def tenant(self) -> str | None:
        """Whose objects the call may touch; None means everybody's."""
        return None if self.reach is Reach.ANY else self.caller.tenant

    @property
    def scope(self) -> Scope:
        """What every read of an object and every list is held against."""
        return scope_of(self.caller, self.reach)

    @property
    def shown(self) -> Shown:
        """How much of an audit the caller is shown."""
        return SHOWN[self.caller.role]

    def may_see(self, tenant: str | None) -> bool:
        """Tell whether an object of this tenant (None: it does not exist) may be touched by this call."""
        return tenant is not None and (self.reach is Reach.ANY or tenant == self.caller.tenant)


_CALL: ContextVar[Call] = ContextVar("call")


def current_call() -> Call:
    """Return the call that is running. A LookupError means that a method was served past the guard."""
    return _CALL.get()


class Guard(grpc.aio.ServerInterceptor):
    """Wraps each handler: authenticate, authorise, decode, run, and turn whatever is raised into one status.

    Args:
        directory: who principals are.
        bearers: whose tokens are believed.
        rates: how often each principal may call.
        flights: how many calls of each principal run.
        denials: where those who were turned away are counted.
        reads: where those who were told something are counted.
        unary_s: deadline of a unary call that came without one, and of every single message, in seconds.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        bearers: Bearers,
        rates: CallRates,
        flights: Flights,
        denials: Denials,
        reads: Reads,
        unary_s: float,
    ) -> None:
        self._directory = directory
        self._bearers = bearers
        self._rates = rates
        self._flights = flights
        self._failures = Failures()
        self._denials = denials
        self._reads = reads
        self._unary_s = unary_s

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the guarded handler of a method; None if there is no such method."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        decode = handler.request_deserializer
        decode_all = _decode_each(decode) if handler.request_streaming else _decode_one(decode, self._unary_s)
        if not handler.response_streaming:
            bounded = None if handler.request_streaming else self._unary_s
            wrapped: Any = self._single(method, self._counted(behaviour), decode_all, bounded)
        elif inspect.isasyncgenfunction(behaviour):
            wrapped = self._streaming(method, behaviour, decode_all)
        else:
            wrapped = self._single(method, self._while_admitted(behaviour), decode_all, None)
        # Every request as a stream, of one message where the method takes one: gRPC calls the handler of a stream at
        # once, that of a message only when it has arrived, and until then a stranger would hold a place.
        # No deserializer: an unreadable message must end in our status, not in gRPC's own.
        make: Any = grpc.stream_stream_rpc_method_handler
        if not handler.response_streaming:
            make = grpc.stream_unary_rpc_method_handler
        guarded: grpc.RpcMethodHandler[Any, Any] = make(
            wrapped, request_deserializer=None, response_serializer=handler.response_serializer
        )
        return guarded

    async def _enter(self, context: grpc.aio.ServicerContext[Any, Any], entry: Entry) -> None:
        """Let a call in: who it is, whether it comes too often, whether it may; and spend its token if it must."""
        peer = context.peer()
        self._failures.require_few(peer)
        try:
            token = await self._admit(context, entry, count=True)
        except Refusal as refusal:
            if refusal.code == "UNAUTHENTICATED":
                self._failures.note(peer)
            raise
        leave: Any = self._flights.board(entry.principal)
        context.add_done_callback(leave)
        if token is not None and not token.is_bound and entry.method in MUTATIONS:
            await self._directory.spend(token)

    async def _admit(self, context: Any, entry: Entry, *, count: bool = False) -> Token | None:
        """Say in whose name the call runs; on an open stream again, where nothing is counted a second time."""
        auth = context.auth_context()
        shown, token = certified(auth), None
        certificate = next(iter(auth.get("x509_pem_cert", ())), None)
        if shown is not None and certificate is None:
            raise no_credential()  # nobody could tell whether it is revoked
        text = token_in(context.invocation_metadata() or ())
        if text is not None:
            token = self._bearers.verify(text, certificate)
            if shown not in (None, token.principal):
                refuse("sub is another principal than the certificate's")
        identifier = shown if token is None else token.principal
        if identifier is None:
            raise no_credential()
        entry.principal = identifier
        caller = await self._directory.caller(identifier, certificate)
        if token is not None and not self._bearers.believes(token, caller):
            raise no_credential()  # the same bytes as for a principal that does not exist
        if count:
            self._rates.take(caller.principal)
        _CALL.set(Call(caller=caller, reach=authorise(caller, entry.method)))
        return token

    def _counted(self, behaviour: Any) -> Any:
        """Return a behaviour of one reply that is counted as a read once there is the reply."""

        async def counted(request: Any, context: Any) -> Any:
            reply = await behaviour(request, context)
            self._reads.note(ledger.current())
            return reply

        return counted

    def _while_admitted(self, behaviour: Any) -> Any:
        """Return a behaviour that writes its replies itself as one that ends when its caller may no longer call."""

        async def watched(request: Any, context: Any) -> None:
            entry = ledger.current()
            running = asyncio.ensure_future(behaviour(request, context))
            try:
                with self._reads.stream(entry):
                    while not (await asyncio.wait({running}, timeout=RECHECK_S))[0]:
                        await self._admit(context, entry)
                    await running
            finally:
                running.cancel()
                await asyncio.wait({running})

        return watched

    def _refusal(self, error: Exception, entry: Entry) -> Refusal:
        refusal = refusal_of(error, entry.method)
        if refusal.is_denial:
            self._denials.note(entry, refusal.reason)
        return refusal

    def _single(
        self, method: str, behaviour: Any, decode: Decode, default_s: float | None
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            entry = ledger.enter(method)
            try:
                async with asyncio.timeout(default_s if context.time_remaining() is None else None):
                    await self._enter(context, entry)
                    recheck = _Recheck(lambda: self._admit(context, entry))
                    return await behaviour(await decode(request, recheck), context)
            except grpc.aio.AbortError:
                raise
            except TimeoutError:
                return await abort(context, Refusal("DEADLINE_PASSED", "The call took too long."))
            except Exception as error:
                return await abort(context, self._refusal(error, entry))

        return call

    def _streaming(self, method: str, behaviour: Any, decode: Decode) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            entry = ledger.enter(method)
            try:
                await self._enter(context, entry)
                recheck = _Recheck(lambda: self._admit(context, entry))
                message = await decode(request, recheck)
                with self._reads.stream(entry):
                    async for reply in behaviour(message, context):
                        await recheck()
                        yield reply
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await abort(context, self._refusal(error, entry))

        return call


class _Recheck:
    """Authenticates an open stream again, every RECHECK_S at most."""

    def __init__(self, enter: Callable[[], Awaitable[object]]) -> None:
        self._enter = enter
        self._due = time.monotonic() + RECHECK_S

    async def __call__(self) -> None:
        if time.monotonic() >= self._due:
            await self._enter()
            self._due = time.monotonic() + RECHECK_S


Decode = Callable[[AsyncIterator[bytes], _Recheck], Awaitable[Any]]
"""Makes of the bytes of a request what its method is given: a message, or a stream of them."""


def _decode(decode: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return decode(raw)
    except DecodeError:
        raise Refusal("MALFORMED_MESSAGE", "The message does not decode, e.g. a text is not UTF-8.") from None


def _decode_one(decode: Callable[[bytes], Any], wait_s: float) -> Decode:
    async def one(raws: AsyncIterator[bytes], _recheck: _Recheck) -> Any:
        try:
            async with asyncio.timeout(wait_s):  # whatever deadline the caller chose
                raw = await anext(raws, None)
        except TimeoutError:
            text = f"The message did not come within {wait_s:g} s."
            raise Refusal("DEADLINE_PASSED", text, metadata={"limit_s": f"{wait_s:g}"}) from None
        if raw is None:
            raise Refusal("MALFORMED_MESSAGE", "The call ended without its message.")
        message = _decode(decode, raw)
        ledger.about(object_of(message))
        return message

    return one


def _decode_each(decode: Callable[[bytes], Any]) -> Decode:
    async def each(raws: AsyncIterator[bytes], recheck: _Recheck) -> AsyncIterator[Any]:
        async for raw in raws:
            await recheck()
            yield _decode(decode, raw)

    async def begin(raws: AsyncIterator[bytes], recheck: _Recheck) -> AsyncIterator[Any]:
        return each(raws, recheck)

    return begin
