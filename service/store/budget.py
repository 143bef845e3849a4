"""What has left about a model, over all its audits: charged before release, and never given back.

Specs: sandbox, section 10. One row for each model and one for each auditor of it hold the sums. A charge is one
statement on each, which locks the row until the transaction ends: of two audits that end at once, the second sees what
the first was charged. The ledger has no foreign key: it outlives audits and auditors.

Its `model_sha256` is the digest of the weights alone (`service.rules.manifest.weights_sha256`), not of the manifest: an
added licence or another name would else give fresh caps. A changed byte of the weights, or of their header, still does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from service.rules.states import Outcome
from service.store.engine import now_ms
from service.store.tables import output_charge, output_total

EVERYONE = ""
"""Stands for all auditors of a model; no principal has an empty name."""


@dataclass(frozen=True, kw_only=True)
class Caps:
    """Most bytes over the lifetime of a model."""

    auditor: int = 2**20
    """Of one auditor about one model."""
    model: int = 8 * 2**20
    """Of all auditors about one model."""


CAPS = Caps()


@dataclass(frozen=True, kw_only=True)
class Lifetime:
    """What one auditor was told about one model so far, and the cap on it."""

    bytes: int
    cap: int


@dataclass(frozen=True, kw_only=True)
class Withheld:
    """The record to store in place of a result that is over a cap: every answer refused."""

    record_sha256: str
    outcome: Outcome


def models_of(parent: Row[Any], weights: str, base_weights: str) -> tuple[str, ...]:
    """Return what is charged for an audit, its model first and then its base if it names one.

    Args:
        parent: the audit's row.
        weights: digest of the model's weights; empty while they are unknown, and its manifest stands for them.
        base_weights: the same of the base.
    """
    base = base_weights or parent.base_sha256
    return (weights or parent.model_sha256, *([base] if base else []))


def auditor_of(parent: Row[Any]) -> str:
    """Return who is charged for an audit: its principal, or of a foreign model the whole tenant that was granted it.

    An owner's consent caps what the grantee is told; a second principal of it must not have a second cap. No
    principal's name begins with "@".
    """
    foreign = parent.model_tenant not in ("", parent.tenant)
    return f"@{parent.tenant}"[:64] if foreign else str(parent.principal)


def lifetimes(connection: Connection, parent: Row[Any], models: Sequence[str], caps: Caps = CAPS) -> dict[str, int]:
    """Return what stands beside a result about one model, or about it and its base, as columns of its row."""
    told = [lifetime(connection, principal=auditor_of(parent), model_sha256=one, caps=caps) for one in models]
    names = ("lifetime_bytes", "lifetime_cap", "base_lifetime_bytes", "base_lifetime_cap")
    return dict(zip(names, (value for one in told for value in (one.bytes, one.cap)), strict=False))


def charge_ending(
    connection: Connection,
    parent: Row[Any],
    token: int,
    bytes_: int,
    weights: Collection[str],
    caps: Caps = CAPS,
) -> bool:
    """Charge what an attempt could carry out, released or not, to every model that it read; see `charge`.

    Args:
        connection: inside `Store.begin`.
        parent: the audit's row, locked.
        token: of the lease; one charge for each model.
        bytes_: the charge; 0 when nothing was shown.
        weights: digest of the weights of each model: a report about two tells of both.
        caps: the service's own.

    Returns:
        Whether it fits under the caps of all of them.
    """
    if not bytes_:
        return True
    # In the order of their names: on PostgreSQL two audits of the same two models could wait for one another.
    fits = [
        charge(
            connection,
            audit=parent.id,
            token=token,
            principal=auditor_of(parent),
            model_sha256=digest,
            bytes_=bytes_,
            caps=caps,
        )
        for digest in sorted(set(weights))
    ]
    return all(fits)


def charge(
    connection: Connection,
    *,
    audit: str,
    token: int,
    principal: str,
    model_sha256: str,
    bytes_: int,
    caps: Caps = CAPS,
) -> bool:
    """Charge an accepted result to its auditor and its model; call it in the transaction that would release it.

    The charge stands whether it fits or not: what does not fit must be withheld whole.

    Args:
        connection: inside `Store.begin`.
        audit: the audit's id.
        token: of the lease under which the result was made; one charge for each model.
        principal: the auditor.
        model_sha256: digest of the model's weights.
        bytes_: an upper bound on what the result can carry (`sandbox.budget`).
        caps: the service's own.

    Returns:
        Whether the result may be released. The caps are read here and now, an owner's lower ones included.

    Raises:
        ValueError: a negative charge, or a principal without a name.
        StoreConflict: this lease was charged for this model already.
    """
    if bytes_ < 0 or not principal:
        raise ValueError(f"a charge of {bytes_} bytes to {principal!r}")
    connection.execute(
        insert(output_charge).values(
            audit=audit,
            token=token,
            principal=principal,
            model_sha256=model_sha256,
            bytes=bytes_,
            charged_at=now_ms(connection),
        )
    )
    # Always the model's row first: on PostgreSQL two orders of locking could wait for one another.
    of_model = _add(connection, model_sha256, EVERYONE, bytes_, caps.model)
    of_auditor = _add(connection, model_sha256, principal, bytes_, caps.auditor)
    return all(told.bytes <= told.cap for told in (of_model, of_auditor))


def lower(
    connection: Connection, *, model_sha256: str, cap: int, principal: str = EVERYONE, caps: Caps = CAPS
) -> Lifetime:
    """Set an owner's own cap; it takes effect at the next charge, and one above the service's changes nothing.

    Raises:
        ValueError: a negative cap.
    """
    if cap < 0:
        raise ValueError(f"a cap of {cap} bytes")
    row = {"model_sha256": model_sha256, "principal": principal, "bytes": 0, "cap": cap}
    kind = _dialect(connection)
    statement = kind.insert(output_total).values(**row)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["model_sha256", "principal"], set_={"cap": statement.excluded.cap}
        )
    )
    return _add(connection, model_sha256, principal, 0, caps.model if principal == EVERYONE else caps.auditor)


def lifetime(connection: Connection, *, principal: str, model_sha256: str, caps: Caps = CAPS) -> Lifetime:
    """Return what an auditor was charged for a model so far: the report's `sandbox.lifetime_output`."""
    row = connection.execute(
        select(output_total.c.bytes, output_total.c.cap).where(
            output_total.c.model_sha256 == model_sha256, output_total.c.principal == principal
        )
    ).one_or_none()
    return _lifetime(0, None, caps.auditor) if row is None else _lifetime(row.bytes, row.cap, caps.auditor)


def charged(connection: Connection, model_sha256: str) -> int:
    """Return the sum of a model's ledger, in bytes; equal to its row of `output_total`."""
    total = select(func.coalesce(func.sum(output_charge.c.bytes), 0)).where(
        output_charge.c.model_sha256 == model_sha256
    )
    return int(connection.execute(total).scalar_one())


def _add(connection: Connection, model_sha256: str, principal: str, bytes_: int, cap: int) -> Lifetime:
    kind = _dialect(connection)
    statement = kind.insert(output_total).values(model_sha256=model_sha256, principal=principal, bytes=bytes_)
    row = connection.execute(
        statement.on_conflict_do_update(
            index_elements=["model_sha256", "principal"],
            set_={"bytes": output_total.c.bytes + statement.excluded.bytes},
        ).returning(output_total.c.bytes, output_total.c.cap)
    ).one()
    return _lifetime(row.bytes, row.cap, cap)


def _lifetime(bytes_: int, own: int | None, cap: int) -> Lifetime:
    return Lifetime(bytes=int(bytes_), cap=cap if own is None else min(own, cap))


def _dialect(connection: Connection) -> ModuleType:
    return postgresql if connection.dialect.name == "postgresql" else sqlite
