"""The loader of third-party checks, up to the import: what it refuses before a line of theirs runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from checks.catalogue import CATALOGUE
from checks.plugins import LIST, Allowed, PluginRefused, check_names, load, read_list
from sandbox.reader.digest import tree_sha256


def allowed(**changes: str) -> Allowed:
    values = {
        "distribution": "toy", "version": "1", "sha256": "0" * 64, "check": "toy", "entry": "toy_never_imported:Toy",
    }  # fmt: skip
    return Allowed(**{**values, **changes})


def code(run: object) -> str:
    with pytest.raises(PluginRefused) as caught:
        run()  # type: ignore[operator]
    assert "toy_never_imported" not in sys.modules
    return caught.value.code


def test_no_folder_is_no_third_party_and_an_absent_list_is_an_error(tmp_path: Path) -> None:
    assert read_list(tmp_path / "plugins") == ()
    assert code(lambda: read_list(tmp_path)) == "list_invalid"


@pytest.mark.parametrize("value", [{}, [], None, {"allowed": "*"}, {"allowed": [{}]}, {"allowed": [], "more": 1}])
def test_a_malformed_list_allows_nothing(tmp_path: Path, value: object) -> None:
    (tmp_path / LIST).write_text(json.dumps(value))
    assert code(lambda: read_list(tmp_path)) == "list_invalid"


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_a_built_in_name_is_refused_naming_both(name: str) -> None:
    with pytest.raises(PluginRefused, match=rf"check '{name}' of toy 1 .*built-in '{name}' \(checks\.") as caught:
        check_names([allowed(check=name)], CATALOGUE)
    assert caught.value.code == "name_clash"
    assert code(lambda: check_names([allowed(), allowed(distribution="other")], CATALOGUE)) == "name_clash"
    check_names([allowed(), allowed(check="other")], CATALOGUE)


@pytest.mark.parametrize("spoil", ["changed", "more", "link", "absent"])
def test_files_that_are_not_the_allowed_ones_are_not_imported(tmp_path: Path, spoil: str) -> None:
    home = tmp_path / "toy"
    home.mkdir()
    module = home / "toy_never_imported.py"
    module.write_text("class Toy: pass\n")
    one = allowed(sha256=tree_sha256(home, [module.name]))
    if spoil == "changed":
        module.write_text("class Toy: x = 1\n")
    elif spoil == "more":
        (home / "__pycache__").mkdir()
        (home / "__pycache__" / "toy_never_imported.cpython-311.pyc").write_bytes(b"")
    elif spoil == "link":
        (home / "more").symlink_to(tmp_path)
    else:
        module.unlink()
    assert code(lambda: load([one], tmp_path)) == "digest_mismatch"
