"""Every reason is raised over the wire by some test, and stands in the comment of the protos."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.rules.errors import REASONS
from tests.service.api.reasons_told import HERE, NAME, TEST, Part, Told, is_whole, sentence, untold

PROTOS = Path(__file__).parents[3] / "protos" / "assay" / "api" / "v1"


def test_every_reason_stands_in_a_proto_comment() -> None:
    text = "".join(file.read_text() for file in PROTOS.glob("*.proto"))
    missing = [reason for reason in REASONS if reason not in text]
    assert missing == []


def test_every_reason_was_told_by_a_test_of_this_folder(request: pytest.FixtureRequest) -> None:
    """A whole run is judged at its end (`reasons_told`); here it is told what the last one of them left out."""
    assert request.node.nodeid == TEST
    plugin = request.config.pluginmanager.get_plugin(NAME)
    assert isinstance(plugin, Told), "nothing judges a whole run"
    if plugin.part(request.session).whole:
        return
    kept = plugin.kept()
    if kept is None:
        pytest.skip("only some of this folder's tests run, and no run of all of them is on record")
    assert not kept, sentence(kept)


FILES = (f"{HERE}test_a.py", f"{HERE}test_b.py")
ELSEWHERE = "tests/client/test_c.py"


@pytest.mark.parametrize(
    ("chosen", "left", "some", "whole"),
    [
        (FILES, [], False, True),
        ((*FILES, ELSEWHERE), [(ELSEWHERE, False)], False, True),
        (FILES, [(FILES[0], True)], False, True),
        (FILES[:1], [(FILES[1], True)], False, True),
        (FILES[:1], [], False, False),
        (FILES, [(FILES[0], False)], False, False),
        (FILES[:1], [(FILES[1], True), (FILES[1], False)], False, False),
        (FILES, [], True, False),
        ([ELSEWHERE], [], False, False),
    ],
)  # fmt: skip
def test_only_a_run_of_the_whole_folder_is_judged(
    chosen: list[str], left: list[tuple[str, bool]], some: bool, whole: bool
) -> None:
    assert is_whole(FILES, chosen, left, some) is whole


def part(*told: str, whole: bool = True) -> Part:
    return Part(whole, frozenset(told))


@pytest.mark.parametrize(
    ("parts", "missing"),
    [
        ([part("A", "B", "C")], ()),
        ([part("A"), part("B"), part("C", "A")], ()),
        ([part("A"), part()], ("B", "C")),
        ([part("A", "OTHER")], ("B", "C")),
        ([part("A"), part(whole=False)], None),
        ([part("A"), None], None),
        ([], None),
    ],
)
def test_what_no_process_was_told_is_missing(parts: list[Part | None], missing: tuple[str, ...] | None) -> None:
    assert untold(["C", "B", "A"], parts) == missing
