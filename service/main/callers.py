"""What the configuration says about callers: the issuers of their tokens, and their limits."""

from __future__ import annotations

from pydantic import Field

from service.main.sections import Section
from service.main.shapes import AbsolutePath
from service.rules.access import Role
from service.rules.limits import QUOTAS


class Issuer(Section):
    """One issuer of bearer tokens."""

    issuer: str = Field(min_length=1, max_length=256)
    """Exactly what its tokens have as `iss`."""
    audience: str = Field(min_length=1, max_length=256)
    """What its tokens must name in `aud`: this service, by the name that the issuer knows it under."""
    jwks: AbsolutePath
    """File of its public keys (JSON Web Key Set); read again when it changes. Replace it in one step, by a rename."""
    tenants: tuple[str, ...] = Field(min_length=1, max_length=1000)
    """Whose principals its tokens may name. Whoever holds its keys is each of them, so name no others."""
    roles: tuple[Role, ...] = Field(default=(Role.AUDITOR, Role.GATE), min_length=1)
    """Which of those principals; `operator` and `owner` only where they are named here."""

    def speaks_for(self, tenant: str, role: str) -> bool:
        """Tell whether its tokens may name a principal of this tenant and role."""
        return tenant in self.tenants and role in self.roles


class Limits(Section):
    """Limits of callers (specs: service, section 15); Capabilities publishes them."""

    calls_per_second: float = Field(default=20.0, gt=0.0, le=1e6)
    """Of one principal in the long run, in each API process."""
    calls_burst: int = Field(default=100, ge=1, le=1_000_000)
    """Of one principal at once."""
    stored_bytes: int = Field(default=QUOTAS.stored_bytes, ge=1)
    """Of one tenant."""
    blob_bytes: int = Field(default=100 << 30, ge=1)
    manifest_files: int = Field(default=QUOTAS.manifest_files, ge=1, le=10_000)
    parallel_uploads: int = Field(default=16, ge=1, le=1024)
    """Of one tenant, in each API process."""
    watchers: int = Field(default=200, ge=1, le=100_000)
    """Of one tenant, in each API process."""
    unfinished_audits: int = Field(default=QUOTAS.unfinished_audits, ge=1)
    """Of one tenant."""
    gpu_seconds_per_day: int = Field(default=QUOTAS.gpu_seconds_per_day, ge=0)
    """Of one tenant: wall time of attempts on GPUs that end on one day (UTC)."""
    disk_floor_bytes: int | None = Field(default=None, ge=0)
    """Free bytes that uploads and new leases leave alone. None: the larger of 5 % and 10 GiB; in development 1 GiB."""
