"""The gate on a container of the host's kernel, on a /proc and control groups made for it: each row can fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import CellRefused
from sandbox.container import gate
from tests.sandbox.container.test_profile import CREATED, GIB

ID = "c" * 64
STATUS = {
    "Uid": "65532\t65532\t65532\t65532", "Gid": "65532\t65532\t65532\t65532", "NoNewPrivs": "1", "Seccomp": "2",
    "Seccomp_filters": "2", **{f"Cap{one}": "0" * 16 for one in ("Inh", "Prm", "Eff", "Bnd", "Amb")},
}  # fmt: skip
Make = Callable[..., tuple[Path, Path]]


@pytest.fixture
def host(tmp_path: Path) -> Make:
    def make(
        status: dict[str, str] | None = None, shared: str = "", net: str = "lo", version: str = "v2", memory: str = "",
        pids: str = "256", path: str = f"/system.slice/docker-{ID}.scope",
    ) -> tuple[Path, Path]:  # fmt: skip
        proc, group = tmp_path / "proc", tmp_path / "cgroup"
        for pid in ("77", "self"):
            (proc / pid / "ns").mkdir(parents=True)
            for name in gate.NAMESPACES:
                own = "1" if pid == "self" or name == shared else "2"
                (proc / pid / "ns" / name).symlink_to(f"{name}:[{own}]")
        lines = "".join(f"{key}:\t{value}\n" for key, value in {**STATUS, **(status or {})}.items())
        (proc / "77" / "status").write_text(lines)
        (proc / "77" / "net").mkdir()
        (proc / "77" / "net" / "dev").write_text("head\nhead\n" + "".join(f"  {one}: 0\n" for one in net.split()))
        memory = memory or str(16 * GIB)
        if version == "v2":
            (proc / "77" / "cgroup").write_text(f"0::{path}\n")
            places = {"memory": group / path.lstrip("/") / "memory.max", "pids": group / path.lstrip("/") / "pids.max"}
        else:
            (proc / "77" / "cgroup").write_text(f"5:memory:{path}\n4:pids:{path}\n0::/\n")
            places = {
                "memory": group / "memory" / path.lstrip("/") / "memory.limit_in_bytes",
                "pids": group / "pids" / path.lstrip("/") / "pids.max",
            }
        for name, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text({"memory": memory, "pids": pids}[name] + "\n")
        return proc, group

    return make


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_an_armed_container_is_seen(host: Make, version: str) -> None:
    proc, group = host(version=version)
    layers = gate.check_kernel(ID, 77, CREATED, proc=proc, cgroup=group)
    assert (layers["cgroup"], layers["namespaces"]) == (version, gate.NAMESPACES)
    assert layers["by"] == "kernel"


@pytest.mark.parametrize(
    ("changes", "layer"),
    [
        *(({"shared": name}, "namespaces") for name in gate.NAMESPACES),
        ({"net": "lo eth0"}, "network"),
        ({"net": ""}, "network"),
        ({"status": {"Uid": "0\t0\t0\t0"}}, "uid"),
        ({"status": {"Gid": "65532\t0\t0\t0"}}, "uid"),
        *(({"status": {f"Cap{one}": "0000000000000400"}}, "capabilities") for one in ("Prm", "Eff", "Bnd", "Amb")),
        ({"status": {"NoNewPrivs": "0"}}, "no_new_privs"),
        ({"status": {"Seccomp": "0"}}, "seccomp"),
        ({"status": {"Seccomp_filters": "1"}}, "seccomp"),
        ({"memory": "max"}, "the container is not seen"),
        ({"memory": str(2**62)}, "memory"),
        ({"pids": "max"}, "the container is not seen"),
        ({"pids": "512"}, "processes"),
        ({"path": "/user.slice"}, "the container is not seen"),
    ],
)
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_each_layer_that_is_missing_is_named(host: Make, changes: dict[str, str], layer: str, version: str) -> None:
    proc, group = host(version=version, **changes)
    with pytest.raises(CellRefused) as caught:
        gate.check_kernel(ID, 77, CREATED, proc=proc, cgroup=group)
    assert caught.value.code == "not_armed"
    assert caught.value.item.startswith(layer)


def test_a_process_that_is_gone_is_not_armed(host: Make) -> None:
    proc, group = host()
    with pytest.raises(CellRefused, match="not seen"):
        gate.check_kernel(ID, 78, CREATED, proc=proc, cgroup=group)
