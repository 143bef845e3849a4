"""V01 to V04: the bundle, the trusted keys, the signature, the statement."""

from __future__ import annotations

import hashlib

from assay import bundle, dsse, statement
from assay.errors import CouldNotTell, Malformed, Wrong
from assay.trust import chain
from assay.verify.case import Case


def read_bundle(case: Case) -> str:
    """V01: read the bundle strictly."""
    data = case.files.bundle()
    try:
        case.bundle = bundle.read(data)
    except Malformed as error:
        raise Wrong(f"{bundle.FILE_NAME} is malformed: {error}") from None
    return f"bundle of {len(data)} bytes, one signature"


def find_trust(case: Case) -> str:
    """V02: which keys the reader trusts. A key found beside a report is never one."""
    if case.pinned_root is not None:
        case.trust = chain.trusted(case.later_roots, case.pinned_root, case.memory, case.now)
        found = case.trust
        return f"trust root {found.version} of {found.operator}: {len(found.keys)} report keys, {len(found.logs)} logs"
    if not case.keys:
        raise CouldNotTell("no trusted key was given: pass --trust-root F, or the operator's report key with --key PEM")
    case.trust = chain.pinned_keys(case.keys, case.vkeys)
    ids = ", ".join(key.id[:8] + "…" for key in case.keys)
    return f"{'one pinned key' if len(case.keys) == 1 else f'{len(case.keys)} pinned keys'}, no rotation: {ids}"


def check_signature(case: Case) -> str:
    """V03: the signature over the pre-authentication encoding. The hint only orders the tries."""
    carried = case.bundle
    assert carried is not None
    assert case.trust is not None
    for key in sorted(case.trust.report_keys, key=lambda key: key.id != carried.key_id):
        if dsse.verify(key.public, dsse.PAYLOAD_TYPE, carried.payload, carried.signature):
            case.signed_by = key.id
            return f"signature verifies under key {key.id[:8]}…"
    raise Wrong(f"no trusted key verifies the signature; it claims key {carried.key_id[:8]}…")


def read_statement(case: Case) -> str:
    """V04: parse the verified bytes, once."""
    assert case.bundle is not None
    case.statement = statement.parse(case.bundle.payload)
    profile = case.predicate["signer"]["profile"]
    if profile not in ("development", "production"):
        raise CouldNotTell("/predicate/signer/profile is a word that this client does not know; update assay-client")
    digest = hashlib.sha256(case.bundle.payload).hexdigest()
    said = ", signed under a development profile" if profile == "development" else ""
    return f"statement {digest[:8]}…, schema {case.predicate['schema_version']}{said}"
