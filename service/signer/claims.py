"""A composed statement, held against its own evidence by the client's steps, before it is persisted, logged and signed.

A leaf of the log commits to bytes for ever: bytes that no reader accepts must never get one.
"""

from __future__ import annotations

from datetime import datetime

from assay import manifest, request
from assay.catalogue import Catalogue
from assay.errors import AssayError
from assay.verify.composed import check_composed
from assay.verify.directory import ARTEFACTS

from service.signer.compose import Inputs
from service.signer.refusal import Refused


def check_claims(inputs: Inputs, composed: bytes, catalogue: Catalogue, now: datetime) -> None:
    """Refuse a statement that a reader would find wrong, or could not judge.

    Args:
        inputs: what it was composed from.
        composed: its bytes.
        catalogue: the installed one.
        now: moment of composing.

    Raises:
        Refused: RECORD_REJECTED, naming the step.
    """
    asked = inputs.asked
    contents = {request.FILE_NAME: asked.data, manifest.FILE_NAME: asked.manifest.data}
    contents |= asked.rules.files() if asked.rules else {}
    contents |= {f"{ARTEFACTS}/{entry.sha256}": entry.data for entry in inputs.entries}
    contents |= {f"{ARTEFACTS}/{digest}": content for digest, content in inputs.handed_out.items()}
    try:
        failed = check_composed(composed, contents, catalogue=catalogue, now=now)
    except AssayError as error:
        raise Refused("RECORD_REJECTED", f"the composed report: {error}") from error
    if failed is not None:
        raise Refused("RECORD_REJECTED", f"the composed report would not verify: {failed.id}: {failed.detail}")
