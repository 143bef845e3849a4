"""Who may do what: every method times every role times an own, a foreign and an absent object, over the wire."""

from __future__ import annotations

from service.rules.access import ACCESS, Role
from tests.service.api.access_matrix import PROBES, letters, served, try_all
from tests.service.api.access_table import expected
from tests.service.api.access_world import ROLES, build
from tests.service.api.conftest import House


def test_no_cell_of_the_table_is_untested() -> None:
    """A method that is served is in the table and has a probe; a role that exists is in every row of it."""
    cells = expected()
    assert set(ROLES) == {str(role) for role in Role}
    assert set(served()) <= set(PROBES)
    assert {(method, role) for method in PROBES for role in ROLES} == set(cells)


def test_rows_of_the_code_deny_what_the_table_denies() -> None:
    """Also of methods that are not served yet: a row that is too wide must not wait for its service."""
    for (method, role), word in expected().items():
        row = ACCESS[f"/assay.api.v1.{method}"]
        assert (Role(role) in row) == ("y" in word), (method, role)


async def test_every_cell_is_as_the_specification_says(house: House) -> None:
    found = await try_all(await build(house))
    told = {cell: letters(tried) for cell, tried in found.items()}
    wanted = {cell: word for cell, word in expected().items() if cell in told}
    assert told == wanted
    for cell, (_, foreign, absent) in found.items():
        if not (foreign.reached or absent.reached):
            assert foreign.raw == absent.raw, cell
