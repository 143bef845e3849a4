"""What can be known on the user's own machine before a byte is sent.

The service judges again, with less trust and more rules; here a mistake costs a second instead of an upload.
"""

from __future__ import annotations

from assay.preflight.data import CheckedData, check_data
from assay.preflight.hashing import HashedModel, hash_chosen, hash_model
from assay.preflight.model import CheckedModel, check_model, select
from assay.preflight.roles import media_types, shipped_types

__all__ = [
    "CheckedData",
    "CheckedModel",
    "HashedModel",
    "check_data",
    "check_model",
    "hash_chosen",
    "hash_model",
    "media_types",
    "select",
    "shipped_types",
]
