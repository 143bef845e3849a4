"""Runs in the cell in place of the checks: misbehaves as the first row of the data says, or runs the real checks."""

import json
import runpy
import sys
import time
from pathlib import Path

order = json.loads(Path("/in/order.json").read_bytes())
act = "real"
if order["data"]:
    with Path("/in", order["data"][0]["input"]).open() as rows:
        act = json.loads(rows.readline())["act"]

if act == "sleep":
    time.sleep(10**6)
elif act == "eat":
    eaten = []
    while True:
        eaten.append(bytearray(b"\x01" * 2**24))
elif act == "crash":
    import ctypes

    ctypes.string_at(0)
else:
    sys.argv = ["checks", "run"]
    runpy.run_module("checks", run_name="__main__", alter_sys=True)
