"""Links between the project's documents lead to files and headings that exist."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
PAGES = sorted((*HERE.glob("*.md"), *HERE.glob("docs/*.md")))


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text())
    return [link for pair in found for link in pair if link and not link.startswith("http")]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    index = HERE / "docs" / "README.md"
    listed = {link.partition("#")[0] for link in links(index)}
    assert {page.name for page in HERE.glob("docs/*.md")} - {index.name} <= listed
