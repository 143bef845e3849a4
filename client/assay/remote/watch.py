"""Events of one audit, gapless across broken connections."""

from __future__ import annotations

from collections.abc import Iterator

from assay.api.v1 import audits_pb2
from assay.client_errors import ServerRefused, Unreachable
from assay.remote import wire
from assay.remote.calls import Calls, Patience, is_transient
from assay.remote.values import Event


def watch(calls: Calls, name: str, after_sequence: int, timeout_s: float | None = None) -> Iterator[Event]:
    """Yield events after a sequence number until the audit has ended; see `AuditClient.watch`."""
    last = after_sequence
    patience = Patience(calls.patience_s)
    while True:
        # By default no deadline: an audit may take hours. A vanished peer is noticed by the channel's keepalive.
        asked = audits_pb2.WatchAuditRequest(name=name, after_sequence=last)
        stream = calls.audits.WatchAudit(asked, timeout=timeout_s)
        try:
            with calls.translated():
                for message in stream:
                    patience.renew()
                    # Keepalives have number 0; a number seen before is never told twice.
                    if message.sequence > last:
                        last = message.sequence
                        yield wire.event(message)
            return
        except (Unreachable, ServerRefused) as error:
            if is_transient(error) and patience.wait():
                continue
            if isinstance(error, Unreachable):
                raise Unreachable(str(error), last_sequence=last) from None
            raise
        finally:
            stream.cancel()
