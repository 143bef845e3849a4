"""`assay verify`, `assay gate` and `assay render` where there is no network: the acceptance of the specification."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from assay.testing import Forge

CLIENT = Path(__file__).parents[2] / "client"

PASSES = (
    "schema: assay-policy/v1\nname: release\nassertions:\n"
    '  - {id: low, check: forged_probe, metric: accuracy, op: "<=", value: 0.9}\n'
)

SEALS = (["unshare", "-rn"], ["bwrap", "--unshare-net", "--dev-bind", "/", "/"])
"""Ways into a network namespace of one's own without rights; a machine may forbid either."""

ENTRY = """
import os, sys
def watch(event, _):
    if event.startswith("socket."):
        os.write(2, f"opened a socket: {event}\\n".encode())
        os._exit(99)
sys.addaudithook(watch)
from assay.cli import main
sys.exit(main())
"""
"""The command, under a hook that ends it at the first socket: a refused connection alone could pass unseen."""


def seal() -> list[str]:
    """Return the words that start a command without a network; skips where no namespace can be made."""
    for words in SEALS:
        if shutil.which(words[0]) is None:
            continue
        made = subprocess.run([*words, "true"], capture_output=True, timeout=30, check=False)
        if made.returncode == 0:
            return words
    pytest.skip("no network namespace can be made here: neither `unshare -rn` nor `bwrap --unshare-net` works")


def reaches(words: list[str], port: int) -> bool:
    """Tell whether a command started by these words reaches a listener of this machine."""
    connect = ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"]
    return subprocess.run([*words, *connect], capture_output=True, timeout=30, check=False).returncode == 0


def test_verify_gate_and_render_need_no_network(forge: Forge, tmp_path: Path) -> None:
    sealed = seal()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert reaches([], port)
        assert not reaches(sealed, port), "the seal holds nothing back"
    report, page = forge.report(rules=PASSES), tmp_path / "page.html"
    (tmp_path / "policy.yaml").write_text(PASSES)
    held = ["--trust-root", forge.trust_root, "--log", forge.log_dir, "--model", forge.model_dir]
    held += ["--receipt", report, "--catalogue", forge.catalogue_file, "--now", "2026-01-10T00:00:00Z"]
    asked = (
        ["verify", report, *held],
        ["gate", report, "--policy", tmp_path / "policy.yaml", *held],
        ["render", report, "--html", page, *held],
    )
    assay = [sys.executable, "-c", ENTRY]
    lines = [f"{shlex.join(map(str, [*assay, *words]))}; echo {words[0]} $?" for words in asked]
    ended = subprocess.run(
        [*sealed, "sh", "-c", "\n".join(lines)],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(CLIENT)},
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    codes = [line for line in ended.stdout.splitlines() if line.split(" ")[0] in ("verify", "gate", "render")]
    assert codes == ["verify 0", "gate 0", "render 0"], ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert ">PASS<" in page.read_text()


def test_the_hook_sees_a_socket(tmp_path: Path) -> None:
    opens = ENTRY.replace("from assay.cli import main", "import socket; main = socket.socket")
    ended = subprocess.run([sys.executable, "-c", opens], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, "socket.__new__" in ended.stderr) == (99, True)
