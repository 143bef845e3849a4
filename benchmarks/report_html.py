"""Size and speed of the HTML page: ours against plotly's `to_html(include_plotlyjs=True)`, same numbers on both sides.

Run: `python -m benchmarks.report_html --plotly PYTHON`, where PYTHON is the interpreter of an environment of its own
with plotly (`python -m venv E && E/bin/pip install plotly`); writes report_html.json beside itself. Without `--plotly`
the recorded figure of the specification stands in, and the table says so. 8 plots of 200 points with intervals and 240
metrics; median of 7 rounds, CPU time, both sides interleaved. Reading and verifying the report is no part of either.
Targets: report specification, section 20.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from assay.render.page import render
from assay.render.source import Source, look
from assay.testing import Forge

TABLE = Path(__file__).with_suffix(".json")
ROUNDS = 7
PLOTS, POINTS, ROWS, MANY = 8, 200, 240, 200
BYTES_RATIO, TIME_RATIO = 1 / 20, 1 / 4
"""Targets of section 20."""
RECORDED = {"bytes": 4_830_000, "ms": 110.0, "version": "recorded in the specification, not measured here"}

PEER = """
import json, sys, time
import plotly, plotly.graph_objects as go
from plotly.subplots import make_subplots
given = json.loads(sys.stdin.readline())
for _ in sys.stdin:
    begin = time.process_time()
    kinds = [[{"type": "xy"}] for _ in given["plots"]] + [[{"type": "table"}]]
    page = make_subplots(rows=len(kinds), cols=1, specs=kinds)
    for at, one in enumerate(given["plots"]):
        y = [float(v) for v in one["y"]]
        up = [float(h) - v for h, v in zip(one["high"], y)]
        page.add_trace(go.Scatter(x=[float(v) for v in one["x"]], y=y, error_y={"array": up}), row=at + 1, col=1)
    page.add_trace(go.Table(cells={"values": list(zip(*given["rows"]))}), row=len(kinds), col=1)
    text = page.to_html(include_plotlyjs=True)
    told = {"s": time.process_time() - begin, "bytes": len(text.encode()), "version": plotly.__version__}
    print(json.dumps(told), flush=True)
"""


def series(at: int) -> dict[str, Any]:
    """Return one planted series with its interval."""
    y = [((37 * i + 11 * at) % 101) / 100 for i in range(POINTS)]
    around = {"low": [f"{one - 0.125:.3f}" for one in y], "high": [f"{one + 0.125:.3f}" for one in y]}
    return {"name": f"s{at}", "x": [str(i) for i in range(POINTS)], "y": [f"{one:.2f}" for one in y], **around}


def planted(folder: Path, sections: int = 1) -> Source:
    """Return a report of 8 plots and 240 metrics; with more sections, the metrics and plots of each once more."""
    forge = Forge(folder)
    place = forge.report()
    _, source = look(place, keys=[forge.key_file], now=datetime(2026, 2, 1, tzinfo=UTC))
    assert source is not None
    told = forge.statement(place)
    answer = told["predicate"]["answers"][0]
    metric = answer["measured"]["metrics"][0]
    rows = ROWS if sections == 1 else 12
    answer["measured"]["metrics"] = [
        {**metric, "name": f"metric_{at % 8}", "labels": {"layer": str(at // 8)}, "value": f"0.{at + 101}"}
        for at in range(rows)
    ]
    axis = {"label": "layer", "unit": "count"}
    answer["measured"]["plots"] = [
        {"title": f"Plot {at}", "kind": "line", "x": axis, "y": axis, "series": [series(at)], "marks": []}
        for at in range(PLOTS if sections == 1 else 1)
    ]
    told["predicate"]["answers"] = [answer] * sections
    return replace(source, statement=told)


def timed(work: Callable[[], bytes]) -> tuple[float, int]:
    """Return CPU seconds and bytes."""
    begin = time.process_time()
    made = work()
    return time.process_time() - begin, len(made)


def measured(python: str | None) -> dict[str, Any]:
    """Return the table."""
    with tempfile.TemporaryDirectory() as folder:
        source, many = planted(Path(folder) / "one"), planted(Path(folder) / "many", MANY)
    answer = source.predicate["answers"][0]["measured"]
    rows = [[one["name"], one["labels"]["layer"], one["value"], str(one["n"])] for one in answer["metrics"]]
    given = {"plots": [one["series"][0] for one in answer["plots"]], "rows": rows}
    render(source)  # what is computed once for all pages is no part of a page's time, on neither side
    mine, peers = _rounds(source, given, python)
    theirs = RECORDED | ({} if not peers else _peer(peers))
    ours = {"bytes": mine[0][1], "ms": round(median(one[0] for one in mine) * 1e3, 1)}
    ratios = {"bytes": ours["bytes"] / float(str(theirs["bytes"])), "time": ours["ms"] / float(str(theirs["ms"]))}
    seconds, size = timed(lambda: render(many))
    return {
        "plots": PLOTS,
        "points": POINTS,
        "rows": ROWS,
        "ours": ours,
        "plotly": theirs,
        "ratio": {name: round(value, 4) for name, value in ratios.items()},
        "target_ratio": {"bytes": BYTES_RATIO, "time": TIME_RATIO},
        "reached": ratios["bytes"] <= BYTES_RATIO and ratios["time"] <= TIME_RATIO,
        "sections_200": {"bytes": size, "ms": round(seconds * 1e3, 1)},
        "python": platform.python_version(),
    }


def _rounds(
    source: Source, given: dict[str, Any], python: str | None
) -> tuple[list[tuple[float, int]], list[dict[str, Any]]]:
    if python is None:
        return [timed(lambda: render(source)) for _ in range(ROUNDS)], []
    mine: list[tuple[float, int]] = []
    peers: list[dict[str, Any]] = []
    command = [python, "-c", PEER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdin
        assert peer.stdout
        with closing(peer.stdin) as asked:
            asked.write(json.dumps(given) + "\n")
            for at in range(ROUNDS + 1):
                asked.write("go\n")
                asked.flush()
                told = json.loads(peer.stdout.readline())
                if at:  # the first round pays for plotly's own imports
                    peers.append(told)
                    mine.append(timed(lambda: render(source)))
    return mine, peers


def _peer(found: list[dict[str, Any]]) -> dict[str, Any]:
    middle = round(median(one["s"] for one in found) * 1e3, 1)
    return {"bytes": found[0]["bytes"], "ms": middle, "version": found[0]["version"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plotly", metavar="PYTHON", help="interpreter of an environment with plotly")
    table = measured(parser.parse_args().plotly)
    TABLE.write_text(json.dumps(table, indent=2) + "\n")
    print(json.dumps(table, indent=2))
