"""A toy distribution of a third party, made on disk as pip would leave it, and the operator's list that names it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.reader.digest import tree_sha256

CHECK = '''
from checks.check import Check, MetricSpec, Needs
from checks.quantise import metric
from assay.result import Measured

from toy_audit import LARGEST


class {name}(Check):
    """Largest entry of the first tensor by name."""

    name = "{check}"
    version = "1.0"
    source = "tests"
    controls = ()
    kinds = ("transformer", "feedforward")
    metrics = (MetricSpec(name=LARGEST, unit="1", labels=(), better="none", determinism="exact", summary="Largest."),)
    words = ("LARGEST",)
    reasons = ("non_finite",)

    def needs(self, model, data):
        return Needs(weights=(min(model.tensors),))

    def measure(self, evidence):
        value = float(evidence.weights(min(evidence.facts.tensors)).max())
        return Measured(metrics=(metric(LARGEST, value, n=1, unit="1", determinism="exact"),))

    def judge(self, real, controls):
        return ()
'''
FILES = {"toy_audit/__init__.py": 'LARGEST = "largest"\n', "toy_audit/check.py": CHECK.format(name="Toy", check="toy")}


@dataclass
class Toy:
    """One distribution and its line in the list."""

    root: Path
    name: str = "toy-audit"
    version: str = "2.5"
    check: str = "toy"
    entry: str = "toy_audit.check:Toy"
    files: Mapping[str, str] = field(default_factory=lambda: dict(FILES))

    @property
    def folder(self) -> Path:
        return self.root / f"installed-{self.name}"

    @property
    def catalogue(self) -> Path:
        return self.root / f"{self.check}.json"

    def install(self) -> Toy:
        """Write the files, METADATA, RECORD, and what only an installer writes."""
        info = f"{self.name.replace('-', '_')}-{self.version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n"
        lines = []
        for name, text in {**self.files, f"{info}/METADATA": metadata}.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(text.encode())}")
        (self.folder / info / "INSTALLER").write_text("pip\n")
        lines += [f"{info}/INSTALLER,sha256=x,4", f"{info}/RECORD,,", "toy_audit/__pycache__/check.cpython-311.pyc,,"]
        (self.folder / info / "RECORD").write_text("\n".join(lines) + "\n")
        self.counted = [*self.files, f"{info}/METADATA"]
        self.sha256 = tree_sha256(self.folder, self.counted)
        self.record = self.folder / info / "RECORD"
        return self

    def line(self, **changes: str) -> str:
        """Return its table in the list."""
        values = {
            "distribution": self.name, "version": self.version, "sha256": self.sha256, "check": self.check,
            "entry": self.entry, "folder": str(self.folder), "catalogue": str(self.catalogue),
        } | changes  # fmt: skip
        return "\n[[third_party]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def listed(root: Path, *lines: str) -> Path:
    """Write the operator's list."""
    path = root / "third-party.toml"
    path.write_text('schema = "assay-third-party/v1"\n' + "".join(lines))
    return path
