from __future__ import annotations

from pathlib import Path

from service.main import reference
from service.main.config import Server

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_page_of_the_configuration_is_what_the_code_says() -> None:
    made = reference.text()
    assert (DOCS / "configuration.md").read_text(encoding="utf-8") == made, (
        "stale: run `python -m service.main.reference > docs/configuration.md`"
    )


def test_every_key_of_every_section_has_a_row() -> None:
    made = reference.text()
    for title, section in reference.sections(Server):
        heading = f"## [{title}]" if title else "## Keys outside of any section"
        assert heading in made
        for name, _default, _what in reference.keys(section):
            assert f"| `{name}` |" in made
