"""Third-party checks: what the operator's list lets in, what it refuses by name, and that nobody outside imports it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from assay import canonical
from assay import catalogue as catalogues

from sandbox import BubblewrapCell, BubblewrapSettings
from sandbox.cell import Outcome
from service.worker import plugins
from service.worker.code import Guest, code_sha256
from service.worker.distribution import ThirdPartyRefused
from service.worker.entry import read_entry, told_by_cell
from tests.service.store.planting import new_store
from tests.service.worker.scripted import OK, house
from tests.service.worker.test_two_cells import CODE, Site, Watched, mlp
from tests.service.worker.third_party import CHECK, FILES, Toy, listed

GUEST = Guest(code=CODE[:3])
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BubblewrapCell]:
    made = BubblewrapCell(BubblewrapSettings(work_dir=tmp_path_factory.mktemp("cells"), cpus=1))
    yield made
    made.close()


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path).install()


def refused(code: str, run: object) -> str:
    with pytest.raises(ThirdPartyRefused) as caught:
        run()  # type: ignore[operator]
    assert caught.value.code == code, caught.value
    return str(caught.value)


def mounted(path: Path, tmp_path: Path) -> Guest:
    return plugins.mount(plugins.read_list(path, catalogues.load()), GUEST, tmp_path / "mounted")


def test_no_list_changes_nothing(tmp_path: Path, cell: BubblewrapCell) -> None:
    assert plugins.ready(None, GUEST, cell, tmp_path / "never") is GUEST
    assert not (tmp_path / "never").exists()
    assert plugins.operator_catalogue(None) == catalogues.load()


def test_an_installed_distribution_that_is_not_listed_joins_nothing(tmp_path: Path, toy: Toy) -> None:
    other = Toy(tmp_path, name="other", check="other", entry="other:Other", files={"other.py": "raise SystemExit"})
    other.install()
    guest = mounted(listed(tmp_path, toy.line()), tmp_path)
    assert guest.third_party == {"toy": "toy-audit"}
    assert {one.name for one in (tmp_path / "mounted").iterdir()} == {"toy-audit", "allowed.json"}


def test_only_what_record_names_is_mounted_and_nobody_may_write_it(tmp_path: Path, toy: Toy) -> None:
    (toy.folder / "toy_audit" / "more.py").write_text("import antigravity")
    (toy.folder / "toy_audit" / "__pycache__").mkdir()
    (toy.folder / "toy_audit" / "__pycache__" / "check.cpython-311.pyc").write_bytes(b"hostile")
    mounted(listed(tmp_path, toy.line()), tmp_path)
    home = tmp_path / "mounted" / "toy-audit"
    found = {one.relative_to(home).as_posix(): one.stat().st_mode & 0o777 for one in home.rglob("*") if one.is_file()}
    assert found == dict.fromkeys(toy.counted, 0o444)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"check": "truth_probe"}, "built-in 'truth_probe'"),
        ({"check": "clusterability"}, "built-in 'clusterability'"),
    ],
)
def test_a_built_in_name_is_refused_naming_both(tmp_path: Path, toy: Toy, changes: dict[str, str], said: str) -> None:
    path = listed(tmp_path, toy.line(**changes))
    text = refused("name_clash", lambda: plugins.read_list(path, catalogues.load()))
    assert said in text
    assert f"check {changes['check']!r} of toy-audit 2.5" in text


def test_two_third_parties_of_one_name_are_refused_naming_both(tmp_path: Path, toy: Toy) -> None:
    files = {"other_audit.py": CHECK.format(name="Toy", check="toy")}
    other = Toy(tmp_path, name="other-audit", entry="other_audit:Toy", files=files).install()
    path = listed(tmp_path, toy.line(), other.line())
    text = refused("name_clash", lambda: plugins.read_list(path, catalogues.load()))
    assert "of toy-audit 2.5" in text
    assert "of other-audit 2.5" in text


def test_two_distributions_that_bring_one_module_are_refused(tmp_path: Path, toy: Toy) -> None:
    other = Toy(tmp_path, name="other-audit", check="other").install()
    path = listed(tmp_path, toy.line(), other.line())
    assert "'toy_audit'" in refused("module_clash", lambda: mounted(path, tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "",
        'schema = "assay-third-party/v2"\n[[third_party]]\n',
        'schema = "assay-third-party/v1"\n',
        'schema = "assay-third-party/v1"\nthird_party = []\n',
        'schema = "assay-third-party/v1"\nallow_all = true\n{line}',
        'schema = "assay-third-party/v1"\n{line}unknown = 1\n',
        "not toml",
    ],
)
def test_a_malformed_list_allows_nothing(tmp_path: Path, toy: Toy, text: str) -> None:
    path = tmp_path / "list.toml"
    path.write_text(text.replace("{line}", toy.line()))
    refused("list_invalid", lambda: plugins.read_list(path, catalogues.load()))


@pytest.mark.parametrize("key", ["distribution", "version", "sha256", "check", "entry"])
@pytest.mark.parametrize("value", ["", "../x", "a b", "a/b", "a\nb"])
def test_no_field_of_the_list_is_a_path_or_more_than_a_name(tmp_path: Path, toy: Toy, key: str, value: str) -> None:
    path = listed(tmp_path, toy.line(**{key: value}))
    refused("list_invalid", lambda: plugins.read_list(path, catalogues.load()))


def test_an_absent_list_is_not_an_empty_one(tmp_path: Path) -> None:
    refused("list_invalid", lambda: plugins.read_list(tmp_path / "none.toml", catalogues.load()))


def test_another_digest_is_refused_and_told(tmp_path: Path, toy: Toy) -> None:
    path = listed(tmp_path, toy.line(sha256="0" * 64))
    assert toy.sha256 in refused("digest_mismatch", lambda: mounted(path, tmp_path))


def test_a_changed_file_is_refused_even_with_a_fitting_record(tmp_path: Path, toy: Toy) -> None:
    path = listed(tmp_path, toy.line())
    (toy.folder / "toy_audit" / "check.py").write_text("evil = 1\n")
    refused("digest_mismatch", lambda: mounted(path, tmp_path))
    replace(toy, files={**FILES, "toy_audit/check.py": "evil = 1\n"}).install()
    refused("digest_mismatch", lambda: mounted(path, tmp_path / "again"))


@pytest.mark.parametrize(("name", "version"), [("toy-audit", "2.6"), ("toy", "2.5")])
def test_another_name_or_version_is_missing(tmp_path: Path, toy: Toy, name: str, version: str) -> None:
    path = listed(tmp_path, toy.line(distribution=name, version=version))
    assert "pip install" in refused("distribution_missing", lambda: mounted(path, tmp_path))


@pytest.mark.parametrize("link", ["file", "folder"])
def test_links_are_refused(tmp_path: Path, toy: Toy, link: str) -> None:
    path = listed(tmp_path, toy.line())
    place = toy.folder / ("toy_audit/check.py" if link == "file" else "toy_audit")
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    refused("link_refused", lambda: mounted(path, tmp_path))


@pytest.mark.parametrize(
    "row", ["../../etc/passwd,,", "/etc/passwd,,", "toy_audit//check.py,,", "a\\b.py,,", "x", ",,"]
)
def test_a_record_that_leads_out_of_the_distribution_is_refused(tmp_path: Path, toy: Toy, row: str) -> None:
    path = listed(tmp_path, toy.line())
    toy.record.write_text(toy.record.read_text() + row + "\n")
    refused("record_invalid", lambda: mounted(path, tmp_path))


def test_without_a_described_entry_nothing_starts(tmp_path: Path, toy: Toy, cell: BubblewrapCell) -> None:
    path = listed(tmp_path, toy.line())
    assert "describe" in refused("entry_missing", lambda: plugins.operator_catalogue(path))
    refused("entry_missing", lambda: plugins.ready(path, GUEST, cell, tmp_path / "mounted"))


BROKEN = {
    "entry_missing": {"toy_audit/check.py": "x = 1\n"},
    "not_a_check": {"toy_audit/check.py": "class Toy: pass\n"},
    "undeclared": {
        "toy_audit/check.py": FILES["toy_audit/check.py"].replace("    metrics = (", "    metrics = () and (")
    },
    "name_differs": {"toy_audit/check.py": CHECK.format(name="Toy", check="truth_probe")},
    "import_failed": {"toy_audit/check.py": "raise SystemExit(0)\n"},
    "cell_died": {"toy_audit/check.py": "import os\nos._exit(7)\n"},
    "entry_invalid": {"toy_audit/check.py": "import os\nos.write(3, b'{}')\nos._exit(0)\n"},
}


@pytest.mark.parametrize("code", BROKEN)
def test_a_class_that_cannot_be_asked_is_refused_in_its_cell(tmp_path: Path, cell: BubblewrapCell, code: str) -> None:
    toy = Toy(tmp_path, files={**FILES, **BROKEN[code]}).install()
    path = listed(tmp_path, toy.line())
    assert "toy-audit 2.5" in refused(code, lambda: plugins.describe_all(path, GUEST, cell, tmp_path / "mounted"))
    assert not toy.catalogue.exists()


def test_a_module_that_is_not_the_distributions_is_refused(tmp_path: Path, cell: BubblewrapCell) -> None:
    """Else a list could call a built-in check by another name."""
    toy = Toy(tmp_path, check="truth_probe2", entry="checks.truth_probe.check:TruthProbe").install()
    path = listed(tmp_path, toy.line())
    refused("foreign_module", lambda: plugins.describe_all(path, GUEST, cell, tmp_path / "mounted"))


@pytest.mark.slow
def test_a_third_party_check_answers_in_a_real_cell_and_the_record_names_its_code(
    tmp_path: Path, toy: Toy, cell: BubblewrapCell
) -> None:
    path = listed(tmp_path, toy.line())
    assert plugins.describe_all(path, GUEST, cell, tmp_path / "describing") == [toy.catalogue]
    guest = plugins.ready(path, GUEST, cell, tmp_path / "mounted")
    known = plugins.operator_catalogue(path)
    entry = known.entry("toy")
    assert entry is not None
    assert entry.raw["distribution"] == {"name": "toy-audit", "version": "2.5", "sha256": toy.sha256}
    assert (entry.version, entry.access) == ("1.0", ("weights",))
    assert entry.code_sha256 == code_sha256(guest, "toy")
    store = new_store(tmp_path)
    try:
        base = house(store, tmp_path)
        watched = Watched(cell, [], [])
        site = Site(
            replace(base, bench=replace(base.bench, cell=watched, guest=guest, catalogue=known)), watched, tmp_path
        )
        stored = site.audit(mlp(tmp_path / "model"), "toy")
    finally:
        store.close()
    assert site.classes == ["OK"], [one.log_tail for one in watched.outcomes]
    (told,) = stored["answers"]
    assert (told["outcome"], told["measured"]["metrics"][0]["value"]) == ("measured", "0")
    assert (told["code_sha256"], told["catalogue_sha256"]) == (entry.code_sha256, entry.sha256)
    assert "toy_audit" not in sys.modules


@pytest.mark.parametrize("insists", [True, False])
def test_s40_an_import_side_effect_is_seen_in_the_cell_and_nowhere_else(
    tmp_path: Path, cell: BubblewrapCell, insists: bool
) -> None:
    """The module writes a marker wherever it is imported; one that insists on it is refused."""
    mark = tmp_path / "mark"
    writes = f"print('IMPORTED', flush=True)\nopen({str(mark)!r}, 'a').write('x')\n"
    prefix = writes if insists else f"try:\n{textwrap.indent(writes, '    ')}except OSError: pass\n"
    files = {**FILES, "toy_audit/check.py": prefix + CHECK.format(name="Toy", check="toy")}
    toy = Toy(tmp_path, files=files).install()
    path = listed(tmp_path, toy.line())
    # Control: imported outside of a cell it writes.
    folders = f"{toy.folder}:{ROOT}:{ROOT / 'client'}"
    program = [sys.executable, "-B", "-c", "import toy_audit.check"]
    subprocess.run(program, env={**os.environ, "PYTHONPATH": folders}, check=True, capture_output=True)
    assert mark.read_text() == "x"
    mark.unlink()
    describe = partial(plugins.describe_all, path, GUEST, cell, tmp_path / "mounted")
    if insists:
        assert "IMPORTED" in refused("import_failed", describe), "it did run in the cell"
    else:
        describe()
        assert plugins.operator_catalogue(path).entry("toy"), "all that API and signer do"
    assert not mark.exists()
    assert [name for name in sys.modules if name.startswith("toy_audit")] == []


def test_a_check_that_is_not_asked_for_is_not_imported(tmp_path: Path, cell: BubblewrapCell) -> None:
    """A broken or hostile third party cannot spoil an audit that does not name it."""
    from checks.truth_probe.check import TruthProbe

    store = new_store(tmp_path)
    toy = Toy(tmp_path, files={**FILES, "toy_audit/check.py": "import os\nos._exit(9)\n"}).install()
    guest = mounted(listed(tmp_path, toy.line()), tmp_path)
    known = catalogues.load()
    entry = known.entry("truth_probe")
    assert entry is not None
    raw = {**entry.raw, "code_sha256": code_sha256(guest, "truth_probe")}
    promised = catalogues.parse(canonical.dumps({"schema": catalogues.SCHEMA, "checks": [raw]}))
    try:
        base = house(store, tmp_path)
        watched = Watched(cell, [], [])
        site = Site(
            replace(base, bench=replace(base.bench, cell=watched, guest=guest, catalogue=promised)), watched, tmp_path
        )
        params = json.loads(TruthProbe().model_dump_json())
        stored = site.audit(mlp(tmp_path / "model"), "truth_probe", **params)
    finally:
        store.close()
    assert [one["outcome"] for one in stored["answers"]] == ["refused"], [one.log_tail for one in watched.outcomes]


def entry_of(tmp_path: Path) -> dict[str, object]:
    """A whole entry as a describing cell and the host make it together."""
    known = catalogues.load().checks[0].raw
    name = {"name": "toy-audit", "version": "1.0", "sha256": "0" * 64}
    return {**known, "name": "toy", "distribution": name}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "truth_probe"}, "entry_stale"),
        ({"distribution": {"name": "other", "version": "1.0", "sha256": "0" * 64}}, "entry_stale"),
        ({"distribution": None}, "entry_stale"),
        ({"more": 1}, "entry_invalid"),
        ({"metrics": []}, "entry_invalid"),
        ({"capability": "gpu"}, "entry_invalid"),
        ({"time_limit_s": 10**9}, "entry_invalid"),
        ({"time_limit_s": True}, "entry_invalid"),
        ({"access": []}, "entry_invalid"),
        ({"access": ["everything"]}, "entry_invalid"),
        ({"params": {"properties": {"a": {"$ref": "http://169.254.169.254/"}}}}, "entry_invalid"),
        ({"params": {"$defs": {"a": {"$ref": "#/$defs/a"}}}}, "entry_invalid"),
        ({"params": {"properties": {"a": {"pattern": "(a+)+$"}}}}, "entry_invalid"),
        ({"params": {"patternProperties": {"(a+)+$": {}}}}, "entry_invalid"),
        ({"params": {"$id": "file:///etc/passwd"}}, "entry_invalid"),
    ],
)
def test_a_strangers_entry_is_held_against_what_the_host_knows(
    tmp_path: Path, changes: dict[str, object], code: str
) -> None:
    whole = entry_of(tmp_path)
    host = {"name": "toy", "distribution": whole["distribution"]}
    assert read_entry(canonical.dumps(whole), host, "toy").name == "toy"
    refused(code, lambda: read_entry(canonical.dumps({**whole, **changes}), host, "toy"))


@pytest.mark.parametrize(
    "told",
    [
        {"schema": "assay-plugin-entries/v1", "nonce": "1" * 64, "checks": [{}]},
        {"schema": "other", "nonce": "0" * 64, "checks": [{}]},
        {"schema": "assay-plugin-entries/v1", "nonce": "0" * 64, "checks": []},
        {"schema": "assay-plugin-entries/v1", "nonce": "0" * 64, "checks": [{}, {}]},
        {"schema": "assay-plugin-entries/v1", "nonce": "0" * 64, "refused": "<script>"},
        [],
    ],
)
def test_a_describing_cell_is_not_believed_blindly(told: object) -> None:
    outcome: Outcome = replace(OK, result=json.dumps(told).encode())
    assert "<script>" not in refused("entry_invalid", lambda: told_by_cell(outcome, "0" * 64, "toy"))


def test_an_entry_of_another_release_is_stale(tmp_path: Path, toy: Toy, cell: BubblewrapCell) -> None:
    path = listed(tmp_path, toy.line())
    plugins.describe_all(path, GUEST, cell, tmp_path / "describing")
    value = json.loads(toy.catalogue.read_text())
    toy.catalogue.write_bytes(canonical.dumps({**value, "code_sha256": "0" * 64}))
    assert "describe" in refused("entry_stale", lambda: plugins.ready(path, GUEST, cell, tmp_path / "mounted"))
