"""Whether a run told every reason: its processes hand over what they saw, and the run's end compares.

A run over several processes (`make test` always is one) tells no process all of it, so no test can judge it: each
process leaves a `Part`, and the one that prints the summary holds them against the table of reasons. Only a run of all
tests of this folder is judged. What it leaves out fails as `TEST` fails, which names the reasons, and which fails again
when it is run alone as what failed last, until another whole run has told them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAME = "assay-reasons"
"""Of the plugin."""

HERE = "tests/service/api/"
"""Where tests tell reasons."""

TEST = f"{HERE}test_zz_reasons.py::test_every_reason_was_told_by_a_test_of_this_folder"
"""What fails where a reason was not told."""

_HANDED, _KEPT = "assay_reasons", "assay/untold_reasons"
"""Keys of what a process of pytest-xdist hands over, and of what is kept from the last whole run."""

SEEN: set[str] = set()
"""Reasons that a test of this process was told over the wire."""


@dataclass(frozen=True)
class Part:
    """What one process knows."""

    whole: bool
    """Whether the tests it was to choose from were all of this folder."""
    told: frozenset[str]


def is_whole(wanted: Collection[str], chosen: Iterable[str], left: Iterable[tuple[str, bool]], some: bool) -> bool:
    """Return whether all tests of the folder were chosen; slow ones need not be.

    Args:
        wanted: names of the folder's test files.
        chosen: the file of each test that was chosen.
        left: the file of each test that was deselected, and whether it is a slow one.
        some: whether single tests were named, or none is to run.
    """
    passed_over = list(left)
    slow = {file for file, is_slow in passed_over if is_slow}
    others = {file for file, is_slow in passed_over if not is_slow}
    return not some and not others & set(wanted) and set(wanted) <= {*chosen, *slow}


def untold(reasons: Iterable[str], parts: Sequence[Part | None]) -> tuple[str, ...] | None:
    """Return the reasons that no process was told; None where the run was none to judge.

    Args:
        reasons: those that there are.
        parts: of each process; None of one that died.
    """
    whole = [part for part in parts if part is not None and part.whole]
    if not parts or len(whole) < len(parts):
        return None
    return tuple(sorted(set(reasons).difference(*(part.told for part in whole))))


def sentence(missing: Sequence[str]) -> str:
    """Say what to do."""
    return (
        f"no test of {HERE} was told over the wire: {', '.join(missing)}. Add a test that provokes each "
        "(service/rules/errors.py has the table), or remove the reason."
    )


@dataclass(eq=False)  # pytest keeps plugins in sets
class Told:
    """The plugin."""

    config: pytest.Config
    _left: list[tuple[str, bool]] = field(default_factory=list)
    _parts: list[Part | None] = field(default_factory=list)
    _failed: bool = False

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Note what does not run."""
        self._left += [(_file(item.nodeid), item.get_closest_marker("slow") is not None) for item in items]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that failed may be the one that would have been told."""
        self._failed |= report.failed and report.nodeid.startswith(HERE)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take what a process hands over."""
        handed = getattr(node, "workeroutput", {}).get(_HANDED)
        self._parts.append(None if handed is None else Part(handed["whole"], frozenset(handed["told"])))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Hand over, or compare: before the summary is printed and before what failed is kept."""
        if hasattr(self.config, "workeroutput"):
            part = self.part(session)
            self.config.workeroutput[_HANDED] = {"whole": part.whole, "told": sorted(part.told)}
            return
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not session.shouldstop
        if self._failed or not ended:
            return
        from service.rules.errors import REASONS

        missing = untold(REASONS, self._parts or [self.part(session)])
        if missing is None:
            return
        if cache := getattr(self.config, "cache", None):
            cache.set(_KEPT, missing)
        if missing:
            self._fail(session, sentence(missing))

    def part(self, session: pytest.Session) -> Part:
        """Return what this process knows."""
        options = self.config.option
        some = options.collectonly or any("::" in str(one) for one in self.config.args)
        wanted = {f"{HERE}{file.name}" for file in Path(__file__).parent.glob("test_*.py")}
        chosen = {_file(item.nodeid) for item in getattr(session, "items", ())}
        return Part(is_whole(wanted, chosen, self._left, some), frozenset(SEEN))

    def kept(self) -> tuple[str, ...] | None:
        """Return what the last whole run left out; None where none is known of."""
        cache = getattr(self.config, "cache", None)
        found = cache.get(_KEPT, None) if cache else None
        return None if found is None else tuple(found)

    def _fail(self, session: pytest.Session, why: str) -> None:
        report = pytest.TestReport(
            nodeid=TEST,
            location=(_file(TEST), None, TEST.rpartition("::")[2]),
            keywords={},
            outcome="failed",
            longrepr=why,
            when="call",
        )
        self.config.hook.pytest_runtest_logreport(report=report)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]
