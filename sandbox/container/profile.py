"""The profile of a cell in a container: what is asked of the engine, as data, and its digest.

The filter that the engine loads is that of a check whatever the kind: between loading it and executing the first
program a runtime needs more calls than reading files does. What holds for the program itself is `stacked`, the stricter
answer of outer and inner table, which the shim puts on; so an ingest cell has its allow-list here, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from sandbox import filters, landlock
from sandbox.bubblewrap.profile import CANARY, ENVIRONMENT, OPENED_DEVICES, PYTHON_FLAGS, SHIM, Mount
from sandbox.cell import Kind, canonical
from sandbox.container.settings import ContainerSettings
from sandbox.errors import CellRefused
from sandbox.filters import oci
from sandbox.filters.assembler import assemble
from sandbox.filters.tables import ALLOW, INNERS, OUTER, Table
from sandbox.limits import DEFAULTS

if TYPE_CHECKING:
    from sandbox.container.settings import Engine

PRELUDE = "/shim/prelude.py"
RESULT = "/out/.result"
"""No slot of an order can have this name."""
LABEL = "assay.cell"
KINDS: tuple[Kind, ...] = ("ingest", "check")
"""GPU cells need a toolkit and a driver list that nobody has proven here: refused."""


@dataclass(frozen=True, kw_only=True)
class Created:
    """What one `create` is made from."""

    name: str
    kind: Kind
    mounts: tuple[tuple[str, str, bool], ...]
    """(source, target, writable)."""
    user: str
    userns: str
    """`--userns` of a rootless podman, else empty."""
    filter_file: str
    limits: Mapping[str, int]
    environment: Mapping[str, str]
    command: tuple[str, ...]


def arguments(settings: ContainerSettings, made: Created) -> list[str]:
    """Return the engine's arguments that create the container, without the program's own name.

    Raises:
        CellRefused: profile_invalid, for a path that the engine's syntax would read as two.
    """
    limits = made.limits
    out = [
        "create", "--pull=never", "--interactive", f"--name={made.name}", f"--label={LABEL}=1",
        f"--runtime={settings.runtime}", f"--user={made.user}", "--cap-drop=ALL",
        "--security-opt=no-new-privileges", f"--security-opt=seccomp={made.filter_file}", "--read-only",
        "--network=none", "--cgroupns=private", "--hostname=cell", "--restart=no", "--log-driver=none",
        f"--memory={limits['memory_bytes']}", f"--memory-swap={limits['memory_bytes']}",
        f"--pids-limit={limits['processes']}", f"--cpus={settings.cpus}", "--workdir=/", "--no-healthcheck",
    ]  # fmt: skip
    out += _own_options(settings.engine, made)
    shm = limits["shm_bytes"]
    out += ["--ipc=private", f"--shm-size={shm}"] if shm else ["--ipc=none"]
    if limits["scratch_bytes"]:
        out.append(f"--tmpfs=/scratch:rw,nosuid,nodev,noexec,size={limits['scratch_bytes']},mode=1777")
    out += [f"--env={name}={value}" for name, value in sorted(made.environment.items())]
    out += [_mount(*one) for one in made.mounts]
    return [*out, f"--entrypoint={settings.interpreter}", settings.image, *made.command]


def _own_options(engine: Engine, made: Created) -> list[str]:
    """Podman gives a container more by default than docker does: proxies, host names, writable memory."""
    if engine == "docker":
        return []
    own = ["--read-only-tmpfs=false", "--http-proxy=false", "--no-hosts", "--unsetenv-all"]
    return [*own, *([f"--userns={made.userns}"] if made.userns else [])]


def _mount(source: str, target: str, writable: bool) -> str:
    if any(sign in path for path in (source, target) for sign in (",", '"', "\n")):
        raise CellRefused("profile_invalid", f"{source}: a path with a comma, quote or line end cannot be mounted")
    access = "" if writable else ",readonly"
    return f"--mount=type=bind,source={source},target={target}{access},bind-propagation=rprivate"


def stacked(kind: Kind) -> bytes:
    """Return the one filter that the shim puts on: of two tables the stricter answer, whatever the machine."""
    outer, inner = OUTER[kind], INNERS[kind]
    plain = {**outer.plain}
    for name, answer in inner.plain.items():
        plain[name] = plain.get(name, outer.default) or answer
    argued = {**outer.argued}
    for name, branches in inner.argued.items():
        assert name not in outer.argued, f"{name} is argued in both tables"
        if plain.pop(name, outer.default) != ALLOW:
            plain[name] = outer.plain.get(name, outer.default)
        else:
            argued[name] = branches
    both = Table(plain=MappingProxyType(plain), argued=MappingProxyType(argued), default=outer.default, gap=outer.gap)
    return assemble(both)


def rules(kind: Kind, executable: Sequence[str], slots: Sequence[str]) -> tuple[landlock.Rule, ...]:
    """Return what Landlock leaves open in a container whose runtime is the host's kernel."""
    made = [*(Mount(sort="ro", target=path) for path in executable), Mount(sort="ro", target=SHIM)]
    made += [Mount(sort="ro", target="/code"), Mount(sort="ro", target="/in")]
    made += [Mount(sort="rw", target=f"/out/{name}") for name in slots]
    devices = ("null", "urandom") if kind == "ingest" else OPENED_DEVICES
    made += [Mount(sort="device", target=f"/dev/{name}") for name in devices]
    if kind != "ingest":
        made += [Mount(sort="tmpfs", target="/scratch"), Mount(sort="proc", target="/proc")]
    return landlock.rules(kind, made)


def environment(kind: Kind, cpus: int) -> dict[str, str]:
    """Return the complete environment of a cell."""
    return {name: value.replace("{cpus}", str(cpus)) for name, value in ENVIRONMENT[kind].items()}


def document(engine: Engine, runtime: str, kind: Kind) -> bytes:
    """Return the canonical profile, with roles in place of paths, names and sizes."""
    settings = _template(engine, runtime)
    places = {"{shim}": SHIM, "{prelude}": PRELUDE, "{canary}": CANARY, "{code}": "/code/{code}", "{in}": "/in/{input}"}
    mounts = [(source, target, False) for source, target in places.items()]
    mounts += [("{slot}", "/out/{slot}", True), ("{result}", RESULT, True)]
    made = Created(
        name="{name}",
        kind=kind,
        mounts=tuple(mounts),
        user="{user}",
        userns="{userns}" if engine == "podman" else "",
        filter_file="{filter}",
        limits=dict(DEFAULTS[kind]),
        environment=ENVIRONMENT[kind],
        command=(*PYTHON_FLAGS, PRELUDE, "{plan}"),
    )
    sentry = runtime == "runsc"
    return canonical(
        {
            "schema": "assay-profile/v1",
            "backend": "container",
            "engine": engine,
            "runtime": runtime,
            "kind": kind,
            "arguments": arguments(settings, made),
            "filters": [hashlib.sha256(oci.document("check")).hexdigest(), filters.digest(stacked(kind))],
            "landlock": []
            if sentry
            else [
                {"path": one.path, "right": one.right, "bits": landlock.RIGHTS[one.right]}
                for one in rules(kind, ("{executable}",), ("{slot}",))
            ],
            "limits": sorted({*DEFAULTS[kind], "cpu_s", "file_bytes", "address_bytes"}),
        }
    )


def digest(engine: Engine, runtime: str, kind: Kind) -> str:
    """Return the SHA-256 of the canonical profile."""
    return hashlib.sha256(document(engine, runtime, kind)).hexdigest()


def _template(engine: Engine, runtime: str) -> ContainerSettings:
    return ContainerSettings(
        engine=engine,
        program=Path("/engine"),
        runtime=cast("Any", runtime),
        image="{image}",
        interpreter="{interpreter}",
        cpus=cast("Any", "{cpus}"),
    )
