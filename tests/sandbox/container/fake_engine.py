"""A container engine in name only: it records what it is asked, answers as docker or podman would, and runs programs as
ordinary processes. How it shall behave stands in `behaviour.json` of its folder."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HOME = Path(os.environ["FAKE_ENGINE"])


def behaviour() -> dict[str, Any]:
    return json.loads((HOME / "behaviour.json").read_text())  # type: ignore[no-any-return]


def options(arguments: list[str]) -> tuple[dict[str, list[str]], str, list[str]]:
    """Split what `create` is given into options, image and command."""
    found: dict[str, list[str]] = {}
    for index, one in enumerate(arguments):
        if not one.startswith("--"):
            return found, one, arguments[index + 1 :]
        name, _, value = one.partition("=")
        found.setdefault(name, []).append(value)
    raise SystemExit("no image")


def mounts(found: dict[str, list[str]]) -> list[dict[str, Any]]:
    made = []
    for text in found.get("--mount", []):
        parts = dict(one.partition("=")[::2] for one in text.split(","))
        made.append({"Source": parts["source"], "Destination": parts["target"], "RW": "readonly" not in parts})
    return made


def create(arguments: list[str]) -> None:
    container = secrets.token_hex(32)
    (HOME / f"{container}.json").write_text(json.dumps({"arguments": arguments}))
    print("nonsense" if behaviour().get("create") == "nonsense" else container)


def load(container: str) -> dict[str, Any]:
    path = HOME / f"{container}.json"
    if not path.exists():
        print("no such container", file=sys.stderr)
        raise SystemExit(1)
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def inspect(container: str) -> None:
    held = load(container)
    found, image, _command = options(held["arguments"])
    told: dict[str, Any] = {
        "Id": container,
        "Image": image,
        "EffectiveCaps": [],
        "BoundingCaps": [],
        "HostConfig": {
            "NetworkMode": found["--network"][0],
            "ReadonlyRootfs": "--read-only" in found,
            "Privileged": False,
            "CapDrop": found["--cap-drop"],
            "CapAdd": None,
            "SecurityOpt": found["--security-opt"],
            "Memory": int(found["--memory"][0]),
            "MemorySwap": int(found["--memory-swap"][0]),
            "PidsLimit": int(found["--pids-limit"][0]),
            "NanoCpus": int(found["--cpus"][0]) * 10**9,
            "PidMode": "",
            "IpcMode": found["--ipc"][0],
            "UTSMode": "",
            "Devices": [],
        },
        "Config": {"User": found["--user"][0], "Image": image},
        "Mounts": mounts(found),
        "State": {
            "Status": held.get("status", "created"),
            "Pid": held.get("pid", 0),
            "ExitCode": held.get("exit", 0),
            "OOMKilled": behaviour().get("oom", False),
        },
    }
    for path, value in behaviour().get("tamper", {}).items():
        place = told
        *way, last = path.split(".")
        for step in way:
            place = place[step]
        place[last] = value
    print(json.dumps([told]))


def start(container: str) -> None:
    held = load(container)
    said = behaviour().get("start")
    if said == "silent":
        time.sleep(600)
    if said is not None:
        print(said, flush=True)
        raise SystemExit(1)
    found, _image, command = options(held["arguments"])
    at = {one["Destination"]: one["Source"] for one in mounts(found)}
    root = HOME / f"root-{container}"
    for target, source in at.items():
        place = root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shown(Path(source), place, readable_only=target.startswith("/in/"))
    (root / "scratch").mkdir()
    *flags, prelude, text = command
    plan = json.loads(text)
    plan |= {name: at[plan[name]] for name in ("result", "shim", "canary")}
    plan |= {"folder": str(root), "front": [str(root / "code")]}
    if plan["landlock"]:
        plan["landlock"] |= {"rules": [["/", 2**13 - 1]]}
    environment = dict(one.partition("=")[::2] for one in found.get("--env", []))
    process = subprocess.Popen(
        [sys.executable, *flags, at[prelude], json.dumps(plan)],
        env={**environment, "LEAK": "of the image"},
        preexec_fn=lambda: ctypes.CDLL(None).prctl(38, 1, 0, 0, 0),
        start_new_session=True,
    )
    save(container, status="running", pid=process.pid)
    status = process.wait()
    save(container, status="exited", exit=status if status >= 0 else 128 - status)
    raise SystemExit(status if status >= 0 else 128 - status)


def shown(source: Path, place: Path, *, readable_only: bool) -> None:
    """Readers of a cell refuse links, and slots with two names are refused: an input gets a second name."""
    if readable_only:
        os.link(source, place)
    else:
        place.symlink_to(source)


def save(container: str, **more: Any) -> None:
    path = HOME / f"{container}.json"
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps({**load(container), **more}))
    aside.replace(path)


def kill(container: str) -> None:
    held = load(container)
    if held.get("status") != "running":
        raise SystemExit(1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(held["pid"], signal.SIGKILL)
    save(container, status="exited", exit=137)


def remove(container: str) -> None:
    if behaviour().get("rm") == "refuses":
        print("device or resource busy", file=sys.stderr)
        raise SystemExit(1)
    held = load(container)
    if held.get("status") == "running":
        kill(container)
    (HOME / f"{container}.json").unlink()
    shutil.rmtree(HOME / f"root-{container}", ignore_errors=True)


def listed() -> None:
    wanted = [one.partition("=")[2] for one in sys.argv if one.startswith("--filter=")]
    for path in HOME.glob("?" * 64 + ".json"):
        if all(one.startswith("label=") or one == f"id={path.stem}" for one in wanted):
            print(path.stem)


def main() -> None:
    """Do what the command line says."""
    verb, *rest = sys.argv[1:]
    with (HOME / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    if behaviour().get("hangs") == verb:
        time.sleep(600)
    if verb == "info":
        print(json.dumps(behaviour()["info"]) if behaviour()["info"] else "nonsense")
    elif verb == "create":
        create(rest)
    elif verb == "container":
        inspect(rest[-1])
    elif verb == "start":
        start(rest[-1])
    elif verb == "kill":
        kill(rest[-1])
    elif verb == "rm":
        remove(rest[-1])
    elif verb == "ps":
        listed()
    else:
        raise SystemExit(f"unknown: {verb}")


if __name__ == "__main__":
    main()
