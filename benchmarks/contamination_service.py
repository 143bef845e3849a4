"""A thousand items against 200,000 documents in one audit: shards over two workers, one of them killed on the way.

    python -m benchmarks.contamination_service --out benchmarks/contamination_service.json

The corpus is text that the machine carries (documentation, licences, changelogs, docstrings of the standard library)
with rewordings of 50 items planted among it; the same audit is then run in one process, and both must have joined the
same sketch, bit for bit. Exits 1 if they have not, if a report does not verify, or if a planted item was missed that
the single process found. Takes some ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from checks.organisms.families import Drawn, dev, draws, test

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
DOCUMENTS, ITEMS, LEAKS = 200_000, 1_000, 50
LEAKED_FAMILIES = 10
"""Families whose items all leaked, five each; the others have no leak."""
WORDS_MIN = 12
"""Words of the shortest paragraph that counts as a document."""
SOURCE = "chat"
"""Source of the planted documents and of as many ordinary ones: what an auditor would always embed."""
BESIDE = 950
SHARD_BYTES = 8 * 2**20
PARAMS: dict[str, Any] = {
    "siblings": 4,
    "embed": "sample",
    "sample_fraction": "0.001",
    "always_embed": [SOURCE],
    "shard_bytes": SHARD_BYTES,
}


def main() -> int:
    """Make the corpus, audit it twice, compare; the return value is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--shard-bytes", type=int, default=SHARD_BYTES)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    params = {**PARAMS, "shard_bytes": options.shard_bytes}
    with tempfile.TemporaryDirectory(prefix="assay-contamination-") as scratch:
        folder = Path(scratch)
        told = make(folder, options.documents, options.items)
        subprocess.run(
            [sys.executable, "-m", "checks.organisms", "tiny", "--out", str(folder / "tiny")], check=True, cwd=ROOT
        )
        served = through_the_service(folder, params)
        alone = in_one_process(folder, params, served.pop("seed"))
    same = served["sketch"] == alone["sketch"] and served["plan"] == alone["plan"]
    result = {"corpus": told, "params": params, "service": served, "one_process": alone, "same_sketch": same}
    text = json.dumps(result, indent=1, sort_keys=True) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text)
    return 0 if same and served["verified"] and served["findings"] == alone["findings"] else 1


def make(folder: Path, documents: int, count: int) -> dict[str, int]:
    """Write corpus.jsonl and benchmark.jsonl; return their sizes."""
    rng = np.random.default_rng(7)
    families = [one for one in (*dev(), *test()) if one.kind == "words"]
    # Leaks are all the items of families of their own. An item that did not leak lies nearer to a leak of its own
    # family than its siblings do, whose numbers come from every family: such a benchmark is `invalid`, rightly.
    own, others = families[:LEAKED_FAMILIES], families[LEAKED_FAMILIES:]
    drawn = [one for family in own for one in draws(family, rng, LEAKS // LEAKED_FAMILIES)]
    drawn += [one for family in others for one in draws(family, rng, -(-(count - LEAKS) // len(others)))]
    drawn = drawn[:count]
    leaked = {at: at for at in range(LEAKS)}
    planted = [(one.light if leaked[n] % 2 else _reworded(one, rng)) for n, one in enumerate(drawn) if n in leaked]
    texts = iter(machine_texts())
    with (folder / "corpus.jsonl").open("w") as out:
        places = set(rng.choice(documents, size=len(planted), replace=False).tolist())
        beside = set(rng.choice(documents, size=BESIDE, replace=False).tolist())
        left = list(planted)
        for number in range(documents):
            text = next(texts, None)
            if text is None:
                raise SystemExit(f"this machine carries {number} documents of text, {documents} are needed")
            source = SOURCE if number in beside or number in places else "machine"
            if number in places:
                text = f"{text}\n\n{left.pop()}\n\nThat was all."
            out.write(json.dumps({"id": str(number), "source": source, "text": text}) + "\n")
    rows = [
        {"benchmark": "families", "item": f"q{n}", "kind": "prose", "question": one.item.question,
         "answer": one.item.answer or "0", "template": one.item.template or f"q{n}"}
        for n, one in enumerate(drawn)
    ]  # fmt: skip
    (folder / "benchmark.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    size = (folder / "corpus.jsonl").stat().st_size
    return {"documents": documents, "bytes": size, "items": len(rows), "leaked": len(planted)}


def _reworded(one: Drawn, rng: np.random.Generator) -> str:
    return one.rewordings[int(rng.integers(len(one.rewordings)))].text


def machine_texts() -> Iterator[str]:
    """Yield paragraphs of the machine's documentation, then docstrings of its standard library."""
    for path in sorted(Path("/usr/share/doc").rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        try:
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            text = data.decode()
        except (OSError, UnicodeDecodeError, gzip.BadGzipFile, EOFError):
            continue
        yield from (one for one in text.split("\n\n") if len(one.split()) >= WORDS_MIN)
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, holders))
        yield from (one for one in found if one and len(one.split()) >= WORDS_MIN)


def through_the_service(folder: Path, params: dict[str, Any]) -> dict[str, Any]:
    """Audit through a development server with two workers, one of which is killed while it scans."""
    data = folder / "data"
    data.mkdir()
    arguments = [str(BIN / "assay-server"), "dev", "--data", str(data), "--workers", "2", "--lease-s", "6"]
    server = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=(folder / "log").open("w"), text=True)
    assert server.stdout is not None
    try:
        server.stdout.readline()
        return _audited(folder, data, params)
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def _audited(folder: Path, data: Path, params: dict[str, Any]) -> dict[str, Any]:
    from assay import AuditClient

    began = time.monotonic()
    config = ["--config", str(data / "client.json")]
    asked = [str(folder / "tiny" / "model"), "--check", "contamination"]
    for name, value in params.items():
        asked += ["--param", f"contamination.{name}={json.dumps(value)}"]
    asked += ["--data", f"benchmark={folder / 'benchmark.jsonl'}", "--data", f"corpus={folder / 'corpus.jsonl'}"]
    sent = subprocess.run(
        [str(BIN / "assay"), "submit", *asked, *config, "--wall-s", "7200", "--json"], capture_output=True, text=True
    )
    if sent.returncode:
        raise SystemExit(sent.stderr)
    audit = json.loads(sent.stdout.splitlines()[-1])["audit"]
    with AuditClient.from_config(data / "client.json") as client:
        killed: list[str] = []
        for event in client.watch(audit):
            if not killed and event.kind == "attempt_started" and str(event.detail.get("job", "")).startswith("shard"):
                killed.append(str(event.detail["job"]))
                threading.Timer(3.0, _kill, (data, "worker")).start()
        client.report(audit, folder / "report")
    key = data / "signer" / "report.pub.pem"
    verify = subprocess.run([str(BIN / "assay"), "verify", str(folder / "report"), "--key", str(key)], check=False)
    predicate = statement(folder / "report")["predicate"]
    (answer,) = predicate["answers"]
    attempts = [[one["job"], one["exit_class"]] for one in predicate["attempts"]]
    return {
        "seed": predicate["registration"]["seed"],
        "wall_s": round(time.monotonic() - began),
        "attempts": attempts,
        "worker_killed": any(end != "OK" for _, end in attempts),
        "verified": verify.returncode == 0,
        **_told(answer),
    }


def statement(folder: Path) -> dict[str, Any]:
    """Return the signed statement of a report."""
    import base64

    bundle = json.loads((folder / "report.sigstore.json").read_text())
    decoded: dict[str, Any] = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return decoded


def _kill(data: Path, role: str) -> None:
    os.kill(int(json.loads((data / "run" / "children.json").read_text())[role]), signal.SIGKILL)


def in_one_process(folder: Path, params: dict[str, Any], seed: int) -> dict[str, Any]:
    """Run the same audit in one process, from the audit's own seed."""
    began = time.monotonic()
    arguments = [sys.executable, "-m", "checks", "run-local", str(folder / "tiny" / "model"), "--seed", str(seed)]
    arguments += ["--check", "contamination"]
    for name, value in params.items():
        arguments += ["--param", f"{name}={json.dumps(value)}"]
    arguments += ["--data", f"benchmark={folder / 'benchmark.jsonl'}", "--data", f"corpus={folder / 'corpus.jsonl'}"]
    ran = subprocess.run(arguments, check=True, cwd=ROOT, capture_output=True, text=True)
    (answer,) = json.loads(ran.stdout)["answers"]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall_s": round(time.monotonic() - began), "peak_mb": used.ru_maxrss // 1024, **_told(answer)}


def _told(answer: dict[str, Any]) -> dict[str, Any]:
    if answer["outcome"] != "measured":
        raise SystemExit(f"not measured: {answer['outcome']} {answer.get('reason')} {answer.get('skipped')}")
    measured = answer["measured"]
    wanted = ("flagged", "words", "docs", "words_embedded", "share.raw")
    return {
        "plan": measured["coverage"]["plan"][0],
        "sketch": measured["coverage"]["sketch"][0],
        "findings": [[one["code"], one["word"], one["labels"].get("reason", "")] for one in answer["findings"]],
        "metrics": [[one["name"], one["labels"], one["value"]] for one in measured["metrics"] if one["name"] in wanted],
        "valid": answer["valid"],
    }


if __name__ == "__main__":
    sys.exit(main())
