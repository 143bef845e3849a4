"""Assay's client: submit audits of model weights, read and verify their signed reports.

    from assay import AuditClient

Nothing heavy is imported here: `assay.result` is also read inside the sandbox, where no gRPC exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assay.client import AuditClient

__version__ = "0.1.0"
__all__ = ["AuditClient", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `AuditClient` on first use, so that reading a report costs no gRPC import."""
    if name == "AuditClient":
        from assay.client import AuditClient

        return AuditClient
    raise AttributeError(f"module 'assay' has no attribute {name!r}")
