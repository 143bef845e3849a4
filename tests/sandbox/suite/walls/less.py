"""What holds when a layer is missing: the layer behind it (controls of the kind "less"); and doubles of the service."""

from __future__ import annotations

from dataclasses import replace

from sandbox.bubblewrap import BubblewrapCell
from sandbox.ground import Ground
from sandbox.suite.attacks.words import Found
from sandbox.suite.case import Case, Row, judge
from sandbox.suite.sides import Answers, inside, outside

from .without import LAYERS, without

_NO_WAY = frozenset({"ENETUNREACH", "ECONNREFUSED", "EADDRNOTAVAIL", "EHOSTUNREACH"})
_NETWORK = Case(
    id="S12", attack="reach the network, less the outer filter", controls=("less", "bare"),
    shown="bare reaches the listeners", expected="EACCES by Landlock; listeners saw 0", denied=_NO_WAY | {"EACCES"},
    absent=frozenset({"ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL"}),
)  # fmt: skip
_NAMESPACE = replace(
    _NETWORK, attack="reach the network, less the outer filter and Landlock", denied=_NO_WAY,
    expected="ENETUNREACH or refused; listeners saw 0",
)  # fmt: skip
_NESTED = Case(
    id="S19", attack="make user namespaces, less the outer filter", controls=("less", "bare"),
    shown="bare makes each", expected="ENOSPC", denied=frozenset({"ENOSPC"}),
)  # fmt: skip


_SERVICE = Case(
    id="S44", attack="reach doubles of Redis, the service and the signer", shown="bare connects",
    expected="denied EPERM; listeners saw 0", denied=frozenset({"EPERM"}),
)  # fmt: skip
_REACH = ("tcp", "tcp6", "metadata", "lan")
_UNSHARE = ("user", "mount", "pid", "net", "ipc", "uts", "cgroup")


def rows(cell: BubblewrapCell, ground: Ground) -> list[Row]:
    """Attack a check cell that has no outer filter, then one that has no Landlock either."""
    layers = {one.name: one for one in LAYERS}
    bare = outside(ground, ["internet", "namespaces"])
    before = len(ground.callers)
    with without(layers["outer filter"], blind=True):
        first = inside(cell, ground, "check", ["internet", "namespaces"], {}).answers
        with without(layers["Landlock"], blind=True):
            second = inside(cell, ground, "check", ["internet"], {}).answers
    called = ground.callers[before:]
    probes = ["internet", "unix_path"]
    service, double = (
        _doubles(one) for one in (inside(cell, ground, "check", probes, {}).answers, outside(ground, probes))
    )
    nested = tuple(f"unshare_{name}" for name in _UNSHARE)
    return [
        judge(case, "check", _some(said, probe, names), [_some(bare, probe, names)], effects)
        for case, said, probe, names, effects in (
            (_NETWORK, first, "internet", _REACH, called),
            (_NAMESPACE, second, "internet", _REACH, called),
            (_NESTED, first, "namespaces", nested, []),
        )
    ] + [judge(_SERVICE, "check", service, [double], ground.callers[before + len(called) :])]


def _doubles(answers: Answers) -> Found:
    network, path = answers.get("internet", {}), answers.get("unix_path", {})
    return {
        name: found[way]
        for name, found, way in (("redis", network, "tcp"), ("grpc", network, "tcp6"), ("signer", path, "path"))
        if way in found
    }


def _some(answers: Answers, probe: str, names: tuple[str, ...]) -> Found:
    return {name: word for name, word in answers.get(probe, {}).items() if name in names}
