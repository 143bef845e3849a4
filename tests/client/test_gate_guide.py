"""The guide's policy is one that this client accepts, and names only words of the catalogue."""

from __future__ import annotations

import re
from pathlib import Path

from assay import catalogue
from assay.policy import language, loader

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "gate.md").read_text()


def test_the_policy_of_the_guide_is_accepted() -> None:
    text = re.findall(r"```yaml\n(schema: assay-policy.*?)```", GUIDE, re.DOTALL)[0]
    policy = language.parse(loader.read(text.encode(), "policy.yaml"))
    assert [one.id for one in policy.entries] == ["lies-not-readable", "no-leak", "no-drop"]
    assert not list(language.unknown_names(policy, catalogue.load()))
