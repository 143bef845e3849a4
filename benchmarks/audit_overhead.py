"""What an audit costs above the forward passes that it needs, and how long until the first one.

    make bench

One run, two ratios, both against named references on the same machine, model and tokens; for the trained organism,
whose passes are almost free, and for all-MiniLM-L6-v2:

1. audit wall time / bare forward passes: the same texts through plain Hugging Face, model loaded, nothing else counted.
2. submit to first forward / bare start: a fresh Python process that imports torch and transformer_lens, loads the same
   model with Hugging Face and runs one batch. The first forward is the audit's `sweep` event.

Prints a table, and with --json one JSON object. The median of --runs audits is reported, with all of them beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

BARE_FORWARD = """
import json, sys, time, torch
from transformers import AutoModel, PreTrainedTokenizerFast
torch.set_num_threads(int(sys.argv[4]))
texts = [row[side] for row in map(json.loads, open(sys.argv[2])) for side in ("pos", "neg") if side in row]
texts = list(dict.fromkeys(texts))
tokenizer = PreTrainedTokenizerFast(tokenizer_file=sys.argv[1] + "/tokenizer.json")
tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
model = AutoModel.from_pretrained(sys.argv[1], use_safetensors=True).eval()
order = sorted(texts, key=len)
batches = [tokenizer(order[i:i + 64], padding=True, return_tensors="pt") for i in range(0, len(order), 64)]
with torch.inference_mode():
    model(input_ids=batches[0]["input_ids"], attention_mask=batches[0]["attention_mask"])
    began = time.perf_counter()
    for batch in batches:
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    print(json.dumps({"seconds": time.perf_counter() - began, "texts": len(texts),
                      "tokens": int(sum(b["attention_mask"].sum() for b in batches))}))
"""

BARE_START = """
import sys, torch
from transformers import AutoModel
import transformer_lens
model = AutoModel.from_pretrained(sys.argv[1], use_safetensors=True).eval()
with torch.inference_mode():
    model(input_ids=torch.zeros((64, 5), dtype=torch.long))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as scratch:
        for name in ("honest", "minilm"):
            row = _measure(name, Path(scratch), options.runs)
            if options.json:
                print(json.dumps(row))
            else:
                _print(row)


def _measure(name: str, scratch: Path, runs: int) -> dict[str, Any]:
    model, pairs = _organism(name, scratch)
    threads = os.cpu_count() or 1
    forward = [_bare_forward(model, pairs, threads) for _ in range(runs)]
    starts = [_bare_start(model) for _ in range(runs)]
    audits = _audits(scratch / f"data-{name}", model, pairs, runs)
    row = {
        "model": name,
        "texts": forward[0]["texts"],
        "tokens": forward[0]["tokens"],
        "bare_forward_s": statistics.median(f["seconds"] for f in forward),
        "bare_start_s": statistics.median(starts),
        "audit_s": statistics.median(a["audit_s"] for a in audits),
        "first_forward_s": statistics.median(a["first_forward_s"] for a in audits),
        "audits": audits,
        "cpus": threads,
    }
    row["audit_over_bare_forward"] = row["audit_s"] / row["bare_forward_s"]
    row["first_forward_over_bare_start"] = row["first_forward_s"] / row["bare_start_s"]
    return row


def _organism(name: str, scratch: Path) -> tuple[str, str]:
    target = scratch / name
    cache = ["--cache", os.environ.get("CACHE", "var/cache")] if name == "honest" else []
    command = [sys.executable, "-m", "checks.organisms", name, *cache, "--out", str(target)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return str(target / "model"), str(target / "pairs.jsonl")


def _bare_forward(model: str, pairs: str, threads: int) -> dict[str, Any]:
    arguments = [sys.executable, "-W", "ignore", "-c", BARE_FORWARD, model, pairs, "", str(threads)]
    out: dict[str, Any] = json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
    return out


def _bare_start(model: str) -> float:
    began = time.perf_counter()
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BARE_START, model], check=True, capture_output=True, env=environment
    )
    return time.perf_counter() - began


def _audits(data: Path, model: str, pairs: str, runs: int) -> list[dict[str, float]]:
    from assay import AuditClient

    data.mkdir()
    server = subprocess.Popen(
        [str(BIN / "assay-server"), "dev", "--data", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    try:
        server.stdout.readline()
        with AuditClient.from_config(data / "client.json") as client:
            manifest = client.upload_model(Path(model)).manifest_sha256
            rows = client.upload_data("pairs", Path(pairs))
            return [_one(client, manifest, rows) for _ in range(runs)]
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def _one(client: Any, manifest: str, pairs: Any) -> dict[str, float]:
    began = time.perf_counter()
    audit = client.submit(manifest, checks=[("truth_probe", {})], data=[pairs])
    first = 0.0
    for event in client.watch(audit.name):
        if not first and event.detail.get("phase") == "sweep":
            first = time.perf_counter() - began
    return {"audit_s": time.perf_counter() - began, "first_forward_s": first}


def _print(row: dict[str, Any]) -> None:
    texts = f"{row['texts']} texts, {row['tokens']} tokens"
    print(f"{row['model']}: {texts}, {row['cpus']} CPUs; medians of {len(row['audits'])} audits")
    for name, measured, reference in (
        ("audit wall / bare forward passes", "audit_s", "bare_forward_s"),
        ("submit to first forward / bare start", "first_forward_s", "bare_start_s"),
    ):
        print(f"{name:40} {row[measured]:8.2f} s / {row[reference]:6.2f} s = {row[measured] / row[reference]:6.1f}x")


if __name__ == "__main__":
    main()
