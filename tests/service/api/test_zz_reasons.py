"""Every reason is raised over the wire by some test, and stands in the comment of the protos."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.rules.errors import REASONS
from tests.service.api.conftest import SEEN

PROTOS = Path(__file__).parents[3] / "protos" / "assay" / "api" / "v1"


def test_every_reason_stands_in_a_proto_comment() -> None:
    text = "".join(file.read_text() for file in PROTOS.glob("*.proto"))
    missing = [reason for reason in REASONS if reason not in text]
    assert missing == []


def test_every_reason_was_told_by_a_test_of_this_folder(request: pytest.FixtureRequest) -> None:
    names = {item.path.name for item in request.session.items}
    wanted = {file.name for file in Path(__file__).parent.glob("test_*.py")}
    config = request.config
    some = config.getoption("-k") or any("::" in argument for argument in config.args) or not wanted <= names
    if some or request.session.testsfailed or hasattr(config, "workerinput"):
        pytest.skip("only some of this folder's tests ran in this process, or one failed")
    assert set(REASONS) - SEEN == set()
