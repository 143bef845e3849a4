"""The one door of the API: who is calling, may they call this, is the message readable, and how does it end.

Every method runs behind it. A method without a row in `rules/access.py` is denied. The caller's identity comes from the
certificate or a verified token, and what it may do from the database alone.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from service.api import ledger
from service.api.bearer import Bearers, token_in
from service.api.failures import abort, refusal_of
from service.api.ledger import Denials, Entry
from service.rules.access import MUTATIONS, SHOWN, Caller, Reach, Scope, Shown, authorise, scope_of
from service.rules.access_log import object_of
from service.rules.bearer import Token, refuse
from service.rules.errors import Refusal
from service.rules.limits import CallRates
from service.store import token_uses
from service.store.engine import Store
from service.store.principals import find_caller

CACHE_S = 5.0
"""How long the database's word on a principal is believed."""

RECHECK_S = 10.0
"""An open stream asks again this often: with CACHE_S and a keepalive every 15 s, a disabled principal's streams end
within 30 s (specs: service, section 14)."""

_URI = re.compile(r"assay:principal:([a-z0-9][a-z0-9-]{0,62})")


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


class Directory:
    """Principals by their ids, as the database has them."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[str, tuple[float, Caller | None]] = {}

    async def caller(self, identifier: str) -> Caller:
        """Return what a principal may act as.

        Raises:
            Refusal: NO_CREDENTIAL: it is unknown or disabled.
        """
        until, caller = self._known.get(identifier, (0.0, None))
        if until <= self._clock():
            caller = await asyncio.to_thread(self._read, identifier)
            self._known[identifier] = (self._clock() + CACHE_S, caller)
        if caller is None:
            raise _no_credential()
        return caller

    def _read(self, identifier: str) -> Caller | None:
        with self._store.read() as connection:
            return find_caller(connection, identifier)

    async def spend(self, token: Token) -> None:
        """Let a token that is bound to no certificate change something this once.

        Raises:
            Refusal: TOKEN_USED, BAD_TOKEN.
        """

        def spend() -> None:
            with self._store.begin() as connection:
                token_uses.spend(connection, token)

        await asyncio.to_thread(spend)


def _certified(auth_context: Mapping[str, Any]) -> str | None:
    """Return the principal that the connection's certificate names, None if it names none or there is none."""
    names = auth_context.get("x509_subject_alternative_name", ())
    found = [match[1] for name in names if (match := _URI.fullmatch(name.decode("utf-8", "replace")))]
    return str(found[0]) if len(found) == 1 else None


def _no_credential() -> Refusal:
    return Refusal("NO_CREDENTIAL", "There is no valid credential.")


class Guard(grpc.aio.ServerInterceptor):
    """Wraps each handler: authenticate, authorise, decode, run, and turn whatever is raised into one status.

    Args:
        directory: who principals are.
        bearers: whose tokens are believed.
        rates: how often each principal may call.
        denials: where those who were turned away are counted.
        unary_s: deadline of a unary call that came without one, in seconds.
    """

    def __init__(
        self, directory: Directory, *, bearers: Bearers, rates: CallRates, denials: Denials, unary_s: float
    ) -> None:
        self._directory = directory
        self._bearers = bearers
        self._rates = rates
        self._denials = denials
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
        decode_all = _decode_each(decode) if handler.request_streaming else _decode_one(decode)
        if not handler.response_streaming or not inspect.isasyncgenfunction(behaviour):
            bounded = not handler.response_streaming and not handler.request_streaming
            wrapped: Any = self._single(method, behaviour, decode_all, self._unary_s if bounded else None)
        else:
            wrapped = self._streaming(method, behaviour, decode_all)
        make = _MAKERS[(handler.request_streaming, handler.response_streaming)]
        # No deserializer: an unreadable message must end in our status, not in gRPC's own.
        guarded: grpc.RpcMethodHandler[Any, Any] = make(
            wrapped, request_deserializer=None, response_serializer=handler.response_serializer
        )
        return guarded

    async def _enter(self, context: grpc.aio.ServicerContext[Any, Any], entry: Entry) -> None:
        """Let a call in: who it is, whether it comes too often, whether it may; and spend its token if it must."""
        token = await self._admit(context, entry, count=True)
        if token is not None and not token.is_bound and entry.method in MUTATIONS:
            await self._directory.spend(token)

    async def _admit(self, context: Any, entry: Entry, *, count: bool = False) -> Token | None:
        """Say in whose name the call runs; on an open stream again, where nothing is counted a second time."""
        auth = context.auth_context()
        certified, token = _certified(auth), None
        text = token_in(context.invocation_metadata() or ())
        if text is not None:
            token = self._bearers.verify(text, next(iter(auth.get("x509_pem_cert", ())), None))
            if certified not in (None, token.principal):
                refuse("sub is another principal than the certificate's")
        identifier = certified if token is None else token.principal
        if identifier is None:
            raise _no_credential()
        entry.principal = identifier
        caller = await self._directory.caller(identifier)
        if token is not None and not self._bearers.believes(token, caller):
            raise _no_credential()  # the same bytes as for a principal that does not exist
        if count:
            self._rates.take(caller.principal)
        _CALL.set(Call(caller=caller, reach=authorise(caller, entry.method)))
        return token

    def _refusal(self, error: Exception, entry: Entry) -> Refusal:
        refusal = refusal_of(error, entry.method)
        if refusal.code in ledger.DENIED:
            self._denials.note(entry, refusal.reason)
        return refusal

    def _single(
        self, method: str, behaviour: Any, decode: Callable[[Any, _Recheck], Any], default_s: float | None
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            entry = ledger.enter(method)
            try:
                async with asyncio.timeout(default_s if context.time_remaining() is None else None):
                    await self._enter(context, entry)
                    recheck = _Recheck(lambda: self._admit(context, entry))
                    return await behaviour(decode(request, recheck), context)
            except grpc.aio.AbortError:
                raise
            except TimeoutError:
                return await abort(context, Refusal("DEADLINE_PASSED", "The call took too long."))
            except Exception as error:
                return await abort(context, self._refusal(error, entry))

        return call

    def _streaming(
        self, method: str, behaviour: Any, decode: Callable[[Any, _Recheck], Any]
    ) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            entry = ledger.enter(method)
            try:
                await self._enter(context, entry)
                recheck = _Recheck(lambda: self._admit(context, entry))
                async for reply in behaviour(decode(request, recheck), context):
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


def _decode(decode: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return decode(raw)
    except DecodeError:
        raise Refusal("MALFORMED_MESSAGE", "The message does not decode, e.g. a text is not UTF-8.") from None


def _decode_one(decode: Callable[[bytes], Any]) -> Callable[[Any, _Recheck], Any]:
    def one(raw: bytes, _recheck: _Recheck) -> Any:
        message = _decode(decode, raw)
        ledger.about(object_of(message))
        return message

    return one


def _decode_each(decode: Callable[[bytes], Any]) -> Callable[[Any, _Recheck], Any]:
    async def each(raws: AsyncIterator[bytes], recheck: _Recheck) -> AsyncIterator[Any]:
        async for raw in raws:
            await recheck()
            yield _decode(decode, raw)

    return each


_MAKERS: Mapping[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""(request streams, response streams) -> gRPC's own constructor."""
