"""Every file of both reports, deleted, emptied, cut or swapped: the code never moves towards a pass.

`tests.client.policy.test_monotone` asks the same of every field of a signed report; here nobody signs anything anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from assay import bundle, manifest, request
from assay.policy import registered
from assay.tlog import proofs

from tests.client.gate.bundles import WAIVERS, Bundles, items, rules

ROLES = {
    bundle.FILE_NAME,
    request.FILE_NAME,
    manifest.FILE_NAME,
    registered.POLICY_FILE,
    registered.WAIVERS_FILE,
    proofs.REPORT_PROOF,
    proofs.REQUEST_PROOF,
    proofs.CONSISTENCY,
    *bundle.COMPANIONS,
}
"""What a report with a policy holds beside its artefacts; a file that is new here must be asked about, too."""

UNKNOWN = WAIVERS % ("0" * 32)
Reports = tuple[Path, Path, Path]


@pytest.fixture
def bundles(tmp_path: Path) -> Bundles:
    return Bundles(tmp_path)


def fall(bundles: Bundles) -> tuple[Reports, str]:
    """A candidate that fell by its items, and by its intervals did not; its baseline; a third audit, which holds."""
    policy = rules()
    older = bundles.report("0.8", items(0.80), policy, UNKNOWN)
    return (bundles.report("0.79", items(0.75), policy, UNKNOWN), older, third(bundles, policy)), policy


def few(bundles: Bundles) -> tuple[Reports, str]:
    """The same, with too few clusters to tell."""
    policy = rules()
    older = bundles.report("0.8", items(0.80, clusters=4), policy, UNKNOWN)
    report = bundles.report("0.79", items(0.75, clusters=4), policy, UNKNOWN)
    return (report, older, third(bundles, policy)), policy


def failing(bundles: Bundles) -> tuple[Reports, str]:
    """A candidate that fails by itself, whatever its baseline."""
    policy = rules(least="0.795")
    older = bundles.report("0.8", items(0.80), policy, UNKNOWN)
    return (bundles.report("0.79", items(0.79), policy, UNKNOWN), older, third(bundles, policy)), policy


def straddling(bundles: Bundles) -> tuple[Reports, str]:
    """A candidate whose own interval straddles the limit."""
    policy = rules(least="0.79")
    older = bundles.report("0.8", items(0.80), policy, UNKNOWN)
    return (bundles.report("0.79", items(0.79), policy, UNKNOWN), older, third(bundles, policy)), policy


def forged(bundles: Bundles) -> tuple[Reports, str]:
    """A candidate that was signed with a control left out."""
    reports, policy = fall(bundles)
    told = bundles.forge.statement(reports[2])
    told["predicate"]["answers"][0]["controls"].pop()
    bundles.forge.reseal(reports[2], told)
    return (reports[2], reports[1], reports[0]), policy


def third(bundles: Bundles, policy: str) -> Path:
    return bundles.report("0.81", items(0.81), policy, UNKNOWN)


def role(file: Path, bundles: Bundles) -> str:
    """Return what a file of a report is: its name, or what kind of artefact."""
    if file.parent.name != "artefacts":
        return file.name
    return "entry" if file.name == bundles.forge.entry.sha256 else "items"


def files(report: Path) -> list[Path]:
    return sorted(one for one in report.rglob("*") if one.is_file())


def changes(file: Path, other: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what may happen to a file: its name, and what does it. `other` is another audit's file of the same kind."""
    whole = file.read_bytes()
    yield "deleted", file.unlink
    yield "emptied", lambda: file.write_bytes(b"")
    yield "cut", lambda: file.write_bytes(whole[: len(whole) // 2])
    yield "swapped", lambda: file.write_bytes(other.read_bytes())
    yield "a folder", lambda: become_a_folder(file)


def become_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def restore(file: Path, data: bytes) -> None:
    if file.is_dir():
        file.rmdir()
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)


def passing(bundles: Bundles, make: Callable[[Bundles], tuple[Reports, str]]) -> Iterator[tuple[str, str, str, int]]:
    """Yield side, role, change and code of every change to one file of either report."""
    (report, older, other), policy = make(bundles)
    whole = bundles.look(report), bundles.look(older)
    before = bundles.decide(report, older, policy, seen=whole[0], older=whole[1]).exit_code
    yield "", "", "", before
    for side, place in enumerate((report, older)):
        others = {role(one, bundles): one for one in files(other)}
        assert {role(one, bundles) for one in files(place)} == {*ROLES, "entry", "items"}
        for file in files(place):
            data = file.read_bytes()
            for name, change in changes(file, others[role(file, bundles)]):
                change()
                seen = {"seen": bundles.look(place), "older": whole[1]}
                looked = seen if side == 0 else {"seen": whole[0], "older": seen["seen"]}
                code = bundles.decide(report, older, policy, **looked).exit_code
                restore(file, data)
                yield ("candidate", "baseline")[side], role(file, bundles), name, code


@pytest.mark.parametrize(
    "make", [fall, *(pytest.param(one, marks=pytest.mark.slow) for one in (few, straddling, forged))]
)
def test_no_change_to_one_file_makes_a_pass(bundles: Bundles, make: Callable[[Bundles], tuple[Reports, str]]) -> None:
    (*_, before), *found = passing(bundles, make)
    assert before == {"fall": 1, "few": 2, "straddling": 2, "forged": 1}[make.__name__]
    assert [one for one in found if one[-1] == 0] == []
    assert len(found) == 2 * 5 * (len(ROLES) + 2)


@pytest.mark.slow
def test_a_no_by_the_report_itself_survives_whatever_happens_to_the_files_beside_it(bundles: Bundles) -> None:
    (*_, before), *found = passing(bundles, failing)
    assert before == 1
    lost = {one[:3] for one in found if one[-1] != 1}
    # Without the bundle nothing is signed, and without the request nobody knows which policy was registered.
    gone = {
        ("candidate", name, how) for name in (bundle.FILE_NAME, request.FILE_NAME) for how in ("deleted", "a folder")
    }
    assert lost == gone


@pytest.mark.slow
@pytest.mark.parametrize("make", [fall, few])
def test_no_two_deleted_files_make_a_pass(bundles: Bundles, make: Callable[[Bundles], tuple[Reports, str]]) -> None:
    (report, older, _), policy = make(bundles)
    for pair in combinations((*files(report), *files(older)), 2):
        data = [one.read_bytes() for one in pair]
        for one in pair:
            one.unlink()
        told = bundles.decide(report, older, policy)
        for one, content in zip(pair, data, strict=True):
            restore(one, content)
        assert told.exit_code in (1, 2), pair


@pytest.mark.parametrize("side", [0, 1])
def test_a_folder_of_artefacts_that_is_gone_makes_no_pass(bundles: Bundles, side: int) -> None:
    reports, policy = fall(bundles)
    shutil.rmtree(reports[side] / "artefacts")
    assert bundles.decide(reports[0], reports[1], policy).exit_code == 2


def test_the_items_of_another_audit_make_no_pass_under_either_name(bundles: Bundles) -> None:
    """Neither under the name of the signed ones, nor under their own."""
    (report, older, other), policy = fall(bundles)
    better = bundles.items_file(other)
    shutil.copy(better, report / "artefacts" / better.name)
    assert bundles.decide(report, older, policy).exit_code == 1
    bundles.items_file(report).unlink()
    assert bundles.decide(report, older, policy).exit_code == 2
    shutil.copy(better, bundles.items_file(report))
    assert bundles.decide(report, older, policy).exit_code == 1  # V11: not what its name says


def test_a_file_that_goes_between_verifying_and_comparing_makes_no_pass(bundles: Bundles) -> None:
    (report, older, _), policy = fall(bundles)
    seen, before = bundles.look(report), bundles.look(older)
    for file in (*files(report), *files(older)):
        data = file.read_bytes()
        for change in (file.unlink, lambda file=file: file.write_bytes(b"")):
            change()
            assert bundles.decide(report, older, policy, seen=seen, older=before).exit_code in (1, 2), file
            restore(file, data)
    assert bundles.decide(report, older, policy, seen=replace(seen, entries={}), older=before).exit_code == 2


def test_a_companion_that_lies_is_wrong_while_it_is_there(bundles: Bundles) -> None:
    """The one file that may go unmissed, as the guide says: a report needs no companion, and rests on none."""
    policy = rules()
    older, report, other = (bundles.report(one, items(float(one)), policy, UNKNOWN) for one in ("0.8", "0.81", "0.82"))
    (name, *_) = bundle.COMPANIONS
    shutil.copy(other / name, report / name)
    assert bundles.decide(report, older, policy).exit_code == 1
    (report / name).unlink()
    assert bundles.decide(report, older, policy).exit_code == 0
